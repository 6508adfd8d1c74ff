"""Starts what is measured: Redis, Cloakroom on each store, a private Postgres. Knows nothing about workloads."""

import contextlib
import glob
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
PATIENCE_S = 60
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def binary():
    """The daemon to measure: a release build, or what CLOAKROOM_BINARY names."""
    path = pathlib.Path(os.environ.get("CLOAKROOM_BINARY", ROOT / "target" / "release" / "cloakroom"))
    if not path.is_file():
        raise SystemExit(f"{path} is missing: run `cargo build --release` (or `make bench`)")
    return path


def tool(name):
    """The path of a program, or the end of the benchmark."""
    path = shutil.which(name)
    if path is None:
        raise SystemExit(f"{name} is not installed")
    return path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, question):
    end = time.monotonic() + PATIENCE_S
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > end:
            raise SystemExit(f"waited {PATIENCE_S} s in vain: {what}")
        time.sleep(0.05)


class Server:
    """A running server that speaks RESP. `hits()` counts the reads it answered with a value from memory."""

    def __init__(self, name, command, log_path, environment=None):
        self.name, self.command = name, command
        self.log_path = log_path
        with open(log_path, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdout=log,
                stderr=log,
                env={**clean_environment(), **(environment or {})},
            )
        self.port = 0

    def log(self):
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def wait_until_it_listens(self, find_port):
        def ask():
            if self.process.poll() is not None:
                raise SystemExit(f"{self.name} ended:\n{self.log()}")
            self.port = find_port() or 0
            return self.port

        wait_for(f"{self.name} listens", ask)

    def memory(self, field="VmRSS"):
        """Resident memory in bytes: now (VmRSS), or the most so far (VmHWM)."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE).group(1)) * 1024

    def cpu_seconds(self):
        """User and system time of all threads so far."""
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii")
        fields = stat.rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS

    def waited_seconds(self):
        """For how long its threads so far wanted a processor that others had."""
        stats = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(stat.read_text(encoding="ascii").split()[1]) for stat in stats) / 1e9

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def request(self, *args):
        """One request; the first line of the reply, or the bulk string."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as link:
            link.sendall(encode(args))
            reply = link.makefile("rb")
            line = reply.readline().decode().rstrip()
            return reply.read(int(line[1:])).decode() if line.startswith("$") and line != "$-1" else line


class Redis(Server):
    """`options` are flags of redis-server; `under` is a program that runs it."""

    def __init__(self, name, directory, *options, under=()):
        port = free_port()
        command = [
            *under,
            tool("redis-server"),
            "--port",
            port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            directory,
        ]
        super().__init__(name, [*command, *options], directory / f"{name}.log")
        self.wait_until_it_listens(lambda: port if "Ready to accept connections" in self.log() else None)

    def hits(self):
        return int(re.search(r"keyspace_hits:(\d+)", self.request("INFO", "stats")).group(1))


class Cloakroom(Server):
    """`settings` are environment variables without their CLOAKROOM_; `under` is a program that runs the daemon."""

    def __init__(self, name, directory, store, under=(), **settings):
        command = [*under, binary(), "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--store", store]
        environment = {f"CLOAKROOM_{key}": str(value) for key, value in settings.items()}
        super().__init__(
            name, command, directory / f"{name}.log", {"NO_COLOR": "1", "HOME": str(directory), **environment}
        )
        self.wait_until_it_listens(lambda: self.find_port(metrics=False))
        self.metrics_port = wait_for(f"{name} serves metrics", lambda: self.find_port(metrics=True))
        wait_for(f"{name} is ready", self.is_ready)

    def find_port(self, metrics):
        for line in self.log().splitlines():
            before, found, after = line.partition("listening")
            addr = re.search(r"addr=\S*:(\d+)", after)
            if found and addr and ("metrics" in before) == metrics:
                return int(addr.group(1))
        return None

    def page(self, path):
        """A page of the side port."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.metrics_port}/{path}", timeout=PATIENCE_S) as response:
            return response.read().decode()

    def is_ready(self):
        try:
            return self.page("readyz") or True
        except OSError:
            return False

    def metric(self, name):
        """The sum of a metric's series; 0 if it has none."""
        page = self.page("metrics")
        return sum(map(float, re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", page, re.MULTILINE)))

    def hits(self):
        return int(self.metric("cloakroom_cache_hits_total"))

    @staticmethod
    def knows(**settings):
        """Whether the daemon has these settings."""
        environment = {f"CLOAKROOM_{key}": str(value) for key, value in settings.items()}
        environment = {**clean_environment(), "CLOAKROOM_STORE": "postgres://nobody@127.0.0.1/none", **environment}
        done = subprocess.run([binary(), "--check-config"], env=environment, capture_output=True)
        return done.returncode == 0


class Postgres:
    """A private cluster with its defaults: fsync and synchronous_commit are on."""

    def __init__(self, directory, *settings):
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"))
        self.bin = pathlib.Path(found[-1]).parent if found else pathlib.Path(tool("initdb")).parent
        self.data = directory / "postgres"
        self.data.mkdir()
        if os.geteuid() == 0:
            # Postgres refuses to run as root.
            shutil.chown(self.data, "postgres", "postgres")
        self.run("initdb", "--no-sync", "--auth=trust", "--username=postgres", "-D", self.data)
        self.port = self.boot(self.data, settings)
        self.url = self.url_of("postgres")

    def boot(self, data, settings=()):
        """Starts the server on a free port; on another one, if somebody took it meanwhile."""
        for is_last in (False, False, True):
            port = free_port()
            options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
            options += "".join(f" -c {setting}" for setting in settings)
            try:
                self.run("pg_ctl", "-w", "-D", data, "-l", data / "log", "-o", options, "start")
                return port
            except SystemExit:
                if is_last or "could not bind" not in (data / "log").read_text(errors="replace"):
                    raise

    def url_of(self, database):
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}"

    def sql(self, text, database="postgres"):
        """Runs SQL; its rows as lists of text."""
        command = ["psql", "-XqAt", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", self.url_of(database), "-c", text]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"psql: {done.stderr}")
        return [line.split("\t") for line in done.stdout.splitlines()]

    def database(self, name):
        """The URL of a new database of this name."""
        self.sql(f"CREATE DATABASE {name}")
        return self.url_of(name)

    def run(self, name, *args):
        command = [str(self.bin / name), *map(str, args)]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/", text=True
        )
        if done.returncode != 0:
            raise SystemExit(f"{name}: {done.stderr}")

    def standby(self, data):
        """A streaming standby, which commits from now on wait for. Stopping it frees them."""
        data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(data, "postgres", "postgres")
        self.run(
            "pg_basebackup",
            "--write-recovery-conf",
            "--checkpoint=fast",
            "-D",
            data,
            "-d",
            self.url + "?application_name=standby",
        )
        self.boot(data)
        self.synchronous("*")
        wait_for("the standby streams", lambda: self.sql("SELECT sync_state FROM pg_stat_replication") == [["sync"]])
        return Standby(self, data)

    def synchronous(self, names):
        self.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.sql("SELECT pg_reload_conf()")

    def version(self):
        said = subprocess.run([self.bin / "postgres", "--version"], capture_output=True, text=True, check=True)
        return said.stdout.strip()

    def stop(self):
        self.run("pg_ctl", "-w", "-m", "immediate", "-D", self.data, "stop")


class Standby:
    """A copy of a Postgres that follows it."""

    def __init__(self, primary, data):
        self.primary, self.data = primary, data

    def stop(self):
        self.primary.synchronous("")
        self.primary.run("pg_ctl", "-w", "-m", "immediate", "-D", self.data, "stop")


@contextlib.contextmanager
def workplace():
    """A directory on a real disk (BENCH_DIR, or /var/tmp) and a stack that stops servers in the end."""
    with tempfile.TemporaryDirectory(prefix="cloakroom-bench-", dir=os.environ.get("BENCH_DIR", "/var/tmp")) as name:
        directory = pathlib.Path(name)
        directory.chmod(0o755)
        with contextlib.ExitStack() as stack:
            yield directory, stack


def started(stack, server):
    """Makes sure that a server is stopped in the end."""
    stack.callback(server.stop)
    return server


def clean_environment():
    return {name: value for name, value in os.environ.items() if not name.startswith("CLOAKROOM_")}


def encode(args):
    parts = [b"*%d\r\n" % len(args)]
    for arg in args:
        data = arg if isinstance(arg, bytes) else str(arg).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)
