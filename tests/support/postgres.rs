//! A private Postgres cluster for one test.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::process::signal_pid;
use super::redis::free_port;
use super::wait_for;

/// A running cluster with trust authentication.
pub struct Cluster {
    dir: TempDir,
    port: u16,
}

impl Cluster {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let mut cluster = Self { port: free_port(), dir };
        run(Command::new("chown").arg("postgres").arg(cluster.dir.path()));
        run(as_postgres(&bin("initdb")).args(["-A", "trust", "-U", "postgres", "-N", "-D"]).arg(cluster.data()));
        cluster.start_again();
        cluster
    }
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
    pub fn start_again(&mut self) {
        let options = format!("-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''", self.port);
        run(as_postgres(&bin("pg_ctl"))
            .args(["-w", "-D"])
            .arg(self.data())
            .arg("-l")
            .arg(self.dir.path().join("log"))
            .args(["-o", &options, "start"]));
    }
    pub fn stop(&mut self) {
        run(as_postgres(&bin("pg_ctl")).args(["-w", "-m", "fast", "-D"]).arg(self.data()).arg("stop"));
    }
    pub fn kill9(&mut self) {
        let pid = std::fs::read_to_string(self.data().join("postmaster.pid")).expect("it runs");
        let pid: u32 = pid.lines().next().expect("a pid").parse().expect("a pid");
        signal_pid(pid, "KILL");
        wait_for("postgres is gone", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    }
    fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = as_postgres(&bin("pg_ctl")).args(["-w", "-m", "immediate", "-D"]).arg(self.data()).arg("stop").output();
    }
}

fn bin(name: &str) -> String {
    format!("/usr/lib/postgresql/15/bin/{name}")
}

fn as_postgres(program: &str) -> Command {
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--", program]);
    command
}

fn run(command: &mut Command) {
    let output =
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
