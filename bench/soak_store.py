#!/usr/bin/env python3
"""Rewrites sessions on Postgres for minutes, with autovacuum at its defaults, and watches whether anything grows.

Environment: MINUTES (10), RATE (rewrites a second; 0 is as many as possible), SMOKE=1 (some seconds, nothing kept).
Writes docs/bench/soak-postgres.md and .svg. Ends with 1 if too few updates were HOT, or if the table, its TOAST part or its
indexes were larger at the end than after the first quarter.
"""

import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import plots
import report
import servers
import tools
from rounds import SMOKE
from servers import Cloakroom, Postgres, started

MINUTES = float(os.environ.get("MINUTES") or ("0.15" if SMOKE else "10"))
RATE = int(os.environ.get("RATE") or "0")
SAMPLES = 4 if SMOKE else 40
LEAST_HOT = 0.99
# Pages come in bunches, and a round of autovacuum comes sooner or later.
MOST_GROWTH = 1.1
SETTLED = 0.25
WATCH = """
SELECT pg_relation_size(c.oid), pg_relation_size(c.reltoastrelid), pg_indexes_size(c.oid),
       s.n_tup_upd, s.n_tup_hot_upd, s.n_tup_ins, s.n_tup_del, s.n_dead_tup, s.autovacuum_count, t.autovacuum_count
FROM pg_class c JOIN pg_stat_all_tables s ON s.relid = c.oid JOIN pg_stat_all_tables t ON t.relid = c.reltoastrelid
WHERE c.oid = 'cloakroom.entry'::regclass
"""
NAMES = ["table", "toast", "indexes", "updates", "hot", "inserts", "deletes", "dead", "vacuums", "toast_vacuums"]


def loads(seconds):
    """The load: rewrites, rewrites that go out of line, touches, and sessions that come and go."""
    day = tools.DAY_S
    rewrite = {"rate": RATE} if RATE else {}
    return {
        "rewrites": (
            [f"SET {{key}} {{new}} EX {day}"],
            {"keys": 50_000, "value_bytes": 256, "value_bytes_most": 1792, "connections": 50, **rewrite},
        ),
        "large rewrites": (
            [f"SET {{key}} {{new}} EX {day}"],
            {"keys": 5_000, "key_prefix": "large:", "value_bytes": 4096, "rate": 300, "connections": 20},
        ),
        "touches": ([f"EXPIRE {{key}} {day}"], {"keys": 50_000, "rate": 1000, "connections": 20}),
        "logins and logouts": (
            ["SET {key} {new} EX 3600", "DEL {key}"],
            {"keys": 1_000_000, "key_prefix": "login:", "rate": 300, "connections": 20, "in_order": True},
        ),
    }


def run(postgres, directory):
    settings = {"TOUCH_SLACK": "0s"} if Cloakroom.knows(TOUCH_SLACK="0s") else {}
    server = Cloakroom("cloakroom", directory, postgres.url, **settings)
    seconds = MINUTES * 60
    try:
        for name, (_, words) in loads(seconds).items():
            if name in ("rewrites", "large rewrites"):
                shape = {key: words[key] for key in words if key.startswith(("key", "value"))}
                tools.fill(server, **shape)
        running, samples = {}, []
        for name, (steps, words) in loads(seconds).items():
            command = tools.load_command(server.port, steps, seconds=seconds, **words)
            running[name] = (tools.begin(command), command)
        begin = time.monotonic()
        for number in range(SAMPLES + 1):
            time.sleep(max(0.0, begin + number * seconds / SAMPLES - time.monotonic()))
            samples.append(sample(postgres, time.monotonic() - begin))
            for process, command in running.values():
                if process.poll() not in (None, 0):
                    tools.finished(process, command)
        results = {name: tools.finished(process, command) for name, (process, command) in running.items()}
        commands = [tools.shown(command) for _, command in running.values()]
    finally:
        server.stop()
    # Its sessions have ended: all that they counted is published.
    samples.append(sample(postgres, seconds))
    return results, samples, commands


def sample(postgres, at):
    values = dict(zip(NAMES, map(int, postgres.sql(WATCH)[0]), strict=True))
    print(
        f"  {at:6.0f} s  table {values['table'] / 2**20:8.1f} MiB  toast {values['toast'] / 2**20:8.1f} MiB"
        f"  indexes {values['indexes'] / 2**20:6.1f} MiB  dead {values['dead']:>8}  vacuums {values['vacuums']}",
        flush=True,
    )
    return {"at": at, **values}


def judged(samples):
    """(words, measured, limit, reached) of each promise."""
    first, last = samples[0], samples[-1]
    updates = last["updates"] - first["updates"]
    hot = (last["hot"] - first["hot"]) / updates
    yield f"HOT updates of {updates:,}", f"{hot:.2%}", f"at least {LEAST_HOT:.0%}", hot >= LEAST_HOT
    settled = samples[max(1, round(SAMPLES * SETTLED)) :]
    half = len(settled) // 2
    for part in ["table", "toast", "indexes"]:
        before = max(each[part] for each in settled[:half])
        after = max(each[part] for each in settled[half:])
        growth = after / before if before else 1.0
        yield (
            f"size of the {part}, most in the last part of the run / most in the part before",
            f"{growth:.3f}",
            f"at most {MOST_GROWTH}",
            growth <= MOST_GROWTH,
        )


def page(facts, results, samples, verdicts, commands):
    mib = 2**20
    shown = samples[:: max(1, len(samples) // 12)]
    if shown[-1] is not samples[-1]:
        shown.append(samples[-1])
    table = report.table(
        ["second", "table MiB", "TOAST MiB", "indexes MiB", "dead rows", "updates", "HOT", "vacuums", "of TOAST"],
        [
            [
                f"{each['at']:.0f}",
                f"{each['table'] / mib:.1f}",
                f"{each['toast'] / mib:.1f}",
                f"{each['indexes'] / mib:.1f}",
                each["dead"],
                each["updates"],
                f"{each['hot'] / max(1, each['updates']):.2%}",
                each["vacuums"],
                each["toast_vacuums"],
            ]
            for each in shown
        ],
    )
    load = report.table(
        ["load", "requests", "a second", "p50 µs", "p99 µs"],
        [
            [name, result["requests"], f"{result['rps']:.0f}", f"{result['p50_us']:.0f}", f"{result['p99_us']:.0f}"]
            for name, result in results.items()
        ],
    )
    marks = [
        f"- {'reached' if good else '**not reached**'}: {words}: {value} ({limit})"
        for words, value, limit, good in verdicts
    ]
    return (
        "\n".join(
            [
                "# Rewriting sessions on Postgres for minutes",
                "",
                "Written by `make soak-store`; do not edit.",
                "",
                *[f"- {name}: {value}" for name, value in facts.items()],
                "",
                f"{MINUTES:g} minutes, autovacuum on and at its defaults, 55,000 sessions of 256 to 1792 and of 4096 bytes. No touch is answered"
                " from memory here, so each is a row's update. The sizes of the first quarter of the run do not count: the table takes the"
                " room then that its updates need.",
                "",
                load,
                "",
                *marks,
                "",
                table,
                "",
                "![sizes](soak-postgres.svg)",
                "",
                "Commands:",
                "",
                *[f"    {each}" for each in commands],
            ]
        )
        + "\n"
    )


def main():
    with servers.workplace() as (directory, stack):
        postgres = started(stack, Postgres(directory))
        facts = report.facts(directory, postgres)
        del facts["rounds"]
        results, samples, commands = run(postgres, directory)
    verdicts = list(judged(samples))
    for words, value, limit, good in verdicts:
        print(f"{'reached' if good else 'NOT reached'}: {words}: {value} ({limit})")
    out = servers.ROOT / ("target/bench" if SMOKE else "docs/bench")
    out.mkdir(parents=True, exist_ok=True)
    lines = {part: [(each["at"], each[part] / 2**20) for each in samples] for part in ["table", "toast", "indexes"]}
    (out / "soak-postgres.svg").write_text(plots.lines("Size in MiB over seconds", lines), encoding="utf-8")
    (out / "soak-postgres.md").write_text(page(facts, results, samples, verdicts, commands), encoding="utf-8")
    print(f"written: {out / 'soak-postgres.md'}")
    return 0 if SMOKE or all(good for *_, good in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
