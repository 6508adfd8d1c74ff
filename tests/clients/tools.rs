//! The tools that operators point at Redis: redis-cli, redis-benchmark, the exporter for Prometheus.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::PASSWORD;
use super::app::About;
use super::server::Server;
use crate::support::process::Process;
use crate::support::redis::free_port;
use crate::support::{http, tool, wait_for};

/// redis-cli in the ways people use it.
pub fn redis_cli(server: &Server) -> About {
    let mut exercised = Vec::new();
    let cli = |args: &[&str]| said(redis_cli_command(server).args(args));
    assert_eq!(cli(&["SET", "s:1", "v", "EX", "600"]), "OK\n");
    assert_eq!(cli(&["GET", "s:1"]), "v\n");
    assert_eq!(cli(&["-n", "2", "DBSIZE"]), "0\n");
    exercised.push("commands");
    assert_eq!(cli(&["-3", "GET", "s:1"]), "v\n");
    exercised.push("-3");

    let lines: Vec<String> = (2..=300).map(|number| format!("SET s:{number} {number}\r\n")).collect();
    let mut pipe =
        redis_cli_command(server).arg("--pipe").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    pipe.stdin.take().unwrap().write_all(lines.concat().as_bytes()).unwrap();
    let output = pipe.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("errors: 0, replies: 299"), "{text}");
    exercised.push("--pipe");

    let keys = cli(&["--scan", "--pattern", "s:*"]);
    let mut keys: Vec<&str> = keys.lines().collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 300);
    exercised.push("--scan");
    assert_eq!(cli(&["SET", "big", &"x".repeat(5000)]), "OK\n");
    let report = cli(&["--bigkeys"]);
    assert!(
        report.contains("Sampled 301 keys") && report.contains("Biggest string found '\"big\"' has 5000 bytes"),
        "{report}"
    );
    exercised.push("--bigkeys");
    assert!(cli(&["--memkeys"]).contains("Biggest string found '\"big\"'"));
    exercised.push("--memkeys");

    // It goes on until it is stopped.
    let mut stat = redis_cli_command(server);
    let mut stat = stat.args(["--stat", "-i", "0.1"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(stat.stdout.take().unwrap()).lines().map(Result::unwrap);
    let rows: Vec<String> = lines.filter(|line| line.starts_with("301 ")).take(2).collect();
    let _ = stat.kill();
    let _ = stat.wait();
    assert_eq!(rows.len(), 2, "--stat counts the keys, again and again");
    exercised.push("--stat");
    About::new("redis-cli", &version("redis-cli"), &exercised, "redis-cli -h 127.0.0.1 -p 6379")
}

/// redis-benchmark with what is here.
pub fn redis_benchmark(server: &Server) -> About {
    let tests = ["ping", "set", "get", "incr", "hset", "mset"];
    let mut command = Command::new(tool("redis-benchmark"));
    command.args([
        "-p",
        &server.port().to_string(),
        "-a",
        PASSWORD,
        "-t",
        &tests.join(","),
        "-n",
        "500",
        "-c",
        "10",
        "-P",
        "4",
    ]);
    let report = said(command.args(["--csv"]));
    for test in tests {
        let name = format!("\"{}", test.to_uppercase());
        assert!(report.lines().any(|line| line.starts_with(&name)), "{test}: {report}");
    }
    About::new(
        "redis-benchmark",
        &version("redis-benchmark"),
        &tests,
        "redis-benchmark -h 127.0.0.1 -p 6379 -t ping,set,get,incr,hset,mset",
    )
}

/// The exporter that Prometheus asks about a Redis.
pub fn exporter(server: &Server) -> About {
    let mut client = server.client();
    client.line(&format!("AUTH {PASSWORD}"));
    assert_eq!(client.ask("SET s:1 v EX 600"), "+OK\\r\\n");
    // Cloakroom's INFO shows the counts of the last time that it counted.
    assert_eq!(client.ask("DBSIZE"), ":1\\r\\n");
    let program = tool("prometheus-redis-exporter");
    let port = free_port();
    let mut command = Command::new(&program);
    command.args(["--redis.addr", &format!("redis://127.0.0.1:{}", server.port()), "--redis.password", PASSWORD]);
    command.args(["--web.listen-address", &format!("127.0.0.1:{port}"), "--check-keys", "s:*"]);
    let _process = Process::start("prometheus-redis-exporter", &mut command);
    let page =
        wait_for("the exporter serves", || http::get(port, "/metrics").ok().filter(|(status, _)| *status == 200)).1;
    let mut exercised = Vec::new();
    for (what, line) in [
        ("INFO", "redis_up 1"),
        ("key counts", "redis_db_keys{db=\"db0\"} 1"),
        ("key counts by expiry", "redis_db_keys_expiring{db=\"db0\"} 1"),
        ("sizes of keys", "redis_key_size{db=\"db0\",key=\"s:1\"} 1"),
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is missing:\n{page}");
        exercised.push(what);
    }
    let banner = said(Command::new(&program).arg("--version"));
    // Debian's revision is no news.
    let number = |text: &str| Some(text.split_once("Exporter ")?.1.split([' ', '-']).next()?.to_owned());
    let version = number(&banner).unwrap_or_else(|| panic!("no version: {banner}"));
    About::new(
        "prometheus-redis-exporter",
        &version,
        &exercised,
        "prometheus-redis-exporter --redis.addr redis://127.0.0.1:6379",
    )
}

fn redis_cli_command(server: &Server) -> Command {
    let mut command = Command::new(tool("redis-cli"));
    command.env("REDISCLI_AUTH", PASSWORD).args(["-p", &server.port().to_string()]);
    command
}

/// The second word of what it says to `--version`.
fn version(name: &str) -> String {
    let text = said(Command::new(tool(name)).arg("--version"));
    text.split_whitespace().nth(1).unwrap_or_else(|| panic!("no version: {text}")).to_owned()
}

/// Runs a command that must succeed; what it wrote, errors last.
fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    text
}
