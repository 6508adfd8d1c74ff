"""What each level of `synchronous_commit` costs, with a synchronous standby on the same machine."""

import tools
from rounds import ROUNDS, SMOKE, interleave

WRITES = {1: 1_000, 16: 3_000} if SMOKE else {1: 60_000, 16: 150_000}
PGBENCH_S = 1 if SMOKE else 3
# From the least that is promised to the most. The daemon raises `off` to `on`, so only pgbench shows what that would save.
LEVELS = ["local", "remote_write", "on", "remote_apply"]


def commits(place):
    """Durable `SET` and pgbench's upsert by level; each level has a database of its own, set with ALTER DATABASE."""
    place.started(place.postgres.standby(place.directory / "standby"))
    servers = {}
    for level in ["off", *LEVELS]:
        database = place.postgres.database(f"level_{level}")
        place.postgres.sql(f"ALTER DATABASE level_{level} SET synchronous_commit = {level}")
        script = tools.upsert_script(place.directory, place.postgres, f"level_{level}")
        if level != "off":
            servers[level] = place.on_postgres(f"cloakroom-{level}", database)
            tools.fill(servers[level])

    def write(level, depth):
        return tools.load(
            servers[level], f"SET {{key}} {{new}} EX {tools.DAY_S}", requests=WRITES[depth], pipeline=depth
        )

    def upsert(level):
        return tools.pgbench(place.postgres, script, PGBENCH_S, database=f"level_{level}")

    cases = {
        f"SET -P {depth}": {level: lambda level=level, depth=depth: write(level, depth) for level in LEVELS}
        for depth in WRITES
    }
    cases["pgbench upsert"] = {level: lambda level=level: upsert(level) for level in ["off", *LEVELS]}
    text = [
        "`local` waits for this server's disk, which without a synchronous standby is what `on` means as well. With one, as here,"
        " `remote_write` waits until the standby has handed the write to its operating system, `on` until it is on the"
        " standby's disk, and `remote_apply` until a query on the standby can see it. `off` waits for nothing: a crash of Postgres"
        " forgets up to three times `wal_writer_delay` (0.6 s) of writes that were acknowledged. So Cloakroom raises `off` to `on` in"
        " its own sessions, and keeps any other level that the server, the database or the role is set to.",
        "What to choose: `on` without a standby survives the loss of the process and of the power, not of the disk. With a"
        " synchronous standby, `on` survives the loss of a machine; a fail-over then loses no acknowledged write. `remote_apply` adds"
        " nothing for Cloakroom, which reads from the primary.",
        "Since a batch commits many writes at once, what a level adds to a commit is shared by all that wait: compare with pgbench,"
        " where each upsert waits by itself. Primary and standby share the machine's cores and its disk here, without a network"
        " between them, so a real standby costs less CPU and more latency.",
    ]
    return {"series": interleave(cases, rounds=min(ROUNDS, 3)), "goals": {}, "text": text}
