"""Turns measured numbers into a table for the terminal, a page and a picture. Measures nothing."""

import datetime
import os
import pathlib
import platform
import subprocess


def table(headings, rows):
    """A Markdown table, aligned for terminals too."""
    widths = [max(len(str(row[at])) for row in [headings, *rows]) for at in range(len(headings))]

    def line(cells):
        padded = [str(cell).ljust(width) if at == 0 else str(cell).rjust(width) for at, (cell, width) in enumerate(zip(cells, widths))]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    return "\n".join([line(headings), line(rule), *map(line, rows)])


def machine(directory):
    """What the numbers were measured on."""
    cpu = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    disk = said("findmnt", "-no", "FSTYPE", "-T", str(directory)) or "unknown"
    return [
        f"date: {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC",
        f"machine: {os.cpu_count()} × {cpu}, {memory:.0f} GiB, Linux {platform.release()}, data on {disk}",
    ]


def said(*command):
    """The first line that a command prints; empty if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""


def bars(title, groups, limits):
    """An SVG of ratios to Redis: `groups` is [(label, [(series, ratio)])], `limits` {series: (ratio, words)}."""
    left, width, row, top = 250, 560, 22, 56
    height = top + sum(len(series) * row + 26 for _, series in groups) + 40
    largest = max([1.3] + [ratio for _, series in groups for _, ratio in series]) * 1.08

    def x(ratio):
        return left + ratio / largest * width

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 70} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="100%" height="100%" fill="#fff"/><text x="16" y="26" font-size="16">{title}</text>',
    ]
    y = top
    for label, series in groups:
        out.append(f'<text x="16" y="{y + 14}" font-weight="bold">{label}</text>')
        y += 22
        for name, ratio in series:
            limit = limits.get(name.split(",")[0])
            colour = "#4477aa" if "throughput" in name else "#cc8844"
            out.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{name}</text>')
            out.append(f'<rect x="{left}" y="{y + 2}" width="{x(ratio) - left:.1f}" height="{row - 6}" fill="{colour}"/>')
            out.append(f'<text x="{x(ratio) + 6:.1f}" y="{y + 14}">{ratio:.2f}</text>')
            if limit is not None:
                mark = f'<line x1="{x(limit):.1f}" y1="{y}" x2="{x(limit):.1f}" y2="{y + row - 2}" stroke="#000"/>'
                out.append(mark)
            y += row
        y += 4
    out.append(f'<line x1="{x(1):.1f}" y1="{top}" x2="{x(1):.1f}" y2="{y}" stroke="#888" stroke-dasharray="4 3"/>')
    out.append(f'<text x="{x(1):.1f}" y="{y + 18}" text-anchor="middle" fill="#555">Redis = 1</text>')
    out.append('<text x="16" y="{}" fill="#555" font-size="12">black marks: the limits aimed for</text></svg>'.format(y + 18))
    return "\n".join(out) + "\n"
