"""Serves an application on a free port and says so in one line of JSON. Knows no back end."""

import json
import os
import socket
from importlib.metadata import version

HOST, PORT = os.environ.get("REDIS_HOST", "127.0.0.1"), int(os.environ["REDIS_PORT"])
URL = f"redis://{HOST}:{PORT}"
# The life of a session, in seconds.
TTL = 1800


def say(about, packages, http):
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    print(json.dumps({"ttl": TTL, "keys": "*", **about, "version": versions, "http": http}), flush=True)


def serve_wsgi(application, about, packages):
    import socketserver
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

    class Server(socketserver.ThreadingMixIn, WSGIServer):
        daemon_threads = True
        request_queue_size = 64

    class Handler(WSGIRequestHandler):
        def address_string(self):
            return self.client_address[0]

    server = make_server("127.0.0.1", 0, application, Server, Handler)
    say(about, packages, server.server_port)
    server.serve_forever()


def serve_asgi(application, about, packages):
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    say(about, packages, listener.getsockname()[1])
    config = uvicorn.Config(application, log_level="warning", lifespan="auto")
    uvicorn.Server(config).run(sockets=[listener])
