"""Writes: durable ones beside Redis's log and single upserts, and the ones that frameworks do at every request."""

import tools
from place import figures, grown
from rounds import SMOKE, interleave, ratio

DURABLE = {1: 3_000, 16: 10_000} if SMOKE else {1: 70_000, 16: 170_000}
TOUCHES = 3_000 if SMOKE else 90_000
PGBENCH_S = 1 if SMOKE else 3


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
        "What bounds unpipelined writes is the one backend that all small batches go to, one after the other. On 2 × Xeon, of the 0.57 ms"
        " from one batch of 25 rows to the next it executes for 0.43 (`perf`: 76 % of a processor), and a sync takes 0.17 on average, so"
        " hardly anything is left. A row of 1 KiB costs it about 10 µs, a commit another 0.16 ms (a line through 25 and 256 rows,"
        " by the backend's own CPU time, without the sync), which Redis, appending to a file, does not have; Cloakroom's own CPU is less than Redis's."
        " To spread batches over two backends loses 15 % (without announcements, 8 rounds) to 20 % (with them, 12 rounds). The daemon hears no other here, so it commits on the session that listens, which made 20 to 30 %"
        " of difference. Handing rows over in the list of a SELECT and not in FROM made 5 %, and 11 % in pipelines. Tried, and no better: a"
        " second batch that begins earlier or later than when it is as large as the last ones; three or four batches in flight; batches of"
        " 128, 256 or 1024 rows in pipelines; one batch for all writers; commits that wait until nothing else is to be done; two serving"
        " threads; UPDATE or MERGE in place of INSERT with ON CONFLICT; other fill factors; no index for SCAN. Ratios differ by machine: on"
        " 2 × EPYC an earlier version had 0.87 of Redis, and 2.4 and 5.1 of pgbench."
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
