"""Writes: durable ones beside Redis's log and single upserts, and the ones that frameworks do at every request."""

import tools
from place import figures, grown
from rounds import SMOKE, interleave, ratio

DURABLE = {1: 3_000, 16: 10_000} if SMOKE else {1: 120_000, 16: 300_000}
TOUCHES = 3_000 if SMOKE else 150_000
PGBENCH_S = 1 if SMOKE else 4


def durable_set(place):
    """`SET` of a value that is new each time, acknowledged when it is synced to disk."""
    peers = [place.redis_always(), place.on_postgres(), place.on_sqlite()]
    names = ["writes_elided_total", "writes_absorbed_total"]
    for server in peers:
        tools.fill(server)
    place.postgres.database("pgbench")
    script = tools.upsert_script(place.directory, place.postgres, "pgbench")

    def measure(server, depth):
        before = figures(server, *names)
        run = tools.load(server, f"SET {{key}} {{new}} EX {tools.DAY_S}", requests=DURABLE[depth], pipeline=depth)
        elided, absorbed = grown(server, before, *names)
        if elided > 0:
            raise SystemExit(
                f"{server.name}: {elided:.0f} writes were answered from memory: this measures something else"
            )
        return {**run, "absorbed": absorbed}

    cases = {
        f"SET -P {depth}": {server.name: lambda server=server, depth=depth: measure(server, depth) for server in peers}
        for depth in DURABLE
    }
    cases["SET -P 1"]["pgbench-upsert"] = lambda: tools.pgbench(place.postgres, script, PGBENCH_S, database="pgbench")
    series = interleave(cases)
    pgbench, redis = ("SET -P 1", "pgbench-upsert"), ("SET -P 1", "redis-always")
    goals = {
        "set-to-pgbench": ratio(series, "rps", ("SET -P 1", "cloakroom-postgres"), pgbench),
        "set-to-redis": ratio(series, "rps", ("SET -P 1", "cloakroom-postgres"), redis),
        "set-16-to-pgbench": ratio(series, "rps", ("SET -P 16", "cloakroom-postgres"), pgbench),
    }
    text = (
        "Values differ in each write, so that none is a repetition; the metrics must say that none was answered from memory."
        " Postgres runs with its defaults (`fsync` and `synchronous_commit` on), Redis with `appendfsync always`, SQLite syncs"
        " at each commit. pgbench runs one prepared upsert per transaction on as many connections."
    )
    limit = (
        "Unpipelined, a write is bound by the chain of one commit, not by the processors, which are idle for a part of the time (see"
        " the column): 50 writers commit in two groups by turns, and a commit of 25 rows takes as long as Postgres needs to execute it,"
        " to sync its log and to signal the session that listens, which runs first on the same core, and the ways between. Traced on"
        " 2 × Xeon: 0.8 ms, of which 0.3 ms to execute, 0.15 ms (0.08 to 1) to sync and up to 0.1 ms to signal. Second commits beside the"
        " first from 12 or 25 waiting rows on, groups of even size, commits that wait until nothing else is to be done, two serving"
        " threads: each was tried and left the rate as it was, as batches got smaller or later by as much. So the ratios differ by"
        " machine, with what a sync and a wake-up cost there: on 2 × EPYC they were, two days before and in three rounds, 0.87 of Redis,"
        " and 2.4 and 5.1 of pgbench."
    )
    return {"series": series, "goals": goals, "text": [text, limit]}


def touch(place):
    """What a session costs per request of a web application: a read, then its expiry or its value again."""
    requests = {
        "GET, EXPIRE": ["GET {key}", f"EXPIRE {{key}} {tools.DAY_S}"],
        "GET, SET of the same value": ["GET {key}", f"SET {{key}} {{same}} EX {tools.DAY_S}"],
    }
    peers = [place.redis(), place.on_postgres(), place.on_sqlite()]
    for server in peers:
        tools.fill(server)

    def measure(server, steps):
        before = figures(server, "writes_elided_total")
        run = tools.load(server, *steps, requests=TOUCHES)
        return {**run, "elided": grown(server, before, "writes_elided_total")[0]}

    cases = {
        case: {server.name: lambda server=server, steps=steps: measure(server, steps) for server in peers}
        for case, steps in requests.items()
    }
    series = interleave(cases)
    goals = {
        goal: ratio(series, "rps", (case, "cloakroom-postgres"), (case, "redis"))
        for goal, case in zip(["get-expire", "get-set"], requests, strict=True)
    }
    text = (
        "A request is two round trips: the read, and when that was answered, the touch. Sessions live for a day. Redis keeps"
        " nothing on disk. Rates and latencies are those of whole requests."
    )
    return {"series": series, "goals": goals, "text": [text]}
