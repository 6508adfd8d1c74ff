"""Django's own sessions and users, with a log-in by name and password. Argument: the back end."""

import os
import sys

import django
from django.conf import settings
from django.core.management import call_command
from serve import TTL, URL, serve_asgi, serve_wsgi

KIND = sys.argv[1]
IS_ASYNC = KIND == "async"

DJANGO_REDIS = KIND == "django-redis"
CACHE = "django_redis.cache.RedisCache" if DJANGO_REDIS else "django.core.cache.backends.redis.RedisCache"
ENGINE = "django.contrib.sessions.backends." + ("cached_db" if KIND == "cached_db" else "cache")

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    SECRET_KEY="only for tests",
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.path.join(os.getcwd(), "db.sqlite3"),
            "OPTIONS": {"timeout": 30, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA synchronous=OFF"},
        }
    },
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    CACHES={"default": {"BACKEND": CACHE, "LOCATION": URL}},
    SESSION_ENGINE=ENGINE,
    SESSION_COOKIE_AGE=TTL,
    SESSION_SAVE_EVERY_REQUEST=True,
)
django.setup()

from django.contrib.auth import aauthenticate, alogin, alogout, authenticate, login, logout
from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path


def log_in(request):
    user = authenticate(request, username=request.GET["user"], password="lovelace")
    login(request, user)
    return HttpResponse("ok")


def me(request):
    return HttpResponse(request.user.get_username())


def count(request):
    request.session["count"] = request.session.get("count", 0) + 1
    return HttpResponse(request.session["count"])


def rotate(request):
    request.session.cycle_key()
    return HttpResponse("ok")


def log_out(request):
    logout(request)
    return HttpResponse("ok")


async def async_log_in(request):
    user = await aauthenticate(request, username=request.GET["user"], password="lovelace")
    await alogin(request, user)
    return HttpResponse("ok")


async def async_me(request):
    return HttpResponse((await request.auser()).get_username())


async def async_count(request):
    number = await request.session.aget("count", 0) + 1
    await request.session.aset("count", number)
    return HttpResponse(number)


async def async_rotate(request):
    await request.session.acycle_key()
    return HttpResponse("ok")


async def async_log_out(request):
    await alogout(request)
    return HttpResponse("ok")


sync_views = [("login", log_in), ("me", me), ("count", count), ("rotate", rotate), ("logout", log_out)]
async_views = [
    ("login", async_log_in),
    ("me", async_me),
    ("count", async_count),
    ("rotate", async_rotate),
    ("logout", async_log_out),
]
urlpatterns = [path(name, view) for name, view in (async_views if IS_ASYNC else sync_views)]

call_command("migrate", verbosity=0)
for name in ["ada", "grace", *(f"u{number}" for number in range(6))]:
    User.objects.create_user(name, password="lovelace")

about = {
    "name": {
        "cache": "Django `cache` sessions",
        "cached_db": "Django `cached_db` sessions",
        "async": "Django `cache` sessions, asynchronous",
        "django-redis": "django-redis as the session cache",
    }[KIND],
    "config": f'CACHES = {{"default": {{"BACKEND": "{CACHE}", "LOCATION": "redis://127.0.0.1:6379"}}}}\n'
    f'SESSION_ENGINE = "{ENGINE}"',
    "touch": True,
    "rotate": True,
    "refill": KIND == "cached_db",
}
packages = ["Django", *(["django-redis"] if DJANGO_REDIS else []), "redis"]
if IS_ASYNC:
    serve_asgi(get_asgi_application(), about, packages)
else:
    serve_wsgi(get_wsgi_application(), about, packages)
