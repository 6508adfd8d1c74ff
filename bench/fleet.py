"""Two daemons on one Postgres: what keeping their caches current costs a write, and how soon a logout holds on the other."""

import subprocess

import tools
from rounds import SMOKE, interleave, ratio
from servers import Cloakroom

WRITES = {1: 1_500, 16: 5_000} if SMOKE else {1: 70_000, 16: 170_000}
LOGOUTS = 200 if SMOKE else 5_000
MODES = ["on", "off", "strict"]


def fleet(place):
    """Write throughput by coherence mode, and the time from `DEL` on one node to a nil from the other."""
    modes = [mode for mode in MODES if Cloakroom.knows(COHERENCE_MODE=mode)]
    if "on" not in modes:
        print("  skipped: this daemon has no coherence.mode")
        return None
    nodes = {mode: pair(place, mode) for mode in modes}
    for first, _ in nodes.values():
        tools.fill(first)

    def write(mode, depth):
        step = f"SET {{key}} {{new}} EX {tools.DAY_S}"
        return tools.load(nodes[mode][0], step, requests=WRITES[depth], pipeline=depth)

    cases = {
        f"SET -P {depth}": {f"coherence {mode}": lambda mode=mode, depth=depth: write(mode, depth) for mode in modes}
        for depth in WRITES
    }
    series = interleave(cases)
    told = [mode for mode in modes if mode != "off"]
    series += interleave(
        {
            "DEL to nil, idle": {f"coherence {mode}": lambda mode=mode: logout(*nodes[mode]) for mode in told},
            "DEL to nil, beside writes": {f"coherence {mode}": lambda mode=mode: beside(*nodes[mode]) for mode in told},
        },
        rounds=1,
    )
    goals = {
        name: ratio(series, "rps", (f"SET -P {depth}", "coherence on"), (f"SET -P {depth}", "coherence off"))
        for name, depth in [("coherence-cost", 1), ("coherence-cost-16", 16)]
    }
    if "strict" in modes:
        stale = [
            run["stale_reads"]
            for one in series
            if one["peer"] == "coherence strict"
            for run in one["runs"]
            if "stale_reads" in run
        ]
        goals["strict-stale"] = max(stale)
    text = [
        "Each mode has two daemons on a database of its own. Writes go to the first; the second hears of them.",
        "For the logout, both nodes have the session in their caches; it is deleted on one, and the other is asked from the"
        " moment the reply is there until it says nil. The time until the first nil has arrived counts, so no figure can be"
        f" below one round trip. {LOGOUTS:,} sessions; beside writes: while 50 connections write to the deleting node.",
        "What coherence costs a write is CPU, nearly all of it once for each commit, so larger batches pay less. On 2 × Xeon, by the"
        " time that each process had a processor, in µs for a `SET` of batches of 25: the session that commits 15.7 without and 17.7 with"
        " coherence (the notification, and the signals to the sessions that listen), those sessions 2.4, the writing daemon 12.7 and 14.3,"
        " the other daemon 1.0, which has to hear of it somehow. That is 28.4 and 35.4, and their ratio, 0.80, was that of the rates in the same"
        " run (8 rounds). Postgres signals every session that listens at every commit that"
        " notifies; what would save signals is to notify less often than to commit, and then a daemon that dies in between has"
        " changed what nobody forgets.",
    ]
    return {"series": series, "goals": goals, "text": text}


def pair(place, mode):
    database = place.postgres.database(f"fleet_{mode}")
    return [place.on_postgres(f"fleet-{mode}-{number}", database, COHERENCE_MODE=mode) for number in (1, 2)]


def logout(first, second):
    command = [
        str(tools.generator()),
        "logout",
        "--port",
        str(first.port),
        "--other",
        str(second.port),
        "--rounds",
        str(LOGOUTS),
        "--key-prefix",
        "logout:",
    ]
    return {**tools.finished(tools.begin(command), command), "command": tools.shown(command)}


def beside(first, second):
    """The same while others write."""
    step = f"SET {{key}} {{new}} EX {tools.DAY_S}"
    command = tools.load_command(first.port, [step], connections=tools.CLIENTS, keys=tools.KEYS, seconds=600)
    writer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return logout(first, second)
    finally:
        writer.terminate()
        writer.wait()
