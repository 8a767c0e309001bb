"""The authorization routes of the MCP SDK for Python, as in its example: the login is on a page of its own.

The kind `auto` gets its code at once.
"""

import asyncio
import secrets
import threading
from http.client import HTTPConnection

from registrations import accepted, clients, report

import uvicorn
from mcp.server.auth.provider import AuthorizationParams, construct_redirect_uri
from mcp.server.auth.routes import create_auth_routes
from mcp.shared.auth import OAuthClientInformationFull
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.routing import Route

ALL = {
    client_id: (kind, registered)
    for client_id, kind, registered in clients("public", "confidential", "auto")
}


class Provider:
    """Like `SimpleOAuthProvider` of the examples."""

    def __init__(self):
        self.pending = {}

    async def get_client(self, client_id):
        if client_id not in ALL:
            return None
        kind, registered = ALL[client_id]
        return OAuthClientInformationFull(
            client_id=client_id,
            client_secret=None if kind == "public" else "of the test",
            token_endpoint_auth_method="none" if kind == "public" else "client_secret_post",
            redirect_uris=registered,
            scope="user",
        )

    async def authorize(self, client, params: AuthorizationParams):
        state = params.state or secrets.token_hex(16)
        if client.client_id.startswith("auto"):
            return construct_redirect_uri(str(params.redirect_uri), code=secrets.token_hex(16), state=state)
        self.pending[state] = params
        return f"/login?state={state}&client_id={client.client_id}"


provider = Provider()


async def login(request):
    if request.query_params["state"] not in provider.pending:
        return HTMLResponse("Invalid state parameter", status_code=400)
    return HTMLResponse("<form method=post><input name=username><input type=password name=password></form>")


async def callback(request):
    state = request.query_params["state"]
    params = provider.pending.pop(state)
    code = secrets.token_hex(16)
    return RedirectResponse(construct_redirect_uri(str(params.redirect_uri), code=code, state=state), 302)


routes = create_auth_routes(provider, AnyHttpUrl("http://localhost/"))
routes += [Route("/login", login), Route("/login", callback, methods=["POST"])]
server = uvicorn.Server(
    uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=0, log_level="critical")
)
started = threading.Event()


async def serve():
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    started.set()
    await task


threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
started.wait()
port = server.servers[0].sockets[0].getsockname()[1]


def location(method, path):
    connection = HTTPConnection("127.0.0.1", port)
    connection.request(method, path)
    return connection.getresponse().headers.get("Location")


def log_in(query):
    found = location("GET", f"/authorize?{query}")
    return location("POST", found) if found and found.startswith("/login") else found


report(
    port,
    [
        {
            "id": client_id,
            "kind": kind,
            "path": "/authorize",
            "scope": "user",
            "registered": registered,
            "accepted": accepted(log_in, client_id, "user"),
        }
        for client_id, (kind, registered) in ALL.items()
    ],
)
