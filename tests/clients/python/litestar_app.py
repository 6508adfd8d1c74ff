"""Litestar's server-side sessions. With the argument `renew`, each access renews the session by a script."""

import sys

from litestar import Litestar, MediaType, Request, get, post
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.stores.redis import RedisStore
from serve import TTL, URL, serve_asgi

RENEW = "renew" in sys.argv


@post("/login", status_code=200, media_type=MediaType.TEXT)
async def login(request: Request, user: str) -> str:
    request.set_session({"user": user})
    return "ok"


@get("/me", media_type=MediaType.TEXT)
async def me(request: Request) -> str:
    user = request.session.get("user", "")
    if not user:
        # Else every visitor gets a session.
        request.clear_session()
    return user


@post("/count", status_code=200, media_type=MediaType.TEXT)
async def count(request: Request) -> str:
    request.session["count"] = request.session.get("count", 0) + 1
    return str(request.session["count"])


@post("/logout", status_code=200, media_type=MediaType.TEXT)
async def logout(request: Request) -> str:
    request.clear_session()
    return "ok"


app = Litestar(
    [login, me, count, logout],
    middleware=[ServerSideSessionConfig(max_age=TTL, renew_on_access=RENEW).middleware],
    stores={"sessions": RedisStore.with_client(URL)},
)
about = {
    "name": "Litestar, `renew_on_access`" if RENEW else "Litestar",
    "config": 'stores={"sessions": RedisStore.with_client("redis://127.0.0.1:6379")}\n'
    f"middleware=[ServerSideSessionConfig({'renew_on_access=True' if RENEW else ''}).middleware]",
    "touch": True,
}
serve_asgi(app, about, ["litestar", "redis"])
