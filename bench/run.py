#!/usr/bin/env python3
"""Compares Cloakroom with Redis and with Postgres alone, in one go on one machine. `make bench` runs it.

Environment: SMOKE=1 (one short round of everything, nothing kept), ONLY=name,name (some sections; kept with KEEP=1),
ROUNDS, BENCH_DIR (where servers keep their data), CLOAKROOM_BINARY, LOAD_BINARY. `run.py pages` writes the documents
again from docs/bench/results.json, `run.py check` says whether they still follow from it, `run.py sections` lists the
sections.
"""

import contextlib
import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import commits
import fleet
import goals
import instructions
import latency
import memory
import pages
import reads
import report
import servers
import transactions
import writes
from place import Place
from rounds import SMOKE

# Title, base of the ratios, what is plotted beside the default, and what measures it.
SECTIONS = {
    "cached-get": ("Cached reads beside Redis", "redis", None, reads.cached_get),
    "instructions": ("Instructions per cached read", "redis", None, instructions.instructions),
    "durable-set": ("Durable writes beside Redis and pgbench", "redis-always", None, writes.durable_set),
    "touch": ("A request's read and touch beside Redis", "redis", None, writes.touch),
    "cold-get": ("Reads that miss, beside pgbench", "pgbench-select", None, reads.cold_get),
    "transactions": ("Transactions and scripts", "redis-always", None, transactions.transactions),
    "latency": ("Latency of cached reads beside writes", None, "p99_us", latency.latency),
    "memory": ("Memory of sessions beside Redis", "redis", None, memory.memory),
    "synchronous-commit": ("What the levels of synchronous_commit cost", "local", None, commits.commits),
    "fleet": ("Two daemons on one Postgres", "coherence off", None, fleet.fleet),
}
TOOLS = ["redis-benchmark", "redis-server", "pgbench", "psql"]
DOCUMENTS = servers.ROOT / "docs" / "bench"


def measured(name, directory, postgres):
    """One section; `None` if it cannot be measured with this daemon."""
    title, base, plot, measure = SECTIONS[name]
    begin = time.monotonic()
    print(f"\n{name}: {title}", flush=True)
    own = directory / name
    own.mkdir()
    facts = report.facts(directory, postgres)
    load_before = os.getloadavg()[0]
    with contextlib.ExitStack() as stack:
        result = measure(Place(own, postgres, stack))
    if result is None:
        return None
    facts["load average before"] = f"{load_before:.1f}"
    result = {"title": title, "base": base, "plot": plot, "facts": facts, **result}
    print(f"\n{report.series_table(result)}\n")
    for goal, ratio, reached in goals.verdicts(result["goals"]):
        print(f"{'reached' if reached else 'NOT reached'}: {goal.words}: {ratio:.3f} ({goal.bound()})")
    print(f"({name} took {time.monotonic() - begin:.0f} s)", flush=True)
    return result


def chosen():
    names = [name for name in os.environ.get("ONLY", "").split(",") if name]
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        raise SystemExit(f"no such section: {', '.join(unknown)}; there are: {', '.join(SECTIONS)}")
    return names or list(SECTIONS)


def run():
    for name in TOOLS:
        servers.tool(name)
    names = chosen()
    is_kept = not SMOKE and (len(names) == len(SECTIONS) or os.environ.get("KEEP") == "1")
    out = DOCUMENTS if is_kept else servers.ROOT / "target" / "bench"
    results = {}
    for name in names:
        # A Postgres for each section: none inherits another one's write-ahead log to check-point or tables to vacuum.
        with servers.workplace() as (directory, stack):
            result = measured(name, directory, servers.started(stack, servers.Postgres(directory)))
        if result is not None:
            results[name] = result
    old = pages.read(out) if is_kept else {}
    results = {name: results.get(name, old.get(name)) for name in SECTIONS if name in results or name in old}
    pages.write(out, results, readme=servers.ROOT / "README.md" if is_kept else None)
    print(f"\nwritten: {out}")


def main():
    match sys.argv[1:]:
        case []:
            run()
        case ["pages"]:
            pages.write(DOCUMENTS, pages.read(DOCUMENTS), readme=servers.ROOT / "README.md")
        case ["check"]:
            if wrong := pages.differing(DOCUMENTS, servers.ROOT / "README.md"):
                raise SystemExit(f"not what docs/bench/results.json says (`bench/run.py pages` writes them): {wrong}")
        case ["sections"]:
            print("\n".join(f"{name}: {title}" for name, (title, *_) in SECTIONS.items()))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
