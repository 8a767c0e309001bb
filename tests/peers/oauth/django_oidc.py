"""django-oidc-provider with its default templates, and the login page of Django."""

from urllib.parse import parse_qsl

from registrations import accepted, clients, listen, report

import django
from django.conf import settings

settings.configure(
    DEBUG=False,
    SECRET_KEY="for tests only",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "database"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    LOGIN_URL="/accounts/login/",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "oidc_provider",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "oidc_provider.middleware.SessionManagementMiddleware",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    USE_TZ=True,
)
django.setup()

from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.test import Client as Browser  # noqa: E402
from django.urls import include, path  # noqa: E402
from oidc_provider.models import Client, ResponseType  # noqa: E402

urlpatterns = [path("openid/", include("oidc_provider.urls", namespace="oidc_provider"))]
PATH = "/openid/authorize"

call_command("migrate", verbosity=0)
user = get_user_model().objects.create_user("user", password="of the test")
browser = Browser(raise_request_exception=False)
browser.force_login(user)


def log_in(query):
    response = browser.get(f"{PATH}?{query}")
    if response.status_code == 200:
        # Public clients need a consent.
        response = browser.post(PATH, dict(parse_qsl(query), allow="Accept"))
    return response.headers.get("Location")


described = []
for client_id, kind, registered in clients("public", "confidential"):
    client = Client.objects.create(
        client_id=client_id,
        name=client_id,
        client_type=kind,
        client_secret="of the test",
        jwt_alg="HS256",
        require_consent=False,
    )
    client.redirect_uris = registered
    client.save()
    client.response_types.add(ResponseType.objects.get(value="code"))
    described.append(
        {
            "id": client_id,
            "kind": kind,
            "path": PATH,
            "scope": "openid email",
            "registered": registered,
            "accepted": accepted(log_in, client_id, "openid email"),
        }
    )
report(listen(get_wsgi_application()), described)
