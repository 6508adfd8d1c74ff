"""The latency of cached reads at half of the load that a server can take, alone and beside durable writes."""

import time

import tools
from rounds import SMOKE, interleave, ratio

SECONDS, WARM_UP_S = (0.5, 0.1) if SMOKE else (1.5, 0.3)
ALONE, SOME, BESIDE = "reads alone", "beside 5,000 durable SETs a second", "beside all the durable SETs that fit"
SOME_RATE = 5_000


def latency(place):
    """p99 of `GET` at half of the maximum rate, with and without another 50 connections that write."""
    peers = [place.on_postgres(), place.redis_always()]
    rates = {}
    for server in peers:
        tools.fill(server)

    def most(server):
        run = tools.load(server, "GET {key}", seconds=SECONDS / 2, warm_up=WARM_UP_S)
        rates[server.name] = round(run["rps"] / 2)
        return run

    def alone(server):
        waited, start = server.waited_seconds(), time.monotonic()
        run = tools.load(server, "GET {key}", rate=rates[server.name], seconds=SECONDS, warm_up=WARM_UP_S)
        run["server_waits"] = (server.waited_seconds() - waited) / (time.monotonic() - start)
        return run

    def beside(server, **pace):
        step = f"SET {{key}} {{new}} EX {tools.DAY_S}"
        command = tools.load_command(
            server.port,
            [step],
            connections=tools.CLIENTS,
            keys=tools.KEYS,
            value_bytes=tools.VALUE_BYTES,
            seed=2,
            seconds=SECONDS + 2 * WARM_UP_S,
            **pace,
        )
        writer = tools.begin(command)
        try:
            run = alone(server)
        finally:
            written = tools.finished(writer, command)
        return {**run, "writes_rps": written["rps"], "writes_p99_us": written["p99_us"]}

    series = interleave(
        {
            case: {server.name: lambda server=server, measure=measure: measure(server) for server in peers}
            for case, measure in [
                ("the most", most),
                (ALONE, alone),
                (SOME, lambda server: beside(server, rate=SOME_RATE)),
                (BESIDE, beside),
            ]
        }
    )
    goals = {
        "p99-beside-writes": ratio(series, "p99_us", (BESIDE, "cloakroom-postgres"), (ALONE, "cloakroom-postgres"))
    }
    text = (
        "Each round first finds the most reads a second that 50 connections get, then sends half as many at even distances,"
        " whether or not replies come: latency counts from when a request was due. Then the same again while another 50"
        " connections write new values to the same keys: at a modest rate, and as fast as they can, which leaves no core idle."
        " Generators and servers share the cores. What the writes add is, beside their own work, waiting for a processor: the share of"
        " the time in which the server and the generator of the reads were ready to run and others ran, Postgres and the writers"
        " among them, is in the table. Shorter time slices for the server (`sched_setattr`), and a higher priority for it, for the"
        " generator, or for both, made nothing better (two rounds of each): where machines are apart, a modest rate of writes is the better likeness. The"
        " CPU of reads beside writes includes that of the writes."
    )
    return {"series": series, "goals": goals, "text": [text]}
