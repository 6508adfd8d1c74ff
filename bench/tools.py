"""Runs what makes the load (our generator, redis-benchmark, pgbench) and reads its result. Starts no server.

A result is a dictionary: rps, p50_us, p99_us and, where known, more quantiles; cpu_us is the server's CPU per request.
"""

import csv
import io
import json
import os
import pathlib
import subprocess

import servers

KEYS = 10_000
VALUE_BYTES = 1024
CLIENTS = 50
DAY_S = 86_400


def generator():
    """Our load generator: a release build, or what LOAD_BINARY names."""
    path = pathlib.Path(os.environ.get("LOAD_BINARY", servers.ROOT / "target" / "release" / "examples" / "load"))
    if not path.is_file():
        raise SystemExit(f"{path} is missing: run `cargo build --release --example load` (or `make bench`)")
    return path


def options(words):
    """{"value_bytes": 512, "in_order": True} as ["--value-bytes", "512", "--in-order"]."""
    flags = []
    for name, value in words.items():
        if value is False:
            continue
        flags.append("--" + name.replace("_", "-"))
        if value is not True:
            flags.append(str(value))
    return flags


def shown(command):
    """A command for a report: without the directories and ports of one machine."""
    words = list(map(str, command))
    words = [
        "load" if word == str(generator()) else pathlib.Path(word).name if word[0] == "/" else word for word in words
    ]
    for at, word in enumerate(words[:-1]):
        if word in ("--port", "--other", "-p"):
            words[at + 1] = "PORT"
    words = ["URL" if word.startswith("postgres://") else word for word in words]
    return " ".join(f"'{word}'" if " " in word or "{" in word else word for word in words)


def load_command(port, steps, **words):
    return [str(generator()), "run", "--port", str(port), *options(words), *steps]


def finished(process, command):
    """The JSON that a generator printed."""
    out, err = process.communicate()
    try:
        result = json.loads(out)
    except json.JSONDecodeError:
        result = {"error": out + err}
    if process.returncode != 0 or "error" in result:
        raise SystemExit(f"{shown(command)}: {result.get('error')}")
    return result


def begin(command):
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def load(server, *steps, **words):
    """One run of our generator against a server. `steps` are a request's commands, one after the other."""
    command = load_command(
        server.port, steps, **{"connections": CLIENTS, "keys": KEYS, "value_bytes": VALUE_BYTES, **words}
    )
    cpu, times = server.cpu_seconds(), machine_times()
    result = finished(begin(command), command)
    result["cpu_us"] = (server.cpu_seconds() - cpu) / result["answered"] * 1e6
    result["machine_busy"] = busy_since(times)
    result["command"] = shown(command)
    return result


def machine_times():
    """What all processors did so far: the time of which they were idle, and all of it."""
    with open("/proc/stat", encoding="ascii") as file:
        times = [int(word) for word in file.readline().split()[1:9]]
    return times[3] + times[4], sum(times)


def busy_since(before):
    """The share of the machine's processors that was in use, by whomever."""
    idle, whole = (now - then for now, then in zip(machine_times(), before, strict=True))
    return 1 - idle / whole if whole > 0 else None


def fill(server, **words):
    """Gives every key the value that belongs to it."""
    words = {"keys": KEYS, "expire": DAY_S, **words}
    expire = words.pop("expire")
    step = "SET {key} {same}" + (f" EX {expire}" if expire else "")
    return load(server, step, pipeline=16, in_order=True, requests=words["keys"], **words)


def redis_benchmark(server, what, pipeline, requests):
    """One run of redis-benchmark."""
    words = ["redis-benchmark", "-h", "127.0.0.1", "-p", server.port, "-t", what, "-c", CLIENTS, "-n", requests]
    command = [str(word) for word in [*words, "-r", KEYS, "-d", VALUE_BYTES, "-P", pipeline, "--csv"]]
    cpu = server.cpu_seconds()
    done = subprocess.run(command, capture_output=True, text=True)
    cpu = server.cpu_seconds() - cpu
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    if done.returncode != 0 or len(rows) != 1:
        raise SystemExit(f"{server.name}: {' '.join(command)}:\n{done.stdout}{done.stderr}")
    row = rows[0]
    return {
        "rps": float(row["rps"]),
        "p50_us": float(row["p50_latency_ms"]) * 1e3,
        "p99_us": float(row["p99_latency_ms"]) * 1e3,
        "cpu_us": cpu / requests * 1e6,
        "requests": requests,
        "command": shown(command),
    }


def pgbench(postgres, script, seconds, clients=CLIENTS, database="postgres"):
    """One run of pgbench with prepared statements; rps are transactions a second."""
    command = ["pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", "2", "-T", str(seconds), "-f", str(script)]
    done = subprocess.run([*command, postgres.url_of(database)], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{shown(command)}:\n{done.stdout}{done.stderr}")
    said = dict(line.split(" = ", 1) for line in done.stdout.splitlines() if " = " in line)
    result = {"rps": float(said["tps"].split()[0]), "mean_us": float(said["latency average"].split()[0]) * 1e3}
    return {**result, "command": shown(command)}


def upsert_script(directory, postgres, database="postgres"):
    """A script for pgbench: one upsert a transaction, over as many rows of the same size as Cloakroom's, with new values."""
    table = (
        "CREATE TABLE IF NOT EXISTS bench_upsert (key bytea PRIMARY KEY, value bytea NOT NULL) WITH (fillfactor = 70)"
    )
    postgres.sql(table, database)
    script = directory / "upsert.sql"
    script.write_text(
        f"\\set k random(0, {KEYS - 1})\n"
        f"INSERT INTO bench_upsert VALUES (convert_to('key:' || :k, 'UTF8'), convert_to(repeat(md5(random()::text), {VALUE_BYTES // 32}), 'UTF8'))"
        " ON CONFLICT (key) DO UPDATE SET value = excluded.value;\n",
        encoding="ascii",
    )
    return script


def select_script(directory):
    """A script for pgbench: one value by its primary key, from Cloakroom's own table."""
    script = directory / "select.sql"
    script.write_text(
        f"\\set k random(0, {KEYS - 1})\n"
        "SELECT value FROM cloakroom.entry WHERE db = 0 AND key = convert_to('key:' || lpad(:k::text, 12, '0'), 'UTF8');\n",
        encoding="ascii",
    )
    return script
