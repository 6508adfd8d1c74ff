//! The command line, the configuration and the signals, against the real binary.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail as its body does")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The binary with nothing of our environment but a home of its own.
fn cloakroom(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cloakroom"));
    command.env_clear().env("HOME", home).current_dir(home).stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn version_and_help_go_to_standard_output() {
    let home = tempfile::tempdir().unwrap();
    let (code, out, err) = run(cloakroom(home.path()).arg("--version"));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, format!("cloakroom {}\n", env!("CARGO_PKG_VERSION")));

    let (code, out, err) = run(cloakroom(home.path()).arg("--help"));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for word in ["--listen", "--check-config", "CLOAKROOM_CACHE_MAX_BYTES", "256MiB", "127.0.0.1:6379", "SIGHUP", "64"]
    {
        let word = word.trim_start_matches("SIG");
        assert!(out.contains(word), "{word} is not in:\n{out}");
    }
}

#[test]
fn all_faults_come_at_once_and_before_anything_is_done() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("c.toml");
    std::fs::write(&file, "lisen = '127.0.0.1:1'\n[cache]\nmax_bytes = 'many'\n").unwrap();
    // Were a port bound before the check, this one would be told as in use.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, out, err) = run(cloakroom(home.path())
        .arg("--bogus")
        .args(["--listen", &taken.local_addr().unwrap().to_string()])
        .args(["--config", file.to_str().unwrap()])
        .env("CLOAKROOM_LOG_FORMAT", "xml")
        .env("CLOAKROOM_LOG_FROMAT", "json")
        .env("CLOAKROOM_PASSWORD_FILE", "/nonexistent/password"));
    assert_eq!(code, Some(64), "{err}");
    assert_eq!(out, "");
    let lines: Vec<&str> = err.lines().collect();
    let file = file.display();
    for expected in [
        "command line: --bogus: unknown option".to_owned(),
        "environment: CLOAKROOM_LOG_FORMAT: \"xml\" is neither".into(),
        "environment: CLOAKROOM_LOG_FROMAT: unknown variable; did you mean CLOAKROOM_LOG_FORMAT?".into(),
        format!("{file}:1: lisen: unknown key; did you mean listen?"),
        format!("{file}:3: cache.max_bytes: expected a number of bytes"),
        "environment: CLOAKROOM_PASSWORD_FILE: /nonexistent/password cannot be read".into(),
    ] {
        assert_eq!(lines.iter().filter(|line| line.starts_with(&expected)).count(), 1, "{expected}\n{err}");
    }
    assert_eq!(lines.len(), 6, "{err}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "something was made in the state directory");
}

#[test]
fn a_checked_configuration_is_shown_without_secrets() {
    let home = tempfile::tempdir().unwrap();
    let (code, out, err) = run(cloakroom(home.path())
        .args(["--check-config", "--listen", "unix:/run/c.sock", "--listen", "[::1]:0"])
        .env("CLOAKROOM_STORE", "postgres://user:hunter2@db.example:5432/sessions?sslmode=require&password=hunter3")
        .env("CLOAKROOM_PASSWORD", "hunter4")
        .env("CLOAKROOM_CACHE_MAX_BYTES", "1GiB")
        .env("CLOAKROOM_SERVICE_HOST", "10.0.0.1"));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(!out.contains("hunter"), "{out}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "configuration ok");
    for expected in [
        "listen = unix:/run/c.sock, [::1]:0",
        "metrics_listen = 127.0.0.1:9380",
        "store = postgres://db.example:5432/sessions",
        "password = set",
        "cache.max_bytes = 1GiB",
        "postgres.connections = 8",
    ] {
        assert!(lines.contains(&expected), "{expected} is not in:\n{out}");
    }
}

#[test]
fn a_postgres_url_is_checked_with_the_rest() {
    let home = tempfile::tempdir().unwrap();
    let (code, out, err) = run(cloakroom(home.path())
        .args(["--listen", "nowhere"])
        .env("CLOAKROOM_STORE", "postgres://user:hunter2@db:5432/d?sslmod=require&password=hunter3"));
    assert_eq!((code, out.as_str()), (Some(64), ""), "{err}");
    assert!(err.contains("environment: CLOAKROOM_STORE: ") && err.contains("sslmod"), "{err}");
    assert!(err.contains("command line: --listen: ") && !err.contains("hunter"), "{err}");
}

#[test]
fn secrets_in_the_wrong_place_are_not_repeated() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("c.toml");
    std::fs::write(&file, "password = 'hunter2'\nstore = 'mysql://u:hunter2@h'\nlisten = 'redis://:hunter2@h'\n")
        .unwrap();
    let (code, out, err) = run(cloakroom(home.path())
        .args(["--password", "hunter2", "--requirepass=hunter2", "--store", "hunter2"])
        .args(["--config", file.to_str().unwrap()])
        .env("CLOAKROOM_REQUIREPASS", "hunter2"));
    assert_eq!(code, Some(64));
    assert!(!format!("{out}{err}").contains("hunter"), "{err}");
    assert_eq!(err.lines().count(), 8, "{err}");
}

#[test]
fn the_commented_file_is_a_valid_file() {
    let home = tempfile::tempdir().unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/cloakroom.toml");
    let (code, out, err) = run(cloakroom(home.path()).args(["--check-config", "--config", file]));
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
}

/// A running daemon; ended when dropped.
struct Daemon {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    fn start(home: &Path) -> Self {
        let store = format!("sqlite:{}", home.join("store.db").display());
        let mut child = cloakroom(home)
            .args(["--listen", "127.0.0.1:0", "--metrics-listen", "off", "--store", &store, "--config"])
            .arg(home.join("c.toml"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let daemon = Self { child, stderr };
        daemon.wait_until_it_catches_signals();
        daemon
    }

    /// Until then a signal would end the process by itself.
    fn wait_until_it_catches_signals(&self) {
        let wanted: u64 = (1 << 0) | (1 << 14); // SIGHUP and SIGTERM
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim();
            if u64::from_str_radix(mask, 16).unwrap() & wanted == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "it never caught signals");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status().unwrap();
        assert!(status.success());
    }

    /// Reads the log up to the first line that contains `text`.
    fn line_with(&mut self, text: &str) -> String {
        let mut line = String::new();
        while self.stderr.read_line(&mut line).unwrap() > 0 {
            if line.contains(text) {
                return line;
            }
            line.clear();
        }
        panic!("the log ended without {text:?}");
    }

    /// The exit code and the rest of the log.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

#[test]
fn told_to_stop_it_ends_with_code_zero() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("c.toml"), "").unwrap();
    for name in ["TERM", "INT"] {
        let mut daemon = Daemon::start(home.path());
        daemon.signal(name);
        daemon.line_with("told to stop");
        let (code, log) = daemon.end();
        assert_eq!(code, Some(0), "{name}: {log}");
    }
}

#[test]
fn a_hangup_reads_again_what_can_be_read_again() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("c.toml");
    std::fs::write(&file, "[log]\nformat = 'json'\n").unwrap();
    let mut daemon = Daemon::start(home.path());

    std::fs::write(&file, "[log]\nformat = 'json'\nlevel = 'debug'\n").unwrap();
    daemon.signal("HUP");
    let line = daemon.line_with("read again");
    assert!(line.starts_with('{') && line.contains("\"level\":\"INFO\"") && line.contains("debug"), "{line}");

    std::fs::write(&file, "password = 'hunter2'\n").unwrap();
    daemon.signal("HUP");
    let line = daemon.line_with("nothing of it is used");
    assert!(line.contains("\"level\":\"ERROR\"") && line.contains("c.toml:1: password"), "{line}");
    assert!(!line.contains("hunter2"));

    daemon.signal("TERM");
    let (code, log) = daemon.end();
    assert_eq!(code, Some(0), "{log}");
}
