"""Instructions that a server needs per cached `GET`, counted by callgrind, and where. The kernel's are not counted."""

import collections
import os
import re
import shutil
import subprocess

import servers
import tools
from rounds import SMOKE
from servers import Cloakroom, Redis

REQUESTS = {1: 1_000, 16: 3_200} if SMOKE else {1: 20_000, 16: 64_000}
FEW = 100
LINES = 30


def instructions(place):
    """Each server runs under callgrind, which is zeroed before the requests and read after them."""
    if shutil.which("valgrind") is None or os.environ.get("CALLGRIND") == "0":
        print("  skipped: valgrind is not installed")
        return None
    peers = {
        "redis": lambda under: Redis("redis", place.directory, "--appendonly", "no", under=under),
        "cloakroom-postgres": lambda under: Cloakroom(
            "cloakroom", place.directory, place.postgres.url, under=under, POSTGRES_CONNECT_TIMEOUT="60s"
        ),
    }
    series, listings = [], []
    for name, start in peers.items():
        out = place.directory / f"{name}.callgrind"
        server = started(place, start, out)
        for depth, requests in REQUESTS.items():
            run = counted(server, out, depth, requests)
            print(f"  -P {depth:<2} {name:<20} {run['instructions']:8.0f} instructions a GET", flush=True)
            series.append({"case": f"GET -P {depth}", "peer": name, "runs": [run]})
        server.stop()
    for depth, requests in ({} if SMOKE else REQUESTS).items():
        out = place.directory / f"listing-{depth}.callgrind"
        server = started(place, peers["cloakroom-postgres"], out)
        tools.load(server, "GET {key}", keys=FEW, pipeline=depth, requests=5 * requests)
        dump = dumped(server, out)
        server.stop()
        listings += [f"Where they are in cloakroom at `-P {depth}` (share, function):", "\n".join(listing(dump))]
    text = (
        "Counted by `valgrind --tool=callgrind` between two readings around the requests, so start and fill are not in it, but"
        " everything that the process does meanwhile. Only instructions outside of the kernel are counted: the time of a request"
        " is mostly the kernel's, in reading from and writing to the socket. The listings are of processes of their own, from"
        f" start to end, in which {FEW} keys were written first."
    )
    return {"series": series, "goals": {}, "text": [text], "more": listings}


def started(place, start, out):
    server = place.started(start(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]))
    tools.fill(server, keys=FEW)
    return server


def counted(server, out, depth, requests):
    """Instructions per request, in a process that is warm."""
    words = {"keys": FEW, "pipeline": depth, "requests": requests}
    tools.load(server, "GET {key}", **words)
    dumped(server, out)
    hits = server.hits()
    run = tools.load(server, "GET {key}", **words)
    hits = server.hits() - hits
    if hits < requests:
        raise SystemExit(f"{server.name}: only {hits} of {requests} reads were hits: this measures something else")
    total = re.search(r"^(?:summary|totals): (\d+)", dumped(server, out).read_text(), re.MULTILINE)
    return {"instructions": int(total.group(1)) / requests, "command": run["command"]}


def dumped(server, out):
    """Writes what was counted since the last time, and counts from 0 again."""
    before = set(out.parent.glob(f"{out.name}.*"))
    subprocess.run(["callgrind_control", "-d", str(server.process.pid)], capture_output=True, check=True)
    return servers.wait_for(
        "callgrind's dump", lambda: next(iter(set(out.parent.glob(f"{out.name}.*")) - before), None)
    )


def listing(dump):
    """The functions with the most instructions, indented for Markdown; what is inlined counts for the function it is in."""
    command = ["callgrind_annotate", "--auto=no", "--inclusive=no", "--threshold=100", str(dump)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    functions = collections.Counter()
    for line in done.stdout.splitlines():
        found = re.match(r"\s*([\d,]+) \(\s*[\d.]+%\)\s+(.*)$", line)
        if found and "PROGRAM TOTALS" not in line:
            # A line for each source file that has a part of the function.
            functions[shortened(found.group(2))] += int(found.group(1).replace(",", ""))
    whole = sum(functions.values())
    return [f"    {count / whole:>6.1%}  {name}" for name, count in functions.most_common(LINES)]


def shortened(place):
    """`file:function [object]` without the file, the hash and the object."""
    function = re.sub(r" \[[^\]]*\]$", "", place).split(":", 1)[-1]
    return re.sub(r"::h[0-9a-f]{16}\b", "", function)[:110]
