//! A private `PgBouncer` in front of a cluster, with one session for many connections. Run as a user that is not root.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use super::postgres::{Cluster, as_user};
use super::process::Process;
use super::{tool, wait_for};

/// A running pooler. Dropping it kills it.
pub struct PgBouncer {
    process: Process,
    port: u16,
    file: PathBuf,
}

impl PgBouncer {
    /// One that gives out sessions for a transaction each.
    pub fn start(cluster: &Cluster) -> Self {
        Self::start_with(cluster, "")
    }

    /// The same with more lines of its `[pgbouncer]` section.
    pub fn start_with(cluster: &Cluster, lines: &str) -> Self {
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let file = write(cluster, port, cluster.port(), lines);
            let mut process = run(&file);
            let listening = wait_for("pgbouncer listens", || {
                let accepts = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_ok();
                if accepts { Some(true) } else { (!process.is_running()).then_some(false) }
            });
            // Else somebody else has the port.
            if listening && process.is_running() {
                return Self { process, port, file };
            }
        }
        panic!("pgbouncer does not start");
    }

    /// The URL of a database.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it has said.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// Leads to another cluster from now on; sessions of the first are closed when they are free.
    pub fn lead_to(&self, first: &Cluster, other: &Cluster) {
        assert_eq!(write(first, self.port, other.port(), ""), self.file);
        self.process.signal("HUP");
    }

    /// Ends at once, with all connections.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts again on the same port.
    pub fn run(&mut self) {
        self.process = run(&self.file);
        wait_for("pgbouncer listens again", || {
            TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port))).is_ok().then_some(())
        });
    }
}

/// Writes the configuration beside the cluster's data.
fn write(cluster: &Cluster, port: u16, to: u16, lines: &str) -> PathBuf {
    let users = cluster.write_file("pgbouncer.users", b"\"postgres\" \"\"\n");
    let text = format!(
        "[databases]\n* = host=127.0.0.1 port={to}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\nmax_client_conn = 200\n\
         default_pool_size = 10\nserver_login_retry = 1\n{lines}\n",
        users.display()
    );
    cluster.write_file("pgbouncer.ini", text.as_bytes())
}

fn run(file: &PathBuf) -> Process {
    // Debian's place for it is not on everybody's path.
    let debian = PathBuf::from("/usr/sbin/pgbouncer");
    let program = if debian.is_file() { debian } else { tool("pgbouncer") };
    Process::start("pgbouncer", as_user(program).arg(file))
}

/// A `psql` through a pooler; the rows, unaligned.
pub fn psql(pooler: &PgBouncer, sql: &str) -> String {
    let output = Command::new(tool("psql")).args(["-XqAt", "-d", &pooler.url_of("postgres"), "-c", sql]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}
