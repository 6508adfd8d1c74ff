//! One application of the matrix as a child process: how it is started, and what it says of itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::browser::Browser;
use crate::support::process::Process;
use crate::support::{target_dir, tool, wait_for};

/// What runs an application. The words after the script are its arguments.
#[derive(Clone, Copy, Debug)]
pub enum Runs {
    /// Python of the virtual environment of this name below `target`.
    Python(&'static str, &'static str),
    /// Node, with the packages of `target/node`.
    Node(&'static str),
    /// PHP's command line.
    Php(&'static str),
    /// PHP's built-in web server, with several processes. The words after the script are settings, as of `php -d`.
    PhpServer(&'static str),
    /// Ruby with Debian's libraries.
    Ruby(&'static str),
    /// A Go program, built by `tests/setup.sh`.
    Go(&'static str),
    /// A Rust program of `tests/clients/rust`, built by `tests/setup.sh`.
    Rust(&'static str),
    /// A C program of `tests/clients/c`, built by `tests/setup.sh`.
    C(&'static str),
}

impl Runs {
    /// The script and its arguments: what a row is called by.
    pub fn line(self) -> &'static str {
        match self {
            Self::Python(_, line)
            | Self::Node(line)
            | Self::Php(line)
            | Self::PhpServer(line)
            | Self::Ruby(line)
            | Self::Go(line)
            | Self::Rust(line)
            | Self::C(line) => line,
        }
    }

    /// The command that runs it against a server on this port.
    pub fn command(self, port: u16, dir: &Path) -> Command {
        let sources = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join("clients");
        let mut words = self.line().split(' ');
        let script = words.next().expect("a row names its script");
        let built = |program: PathBuf| {
            assert!(program.is_file(), "{} is not built: `make test` does", program.display());
            Command::new(program)
        };
        let mut command = match self {
            Self::Python(venv, _) => {
                let mut command = built(target_dir().join(venv).join("bin").join("python"));
                command.arg("-B").arg(sources.join("python").join(script));
                command
            }
            Self::Node(_) => {
                let home = target_dir().join("node");
                let mut command = built(home.join("bin").join("node"));
                // The scripts find the packages beside the link to them.
                command.args(["--preserve-symlinks", "--preserve-symlinks-main"]).arg(home.join("apps").join(script));
                command
            }
            Self::Php(_) => {
                let mut command = Command::new(tool("php"));
                command.arg(sources.join("php").join(script));
                command
            }
            Self::PhpServer(_) => {
                let mut command = Command::new(tool("php"));
                for setting in words.by_ref() {
                    command.args(["-d", &setting.replace("PORT", &port.to_string())]);
                }
                command.env("PHP_CLI_SERVER_WORKERS", "6");
                command.args(["-S", "127.0.0.1:0"]).arg(sources.join("php").join(script));
                command
            }
            Self::Ruby(_) => {
                let mut command = Command::new(tool("ruby"));
                command.arg(sources.join("ruby").join(script));
                command
            }
            Self::Go(_) => built(target_dir().join("clients-go").join(script)),
            Self::Rust(_) => built(target_dir().join("clients-rust").join("debug").join(script)),
            Self::C(_) => built(target_dir().join("clients-c").join(script)),
        };
        command.args(words).current_dir(dir).env("REDIS_HOST", "127.0.0.1").env("REDIS_PORT", port.to_string());
        command
    }
}

/// What an application says of itself: one line of JSON.
#[derive(Clone, Debug)]
pub struct About(Value);

impl About {
    /// Reads the line; `None` if it is another one.
    pub fn read(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        value.get("name")?;
        Some(Self(value))
    }

    /// What the harness says of a client that cannot say it.
    pub fn new(name: &str, version: &str, exercised: &[&str], config: &str) -> Self {
        Self(serde_json::json!({ "name": name, "version": version, "exercised": exercised, "config": config }))
    }

    /// A text that must be there.
    pub fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_else(|| panic!("{field} is missing: {}", self.0))
    }

    /// Whether it says so.
    pub fn is(&self, field: &str) -> bool {
        self.0[field].as_bool().unwrap_or(false)
    }

    /// A number that must be there.
    pub fn number(&self, field: &str) -> i64 {
        self.0[field].as_i64().unwrap_or_else(|| panic!("{field} is missing: {}", self.0))
    }

    /// A list of texts; empty if it is not there.
    pub fn list(&self, field: &str) -> Vec<String> {
        let items = self.0[field].as_array().into_iter().flatten();
        items.map(|item| item.as_str().expect("a list of texts").to_owned()).collect()
    }
}

/// A web application that serves, in a directory of its own.
pub struct App {
    process: Process,
    /// What it says of itself.
    pub about: About,
    /// Where it serves.
    pub http: u16,
    _dir: TempDir,
}

impl App {
    /// Starts it and waits until it serves.
    pub fn start(runs: Runs, port: u16) -> Self {
        use std::os::unix::process::CommandExt;
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let mut command = runs.command(port, dir.path());
        // A group of its own, so that its own children end with it.
        let process = Process::start(runs.line(), command.process_group(0));
        let (http, about) = if matches!(runs, Runs::PhpServer(_)) {
            let http = process
                .find_line(|line| {
                    let (_, after) = line.split_once("Development Server (http://127.0.0.1:")?;
                    after.split_once(')')?.0.parse().ok()
                })
                .unwrap_or_else(|| panic!("{} did not start:\n{}", runs.line(), process.output()));
            (http, wait_for("PHP serves", || About::read(&Browser::new(http).get("/about").body)))
        } else {
            let about = process.find_line(About::read).unwrap_or_else(|| {
                panic!("{} ended before it served:\n{}", runs.line(), process.output());
            });
            (u16::try_from(about.number("http")).expect("a port"), about)
        };
        Self { process, about, http, _dir: dir }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // Its group, by its own id: the workers of a web server. An error means that they have ended already.
        let group = format!("-{}", self.process.pid());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(std::process::Stdio::null()).status();
    }
}

/// Runs an application that serves nothing to its end. What it says of itself is its last line.
pub fn run_to_end(runs: Runs, port: u16, password: &str) -> About {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let mut command = runs.command(port, dir.path());
    let output = command.env("REDIS_PASSWORD", password).stdin(std::process::Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot start {}: {error}", runs.line()));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = || format!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {}", output.status, failed());
    said.lines().last().and_then(About::read).unwrap_or_else(|| panic!("no word of itself: {}", failed()))
}
