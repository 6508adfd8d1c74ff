//! A real Django logs out on one node; the old cookie is refused on another: at once after `max_staleness`, in strict mode immediately.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use support::fleet::{Fleet, Shape};
use support::process::show;
use support::target_dir;

/// Sessions that are logged out.
const ROUNDS: usize = 1_000;

/// Sessions that are open at a time where logouts are waited for.
const OPEN: usize = 100;

/// `coherence.max_staleness`, the default.
const MAX_STALENESS: Duration = Duration::from_secs(1);

#[test]
fn a_logout_holds_on_another_node_after_the_bound() {
    let mut site = Site::start("on");
    for _ in 0..ROUNDS / OPEN {
        let cookies: Vec<String> = (0..OPEN).map(|_| site.log_in()).collect();
        let mut old = Vec::new();
        for cookie in cookies {
            assert_eq!(site.nodes[0].ask(&format!("logout {cookie}")), "done");
            old.push((Instant::now() + MAX_STALENESS, cookie));
        }
        for (time, cookie) in old {
            std::thread::sleep(time.saturating_duration_since(Instant::now()));
            assert_eq!(
                site.who(&cookie),
                "nobody",
                "the old cookie on node B, {MAX_STALENESS:?} after the logout on node A"
            );
        }
    }
}

#[test]
fn a_strict_logout_holds_on_another_node_immediately() {
    let mut site = Site::start("strict");
    for round in 0..ROUNDS {
        let cookie = site.log_in();
        assert_eq!(site.nodes[0].ask(&format!("logout {cookie}")), "done");
        assert_eq!(
            site.who(&cookie),
            "nobody",
            "round {round}: the old cookie on node B, just after the logout on node A"
        );
    }
}

/// The test can fail: without coherence node B goes on serving what it has.
#[test]
fn without_coherence_the_old_cookie_is_served() {
    let mut site = Site::start("off");
    let cookie = site.log_in();
    assert_eq!(site.nodes[0].ask(&format!("logout {cookie}")), "done");
    std::thread::sleep(MAX_STALENESS);
    assert_eq!(site.who(&cookie), "ada", "node B does not hear of the logout");
}

/// A site that runs on two hosts, each with a Django and a daemon, and one Postgres.
struct Site {
    /// Before the fleet, so that they end first.
    nodes: [Django; 2],
    _fleet: Fleet,
    _dir: tempfile::TempDir,
}

impl Site {
    fn start(mode: &str) -> Self {
        let fleet = Fleet::start(Shape { nodes: 2, mode, settings: &[("cache.max_age", "1h")], wrappers: &[] });
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let ports = fleet.ports();
        show(&format!("mode {mode}: {ROUNDS} rounds"));
        let first = Django::start(dir.path(), ports[0], "first");
        let nodes = [first, Django::start(dir.path(), ports[1], "next")];
        Self { nodes, _fleet: fleet, _dir: dir }
    }

    /// Logs in on node A, and goes on to node B, whose cache has the session from then on; the cookie.
    fn log_in(&mut self) -> String {
        let cookie = self.nodes[0].ask("login");
        assert_eq!(self.who(&cookie), "ada", "the session is good on node B");
        assert_eq!(self.who(&cookie), "ada", "and again, from its cache");
        cookie
    }

    /// Who node B says that the bearer of a cookie is.
    fn who(&mut self, cookie: &str) -> String {
        self.nodes[1].ask(&format!("who {cookie}"))
    }
}

/// A Django process. Dropping it kills it.
struct Django {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Django {
    fn start(dir: &Path, port: u16, order: &str) -> Self {
        let python = std::env::var_os("CLOAKROOM_TEST_PYTHON")
            .map_or_else(|| target_dir().join("venv").join("bin").join("python"), PathBuf::from);
        assert!(python.exists(), "Django is not installed: `make test` installs it");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/django_loop.py");
        let mut command = Command::new(python);
        command.arg(script).arg(dir).arg(port.to_string()).arg(order);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python starts");
        let input = child.stdin.take().expect("stdin is piped");
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut django = Self { child, input, output };
        assert_eq!(django.line(), "ready");
        django
    }

    /// One request, one answer.
    fn ask(&mut self, request: &str) -> String {
        writeln!(self.input, "{request}").expect("Django waits for requests");
        self.line()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let length = self.output.read_line(&mut line).expect("Django writes text");
        assert!(length > 0, "Django ended; what it said is above");
        line.trim().to_owned()
    }
}

impl Drop for Django {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
