"""django-oauth-toolkit with its default settings and templates, and the login page of Django.

The kind `auto` needs no consent. The setup installs an old version and the newest.
"""

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
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "oauth2_provider",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                ]
            },
        }
    ],
    USE_TZ=True,
)
django.setup()

from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import setup_test_environment, teardown_test_environment  # noqa: E402
from django.urls import include, path  # noqa: E402
from oauth2_provider.models import Application  # noqa: E402

urlpatterns = [path("o/", include("oauth2_provider.urls", namespace="oauth2_provider"))]
PATH = "/o/authorize/"

call_command("migrate", verbosity=0)
user = get_user_model().objects.create_user("user", password="of the test")
browser = Client()
browser.force_login(user)
setup_test_environment()


def log_in(query):
    response = browser.get(f"{PATH}?{query}")
    if response.status_code == 200:
        form = {**response.context["form"].initial, "allow": "Authorize"}
        fields = {name: value for name, value in form.items() if value is not None}
        response = browser.post(f"{PATH}?{query}", fields)
    return response.headers.get("Location")


described = []
for client_id, kind, registered in clients("public", "confidential", "auto"):
    Application.objects.create(
        client_id=client_id,
        name=client_id,
        user=user,
        client_type="public" if kind == "public" else "confidential",
        authorization_grant_type="authorization-code",
        redirect_uris=" ".join(registered),
        skip_authorization=kind == "auto",
    )
    described.append(
        {
            "id": client_id,
            "kind": kind,
            "path": PATH,
            "scope": "read write",
            "registered": registered,
            "accepted": accepted(log_in, client_id, "read write"),
        }
    )
teardown_test_environment()
report(listen(get_wsgi_application()), described)
