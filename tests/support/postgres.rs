//! Private Postgres clusters: made in a temporary directory, run as a user that is not root, killed and deleted at the end.
//!
//! The programs are those in `CLOAKROOM_TEST_POSTGRES_BIN`, else the newest of `/usr/lib/postgresql/*/bin`.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to start or stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster with a running server, or one that was stopped.
pub struct Cluster {
    bin: PathBuf,
    dir: TempDir,
    port: u16,
    settings: Vec<(String, String)>,
    server: Option<Child>,
}

impl Cluster {
    /// A new cluster, `fsync` on, that trusts everybody.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with settings of `postgresql.conf`.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_in(new_dir(), bin_dir(), settings)
    }

    /// The same on Postgres 18, which `tests/setup.sh` takes from `PyPI`. Copied, as the checkout may be closed to the user
    /// that the server runs as.
    pub fn start_18_with(settings: &[(&str, &str)]) -> Self {
        let installed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/postgres18");
        assert!(installed.join("bin/initdb").exists(), "Postgres 18 is not installed: `make test` installs it");
        let package = installed.canonicalize().unwrap().parent().unwrap().to_owned();
        let dir = new_dir();
        // The programs find their libraries in a folder beside the package.
        let libraries = package.with_extension("libs");
        run(Command::new("cp").arg("-r").arg(&package).arg(&libraries).arg(dir.path()));
        let bin = dir.path().join(package.file_name().unwrap()).join("pginstall/bin");
        Self::start_in(dir, bin, settings)
    }

    /// A standby that follows `primary`, which from now on acknowledges nothing that the standby does not have on its disk.
    pub fn start_standby(primary: &Self) -> Self {
        let dir = new_dir();
        open_to_server(&dir);
        run(as_user(primary.bin.join("pg_basebackup"))
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--wal-method=stream"])
            .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &primary.port.to_string()])
            .arg("-D")
            .arg(dir.path().join("data")));
        let standby = Self::run_in(dir, primary.bin.clone(), &[]);
        primary.set("synchronous_standby_names", "'*'");
        let attached = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = 'sync'";
        let since = Instant::now();
        while primary.psql(attached) != "1" {
            assert!(since.elapsed() < PATIENCE, "the standby does not follow: {}", standby.log());
            sleep(Duration::from_millis(20));
        }
        standby
    }

    /// Makes a standby the primary, and waits until it is.
    pub fn promote(&self) {
        assert_eq!(self.psql("SELECT pg_promote(true, 60)"), "t", "{}", self.log());
    }

    fn start_in(dir: TempDir, bin: PathBuf, settings: &[(&str, &str)]) -> Self {
        open_to_server(&dir);
        let data = dir.path().join("data");
        run(as_user(bin.join("initdb")).arg("-D").arg(&data).args([
            "--username=postgres",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
        ]));
        Self::run_in(dir, bin, settings)
    }

    /// Runs a server on the data in `dir`, on a free port.
    fn run_in(dir: TempDir, bin: PathBuf, settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut cluster = Self { bin, dir, port: 0, settings, server: None };
        for _ in 0..20 {
            cluster.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if cluster.try_run() {
                return cluster;
            }
        }
        panic!("no server could be started: {}", cluster.log());
    }

    /// The URL of the database `postgres`.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The URL of a database.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The URL of a database by the unix socket.
    pub fn socket_url_of(&self, database: &str) -> String {
        format!("postgres://postgres@/{database}?host={}&port={}", self.dir.path().display(), self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The major version.
    pub fn major(&self) -> u32 {
        self.psql("SHOW server_version_num").parse::<u32>().unwrap() / 10_000
    }

    /// Runs SQL in the database `postgres`; the rows, unaligned.
    pub fn psql(&self, sql: &str) -> String {
        self.psql_in("postgres", sql)
    }

    /// Runs SQL in a database; the rows, unaligned.
    pub fn psql_in(&self, database: &str, sql: &str) -> String {
        let output = run(self.psql_command(database).args(["-c", sql]));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// A `psql` for this server, to be given more arguments.
    pub fn psql_command(&self, database: &str) -> Command {
        let own = self.bin.join("psql");
        let psql = if own.exists() { own } else { PathBuf::from("psql") };
        let mut command = Command::new(psql);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres"]);
        command.arg("-p").arg(self.port.to_string()).arg("-d").arg(database);
        // Works whatever a test did to the settings.
        command.env("PGOPTIONS", "-c default_transaction_read_only=off");
        command
    }

    /// Whether the server was built with TLS (that of the PyPI wheel is not).
    pub fn has_tls(&self) -> bool {
        let output = run(Command::new(self.bin.join("pg_config")).arg("--configure"));
        String::from_utf8_lossy(&output.stdout).contains("ssl")
    }

    /// A new, empty database.
    pub fn create_database(&self, name: &str) {
        self.psql(&format!("CREATE DATABASE {name}"));
    }

    /// The server's log from some length on.
    pub fn log_since(&self, length: usize) -> String {
        let log = fs::read(self.dir.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log[length.min(log.len())..]).into_owned()
    }

    /// Replaces `pg_hba.conf` and loads it.
    pub fn set_hba(&self, lines: &str) {
        fs::write(self.data().join("pg_hba.conf"), lines).unwrap();
        self.signal("HUP");
    }

    /// Changes a setting, and loads it.
    pub fn set(&self, name: &str, value: &str) {
        self.psql(&format!("ALTER SYSTEM SET {name} = {value}"));
        self.psql("SELECT pg_reload_conf()");
    }

    /// Writes a file that only the server's user may read, beside the data; its path.
    pub fn write_file(&self, name: &str, text: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        if let Some((uid, gid)) = other_user() {
            chown(&path, Some(uid), Some(gid)).unwrap();
        }
        path
    }

    /// Ends the server as an administrator would ("fast"), and waits for it.
    pub fn stop(&mut self) {
        if self.server.is_some() {
            self.signal("INT");
            self.wait();
        }
    }

    /// Starts the server again on the same port.
    pub fn run(&mut self) {
        let since = Instant::now();
        while !self.try_run() {
            assert!(since.elapsed() < PATIENCE, "the server does not start: {}", self.log());
            sleep(Duration::from_millis(100));
        }
    }

    /// Stops and starts the server.
    pub fn restart(&mut self) {
        self.stop();
        self.run();
    }

    /// Ends all of the server's processes at once with SIGKILL, as a crash of the machine would (but for the disk).
    pub fn kill9(&mut self) {
        let Some(server) = &self.server else { return };
        let postmaster = server.id();
        kill("STOP", &[postmaster]);
        let children = children_of(postmaster);
        kill("KILL", &[postmaster]);
        kill("KILL", &children);
        self.wait();
        let since = Instant::now();
        while children.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
            assert!(since.elapsed() < PATIENCE, "killed processes are still there");
            sleep(Duration::from_millis(5));
        }
    }

    /// Freezes all of the server's processes: connections stay open and nothing answers.
    pub fn freeze(&self) {
        let postmaster = self.server.as_ref().unwrap().id();
        kill("STOP", &[postmaster]);
        kill("STOP", &children_of(postmaster));
    }

    /// Lets the processes go on.
    pub fn thaw(&self) {
        let postmaster = self.server.as_ref().unwrap().id();
        kill("CONT", &children_of(postmaster));
        kill("CONT", &[postmaster]);
    }

    /// Starts the server; false if it ended at once, as when the port is taken.
    fn try_run(&mut self) -> bool {
        let data = self.data();
        // What a killed server left would be taken for the new one's.
        let _ = fs::remove_file(data.join("postmaster.pid"));
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = as_user(self.bin.join("postgres"));
        command.arg("-D").arg(&data).arg("-k").arg(self.dir.path()).arg("-p").arg(self.port.to_string());
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "log_min_messages=warning"]);
        for (name, value) in &self.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut server = command.spawn().unwrap();
        let since = Instant::now();
        loop {
            if server.try_wait().unwrap().is_some() {
                return false;
            }
            // As pg_ctl does: the last line of this file is the server's state.
            let state = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            if state.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                self.server = Some(server);
                return true;
            }
            assert!(since.elapsed() < PATIENCE, "the server does not become ready: {}", self.log());
            sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, name: &str) {
        kill(name, &[self.server.as_ref().unwrap().id()]);
    }

    fn wait(&mut self) -> ExitStatus {
        let mut server = self.server.take().unwrap();
        server.wait().unwrap()
    }

    fn log(&self) -> String {
        self.log_since(0)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Nobody needs the data any more.
        self.kill9();
    }
}

/// Sends a signal. A process that is gone already is as good.
fn kill(signal: &str, pids: &[u32]) {
    if !pids.is_empty() {
        let pids = pids.iter().map(ToString::to_string);
        let script = std::iter::once(format!("kill -{signal} \"$@\" 2>/dev/null; true")).chain(["sh".to_owned()]);
        run(Command::new("sh").arg("-c").args(script).args(pids));
    }
}

/// The processes whose parent is `parent`.
fn children_of(parent: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // After the name, which is in parentheses: the state, then the parent.
        let parent_of = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        if parent_of == Some(parent) {
            children.push(pid);
        }
    }
    children
}

/// Lets the server's user through to the data in a directory.
fn open_to_server(dir: &TempDir) {
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if let Some((uid, gid)) = other_user() {
        chown(dir.path(), Some(uid), Some(gid)).unwrap();
    }
}

fn new_dir() -> TempDir {
    tempfile::Builder::new().prefix("cloakroom-pg-").tempdir().unwrap()
}

/// Where the server's programs are.
fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("CLOAKROOM_TEST_POSTGRES_BIN") {
        return PathBuf::from(dir);
    }
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            bin.join("initdb").exists().then_some((version, bin))
        })
        .collect();
    found.sort();
    found.pop().expect("no Postgres: install Debian's `postgresql`, or set CLOAKROOM_TEST_POSTGRES_BIN").1
}

/// The user and group to run as, if we are root, as which Postgres refuses to run.
fn other_user() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(ids("postgres").or_else(|| ids("nobody")).expect("neither a user `postgres` nor `nobody`"))
}

/// A command as that user.
pub fn as_user(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = other_user() {
        command.uid(uid).gid(gid);
    }
    // The current directory need not be open to that user.
    command.current_dir("/");
    command
}

/// Runs a command that must succeed.
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
