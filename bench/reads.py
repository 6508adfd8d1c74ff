"""Reads: answered from the cache, and every one a miss."""

import tools
from place import figures, grown
from rounds import SMOKE, interleave, ratio

# Some seconds each, since a process's CPU time is counted in hundredths.
CACHED = {1: 20_000, 16: 100_000} if SMOKE else {1: 180_000, 16: 900_000}
COLD = 3_000 if SMOKE else 60_000
PGBENCH_S = 1 if SMOKE else 2


def cached_get(place):
    """`GET` of keys that the cache holds, beside Redis."""
    peers = [place.redis(), place.on_postgres(), place.on_sqlite()]
    for server in peers:
        tools.fill(server, expire=None)
        tools.redis_benchmark(server, "get", 16, CACHED[16] // 4)

    def measure(server, depth):
        hits = server.hits()
        run = tools.redis_benchmark(server, "get", depth, CACHED[depth])
        hits = server.hits() - hits
        # redis-benchmark finishes the pipelines that are on their way: it may send a few more.
        if hits < CACHED[depth]:
            raise SystemExit(
                f"{server.name}: only {hits} of {CACHED[depth]} reads were hits: this measures something else"
            )
        return run

    cases = {
        f"GET -P {depth}": {server.name: lambda server=server, depth=depth: measure(server, depth) for server in peers}
        for depth in CACHED
    }
    series = interleave(cases)
    goals = {}
    for name, figure, depth in [
        ("get", "rps", 1),
        ("get-16", "rps", 16),
        ("get-cpu", "cpu_us", 1),
        ("get-cpu-16", "cpu_us", 16),
    ]:
        case = f"GET -P {depth}"
        goals[name] = ratio(series, figure, (case, "cloakroom-postgres"), (case, "redis"))
    text = "Every read is a hit, which the servers' own counts of hits prove; Redis keeps nothing on disk."
    limit = (
        "Unpipelined, seven tenths of the CPU time of either server are the kernel's, for the same receive, send and wait for each"
        " request: what a server saves in its own code shows in the rest only. [The instructions of that](instructions.md) are counted apart."
    )
    return {"series": series, "goals": goals, "text": [text, limit]}


def cold_get(place):
    """`GET` where every read has to ask Postgres, beside pgbench's select on the same table."""
    # The least cache there is holds some hundred of the keys; read one after the other, none is met again before it
    # was dropped.
    server = place.on_postgres(CACHE_MAX_BYTES="1MiB")
    tools.fill(server)
    database = server.name.replace("-", "_")
    place.postgres.sql("VACUUM ANALYZE cloakroom.entry", database)
    script = tools.select_script(place.directory)
    names = ["cache_hits_total", "cache_misses_total"]

    def measure():
        before = figures(server, *names)
        run = tools.load(server, "GET {key}", requests=COLD, in_order=True)
        hits, misses = grown(server, before, *names)
        if hits > 0 or misses < COLD:
            raise SystemExit(f"{hits:.0f} hits and {misses:.0f} misses in {COLD} reads: this measures something else")
        return {**run, "misses": misses}

    # Both warm up: connections, prepared statements, Postgres's buffers.
    measure()
    series = interleave(
        {
            "GET, a miss": {
                server.name: measure,
                "pgbench-select": lambda: tools.pgbench(place.postgres, script, PGBENCH_S, database=database),
            }
        }
    )
    goals = {"cold-get": ratio(series, "rps", ("GET, a miss", server.name), ("GET, a miss", "pgbench-select"))}
    text = (
        "The cache has its least size, 1 MiB, and the keys are read in order: the metrics must say 0 hits, and as many misses"
        " as reads. pgbench selects the value by primary key from the same table."
    )
    return {"series": series, "goals": goals, "text": [text]}
