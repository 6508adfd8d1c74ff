"""Transactions and scripts: a hundred writes one by one and in one `MULTI`, and a compare-and-delete beside a `DEL`."""

import os
import socket
import time

import tools
from rounds import SMOKE, interleave, ratio
from servers import PATIENCE_S, encode

SETS = 100
TRANSACTIONS = 2 if SMOKE else 25
DELETIONS = 1_000 if SMOKE else 30_000
AWAITED, TOGETHER = f"{SETS} SETs, each awaited", f"{SETS} SETs in one MULTI"
DEL, SCRIPT = "DEL", "a script that compares and deletes"
# What lock libraries send to release a lock.
COMPARE_AND_DELETE = (
    'if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("del", KEYS[1]) else return 0 end'
)


def transactions(place):
    """Durable writes of one client, and deletions of 50."""
    peers = [place.on_postgres(), place.redis_always()]
    by_name = {server.name: server for server in peers}
    shas = {server.name: server.request("SCRIPT", "LOAD", COMPARE_AND_DELETE) for server in peers}

    def delete(name, step):
        server = by_name[name]
        tools.fill(server, keys=DELETIONS)
        return tools.load(server, step, keys=DELETIONS, requests=DELETIONS, in_order=True)

    cases = {
        AWAITED: lambda name: awaited(by_name[name]),
        TOGETHER: lambda name: together(by_name[name]),
        DEL: lambda name: delete(name, "DEL {key}"),
        SCRIPT: lambda name: delete(name, f"EVALSHA {shas[name]} 1 {{key}} {{same}}"),
    }
    series = interleave(
        {case: {name: lambda run=run, name=name: run(name) for name in by_name} for case, run in cases.items()}
    )
    own = peers[0].name
    goals = {
        "multi": ratio(series, "rps", (TOGETHER, own), (AWAITED, own)),
        "compare-and-delete": ratio(series, "rps", (DEL, own), (SCRIPT, own)),
    }
    text = (
        "The first two cases are one client on one connection, and their rates are those of `SET`s: a `MULTI` is one commit. The"
        " others are 50 connections that delete keys that are there, unpipelined. Values have 1 KiB; everything is acknowledged when"
        " it is on disk. Both ratios are to a single command, so they suffer when that one gets faster."
    )
    return {"series": series, "goals": goals, "text": [text]}


def awaited(server):
    """`SET`s one after the other."""
    requests = [request for _ in range(TRANSACTIONS) for request in sets()]
    return timed(server, [(request, b"+OK\r\n") for request in requests])


def together(server):
    """As many, a `MULTI` for each hundred, sent in one piece as client libraries do."""
    right = b"+OK\r\n" + b"+QUEUED\r\n" * SETS + b"*%d\r\n" % SETS + b"+OK\r\n" * SETS
    pieces = [encode(["MULTI"]) + b"".join(sets()) + encode(["EXEC"]) for _ in range(TRANSACTIONS)]
    return timed(server, [(piece, right) for piece in pieces])


def sets():
    """A hundred requests, with values that were never there."""
    value = tools.VALUE_BYTES // 2
    return [encode(["SET", f"multi:{key}", os.urandom(value).hex(), "EX", tools.DAY_S]) for key in range(SETS)]


def timed(server, exchanges):
    """Sends each request when the reply to the one before has come, and wants it to be the right one."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        replies = link.makefile("rb")
        begin = time.monotonic()
        for request, right in exchanges:
            link.sendall(request)
            if (reply := replies.read(len(right))) != right:
                raise SystemExit(f"{server.name} answers {reply!r}")
        took = time.monotonic() - begin
    return {"rps": TRANSACTIONS * SETS / took}
