"""What is meant to be reached: one line each, with its limit. Says whether a measured ratio reaches it."""

from typing import NamedTuple


class Goal(NamedTuple):
    """A ratio with its limit: at least it, or at most it."""

    name: str
    section: str
    words: str
    least: float | None = None
    most: float | None = None

    @property
    def limit(self):
        return self.least if self.least is not None else self.most

    def is_reached(self, ratio):
        return ratio >= self.least if self.least is not None else ratio <= self.most

    def bound(self):
        return f"{'at least' if self.least is not None else 'at most'} {self.limit:g}"


GOALS = [
    Goal("set-to-pgbench", "durable-set", "durable `SET`, unpipelined / pgbench upsert", least=2.0),
    Goal("set-to-redis", "durable-set", "durable `SET`, unpipelined / Redis `appendfsync always`", least=0.85),
    Goal("set-16-to-pgbench", "durable-set", "durable `SET`, `-P 16` / pgbench upsert", least=5.0),
    Goal("get-expire", "touch", "`GET` then `EXPIRE` / Redis in memory", least=0.95),
    Goal("get-set", "touch", "`GET` then `SET` of the same value / Redis in memory", least=0.9),
    Goal("get", "cached-get", "cached `GET`, unpipelined / Redis in memory", least=1.0),
    Goal("get-16", "cached-get", "cached `GET`, `-P 16` / Redis in memory", least=1.1),
    Goal("get-cpu", "cached-get", "server CPU per cached `GET`, unpipelined / Redis", most=0.95),
    Goal("get-cpu-16", "cached-get", "server CPU per cached `GET`, `-P 16` / Redis", most=0.85),
    Goal("cold-get", "cold-get", "`GET` that is a miss / pgbench select", least=1.0),
    Goal("memory", "memory", "resident memory per session / Redis", most=1.2),
    Goal("memory-bound", "memory", "resident memory of a full cache / its configured bound", most=1.1),
    Goal("p99-beside-writes", "latency", "p99 of cached `GET` beside durable writes / without them", most=3.0),
    Goal("coherence-cost", "fleet", "durable `SET`, unpipelined, coherence on / off", least=0.9),
    Goal("coherence-cost-16", "fleet", "durable `SET`, `-P 16`, coherence on / off", least=0.9),
    Goal("multi", "transactions", "`MULTI` of 100 `SET`s / 100 awaited `SET`s", least=10.0),
    Goal("compare-and-delete", "transactions", "time of a script that compares and deletes / of a `DEL`", most=2.0),
    Goal("strict-stale", "fleet", "reads of a session whose deletion was confirmed, strict mode, in all", most=0.0),
]


def verdicts(measured):
    """[(goal, ratio, reached)] of what was measured: {goal's name: ratio}."""
    known = {goal.name for goal in GOALS}
    unknown = set(measured) - known
    if unknown:
        raise SystemExit(f"no goals of these names: {unknown}")
    return [
        (goal, measured[goal.name], goal.is_reached(measured[goal.name]))
        for goal in GOALS
        if measured.get(goal.name) is not None
    ]
