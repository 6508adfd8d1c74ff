"""Resident memory: of a session, beside Redis; and of a full cache, beside its configured bound."""

import tools
from rounds import SMOKE, interleave, ratio

SESSIONS = 20_000 if SMOKE else 1_000_000
SHAPE = {"key_prefix": "session:", "key_digits": 32, "value_bytes": 512}
BOUND = (4 if SMOKE else 256) << 20
CHURN = 5_000 if SMOKE else 400_000
WRITTEN, READ = "sessions written", "sessions read from the store"


def memory(place):
    """Bytes of resident memory per session of 512 bytes with a key of 40, and whether a bound on the cache holds."""
    database = place.postgres.database("memory")
    started = 0

    def fresh(make):
        nonlocal started
        started += 1
        server = make(f"memory-{started}")
        server.request("PING")
        return server, server.memory()

    def redis():
        server, empty = fresh(place.redis)
        tools.fill(server, keys=SESSIONS, **SHAPE)
        return per_session(server, empty)

    def cloakroom(do):
        room = SESSIONS * 2048
        server, empty = fresh(lambda name: place.on_postgres(name, database, CACHE_MAX_BYTES=room))
        do(server)
        entries = server.metric("cloakroom_cache_entries")
        if entries < SESSIONS:
            raise SystemExit(
                f"only {entries:.0f} of {SESSIONS} sessions are in the cache: this measures something else"
            )
        accounted = server.metric("cloakroom_cache_bytes") / SESSIONS
        return {**per_session(server, empty), "accounted": accounted}

    def write(server):
        tools.fill(server, keys=SESSIONS, **SHAPE)

    def read(server):
        tools.load(server, "GET {key}", keys=SESSIONS, requests=SESSIONS, in_order=True, pipeline=16, **SHAPE)

    series = interleave(
        {
            WRITTEN: {"redis": redis, "cloakroom-postgres": lambda: cloakroom(write)},
            READ: {"cloakroom-postgres": lambda: cloakroom(read)},
        },
        rounds=1,
    )
    bound, bound_series = full_cache(place, database, fresh)
    for one in series + bound_series:
        print(f"  {one['case']:<42} {one['peer']:<20} {one['runs'][0]['bytes']:,.0f} bytes")
    own, base = (WRITTEN, "cloakroom-postgres"), (WRITTEN, "redis")
    text = (
        f"{SESSIONS:,} sessions with keys of 40 bytes and values of 512 that expire in a day, in a cache with room for all."
        " Resident memory is that of the filled process less that of the empty one. A fresh process each time."
    )
    bounded = (
        f"A full cache: bound {BOUND >> 20} MiB, all {SESSIONS:,} sessions are read, then {CHURN:,} random ones are overwritten"
        " with values of 64 to 2048 bytes. Counted is the most that was ever resident, less what the empty process had."
    )
    return {
        "series": series + bound_series,
        "goals": {"memory": ratio(series, "bytes", own, base), "memory-bound": bound},
        "text": [text, bounded],
    }


def per_session(server, empty):
    """Then makes room for the next one."""
    run = {"bytes": (server.memory() - empty) / SESSIONS}
    server.stop()
    return run


def full_cache(place, database, fresh):
    """Resident memory as a share of the bound, with more sessions than it admits and values of changing size."""
    server, empty = fresh(lambda name: place.on_postgres(name, database, CACHE_MAX_BYTES=BOUND))
    tools.load(server, "GET {key}", keys=SESSIONS, requests=SESSIONS, in_order=True, pipeline=16, **SHAPE)
    read = server.memory() - empty
    shape = {**SHAPE, "value_bytes": 64, "value_bytes_most": 2048}
    tools.load(server, f"SET {{key}} {{new}} EX {tools.DAY_S}", keys=SESSIONS, requests=CHURN, pipeline=16, **shape)
    most = server.memory("VmHWM") - empty
    accounted = server.metric("cloakroom_cache_bytes")
    evictions = server.metric("cloakroom_cache_evictions_total")
    if evictions == 0:
        raise SystemExit("nothing was evicted: the cache was not full")
    server.stop()
    series = [
        {"case": case, "peer": "cloakroom-postgres", "runs": [{"bytes": value, "share": value / BOUND}]}
        for case, value in [
            ("full cache: the bound", BOUND),
            ("full cache: accounted for at the end", accounted),
            ("full cache: resident after the reads", read),
            ("full cache: resident at most", most),
        ]
    ]
    return most / BOUND, series
