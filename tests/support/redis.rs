//! A real `redis-server` without persistence, to compare with.

use std::net::TcpListener;
use std::process::Command;

use tempfile::TempDir;

use super::client::Client;
use super::process::Process;
use super::tool;

/// A running Redis.
pub struct RedisServer {
    process: Process,
    port: u16,
    _dir: TempDir,
}

impl RedisServer {
    /// Starts one with its defaults.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with further command line arguments.
    pub fn start_with(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        // Redis cannot choose a port by itself: another process may take the free one first.
        for _ in 0..20 {
            let port = free_port();
            let mut command = Command::new(tool("redis-server"));
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            command.arg("--dir").arg(dir.path()).args(args);
            let process = Process::start("redis-server", &mut command);
            if process.find_line(|line| line.contains("Ready to accept connections").then_some(())).is_some() {
                return Self { process, port, _dir: dir };
            }
        }
        panic!("redis-server does not start");
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A new connection.
    pub fn client(&self) -> Client {
        Client::connect(self.port)
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free").port()
}
