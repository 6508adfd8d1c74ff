"""A Django project as `django-admin startproject` makes it, with its sessions in Cloakroom.

Arguments: the session engine and Cloakroom's port. Works in the current directory. Logs a user in over HTTP, prints
`restart` and waits for a line, checks that the user is still logged in, logs out, and that the old cookie is refused.
"""

import http.cookiejar
import os
import re
import subprocess
import sys
import urllib.parse
import urllib.request

import redis

ENGINE, PORT = sys.argv[1], int(sys.argv[2])

SETTINGS = f"""
ALLOWED_HOSTS = ["127.0.0.1"]
SESSION_ENGINE = "{ENGINE}"
CACHES = {{
    "default": {{
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": "redis://127.0.0.1:{PORT}",
    }}
}}
"""

SERVE = """
import sys
from wsgiref.simple_server import make_server
from site_.wsgi import application
server = make_server("127.0.0.1", 0, application)
print(server.server_port, flush=True)
server.serve_forever()
"""


def manage(*args, **environment):
    command = [sys.executable, "manage.py", *args]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **environment})


class Browser:
    """Follows redirects, keeps cookies, and sends Django's CSRF token with every form."""

    def __init__(self, port):
        self.base = f"http://127.0.0.1:{port}"
        self.jar = http.cookiejar.CookieJar()
        # No proxy: the server is on this machine.
        handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.jar)]
        self.opener = urllib.request.build_opener(*handlers)

    def get(self, path):
        with self.opener.open(self.base + path, timeout=30) as response:
            return response.geturl(), response.read().decode()

    def post(self, page, path, **fields):
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page).group(1)
        form = urllib.parse.urlencode({"csrfmiddlewaretoken": token, **fields}).encode()
        with self.opener.open(self.base + path, form, timeout=30) as response:
            return response.geturl(), response.read().decode()

    def cookie(self, name):
        return next((cookie.value for cookie in self.jar if cookie.name == name), None)

    def steal(self, name, value):
        """Sends this cookie from now on, whatever the server said about it."""
        self.jar.clear()
        self.opener.addheaders = [("Cookie", f"{name}={value}")]


def is_logged_in(browser):
    url, page = browser.get("/admin/")
    logged_in = "/admin/login/" not in url
    assert logged_in == ("/admin/logout/" in page), url
    return logged_in


def check(port):
    store = redis.Redis(port=PORT)

    def sessions():
        return [key for key in store.scan_iter("*") if b"django.contrib.sessions" in key]

    browser = Browser(port)
    assert not is_logged_in(browser)
    _, page = browser.get("/admin/login/?next=/admin/")
    _, page = browser.post(page, "/admin/login/?next=/admin/", username="ada", password="wrong", next="/admin/")
    assert not is_logged_in(browser)
    _, page = browser.get("/admin/login/?next=/admin/")
    url, page = browser.post(page, "/admin/login/?next=/admin/", username="ada", password="lovelace", next="/admin/")
    assert url.endswith("/admin/"), url
    assert is_logged_in(browser)
    cookie = browser.cookie("sessionid")
    (key,) = sessions()
    assert cookie.encode() in key, "the session is in Cloakroom under its cookie"
    two_weeks = 14 * 24 * 3600
    assert two_weeks - 600 < store.ttl(key) <= two_weeks
    store.close()

    print("restart", flush=True)
    assert sys.stdin.readline() == "restarted\n"
    assert is_logged_in(browser), "the session survives a restart of Cloakroom"
    assert sessions() == [key]

    _, page = browser.get("/admin/")
    browser.post(page, "/admin/logout/")
    assert not is_logged_in(browser)
    assert sessions() == []
    browser.steal("sessionid", cookie)
    assert not is_logged_in(browser), "the cookie of a session that was logged out is refused"


subprocess.run([sys.executable, "-m", "django", "startproject", "site_", "."], check=True)
with open("site_/settings.py", "a") as settings:
    settings.write(SETTINGS)
manage("migrate")
manage("createsuperuser", "--noinput", "--username", "ada", "--email", "a@example.org", DJANGO_SUPERUSER_PASSWORD="lovelace")
environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "site_.settings", "PYTHONPATH": os.getcwd()}
errors = open("server.log", "w+")
server = subprocess.Popen(
    [sys.executable, "-c", SERVE], stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
)
try:
    check(int(server.stdout.readline()))
except BaseException:
    errors.flush()
    errors.seek(0)
    sys.stderr.write(errors.read()[-8000:])
    raise
finally:
    server.kill()
    server.wait()
