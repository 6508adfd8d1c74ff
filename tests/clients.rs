//! Real clients with their defaults: Django's own sessions through a login, a restart and a logout; redis-py; node-redis.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use support::daemon::{Daemon, StoreKind};
use support::postgres::Cluster;
use support::{target_dir, tool};

#[test]
fn django_cache_sessions_survive_a_restart() {
    check_django("django.contrib.sessions.backends.cache");
}

#[test]
fn django_cached_db_sessions_survive_a_restart() {
    check_django("django.contrib.sessions.backends.cached_db");
}

#[test]
fn redis_py_with_its_defaults() {
    on_both_stores(|daemon| {
        let mut command = Command::new(python("redis"));
        command.arg(script("redis_py.py")).arg(daemon.port().to_string());
        run("redis_py.py", &mut command);
    });
}

#[test]
fn node_redis_with_its_defaults() {
    let modules = target_dir().join("node").join("node_modules");
    assert!(modules.join("redis").is_dir(), "node-redis is not installed: `make test` installs it");
    on_both_stores(|daemon| {
        let mut command = Command::new(modules.with_file_name("bin").join("node"));
        command.env("NODE_PATH", &modules).arg(script("node_redis.cjs")).arg(daemon.port().to_string());
        run("node_redis.cjs", &mut command);
    });
}

#[test]
fn redis_cli_with_its_defaults() {
    on_both_stores(|daemon| {
        let cli = |args: &[&str]| {
            let mut command = Command::new(tool("redis-cli"));
            run("redis-cli", command.args(["-p", &daemon.port().to_string()]).args(args))
        };
        assert_eq!(cli(&["SET", "s:1", "v", "EX", "60"]), "OK\n");
        assert_eq!(cli(&["GET", "s:1"]), "v\n");
        assert_eq!(cli(&["-3", "GET", "s:1"]), "v\n");
        assert_eq!(cli(&["--scan", "--pattern", "s:*"]), "s:1\n");
        assert_eq!(cli(&["-n", "2", "DBSIZE"]), "0\n");
    });
}

fn on_both_stores(check: impl Fn(&Daemon)) {
    check(&Daemon::start(StoreKind::Sqlite, &[]));
    let cluster = Cluster::start();
    check(&Daemon::start(StoreKind::Postgres(&cluster), &[]));
}

/// The driver makes a project, logs in over HTTP, and asks for the restart by a line on its standard output.
fn check_django(engine: &str) {
    let cluster = Cluster::start();
    let mut daemon = Daemon::start(StoreKind::Postgres(&cluster), &[]);
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let mut driver = Command::new(python("django"))
        .arg(script("django_project.py"))
        .args([engine, &daemon.port().to_string()])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut input = driver.stdin.take().expect("stdin is piped");
    let mut output = BufReader::new(driver.stdout.take().expect("stdout is piped"));
    let mut line = String::new();
    let mut restarts = 0;
    while output.read_line(&mut line).expect("the driver writes text") > 0 {
        if line.trim() == "restart" {
            daemon.restart();
            restarts += 1;
            writeln!(input, "restarted").expect("the driver waits");
        }
        line.clear();
    }
    drop(input);
    let output = driver.wait_with_output().expect("the driver ends");
    assert!(output.status.success(), "{engine}: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(restarts, 1, "the driver came to the restart");
}

/// Runs a command to its end and returns what it wrote.
fn run(name: &str, command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{name}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join("clients").join(name)
}

/// A Python that has `module`.
fn python(module: &str) -> PathBuf {
    let python = std::env::var_os("CLOAKROOM_TEST_PYTHON")
        .map_or_else(|| target_dir().join("venv").join("bin").join("python"), PathBuf::from);
    let probe = Command::new(&python).args(["-c", &format!("import {module}")]).output();
    assert!(
        probe.is_ok_and(|output| output.status.success()),
        "{} with the module {module} is not installed: `make test` installs it",
        python.display()
    );
    python
}
