"""What the OAuth servers in Python have in common: their clients, and how they report themselves.

Arguments of a server: the old and the new callback. It sends one line of JSON with its `port` and its
`clients`, and exits at the end of its input. A client has a `path` (the authorization endpoint), the
callbacks that are `registered`, and those that were `accepted` in a completed login.
"""

import json
import logging
import sys
import threading
from urllib.parse import urlencode
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from socketserver import ThreadingMixIn

OLD, NEW = sys.argv[1:3]
REGISTERED = {
    "both": [OLD, NEW],
    "only-old": [OLD],
    "only-new": [NEW],
    "neither": ["https://elsewhere.example/callback"],
}
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeWK1t8URWbuGJSstw-cM"
logging.disable()


def clients(*kinds):
    """Client id, kind and registered callbacks of each kind in each situation."""
    for kind in kinds:
        for situation, registered in REGISTERED.items():
            yield f"{kind}-{situation}", kind, registered


def request(client_id, callback, scope):
    """The query of an authorization request."""
    return urlencode(
        {
            "client_id": client_id,
            "redirect_uri": callback,
            "response_type": "code",
            "scope": scope,
            "state": "of-a-login",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        }
    )


def accepted(log_in, client_id, scope):
    """The callbacks to which a user returns with a code: `log_in` maps a query to a location."""
    return [
        callback
        for callback in (OLD, NEW)
        if (location := log_in(request(client_id, callback, scope)))
        and location.startswith(f"{callback}?")
        and "code=" in location
    ]


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


def listen(application):
    """Serves a WSGI application; returns its port."""
    server = make_server("127.0.0.1", 0, application, Server, Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def report(port, described):
    """Reports the server, and waits for the end of its input."""
    print(json.dumps({"port": port, "clients": described}), flush=True)
    sys.stdin.read()
