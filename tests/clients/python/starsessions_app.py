"""Starlette with starsessions."""

from redis.asyncio import Redis
from serve import TTL, URL, serve_asgi
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starsessions import SessionAutoloadMiddleware, SessionMiddleware, get_session_handler, regenerate_session_id
from starsessions.stores.redis import RedisStore

store = RedisStore(connection=Redis.from_url(URL))


async def renew_id(request):
    """The library leaves the session under the old id to its expiry."""
    old = get_session_handler(request).session_id
    regenerate_session_id(request)
    if old:
        await store.remove(old)


async def login(request):
    await renew_id(request)
    request.session["user"] = request.query_params["user"]
    return PlainTextResponse("ok")


async def me(request):
    return PlainTextResponse(request.session.get("user", ""))


async def count(request):
    request.session["count"] = request.session.get("count", 0) + 1
    return PlainTextResponse(str(request.session["count"]))


async def rotate(request):
    await renew_id(request)
    return PlainTextResponse("ok")


async def logout(request):
    request.session.clear()
    return PlainTextResponse("ok")


app = Starlette(
    routes=[
        Route("/login", login, methods=["POST"]),
        Route("/me", me),
        Route("/count", count, methods=["POST"]),
        Route("/rotate", rotate, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
    ],
    middleware=[
        Middleware(SessionMiddleware, store=store, lifetime=TTL, rolling=True, cookie_https_only=False),
        Middleware(SessionAutoloadMiddleware),
    ],
)
about = {
    "name": "starsessions",
    "config": 'store = RedisStore(connection=Redis.from_url("redis://127.0.0.1:6379"))\n'
    "Middleware(SessionMiddleware, store=store, lifetime=1800, rolling=True)",
    "keys": "starsessions.*",
    "touch": True,
    "rotate": True,
}
serve_asgi(app, about, ["starsessions", "starlette", "redis"])
