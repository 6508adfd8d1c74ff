"""Flask with Flask-Session."""

from flask import Flask, request, session
from flask_session import Session
from redis import Redis
from serve import HOST, PORT, TTL, serve_wsgi

app = Flask(__name__)
app.config.update(
    SESSION_TYPE="redis", SESSION_REDIS=Redis(host=HOST, port=PORT), PERMANENT_SESSION_LIFETIME=TTL, SESSION_PERMANENT=True
)
Session(app)


@app.post("/login")
def login():
    app.session_interface.regenerate(session)
    session["user"] = request.args["user"]
    return "ok"


@app.get("/me")
def me():
    return session.get("user", "")


@app.post("/count")
def count():
    session["count"] = session.get("count", 0) + 1
    return str(session["count"])


@app.post("/rotate")
def rotate():
    app.session_interface.regenerate(session)
    return "ok"


@app.post("/logout")
def logout():
    session.clear()
    return "ok"


about = {
    "name": "Flask-Session",
    "config": 'app.config["SESSION_TYPE"] = "redis"\napp.config["SESSION_REDIS"] = Redis(host="127.0.0.1", port=6379)',
    "touch": True,
    "rotate": True,
}
serve_wsgi(app, about, ["Flask-Session", "Flask", "redis"])
