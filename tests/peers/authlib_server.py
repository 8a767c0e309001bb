"""A second provider implementation: an OAuth 2 server with Authlib and Flask.

Arguments: the old and the new callback. Sends `{"port"}`, and exits at the end of its input.
"""

import json
import os
import sys
import threading

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import ClientMixin, grants
from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

OLD, NEW = sys.argv[1:3]
CALLBACKS = {
    "authlib-both": [OLD, NEW],
    "authlib-only-old": [OLD],
    "authlib-only-new": [NEW],
    "authlib-neither": ["https://elsewhere.example/callback"],
}


class Client(ClientMixin):
    """An app and its callbacks."""

    def __init__(self, client_id):
        self.client_id = client_id

    def get_client_id(self):
        return self.client_id

    def get_default_redirect_uri(self):
        return CALLBACKS[self.client_id][0]

    def get_allowed_scope(self, scope):
        return scope

    def check_redirect_uri(self, redirect_uri):
        return redirect_uri in CALLBACKS[self.client_id]

    def check_response_type(self, response_type):
        return response_type == "code"

    def check_grant_type(self, grant_type):
        return grant_type == "authorization_code"


class CodeGrant(grants.AuthorizationCodeGrant):
    """No user logs in, so no code is issued."""

    def save_authorization_code(self, code, request):
        raise NotImplementedError

    def query_authorization_code(self, code, client):
        raise NotImplementedError

    def delete_authorization_code(self, authorization_code):
        raise NotImplementedError

    def authenticate_user(self, authorization_code):
        raise NotImplementedError


app = Flask(__name__)
server = AuthorizationServer(
    app,
    query_client=lambda client_id: Client(client_id) if client_id in CALLBACKS else None,
    save_token=lambda token, request: None,
)
server.register_grant(CodeGrant)


@app.get("/authorize")
def authorize():
    try:
        grant = server.get_consent_grant(end_user=None)
    except OAuth2Error as error:
        return server.handle_error_response(None, error)
    name = grant.client.get_client_id()
    return (
        f"<title>Sign in</title><h1>{name} wants access</h1><form method=post>"
        '<input name="username"><input type="password" name="password"></form>'
    )


class Quiet(WSGIRequestHandler):
    """Prints nothing to stdout."""

    def log(self, *_):
        pass


http = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
threading.Thread(target=http.serve_forever, daemon=True).start()
print(json.dumps({"port": http.server_port}), flush=True)
sys.stdin.read()
