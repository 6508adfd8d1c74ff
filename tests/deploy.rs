//! The files that others run us by (unit, image, compose file, Prometheus) agree with the code and with each other.
//! Their own tools are used where they are installed; a machine without them still checks the text.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail as its body does")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use cloakroom::config::load::{DEFAULT_FILE, SQLITE_FILE};
use cloakroom::config::settings::{self, SETTINGS, Setting};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn file(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The port of an address setting's default.
fn default_port(key: &str) -> u16 {
    settings::find(key).unwrap().default.unwrap().rsplit_once(':').unwrap().1.parse().unwrap()
}

/// The values of a key in a unit file, comments left out.
fn unit_values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// The lines of the block under `key:` at the given indent, without comments.
fn yaml_block<'a>(text: &'a str, key: &str, indent: usize) -> Vec<&'a str> {
    let head = format!("{}{key}:", " ".repeat(indent));
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with('#')).skip_while(|line| *line != head);
    assert!(lines.next().is_some(), "{head:?} is missing");
    lines.take_while(|line| line.trim().is_empty() || line.starts_with(&" ".repeat(indent + 1))).collect()
}

/// Runs a tool; nothing if it is not installed.
fn tool(name: &str, args: &[&str]) -> Option<(bool, String)> {
    let Output { status, stdout, stderr } = Command::new(name).args(args).current_dir(root()).output().ok()?;
    Some((status.success(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr))))
}

#[test]
fn the_unit_file_agrees_with_the_daemon() {
    let unit = file("systemd/cloakroom.service");
    for (key, expected) in [
        ("Type", "notify"),
        ("ExecStart", "/usr/local/bin/cloakroom"),
        ("StateDirectory", "cloakroom"),
        ("RuntimeDirectory", "cloakroom"),
        ("ConfigurationDirectory", "cloakroom"),
        ("DynamicUser", "yes"),
        ("Restart", "on-failure"),
        ("RestartPreventExitStatus", "64"),
    ] {
        assert_eq!(unit_values(&unit, key), [expected], "{key}");
    }
    assert!(DEFAULT_FILE.starts_with("/etc/cloakroom/"), "the ConfigurationDirectory is where the file is looked for");
    assert!(unit.contains(&format!("/var/lib/cloakroom/{SQLITE_FILE}")), "the comment tells where the store is");
    let descriptors: u32 = unit_values(&unit, "LimitNOFILE")[0].parse().unwrap();
    let clients: u32 = settings::find("limits.max_clients").unwrap().default.unwrap().parse().unwrap();
    assert!(descriptors > clients + 1000);
    let seconds = |text: &str| text.strip_suffix('s').unwrap().parse::<u32>().unwrap();
    let drain = seconds(settings::find("shutdown.timeout").unwrap().default.unwrap());
    assert!(seconds(unit_values(&unit, "TimeoutStopSec")[0]) > drain, "systemd must not cut the drain short");
    let families = unit_values(&unit, "RestrictAddressFamilies")[0];
    for family in ["AF_INET", "AF_INET6", "AF_UNIX"] {
        assert!(families.split(' ').any(|given| given == family), "{family} is needed");
    }
}

#[test]
fn systemd_finds_no_fault_in_the_unit_file() {
    // `verify` wants the binary to exist.
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("cloakroom.service");
    let binary = format!("ExecStart={}", env!("CARGO_BIN_EXE_cloakroom"));
    let unit = file("systemd/cloakroom.service").replace("ExecStart=/usr/local/bin/cloakroom", &binary);
    std::fs::write(&copy, unit).unwrap();
    let Some((good, said)) = tool("systemd-analyze", &["verify", copy.to_str().unwrap()]) else { return };
    assert!(good && said.trim().is_empty(), "{said}");
    // The threshold is in tenths.
    let args = ["security", "--offline=true", "--threshold=15", "--no-pager", "systemd/cloakroom.service"];
    let (good, said) = tool("systemd-analyze", &args).unwrap();
    assert!(good, "{said}");
}

#[test]
fn the_image_agrees_with_the_daemon() {
    let image = file("Dockerfile");
    let (redis, metrics) = (default_port("listen"), default_port("metrics_listen"));
    for line in [
        &format!("EXPOSE {redis} {metrics}"),
        "USER 10001:10001",
        "STOPSIGNAL SIGTERM",
        "VOLUME /var/lib/cloakroom",
        "ENTRYPOINT [\"/usr/local/bin/cloakroom\"]",
    ] {
        assert!(image.lines().any(|found| found == line), "{line}");
    }
    assert!(image.contains(&format!("CLOAKROOM_LISTEN=0.0.0.0:{redis}")));
    assert!(image.contains(&format!("CLOAKROOM_METRICS_LISTEN=0.0.0.0:{metrics}")));
    assert!(image.contains("STATE_DIRECTORY=/var/lib/cloakroom"));
    // What is copied must not be kept from the builder, and secrets must.
    let ignored = file(".dockerignore");
    assert!(ignored.lines().any(|line| line == "*") && ignored.lines().last() == Some("config/secrets"));
    for needed in ["Cargo.toml", "Cargo.lock", "src", "config"] {
        assert!(root().join(needed).exists());
        assert!(ignored.lines().any(|line| line == format!("!{needed}")), "{needed}");
    }
}

/// Every variable that these files set is one that the daemon knows.
#[test]
fn variables_are_known() {
    let known: Vec<String> = SETTINGS.iter().map(Setting::env_name).collect();
    for path in ["Dockerfile", "docker-compose.yml", "systemd/cloakroom.service"] {
        let text = file(path);
        for (at, _) in text.match_indices("CLOAKROOM_") {
            let name = text[at..].split(|c: char| !(c.is_ascii_uppercase() || c == '_')).next().unwrap().to_owned();
            assert!(known.contains(&name), "{path}: {name}");
        }
    }
}

#[test]
fn the_compose_file_agrees_with_the_image() {
    let compose = file("docker-compose.yml");
    let service = yaml_block(&compose, "cloakroom", 2).join("\n");
    let port = default_port("listen");
    for text in [
        "build: .".to_owned(),
        format!("\"127.0.0.1:{port}:{port}\""),
        "condition: service_healthy".into(),
        "CLOAKROOM_PASSWORD_FILE: /run/secrets/password".into(),
        "passfile=/run/secrets/pgpass".into(),
        "read_only: true".into(),
        "no-new-privileges:true".into(),
    ] {
        assert!(service.contains(&text), "{text} is not in:\n{service}");
    }
    // The daemon and Postgres mean the same user and database.
    let postgres = yaml_block(&compose, "postgres", 2).join("\n");
    assert!(service.contains("postgres://cloakroom@postgres:5432/cloakroom?"));
    assert!(postgres.contains("POSTGRES_USER: cloakroom") && postgres.contains("POSTGRES_DB: cloakroom"));
    assert!(postgres.contains("healthcheck:") && postgres.contains("postgres:/var/lib/postgresql"));
    // Every secret is made by `make secrets`, and none is committed.
    let makefile = file("Makefile");
    let secrets = yaml_block(&compose, "secrets", 0);
    let files: Vec<&str> = secrets.iter().filter_map(|line| line.trim().strip_prefix("file: ./")).collect();
    assert_eq!(files.len(), 3);
    for path in files {
        let name = path.strip_prefix("config/secrets/").unwrap();
        assert!(makefile.contains(name), "{name}");
        assert!(compose.contains(&format!("- {name}\n")), "{name} is not used");
    }
    assert!(file(".gitignore").lines().any(|line| line == "config/secrets"));
}

/// The URL of the compose file, with a password file as `make secrets` makes it, is one that the daemon takes.
#[test]
fn the_composed_configuration_is_good() {
    let dir = tempfile::tempdir().unwrap();
    let compose = file("docker-compose.yml");
    let service = yaml_block(&compose, "cloakroom", 2);
    let url = service.iter().find_map(|line| line.trim().strip_prefix("CLOAKROOM_STORE: ")).unwrap();
    let password = dir.path().join("password");
    std::fs::write(&password, "0123456789abcdef").unwrap();
    let passfile = dir.path().join("pgpass");
    std::fs::write(&passfile, "postgres:5432:cloakroom:cloakroom:0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&passfile, std::fs::Permissions::from_mode(0o600)).unwrap();
    let url = url.replace("/run/secrets/pgpass", passfile.to_str().unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_cloakroom"))
        .env_clear()
        .env("CLOAKROOM_STORE", url)
        .env("CLOAKROOM_PASSWORD_FILE", &password)
        .env("CLOAKROOM_LISTEN", "0.0.0.0:6379")
        .env("CLOAKROOM_METRICS_LISTEN", "0.0.0.0:9380")
        .env("STATE_DIRECTORY", "/var/lib/cloakroom")
        .args(["--check-config"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("store = postgres://postgres:5432/cloakroom\n"), "{said}");
}

#[test]
fn compose_and_promtool_find_no_fault() {
    if let Some((good, said)) = tool("promtool", &["check", "config", "config/prometheus.yml"]) {
        assert!(good, "{said}");
    }
    // The old stand-alone client checks the same schema; neither needs an engine.
    if let Some((good, said)) = tool("docker-compose", &["--file", "docker-compose.yml", "config", "--quiet"]) {
        assert!(good, "{said}");
    }
}

#[test]
fn prometheus_scrapes_where_metrics_are() {
    let compose = file("docker-compose.yml");
    let target = format!("- cloakroom:{}", default_port("metrics_listen"));
    assert!(file("config/prometheus.yml").lines().any(|line| line.trim() == target), "{target}");
    let prometheus = yaml_block(&compose, "prometheus", 2).join("\n");
    assert!(prometheus.contains("./config/prometheus.yml:/etc/prometheus/prometheus.yml:ro"));
}

/// The image's health check, as bash runs it, against servers that answer well, badly and not at all.
#[test]
fn the_health_check_tells_ready_from_not_ready() {
    let image = file("Dockerfile").replace("\\\n", " ");
    let line = image.lines().find(|line| line.starts_with("HEALTHCHECK")).unwrap();
    let command = line.split_once("CMD ").unwrap().1;
    let (program, script) = command.strip_prefix("[\"bash\", \"-c\", \"").map(|rest| ("bash", rest)).unwrap();
    let script = script.strip_suffix("\"]").unwrap().replace("\\\"", "\"").replace("\\\\", "\\");

    let check = |port: u16| {
        let script = script.replace(&default_port("metrics_listen").to_string(), &port.to_string());
        Command::new(program).args(["-c", &script]).output().unwrap().status.success()
    };
    for (answer, healthy) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
        ("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", false),
        ("", false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // bash writes line by line.
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") {
                let mut part = [0; 1024];
                let read = stream.read(&mut part).unwrap();
                assert!(read > 0, "the request ended early: {request:?}");
                request.push_str(&String::from_utf8_lossy(&part[..read]));
            }
            stream.write_all(answer.as_bytes()).unwrap();
            request
        });
        assert_eq!(check(port), healthy, "{answer:?}");
        let request = server.join().unwrap();
        assert!(request.starts_with("GET /readyz HTTP/1.1\r\nHost: localhost\r\n"), "{request:?}");
    }
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(!check(closed));
}
