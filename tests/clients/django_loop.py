"""One Django process with its sessions in Cloakroom, asked line by line: what a browser's requests do to a session, in volume.

Arguments: the directory of the project (made and migrated by the process that says it is `first`), Cloakroom's port, `first` or `next`.
Requests on standard input, one answer line each on standard output:

    login             the cookie of a new session in which the user is logged in
    who COOKIE        the name of the user, or `nobody`
    logout COOKIE     `done`

All of them go through Django's handler, its middleware and its own views. Only the way in is short: Django's test client instead of
a socket.
"""

import os
import sys

directory, port, order = sys.argv[1:]

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="the same for all processes of the site",
    ALLOWED_HOSTS=["testserver"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.path.join(directory, "site.db")}},
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    CACHES={
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{port}",
        }
    },
    # The real ones are slow on purpose.
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    LOGIN_REDIRECT_URL="/who",
    LOGOUT_REDIRECT_URL="/who",
)
django.setup()

from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView, LogoutView
from django.core.management import call_command
from django.http import HttpResponse
from django.test import Client
from django.urls import path


def who(request):
    return HttpResponse(request.user.get_username() or "nobody")


urlpatterns = [path("login", LoginView.as_view()), path("logout", LogoutView.as_view()), path("who", who)]


def browser(cookie=None):
    client = Client()
    if cookie:
        client.cookies[settings.SESSION_COOKIE_NAME] = cookie
    return client


def login():
    client = browser()
    answer = client.post("/login", {"username": "ada", "password": "lovelace"})
    assert answer.status_code == 302, answer.status_code
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def logout(cookie):
    answer = browser(cookie).post("/logout")
    assert answer.status_code == 302, answer.status_code
    return "done"


if order == "first":
    call_command("migrate", verbosity=0)
    User.objects.create_user("ada", password="lovelace")
print("ready", flush=True)
for line in sys.stdin:
    match line.split():
        case ["login"]:
            print(login(), flush=True)
        case ["who", cookie]:
            print(browser(cookie).get("/who").content.decode(), flush=True)
        case ["logout", cookie]:
            print(logout(cookie), flush=True)
