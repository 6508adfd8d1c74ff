#!/usr/bin/env python3
"""Measures what the table's storage settings are worth: fillfactor, and how values that are too long for a row are kept.

Cloakroom runs on one table after the other whose settings were changed while it was empty; our generator rewrites values,
extends expiries and reads with a cold cache. Writes docs/bench/storage.md. SMOKE=1: briefly, nothing kept.
ONLY=text: the cases whose name has that, nothing kept.
"""

import contextlib
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import report
import servers
import tools
from rounds import ROUNDS, SMOKE, interleave, median
from servers import Cloakroom, Postgres, started

KEYS = 500 if SMOKE else 10_000
# Several for each key, and as many again before, so that the table has settled.
WRITES = 500 if SMOKE else 60_000
READS = 500 if SMOKE else 40_000
ONLY = os.environ.get("ONLY", "")
FILL = ["fillfactor 100", "fillfactor 85", "fillfactor 70", "fillfactor 50"]
KEEP = ["extended, pglz", "extended, lz4", "external"]
if SMOKE:
    FILL, KEEP = FILL[:1], KEEP[1:]
SETTINGS = {
    "fillfactor 100": "ALTER TABLE cloakroom.entry SET (fillfactor = 100)",
    "fillfactor 85": "ALTER TABLE cloakroom.entry SET (fillfactor = 85)",
    "fillfactor 70": "ALTER TABLE cloakroom.entry SET (fillfactor = 70)",
    "fillfactor 50": "ALTER TABLE cloakroom.entry SET (fillfactor = 50)",
    "extended, pglz": "ALTER TABLE cloakroom.entry ALTER value SET STORAGE EXTENDED, ALTER value SET COMPRESSION pglz",
    "extended, lz4": "ALTER TABLE cloakroom.entry ALTER value SET STORAGE EXTENDED, ALTER value SET COMPRESSION lz4",
    "external": "ALTER TABLE cloakroom.entry ALTER value SET STORAGE EXTERNAL",
}
SHAPES = {
    "1 KiB": {"value_bytes": 1024},
    "256 to 1792 bytes": {"value_bytes": 256, "value_bytes_most": 1792},
    "4 KiB text": {"value_bytes": 4096, "text": True},
    "4 KiB random": {"value_bytes": 4096},
}
SIZES = (
    "SELECT pg_relation_size('cloakroom.entry'), pg_relation_size(reltoastrelid)"
    " FROM pg_class WHERE oid = 'cloakroom.entry'::regclass"
)
UPDATES = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = 'cloakroom.entry'::regclass"


def one(postgres, directory, setting, shape, steps, requests):
    """A fresh database with this setting, filled, loaded with these steps once to settle and once to measure."""
    name = f"storage_{time.monotonic_ns()}"
    url = postgres.database(name)
    words = {"keys": KEYS, "requests": requests, "in_order": steps[0].startswith("GET"), **SHAPES[shape]}
    with running(name, directory, url) as server:
        postgres.sql(SETTINGS[setting], name)
        tools.fill(server, keys=KEYS, **SHAPES[shape])
        fresh = size(postgres, name)
        postgres.sql("ANALYZE cloakroom.entry", name)
        tools.load(server, *steps, **words)
    # The end of its sessions makes Postgres publish what they counted.
    before = [int(count) for count in postgres.sql(UPDATES, name)[0]]
    with running(name, directory, url) as server:
        postgres.sql("CHECKPOINT", name)
        log = wal(postgres)
        run = tools.load(server, *steps, **words)
        run["wal_bytes"] = (wal(postgres) - log) / requests
    updates, hot = (int(count) - then for count, then in zip(postgres.sql(UPDATES, name)[0], before, strict=True))
    run["hot"] = hot / updates if updates else None
    run["fresh_bytes"], run["row_bytes"] = fresh / KEYS, size(postgres, name) / KEYS
    postgres.sql(f"DROP DATABASE {name}")
    return run


@contextlib.contextmanager
def running(name, directory, url):
    """A Cloakroom that answers no touch from memory, so that each is a row's update, and that misses every read."""
    settings = {"TOUCH_SLACK": "0s"} if Cloakroom.knows(TOUCH_SLACK="0s") else {}
    server = Cloakroom(name, directory, url, CACHE_MAX_BYTES="1MiB", **settings)
    try:
        yield server
    finally:
        server.stop()


def size(postgres, database):
    """Bytes of the table and its TOAST part."""
    return sum(map(int, postgres.sql(SIZES, database)[0]))


def wal(postgres):
    return int(postgres.sql("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")[0][0])


def measured(postgres, directory):
    workloads = {
        "rewrite": ([f"SET {{key}} {{new}} EX {tools.DAY_S}"], WRITES),
        "touch": ([f"EXPIRE {{key}} {tools.DAY_S}"], WRITES),
        "read": (["GET {key}"], READS),
    }
    cases = {}
    for work, (steps, requests) in workloads.items():
        for shape in SHAPES:
            settings = KEEP if shape.startswith("4 KiB") else FILL
            if work == "read" and settings is FILL or ONLY not in f"{work}, {shape}":
                continue
            cases[f"{work}, {shape}"] = {
                setting: lambda *args, setting=setting, shape=shape, steps=steps, requests=requests: one(
                    postgres, directory, setting, shape, steps, requests
                )
                for setting in settings
            }
    return interleave(cases, rounds=1 if SMOKE else min(ROUNDS, 3))


def rows(series):
    for each in series:
        runs = each["runs"]
        hot = median(runs, "hot")
        yield [
            f"{each['case']}: {each['peer']}",
            f"{median(runs, 'rps'):.0f}",
            "" if hot is None else f"{hot:.1%}",
            f"{median(runs, 'wal_bytes'):.0f}",
            f"{median(runs, 'fresh_bytes'):.0f}",
            f"{median(runs, 'row_bytes'):.0f}",
        ]


def main():
    with servers.workplace() as (directory, stack):
        postgres = started(stack, Postgres(directory))
        facts = report.facts(directory, postgres)
        series = measured(postgres, directory)
    facts["load average at the end"] = f"{os.getloadavg()[0]:.1f} (this alone: about 3)"
    headings = ["", "a second", "HOT updates", "WAL bytes each", "bytes per row, fresh", "at the end"]
    table = report.table(headings, list(rows(series)))
    print(f"\n{table}")
    out = servers.ROOT / ("target/bench" if SMOKE or ONLY else "docs/bench")
    out.mkdir(parents=True, exist_ok=True)
    facts["rounds"] = len(series[0]["runs"])
    (out / "storage.md").write_text(
        PAGE.format(
            facts="\n".join(f"- {k}: {v}" for k, v in facts.items()),
            table=table,
            keys=f"{KEYS:,}",
            writes=f"{WRITES:,}",
        ),
        encoding="utf-8",
    )
    print(f"written: {out / 'storage.md'}")


PAGE = """# Storage parameters of the table

Written by `make bench-storage`; do not edit.

{facts}

Each line is a Cloakroom on a database of its own, whose table got the setting while it was empty: {keys} sessions, then {writes}
requests over 50 connections to settle and as many to measure (every touch reaches the database here; every read is a miss).
Bytes per row are those of the table and of its TOAST part, without indexes, mostly before any vacuum. The first change of a
page after a checkpoint puts the whole page into the write-ahead log (`full_page_writes`); WAL bytes include that.

{table}

What follows, and is set in `src/store/postgres/migrations/`:

- **fillfactor 70.** Where values change their size, 85 leaves too little room: more than 1 update in 30 is not HOT, rows move, and
  in the end the table is larger than with 70. At 50 hardly more is gained, and every page read carries less.
- **LZ4 for values over 2 kB**, where the server has it. Text becomes about as short as with pglz, so that it stays in its row, but
  rewrites are nearly twice as fast; what cannot be compressed (encrypted sessions) costs hardly anything to try, which with
  pglz takes a third of the rate.
- **Not `EXTERNAL`**: text would be kept out of line, where each rewrite leaves its old chunks behind until the next vacuum. A touch is as
  cheap either way: it does not rewrite a value that is out of line.
"""

if __name__ == "__main__":
    main()
