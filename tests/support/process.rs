//! A child process whose output is kept, shown when a test fails, and which never outlives its owner.
//! It knows nothing about what the process is.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::{PATIENCE, wait_for};

/// Lines of output shown when a test fails.
const SHOWN_LINES: usize = 60;

/// A running child. Dropping it kills exactly this process.
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
}

#[derive(Default)]
struct Output {
    state: Mutex<Lines>,
    grown: Condvar,
}

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    open_pipes: usize,
}

impl Process {
    /// Starts `command` and keeps what it writes to stdout and stderr.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let output = Arc::new(Output::default());
        output.state.lock().expect("no reader panics").open_pipes = 2;
        collect(child.stdout.take().expect("stdout is piped"), Arc::clone(&output));
        collect(child.stderr.take().expect("stderr is piped"), Arc::clone(&output));
        Self { name: name.to_owned(), child, output }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first thing `find` makes of a line of output, or `None` if the process closes its output first.
    pub fn find_line<T>(&self, mut find: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let end = Instant::now() + PATIENCE;
        let mut state = self.output.state.lock().expect("no reader panics");
        let mut seen = 0;
        loop {
            if let Some(found) = state.lines[seen..].iter().find_map(|line| find(line)) {
                return Some(found);
            }
            seen = state.lines.len();
            if state.open_pipes == 0 {
                return None;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{}: the expected line did not come:\n{}", self.name, tail(&state.lines));
            state = self.output.grown.wait_timeout(state, left).expect("no reader panics").0;
        }
    }

    /// Everything written so far.
    pub fn output(&self) -> String {
        self.output.state.lock().expect("no reader panics").lines.join("\n")
    }

    /// Sends a signal by name (`TERM`, `HUP`, …) to this process.
    pub fn signal(&self, signal: &str) {
        signal_pid(self.pid(), signal);
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child can be waited for").is_none()
    }

    /// Waits for the process to end by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let name = self.name.clone();
        let status = wait_for(&format!("{name} ends"), || self.child.try_wait().expect("the child can be waited for"));
        // The pipes may still hold lines: those belong to the output, too.
        let end = Instant::now() + Duration::from_secs(5);
        let mut state = self.output.state.lock().expect("no reader panics");
        while state.open_pipes > 0 && Instant::now() < end {
            state = self.output.grown.wait_timeout(state, Duration::from_millis(50)).expect("no reader panics").0;
        }
        status
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub fn kill9(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            let shown = tail(&self.output.state.lock().expect("no reader panics").lines);
            show(&format!("--- output of {} ---\n{shown}\n---", self.name));
        }
    }
}

/// Sends a signal by name to one process id.
pub fn signal_pid(pid: u32, signal: &str) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status();
    assert!(status.is_ok_and(|status| status.success()), "cannot send {signal} to process {pid}");
}

/// Resident memory of a process, in KiB.
pub fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux reports VmRSS");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("VmRSS is a number of KiB")
}

/// Prints for the person who reads the test's output.
#[expect(clippy::print_stderr, reason = "the output of a test is its report")]
pub fn show(text: &str) {
    eprintln!("{text}");
}

fn tail(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

fn collect(pipe: impl Read + Send + 'static, output: Arc<Output>) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            output.state.lock().expect("no reader panics").lines.push(text);
            output.grown.notify_all();
            line.clear();
        }
        output.state.lock().expect("no reader panics").open_pipes -= 1;
        output.grown.notify_all();
    });
}
