"""The middleware and the URLs of `django-admin startproject mysite`, in one file."""

import os
import sys
import types

import django
from django.conf import settings
from django.urls import include, path

settings.configure(
    SECRET_KEY="a secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="mysite_urls",
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
)
django.setup()
urls = types.ModuleType("mysite_urls")
urls.urlpatterns = [path("", include("nango_callback"))]
sys.modules["mysite_urls"] = urls
from django.core.servers.basehttp import run
from django.core.wsgi import get_wsgi_application

run("127.0.0.1", int(os.environ["PORT"]), get_wsgi_application(), threading=True)
