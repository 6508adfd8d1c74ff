"""Runs peers in turns and compares them: within a round first, then the median over the rounds. Measures nothing itself."""

import os
import statistics

SMOKE = os.environ.get("SMOKE") == "1"
# Many short ones rather than few long ones: what else the machine does comes and goes within a minute.
ROUNDS = int(os.environ.get("ROUNDS", "1" if SMOKE else "9"))


def interleave(cases, rounds=None):
    """Runs every peer of every case in every round, beginning with another one each time.

    `cases` is {case: {peer: function}}; the answer is [{"case", "peer", "runs": [result, …]}, …].
    """
    rounds = rounds or ROUNDS
    series = {(case, peer): [] for case, peers in cases.items() for peer in peers}
    for number in range(rounds):
        for case, peers in cases.items():
            names = list(peers)
            turn = number % len(names)
            for peer in names[turn:] + names[:turn]:
                run = peers[peer]()
                series[case, peer].append(run)
                print(f"  round {number + 1}/{rounds}  {case:<34} {peer:<24} {spoken(run)}", flush=True)
    return [{"case": case, "peer": peer, "runs": runs} for (case, peer), runs in series.items()]


def spoken(run):
    parts = []
    if "rps" in run:
        parts.append(f"{run['rps']:>10.0f}/s")
    if run.get("cpu_us"):
        parts.append(f"{run['cpu_us']:7.2f} µs CPU")
    if "p99_us" in run:
        parts.append(f"p50 {run['p50_us']:.0f} µs, p99 {run['p99_us']:.0f} µs")
    return "  ".join(parts)


def runs_of(series, case, peer):
    """The runs of one peer in one case."""
    for one in series:
        if one["case"] == case and one["peer"] == peer:
            return one["runs"]
    raise KeyError(f"no runs of {peer} in {case}")


def median(runs, figure):
    """The median of a figure; `None` where it was not measured."""
    values = [run[figure] for run in runs if run.get(figure) is not None]
    return statistics.median(values) if values else None


def ratio(series, figure, own, base):
    """The median of the ratios within each round; `own` and `base` are (case, peer)."""
    pairs = zip(runs_of(series, *own), runs_of(series, *base), strict=True)
    ratios = [run[figure] / reference[figure] for run, reference in pairs if reference.get(figure)]
    return statistics.median(ratios) if ratios else None
