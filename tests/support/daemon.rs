//! The real daemon, run as people run it: its binary, its options, its signals, its log.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use tempfile::TempDir;

use super::client::Client;
use super::http;
use super::postgres::Cluster;
use super::process::Process;

/// Which store a daemon gets.
#[derive(Clone, Copy)]
pub enum StoreKind<'a> {
    /// A fresh SQLite file.
    Sqlite,
    /// A running cluster.
    Postgres(&'a Cluster),
    /// A database of a running cluster.
    Database(&'a Cluster, &'a str),
    /// What this URL leads to.
    Url(&'a str),
}

/// A running daemon with a directory of its own. Dropping it kills exactly this process.
pub struct Daemon {
    process: Process,
    launch: Launch,
    port: u16,
    metrics_port: u16,
    dir: TempDir,
}

/// What to run, kept for restarts.
struct Launch {
    store: String,
    settings: Vec<(String, String)>,
    /// A command that ends by becoming the daemon's: its program and arguments are appended.
    wrapper: Vec<String>,
}

impl Daemon {
    /// Starts the daemon on free ports and waits until it listens. `settings` are configuration keys and values, given
    /// by environment variables; `listen` replaces the loopback listener (several: separated by commas).
    pub fn start(store: StoreKind<'_>, settings: &[(&str, &str)]) -> Self {
        Self::start_wrapped(store, settings, &[])
    }

    /// As [`Daemon::start`], run by another command, which gets the daemon's program and arguments appended and must
    /// become it (`exec`). It begins in the daemon's directory.
    pub fn start_wrapped(store: StoreKind<'_>, settings: &[(&str, &str)], wrapper: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let launch = Launch {
            store: match store {
                StoreKind::Sqlite => format!("sqlite:{}", sqlite_path(dir.path()).display()),
                StoreKind::Postgres(cluster) => cluster.url(),
                StoreKind::Database(cluster, name) => cluster.url_of(name),
                StoreKind::Url(url) => url.to_owned(),
            },
            settings: settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            wrapper: wrapper.iter().map(|word| (*word).to_owned()).collect(),
        };
        let process = Process::start("cloakroom", &mut launch.command(dir.path(), 0));
        let (port, metrics_port) = ports(&process);
        Self { process, launch, port, metrics_port, dir }
    }

    /// The port of the first listener.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port of metrics and health.
    pub fn metrics_port(&self) -> u16 {
        self.metrics_port
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// Its own directory, where the SQLite file is.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A new connection.
    pub fn client(&self) -> Client {
        Client::connect(self.port)
    }

    /// Status and body of a page of the side port.
    pub fn page(&self, path: &str) -> (u16, String) {
        http::get(self.metrics_port, path).expect("the side port answers")
    }

    /// The sum of all series of a metric whose line contains every one of `labels`; 0 if there is none.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, page) = self.page("/metrics");
        page.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Sends a signal by name.
    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Kills it with SIGKILL.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Stops it with SIGTERM and waits for its end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.signal("TERM");
        self.process.wait()
    }

    /// Waits for it to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }

    /// Starts it again after it ended, on the same store and port.
    pub fn start_again(&mut self) {
        assert!(!self.process.is_running(), "the daemon runs already");
        self.process = Process::start("cloakroom", &mut self.launch.command(self.dir.path(), self.port));
        (self.port, self.metrics_port) = ports(&self.process);
    }

    /// Stops it in good order and starts it again on the same store and port.
    pub fn restart(&mut self) {
        let status = self.terminate();
        assert!(status.success(), "the daemon ended with {status}:\n{}", self.log());
        self.start_again();
    }
}

impl Launch {
    fn command(&self, dir: &Path, port: u16) -> Command {
        let mut command = match self.wrapper.split_first() {
            None => Command::new(binary()),
            Some((program, args)) => {
                let mut command = Command::new(program);
                command.args(args).arg(binary());
                command
            }
        };
        clean(&mut command, dir);
        let listen = match self.settings.iter().find(|(key, _)| key == "listen") {
            Some((_, listen)) => listen.clone(),
            None => format!("127.0.0.1:{port}"),
        };
        for addr in listen.split(',') {
            command.args(["--listen", addr]);
        }
        command.args(["--metrics-listen", "127.0.0.1:0", "--store", &self.store]);
        for (key, value) in self.settings.iter().filter(|(key, _)| key != "listen") {
            command.env(variable(key), value);
        }
        command
    }
}

/// The daemon's binary, as built for the tests, or the one that `CLOAKROOM_TEST_BINARY` names.
pub fn binary() -> PathBuf {
    std::env::var_os("CLOAKROOM_TEST_BINARY")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_cloakroom")), PathBuf::from)
}

/// Keeps the machine's own settings away from a daemon.
pub fn clean(command: &mut Command, dir: &Path) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CLOAKROOM_")) {
        command.env_remove(name);
    }
    command.env("XDG_STATE_HOME", dir).env("HOME", dir).current_dir(dir);
}

/// The environment variable of a configuration key.
fn variable(key: &str) -> String {
    format!("CLOAKROOM_{}", key.to_uppercase().replace('.', "_"))
}

fn sqlite_path(dir: &Path) -> PathBuf {
    dir.join("data").join("cloakroom.db")
}

/// The bound ports, from the log: `listening addr=…` and `metrics listening addr=…`.
fn ports(process: &Process) -> (u16, u16) {
    let find = |metrics: bool| {
        process
            .find_line(|line| {
                let (before, after) = line.split_once("listening")?;
                if before.contains("metrics") != metrics {
                    return None;
                }
                let addr = after.split_once("addr=")?.1.split_whitespace().next()?.trim_matches('"');
                addr.rsplit(':').next()?.parse().ok()
            })
            .unwrap_or_else(|| panic!("the daemon ended before it listened:\n{}", process.output()))
    };
    (find(false), find(true))
}
