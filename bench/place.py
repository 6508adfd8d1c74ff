"""Where a section of the benchmark runs: a directory, a Postgres, and what is stopped in the end."""

import contextlib
import pathlib
from typing import NamedTuple

from servers import Cloakroom, Postgres, Redis


class Place(NamedTuple):
    """Handed to each section. Servers that a section starts are stopped when it ends."""

    directory: pathlib.Path
    postgres: Postgres
    stack: contextlib.ExitStack

    def started(self, server):
        self.stack.callback(server.stop)
        return server

    def redis(self, name="redis"):
        """A Redis that keeps everything in memory only."""
        return self.started(Redis(name, self.directory, "--appendonly", "no"))

    def redis_always(self, name="redis-always"):
        """A Redis that syncs its log before it answers a write."""
        directory = self.directory / name
        directory.mkdir()
        return self.started(Redis(name, directory, "--appendonly", "yes", "--appendfsync", "always"))

    def on_postgres(self, name="cloakroom-postgres", database=None, **settings):
        """A Cloakroom on a database of its own, or on one that is there."""
        database = database or self.postgres.database(name.replace("-", "_"))
        return self.started(Cloakroom(name, self.directory, database, **settings))

    def on_sqlite(self, name="cloakroom-sqlite", **settings):
        file = self.directory / f"{name}.db"
        return self.started(Cloakroom(name, self.directory, f"sqlite:{file}", **settings))


def figures(server, *names):
    """A reading of some of a Cloakroom's metrics, to be compared with a later one; zeros for a Redis."""
    metric = getattr(server, "metric", lambda _: 0.0)
    return [metric(f"cloakroom_{name}") for name in names]


def grown(server, before, *names):
    """By how much metrics grew since a reading."""
    return [now - then for now, then in zip(figures(server, *names), before, strict=True)]
