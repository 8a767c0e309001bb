"""Authlib with Flask: pages as in Authlib's own example server.

`/authorize` validates the request first. `/later` sends users to the login before it validates, as
the example server does. The kind `domain` compares only the host of a callback, `any` nothing: what
some providers have implemented.
"""

import os
from urllib.parse import urlsplit

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

from registrations import accepted, clients, listen, report  # noqa: E402

from authlib.integrations.flask_oauth2 import AuthorizationServer  # noqa: E402
from authlib.oauth2 import OAuth2Error  # noqa: E402
from authlib.oauth2.rfc6749 import ClientMixin, grants, list_to_scope, scope_to_list  # noqa: E402
from authlib.oauth2.rfc7636 import CodeChallenge  # noqa: E402
from flask import Flask, redirect, request, session, url_for  # noqa: E402

ALL = {
    client_id: (kind, registered)
    for client_id, kind, registered in clients("public", "confidential", "later", "domain", "any")
}
SCOPES = ["profile", "email"]


class Client(ClientMixin):
    """An app and its callbacks."""

    def __init__(self, client_id):
        self.client_id = client_id
        self.kind, self.callbacks = ALL[client_id]

    def get_client_id(self):
        return self.client_id

    def get_default_redirect_uri(self):
        return self.callbacks[0]

    def get_allowed_scope(self, scope):
        return list_to_scope([it for it in scope_to_list(scope) if it in SCOPES]) if scope else ""

    def check_redirect_uri(self, redirect_uri):
        match self.kind:
            case "any":
                return True
            case "domain":
                hosts = [urlsplit(callback).hostname for callback in self.callbacks]
                return urlsplit(redirect_uri).hostname in hosts
        return redirect_uri in self.callbacks

    def check_client_secret(self, client_secret):
        return client_secret == "of the test"

    def check_endpoint_auth_method(self, method, endpoint):
        return method == ("none" if self.kind == "public" else "client_secret_basic")

    def check_response_type(self, response_type):
        return response_type == "code"

    def check_grant_type(self, grant_type):
        return grant_type == "authorization_code"


class CodeGrant(grants.AuthorizationCodeGrant):
    """Codes are not redeemed here."""

    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "none"]

    def save_authorization_code(self, code, request):
        pass

    def query_authorization_code(self, code, client):
        raise NotImplementedError

    def delete_authorization_code(self, authorization_code):
        raise NotImplementedError

    def authenticate_user(self, authorization_code):
        raise NotImplementedError


app = Flask(__name__)
app.secret_key = "of the test"
server = AuthorizationServer(
    app,
    query_client=lambda client_id: Client(client_id) if client_id in ALL else None,
    save_token=lambda token, request: None,
)
server.register_grant(CodeGrant, [CodeChallenge(required=True)])


@app.route("/authorize", methods=["GET", "POST"])
def authorize():
    user = session.get("user")
    try:
        grant = server.get_consent_grant(end_user=user)
    except OAuth2Error as error:
        return server.handle_error_response(None, error)
    return respond(user, grant)


@app.route("/later", methods=["GET", "POST"])
def later():
    user = session.get("user")
    if not user:
        return redirect(url_for("home", next=request.url))
    try:
        grant = server.get_consent_grant(end_user=user)
    except OAuth2Error as error:
        return error.error
    return respond(user, grant)


def respond(user, grant):
    if not user:
        return redirect(url_for("home", next=request.url))
    if request.method == "POST":
        return server.create_authorization_response(grant=grant, grant_user=user)
    name = grant.client.get_client_id()
    return f"<p>{name} is requesting {grant.request.payload.scope}</p><form method=post><button>Submit</button></form>"


@app.get("/")
def home():
    return "<form method=post><input name=username placeholder=username><button>Login / Signup</button></form>"


browser = app.test_client()
with browser.session_transaction() as opened:
    opened["user"] = "user"


def log_in(path):
    return lambda query: browser.post(f"{path}?{query}").headers.get("Location")


described = []
for client_id, (kind, registered) in ALL.items():
    path = "/later" if kind == "later" else "/authorize"
    described.append(
        {
            "id": client_id,
            "kind": kind,
            "path": path,
            "scope": "profile",
            "registered": registered,
            "accepted": accepted(log_in(path), client_id, "profile"),
        }
    )
report(listen(app), described)
