"""Callbacks in Django with the middleware of a new project. The first segment of the path selects one."""

import os
import sys

from django.conf import settings

settings.configure(
    DEBUG=False,
    SECRET_KEY="for tests only",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
)

from django.core.management import execute_from_command_line  # noqa: E402
from django.http import HttpResponse, HttpResponsePermanentRedirect, HttpResponseRedirect  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402

NANGO = "https://api.nango.dev/"


def raw(request):
    query = request.META["QUERY_STRING"]
    return f"?{query}" if query else ""


def response_to(location):
    response = HttpResponse(status=308)
    response["Location"] = location
    response["Cache-Control"] = "no-store"
    return response


@csrf_exempt
def correct(request, flow):
    response = response_to(NANGO + flow + raw(request))
    response["Cross-Origin-Opener-Policy"] = "unsafe-none"
    response["Referrer-Policy"] = "strict-origin-when-cross-origin"
    return response


# With the headers of SecurityMiddleware.
def usual(request, flow):
    return response_to(NANGO + flow + raw(request))


def redirect(request, flow):
    return unprotected(HttpResponseRedirect(NANGO + flow + raw(request)))


def permanent(request, flow):
    return unprotected(HttpResponsePermanentRedirect(NANGO + flow + raw(request)))


def encoded(request, flow):
    return unprotected(response_to(f"{NANGO}{flow}?{request.GET.urlencode()}"))


def dictionary(request, flow):
    from urllib.parse import urlencode

    return unprotected(response_to(f"{NANGO}{flow}?{urlencode(request.GET.dict())}"))


def unprotected(response):
    response["Cross-Origin-Opener-Policy"] = "unsafe-none"
    response["Referrer-Policy"] = "strict-origin-when-cross-origin"
    return response


views = (correct, usual, redirect, permanent, encoded, dictionary)
urlpatterns = [path(f"{view.__name__}/<path:flow>", view) for view in views]
execute_from_command_line([sys.argv[0], "runserver", "--noreload", f"127.0.0.1:{os.environ['PORT']}"])
