"""Writes the documents from results: a page and a plot per section, the index, and the README's table. Measures nothing."""

import json
import pathlib
import re

import goals
import plots
import report
import rounds

WRITTEN = "Written by `make bench`; do not edit."
BEGIN, END = "<!-- measured: written by `make bench` -->", "<!-- end of what is measured -->"
HOW = (
    "All of a section runs in one go on one machine, where generators and servers share the cores; peers take turns, each"
    " round beginning with another one. Ratios are taken within a round; shown are medians over the rounds. Absolute figures"
    " drift from day to day and machine to machine; the ratios hardly do."
)


def read(directory):
    """The results that are there: {section: result}."""
    file = directory / "results.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def write(directory, results, readme=None):
    """Everything that follows from these results."""
    directory.mkdir(parents=True, exist_ok=True)
    for path, text in documents(directory, results, readme).items():
        path.write_text(text, encoding="utf-8")


def differing(directory, readme):
    """The documents that are not what the results in the directory make of them."""
    expected = documents(directory, read(directory), readme)
    return [path for path, text in expected.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


def documents(directory, results, readme):
    """{file: text}; the README's text is the one that is there, with its block replaced."""
    text = json.dumps(rounded(results), indent=1, ensure_ascii=False) + "\n"
    # Tables must come out the same when they are made from the file.
    results = json.loads(text)
    made = {directory / "results.json": text}
    for name, result in results.items():
        made[directory / f"{name}.md"] = section_page(name, result)
        made[directory / f"{name}.svg"] = section_plot(result)
    made[directory / "README.md"] = index(directory, results)
    made[directory / "goals.svg"] = goals_plot(results)
    if readme is not None:
        made[readme] = with_block(readme, readme_block(results))
    return made


def rounded(value):
    """Six digits are more than any measurement here has."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def verdicts(results):
    measured = {}
    for result in results.values():
        measured.update(result["goals"])
    return goals.verdicts(measured)


def facts_lines(result):
    return [f"- {name}: {value}" for name, value in result["facts"].items()]


def section_page(name, result):
    commands = sorted({run["command"] for one in result["series"] for run in one["runs"] if "command" in run})
    lines = [f"# {result['title']}", "", WRITTEN, "", *facts_lines(result), ""]
    for paragraph in result["text"]:
        lines += [paragraph, ""]
    lines += [report.series_table(result), ""]
    for goal, ratio, reached in goals.verdicts(result["goals"]):
        lines.append(f"- {'reached' if reached else '**not reached**'}: {goal.words}: {ratio:.2f} ({goal.bound()})")
    for paragraph in result.get("more", []):
        lines += ["", paragraph]
    lines += ["", f"![{result['title']}]({name}.svg)", "", "Commands:", "", *[f"    {command}" for command in commands]]
    return "\n".join(lines).rstrip() + "\n"


def section_plot(result):
    groups = {}
    for one in result["series"]:
        for figure, words in [
            ("instructions", "{:,.0f}"),
            ("bytes", "{:,.0f} bytes"),
            ("rps", "{:,.0f}/s"),
            ("p99_us", "p99 {:,.0f} µs"),
        ]:
            is_rate_of_latency = result.get("plot") == "p99_us" and figure == "rps"
            value = rounds.median(one["runs"], figure)
            if value is not None and not is_rate_of_latency:
                groups.setdefault(one["case"], []).append((one["peer"], value, words.format(value)))
                break
    return plots.peers(result["title"], list(groups.items()))


def goals_table(results):
    rows = [
        [
            goal.words,
            f"{ratio:.2f}",
            goal.bound(),
            "reached" if reached else "**not reached**",
            f"[{goal.section}]({goal.section}.md)",
        ]
        for goal, ratio, reached in verdicts(results)
    ]
    return report.table(["ratio", "measured", "limit", "", "figures"], rows)


def goals_plot(results):
    rows = []
    for goal, ratio, _ in verdicts(results):
        beyond = ratio / goal.least if goal.least is not None else goal.most / max(ratio, 1e-9)
        rows.append((goal.words, beyond, f"{ratio:.2f} ({goal.bound()})"))
    return plots.goals("What was measured, beside its limit", rows)


def index(directory, results):
    lines = [
        "# Benchmarks",
        "",
        WRITTEN,
        "",
        HOW,
        "",
        goals_table(results),
        "",
        "![measured beside limits](goals.svg)",
        "",
    ]
    lines += [
        "The sections, with all figures, plots and commands; the runs themselves are in [results.json](results.json):",
        "",
    ]
    lines += [f"- [{result['title']}]({name}.md) ({result['facts']['date']})" for name, result in results.items()]
    others = [path for path in sorted(directory.glob("*.md")) if path.stem not in results and path.name != "README.md"]
    if others:
        lines += ["", "Measured apart:", ""]
        lines += [
            f"- [{path.read_text(encoding='utf-8').splitlines()[0].removeprefix('# ')}]({path.name})" for path in others
        ]
    lines += [
        "",
        "`make bench` measures everything again, `make bench ONLY=cached-get,touch` some sections; `SMOKE=1` is one short round"
        " that proves only that all of it works, and keeps nothing.",
    ]
    return "\n".join(lines) + "\n"


def readme_block(results):
    facts = next(iter(results.values()))["facts"]
    rows = [[goal.words, f"{ratio:.2f}", goal.bound()] for goal, ratio, _ in verdicts(results)]
    return "\n".join(
        [
            f"Measured {facts['date'][:10]} on {facts['machine'].split(',')[0]}, {facts['versions']}; generators and servers share the"
            f" cores. 50 connections, values of 1 KiB, medians of {facts['rounds']} interleaved rounds.",
            "",
            report.table(["ratio", "measured", "aim"], rows),
            "",
            "![measured beside the aims](docs/bench/goals.svg)",
        ]
    )


def with_block(file, block):
    """A document's text with a block put between its two marks."""
    text = pathlib.Path(file).read_text(encoding="utf-8")
    pattern = re.compile(re.escape(BEGIN) + r".*?" + re.escape(END), re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{file} has lost its marks: {BEGIN}")
    return pattern.sub(lambda _: f"{BEGIN}\n{block}\n{END}", text)
