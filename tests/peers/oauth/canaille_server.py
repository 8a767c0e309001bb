"""Canaille, a complete OpenID Provider, with its backend in memory.

Without `prompt=none` it sends users to the login before it validates their request.
"""

import datetime
import os
import warnings

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "true"
warnings.simplefilter("ignore")

from registrations import accepted, clients, listen, report  # noqa: E402

from canaille import create_app  # noqa: E402
from canaille.app import models  # noqa: E402
from canaille.backends import Backend  # noqa: E402
from joserfc import jwk  # noqa: E402

key = jwk.generate_key("RSA", 2048)
key.ensure_kid()
app = create_app(
    {
        "SECRET_KEY": "for tests only",
        "SESSION_COOKIE_SECURE": False,
        "CANAILLE": {"DATABASE": "memory", "TIMEZONE": "UTC", "JAVASCRIPT": False},
        "CANAILLE_OIDC": {"ACTIVE_JWKS": [key.as_dict(private=True)], "REQUIRE_NONCE": False},
    }
)
PATH = "/oauth/authorize"
now = datetime.datetime.now(datetime.timezone.utc)
all_clients = list(clients("public", "confidential"))
with app.app_context(), Backend.instance.session():
    user = models.User(
        formatted_name="A User",
        family_name="User",
        user_name="user",
        emails=["user@example.com"],
        password="of the test",
    )
    Backend.instance.save(user)
    for client_id, kind, registered in all_clients:
        Backend.instance.save(
            models.Client(
                client_id=client_id,
                client_name=client_id,
                # Trusted: needs no consent.
                client_uri="http://app.localhost",
                redirect_uris=registered,
                client_id_issued_at=now,
                client_secret="of the test",
                grant_types=["authorization_code"],
                response_types=["code"],
                scope=["openid", "email"],
                token_endpoint_auth_method="none" if kind == "public" else "client_secret_basic",
            )
        )

browser = app.test_client()
with browser.session_transaction() as session:
    session["sessions"] = [
        {
            "user": user.id,
            "last_login_datetime": now.isoformat(),
            "authentication_factors": [],
        }
    ]


def log_in(query):
    return browser.get(f"{PATH}?{query}").headers.get("Location")


report(
    listen(app),
    [
        {
            "id": client_id,
            "kind": kind,
            "path": PATH,
            "scope": "openid email",
            "registered": registered,
            "accepted": accepted(log_in, client_id, "openid email"),
        }
        for client_id, kind, registered in all_clients
    ],
)
