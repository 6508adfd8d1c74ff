//! What operators point at the side port: promtool finds nothing to complain about, and a real Prometheus scrapes it
//! and answers the query for the hit ratio.

mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use support::daemon::{Daemon, StoreKind};
use support::postgres::Cluster;
use support::process::Process;
use support::redis::free_port;
use support::{http, tool, wait_for};

/// A bit of everything, so that most series have been touched.
fn use_it(daemon: &Daemon) {
    let mut client = daemon.client();
    for line in ["SET a 1 EX 100", "GET a", "GET a", "GET missing", "DEL a", "NOPE", "INCR n", "GET", "HELLO 3", "PING"]
    {
        client.ask(line);
    }
    assert_eq!(daemon.page("/nothing-here").0, 404);
}

fn check_page(daemon: &Daemon) {
    use_it(daemon);
    let (status, page) = daemon.page("/metrics");
    assert_eq!(status, 200);
    let mut promtool = Command::new(tool("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    promtool.stdin.take().expect("stdin is piped").write_all(page.as_bytes()).expect("promtool reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "promtool: {said}\n{page}");
    for name in ["cloakroom_cache_hits_total", "cloakroom_cache_misses_total", "cloakroom_build_info"] {
        assert!(page.lines().any(|line| line.starts_with(name)), "{name} is missing:\n{page}");
    }
    let undocumented: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .filter(|name| !page.contains(&format!("# HELP {name} ")))
        .collect();
    assert!(undocumented.is_empty(), "without a description: {undocumented:?}");
    assert!(!page.contains("missing"), "no key is in the metrics");
}

#[test]
fn promtool_accepts_the_page_on_sqlite() {
    check_page(&Daemon::start(StoreKind::Sqlite, &[]));
}

#[test]
fn promtool_accepts_the_page_on_postgres() {
    let cluster = Cluster::start();
    check_page(&Daemon::start(StoreKind::Postgres(&cluster), &[]));
}

#[test]
fn hits_and_misses_are_counted() {
    let mut daemon = Daemon::start(StoreKind::Sqlite, &[]);
    daemon.client().ask("SET a 1");
    // An empty cache: the first read must ask the store.
    daemon.restart();
    let mut client = daemon.client();
    let count = |name: &str| daemon.metric(name, &[]);
    for _ in 0..10 {
        assert_eq!(client.ask("GET a"), "$1\\r\\n1\\r\\n");
    }
    assert!((count("cloakroom_cache_hits_total") - 9.0).abs() < f64::EPSILON, "nine hits");
    assert!((count("cloakroom_cache_misses_total") - 1.0).abs() < f64::EPSILON, "one miss");
}

#[test]
fn prometheus_answers_the_hit_ratio() {
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let config = dir.path().join("prometheus.yml");
    let target = daemon.metrics_port();
    let text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n  - job_name: cloakroom\n    \
         static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n"
    );
    std::fs::write(&config, text).expect("the configuration can be written");
    let (_prometheus, port) = start_prometheus(&config, dir.path());
    let mut client = daemon.client();
    client.ask("SET a 1");
    let ratio = "sum(rate(cloakroom_cache_hits_total[1m])) / (sum(rate(cloakroom_cache_hits_total[1m])) \
                 + sum(rate(cloakroom_cache_misses_total[1m])))";
    // Three reads of what is there and, the first time, one of what is not.
    let value = wait_for("prometheus answers the query", || {
        for line in ["GET a", "GET a", "GET a", "GET b"] {
            client.ask(line);
        }
        query(port, ratio).filter(|value| value.is_finite())
    });
    assert!(value > 0.0 && value <= 1.0, "a ratio: {value}");
    assert_eq!(query(port, "up{job=\"cloakroom\"}"), Some(1.0));
    assert_eq!(query(port, "count(cloakroom_build_info)"), Some(1.0));
}

/// Prometheus cannot choose a port by itself: another process may take the free one first.
fn start_prometheus(config: &std::path::Path, dir: &std::path::Path) -> (Process, u16) {
    for _ in 0..10 {
        let port = free_port();
        let mut command = Command::new(tool("prometheus"));
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join(format!("data-{port}")).display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let process = Process::start("prometheus", &mut command);
        if process.find_line(|line| line.contains("Server is ready to receive web requests").then_some(())).is_some() {
            return (process, port);
        }
    }
    panic!("prometheus does not start");
}

/// The one number that a query answers, if it answers one.
fn query(port: u16, expression: &str) -> Option<f64> {
    let path = format!("/api/v1/query?query={}", http::percent_encode(expression));
    let (status, body) = http::get(port, &path).ok()?;
    assert_eq!(status, 200, "{body}");
    // {"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1700000000.1,"0.9"]}]}}
    body.split_once("\"value\":[")?.1.split('"').nth(1)?.parse().ok()
}
