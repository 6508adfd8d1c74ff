#!/usr/bin/env python3
"""Compares Cloakroom with Redis in one go on one machine: cached GET, and durable SET beside pgbench.

Rounds are interleaved (every server in every round, in changing order), ratios are taken within a round, medians are
shown. Environment: SMOKE=1 (one short round, nothing kept), ROUNDS, BENCH_DIR, CLOAKROOM_BINARY.
Writes docs/bench/cached.md and docs/bench/cached.svg.
"""

import csv
import io
import os
import pathlib
import socket
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import report
import servers
from servers import Cloakroom, Postgres, Redis, started

SMOKE = os.environ.get("SMOKE") == "1"
ROUNDS = int(os.environ.get("ROUNDS", "1" if SMOKE else "5"))
KEYS = 10_000
VALUE_BYTES = 1024
CLIENTS = 50
# What a cached GET is meant to reach, as a ratio to Redis.
LEAST_THROUGHPUT, MOST_CPU = 0.95, 1.1
# Requests per run by pipeline depth: some seconds each, since CPU time is counted in hundredths.
GET_REQUESTS = {1: 20_000, 16: 100_000} if SMOKE else {1: 300_000, 16: 1_500_000}
SET_REQUESTS = {1: 2_000, 16: 5_000} if SMOKE else {1: 40_000, 16: 100_000}
PGBENCH_SECONDS = 1 if SMOKE else 8


def benchmark_command(server, what, pipeline, requests):
    words = ["redis-benchmark", "-h", "127.0.0.1", "-p", server.port, "-t", what, "-c", CLIENTS, "-n", requests]
    return [str(word) for word in [*words, "-r", KEYS, "-d", VALUE_BYTES, "-P", pipeline, "--csv"]]


def measure(server, what, pipeline, requests):
    """One run: requests per second, microseconds of server CPU per request, p50 and p99 in milliseconds."""
    hits, cpu = server.hits(), server.cpu_seconds()
    command = benchmark_command(server, what, pipeline, requests)
    done = subprocess.run(command, capture_output=True, text=True)
    cpu = server.cpu_seconds() - cpu
    hits = server.hits() - hits
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    if done.returncode != 0 or len(rows) != 1:
        raise SystemExit(f"{server.name}: {' '.join(command)}:\n{done.stdout}{done.stderr}")
    # Redis-benchmark finishes the pipelines that are on their way: it may send a few more.
    if what == "get" and hits < requests:
        raise SystemExit(f"{server.name}: only {hits} of {requests} reads were hits: this measures something else")
    row = rows[0]
    return {
        "rps": float(row["rps"]),
        "cpu": cpu / requests * 1e6,
        "p50": float(row["p50_latency_ms"]),
        "p99": float(row["p99_latency_ms"]),
    }


def load(server):
    """Writes every key that redis-benchmark may ask for."""
    value = b"v" * VALUE_BYTES
    with socket.create_connection(("127.0.0.1", server.port), timeout=servers.PATIENCE_S) as link:
        replies = link.makefile("rb")
        for first in range(0, KEYS, 500):
            batch = range(first, min(first + 500, KEYS))
            link.sendall(b"".join(servers.encode([b"SET", b"key:%012d" % number, value]) for number in batch))
            for _ in batch:
                reply = replies.readline()
                if reply != b"+OK\r\n":
                    raise SystemExit(f"{server.name}: loading: {reply!r}")


def interleave(peers, what, requests_by_pipeline):
    """Every peer at every depth in every round: {(depth, peer): [run, …]}."""
    runs = {}
    for number in range(ROUNDS):
        order = peers[number % len(peers):] + peers[: number % len(peers)]
        for pipeline, requests in requests_by_pipeline.items():
            for server in order:
                run = measure(server, what, pipeline, requests)
                runs.setdefault((pipeline, server.name), []).append(run)
                print(
                    f"  round {number + 1}/{ROUNDS} {what.upper()} -P {pipeline:<2} {server.name:<22}"
                    f" {run['rps']:>9.0f}/s  {run['cpu']:6.2f} µs CPU",
                    flush=True,
                )
    return runs


def median(runs, key):
    return statistics.median(run[key] for run in runs)


def ratio(runs, base, key):
    """The median of the ratios within each round."""
    return statistics.median(run[key] / reference[key] if reference[key] else 0.0 for run, reference in zip(runs, base))


def rows_of(runs, peers, depths, reference):
    rows, summary = [], []
    for pipeline in depths:
        base = runs[pipeline, reference]
        for server in peers:
            own = runs[pipeline, server.name]
            throughput, cpu = ratio(own, base, "rps"), ratio(own, base, "cpu")
            rows.append([
                f"{server.name}, -P {pipeline}", f"{median(own, 'rps'):.0f}", f"{throughput:.2f}",
                f"{median(own, 'cpu'):.2f}", f"{cpu:.2f}", f"{median(own, 'p50'):.2f}", f"{median(own, 'p99'):.2f}",
            ])
            summary.append((pipeline, server.name, throughput, cpu))
    return rows, summary


HEADINGS = ["server", "requests/s", "ratio", "CPU µs/request", "ratio", "p50 ms", "p99 ms"]


def cached_get(directory, stack, postgres):
    peers = [
        started(stack, Redis("redis", directory, "--appendonly", "no")),
        started(stack, Cloakroom("cloakroom-postgres", directory, postgres.url)),
        started(stack, Cloakroom("cloakroom-sqlite", directory, f"sqlite:{directory / 'get.db'}")),
    ]
    for server in peers:
        load(server)
        measure(server, "get", 16, GET_REQUESTS[16] // 4)
    runs = interleave(peers, "get", GET_REQUESTS)
    command = benchmark_command(peers[0], "get", 1, GET_REQUESTS[1])
    for server in peers:
        server.stop()
    return *rows_of(runs, peers, GET_REQUESTS, "redis"), command


def durable_set(directory, stack, postgres):
    aof = ["--appendonly", "yes", "--appendfsync", "always"]
    peers = [
        started(stack, Redis("redis-fsync-always", directory, *aof)),
        started(stack, Cloakroom("cloakroom-postgres", directory, postgres.url)),
        started(stack, Cloakroom("cloakroom-sqlite", directory, f"sqlite:{directory / 'set.db'}")),
    ]
    for server in peers:
        load(server)
    runs = interleave(peers, "set", SET_REQUESTS)
    rows, _ = rows_of(runs, peers, SET_REQUESTS, "redis-fsync-always")
    rows.append(pgbench(directory, postgres, median(runs[1, "redis-fsync-always"], "rps")))
    command = benchmark_command(peers[0], "set", 1, SET_REQUESTS[1])
    return rows, command


def pgbench(directory, postgres, reference):
    """What the same Postgres does with one upsert per transaction on as many connections."""
    script = directory / "upsert.sql"
    script.write_text(
        f"\\set k random(0, {KEYS - 1})\n"
        f"INSERT INTO bench_upsert VALUES (convert_to('key:' || :k, 'UTF8'), convert_to(repeat('v', {VALUE_BYTES}), 'UTF8'))"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value;\n",
        encoding="ascii",
    )
    create = "CREATE TABLE bench_upsert (key bytea PRIMARY KEY, value bytea NOT NULL) WITH (fillfactor = 70)"
    subprocess.run(["psql", "-Xqc", create, "-d", postgres.url], check=True)
    command = ["pgbench", "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "2", "-T", str(PGBENCH_SECONDS)]
    rates, latencies = [], []
    for _ in range(1 if SMOKE else 3):
        done = subprocess.run([*command, "-f", str(script), postgres.url], capture_output=True, text=True, check=True)
        for line in done.stdout.splitlines():
            if line.startswith("tps = "):
                rates.append(float(line.split()[2]))
            if line.startswith("latency average = "):
                latencies.append(float(line.split()[3]))
    rate = statistics.median(rates)
    return [
        f"pgbench upsert, {CLIENTS} connections", f"{rate:.0f}", f"{rate / reference:.2f}", "", "",
        f"{statistics.median(latencies):.2f} (mean)", "",
    ]


def verdicts(summary):
    lines = []
    for pipeline, name, throughput, cpu in summary:
        if name == "redis":
            continue
        fine = throughput >= LEAST_THROUGHPUT and cpu <= MOST_CPU
        lines.append(
            f"{'reached' if fine else 'NOT reached'}: {name} -P {pipeline}: throughput {throughput:.3f}"
            f" (at least {LEAST_THROUGHPUT}), CPU {cpu:.3f} (at most {MOST_CPU})"
        )
    return lines


def write(out, facts, get, durable, summary):
    (get_rows, get_command), (set_rows, set_command) = get, durable
    out.mkdir(parents=True, exist_ok=True)
    page = [
        "# Cached reads and durable writes beside Redis",
        "",
        "Written by `make bench` (bench/run.py); do not edit. Ratios are to Redis within the same round, then medians of",
        f"{ROUNDS} interleaved rounds. CPU is user and system time of the server process per request.",
        "",
        *[f"- {fact}" for fact in facts],
        "",
        f"## Cached GET: {CLIENTS} connections, {VALUE_BYTES} bytes, {KEYS} keys, every read a hit",
        "",
        report.table(HEADINGS, get_rows),
        "",
        *[f"- {line}" for line in verdicts(summary)],
        "",
        "![ratios to Redis](cached.svg)",
        "",
        f"    {' '.join(get_command)}",
        "",
        "## Durable SET: acknowledged means synced to disk",
        "",
        "Postgres with its defaults (fsync and synchronous_commit on), SQLite, and Redis with `appendfsync always`.",
        "",
        report.table(HEADINGS, set_rows),
        "",
        f"    {' '.join(set_command)}",
        "",
    ]
    (out / "cached.md").write_text("\n".join(page), encoding="utf-8")
    groups = [
        (f"{name}, -P {pipeline}", [("throughput", throughput), ("CPU per request", cpu)])
        for pipeline, name, throughput, cpu in summary
        if name != "redis"
    ]
    limits = {"throughput": LEAST_THROUGHPUT, "CPU per request": MOST_CPU}
    (out / "cached.svg").write_text(report.bars("Cached GET: ratios to Redis", groups, limits), encoding="utf-8")


def main():
    for name in ["redis-benchmark", "redis-server", "pgbench", "psql"]:
        servers.tool(name)
    with servers.workplace() as (directory, stack):
        postgres = started(stack, Postgres(directory))
        facts = [
            *report.machine(directory),
            f"versions: {report.said(str(servers.binary()), '--version')}; {report.said('redis-server', '--version')[:22]};"
            f" {postgres.version()}",
        ]
        print("\n".join(facts))
        get_rows, summary, get_command = cached_get(directory, stack, postgres)
        set_rows, set_command = durable_set(directory, stack, postgres)
        print("\ncached GET\n" + report.table(HEADINGS, get_rows))
        print("\ndurable SET\n" + report.table(HEADINGS, set_rows) + "\n")
        print("\n".join(verdicts(summary)))
        facts.append(f"load average of the last minute at the end: {os.getloadavg()[0]:.1f} (the benchmark alone: about 2)")
        out = servers.ROOT / ("target/bench" if SMOKE else "docs/bench")
        write(out, facts, (get_rows, get_command), (set_rows, set_command), summary)
        print(f"written: {out / 'cached.md'}, {out / 'cached.svg'}")


if __name__ == "__main__":
    main()
