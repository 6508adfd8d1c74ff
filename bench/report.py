"""Turns results into tables and says what they were measured on. Measures nothing, writes no file."""

import datetime
import os
import pathlib
import platform
import subprocess

import rounds
import servers


def table(headings, rows):
    """A Markdown table, aligned for terminals too."""
    widths = [max(len(str(row[at])) for row in [headings, *rows]) for at in range(len(headings))]

    def line(cells):
        padded = [
            str(cell).ljust(width) if at < 1 else str(cell).rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    return "\n".join([line(headings), line(rule), *map(line, rows)])


# Figures of a run, in the order of their columns. A column is there if any run has its figure.
COLUMNS = [
    ("a second", "rps", "{:.0f}"),
    ("CPU µs each", "cpu_us", "{:.2f}"),
    ("mean µs", "mean_us", "{:.0f}"),
    ("p50 µs", "p50_us", "{:.0f}"),
    ("p99 µs", "p99_us", "{:.0f}"),
    ("p99.9 µs", "p999_us", "{:.0f}"),
    ("longest µs", "max_us", "{:.0f}"),
    ("generator busy", "client_share", "{:.0%}"),
    ("machine busy", "machine_busy", "{:.0%}"),
    ("server waits", "server_waits", "{:.1%}"),
    ("generator waits", "client_waits", "{:.1%}"),
    ("from memory", "elided", "{:.0f}"),
    ("writes a second", "writes_rps", "{:.0f}"),
    ("instructions", "instructions", "{:,.0f}"),
    ("bytes", "bytes", "{:,.0f}"),
    ("accounted", "accounted", "{:,.0f}"),
    ("of the bound", "share", "{:.2f}"),
    ("nil at once", "refused_at_once", "{:.0f}"),
    ("stale reads", "stale_reads", "{:.0f}"),
]

# Figures that are also shown as ratios to the section's base.
RATIOS = [("ratio", "rps"), ("CPU ratio", "cpu_us"), ("ratio", "bytes"), ("ratio", "instructions")]


def series_table(section):
    """All series of a section: medians, and ratios within rounds to the section's base."""
    series, base = section["series"], section.get("base")
    columns = [column for column in COLUMNS if any(column[1] in run for one in series for run in one["runs"])]
    ratios = RATIOS if base else []
    ratios = [
        (words, figure) for words, figure in ratios if any(figure in run for one in series for run in one["runs"])
    ]
    rows = []
    for one in series:
        row = [f"{one['case']}: {one['peer']}"]
        for _, figure, shape in columns:
            value = rounds.median(one["runs"], figure)
            row.append("" if value is None else shape.format(value))
        for _, figure in ratios:
            row.append(ratio_cell(series, one, figure, base))
        rows.append(row)
    headings = ["", *(words for words, _, _ in columns), *(words for words, _ in ratios)]
    return table(headings, rows)


def ratio_cell(series, one, figure, base):
    peers = [other["peer"] for other in series if other["case"] == one["case"]]
    if base not in peers or figure not in one["runs"][0]:
        return ""
    ratio = rounds.ratio(series, figure, (one["case"], one["peer"]), (one["case"], base))
    return "" if ratio is None else f"{ratio:.2f}"


def facts(directory, postgres):
    """What the numbers were measured on."""
    cpu = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    disk = said("findmnt", "-no", "FSTYPE", "-T", str(directory)) or "unknown"
    commit = said("git", "-C", str(servers.ROOT), "describe", "--always", "--dirty", "--abbrev=10")
    return {
        "date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC",
        "machine": f"{os.cpu_count()} × {cpu}, {memory:.0f} GiB, Linux {platform.release()}, data on {disk}",
        "versions": f"{said(str(servers.binary()), '--version')} ({commit}); {said('redis-server', '--version')[:22].strip()};"
        f" {postgres.version()}",
        "rounds": rounds.ROUNDS,
    }


def said(*command):
    """The first line that a command prints; empty if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""
