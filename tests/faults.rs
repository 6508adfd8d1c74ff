//! The store goes away, the disk is full, the port is taken, the machine stops: errors instead of lies, and recovery
//! without help.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};

use support::client::shown;
use support::daemon::{Daemon, StoreKind, binary, clean};
use support::postgres::Cluster;
use support::process::{Process, show};
use support::{tool, wait_for};

/// BSD's `EX_IOERR`: what the daemon ends with when it cannot get its port.
const EXIT_IO: i32 = 74;

/// Waits that a test would feel are shortened; the rest stays as it is by default.
const IMPATIENT: &[(&str, &str)] = &[("postgres.connect_timeout", "500ms")];

#[test]
fn the_store_goes_away_and_comes_back() {
    let mut cluster = Cluster::start();
    let daemon = Daemon::start(StoreKind::Postgres(&cluster), IMPATIENT);
    let mut client = daemon.client();
    assert_eq!(client.ask("MSET one 1 two 2 three 3"), "+OK\\r\\n");
    wait_for("ready", || (daemon.page("/readyz").0 == 200).then_some(()));

    for round in ["stopped", "killed"] {
        if round == "stopped" {
            cluster.stop();
        } else {
            cluster.kill9();
        }
        // Nothing of these is in the cache: a nil would log people out, an OK would be a lie.
        for line in [
            "GET never-seen",
            "MGET never-seen nor-this",
            "EXISTS never-seen",
            "TTL never-seen",
            "SET a 1",
            "SET one 2",
            "SET a 1 NX",
            "SETEX a 100 1",
            "DEL one",
            "DEL never-seen",
            "EXPIRE one 100",
            "INCR one",
            "GETEX one EX 100",
            "GETDEL two",
            "RENAME two four",
            "MSET a 1 b 2",
            "SCAN 0",
            "DBSIZE",
            "FLUSHDB",
        ] {
            // What was asked before is known, and may be answered.
            let reply = client.ask(&line.replace("never-seen", &format!("never-seen-{round}")));
            assert!(reply.starts_with('-'), "{round}: {line} answers {reply}");
            assert!(!reply.contains("postgres") && !reply.contains("127.0.0.1"), "{line} tells too much: {reply}");
        }
        assert_eq!(client.ask("PING"), "+PONG\\r\\n");
        assert!(client.ask("INFO").starts_with('$'));
        wait_for("not ready", || (daemon.page("/readyz").0 == 503).then_some(()));
        assert_eq!(daemon.page("/livez").0, 200);
        assert_eq!(daemon.page("/metrics").0, 200);

        cluster.run();
        wait_for("ready again", || (daemon.page("/readyz").0 == 200).then_some(()));
        wait_for("reads again", || (client.ask("GET never-seen") == "$-1\\r\\n").then_some(()));
        assert_eq!(
            client.ask("MGET one two three"),
            "*3\\r\\n$1\\r\\n1\\r\\n$1\\r\\n2\\r\\n$1\\r\\n3\\r\\n",
            "{round}"
        );
        assert_eq!(client.ask("SET healed 1"), "+OK\\r\\n");
        assert_eq!(client.ask("DEL healed"), ":1\\r\\n");
    }
}

#[test]
fn the_daemon_may_start_before_its_store() {
    let mut cluster = Cluster::start();
    cluster.stop();
    let daemon = Daemon::start(StoreKind::Postgres(&cluster), IMPATIENT);
    let mut client = daemon.client();
    assert_eq!(client.ask("PING"), "+PONG\\r\\n");
    for line in ["GET a", "SET a 1"] {
        let reply = client.ask(line);
        assert!(reply.starts_with('-'), "{line} answers {reply}");
    }
    assert_eq!(daemon.page("/readyz").0, 503);
    assert_eq!(daemon.page("/livez").0, 200);
    cluster.run();
    wait_for("writes", || (client.ask("SET a 1") == "+OK\\r\\n").then_some(()));
    wait_for("ready", || (daemon.page("/readyz").0 == 200).then_some(()));
}

/// A file system of sixteen megabytes, four of them taken by a file that is removed later.
#[test]
fn a_full_disk_refuses_writes_and_serves_reads() {
    const MOUNT: &str = "mkdir -p data; mount -t tmpfs -o size=16m tmpfs data; \
                         dd if=/dev/zero of=data/ballast bs=1k count=4096 2>/dev/null; exec \"$0\" \"$@\"";
    let Some(mut wrapper) = private_mounts() else {
        panic!("neither root nor user namespaces: a small file system cannot be mounted for this test");
    };
    wrapper.extend(["sh", "-ec", MOUNT]);
    // A cache too small to answer for the store.
    let daemon = Daemon::start_wrapped(StoreKind::Sqlite, &[("cache.max_bytes", "1MiB")], &wrapper);
    let mut client = daemon.client();
    let value = vec![b'v'; 32 * 1024];
    let mut written = 0;
    let refusal = loop {
        assert!(written < 500, "the disk is never full");
        let reply = client.call(&[b"SET", format!("key:{written}").as_bytes(), &value]);
        if reply != b"+OK\r\n" {
            break shown(&reply);
        }
        written += 1;
    };
    assert!(refusal.starts_with('-'), "{refusal}");
    assert!(written > 20, "{written} writes fit");
    for number in 0..written {
        let reply = client.ask(&format!("STRLEN key:{number}"));
        assert_eq!(reply, format!(":{}\\r\\n", value.len()), "key:{number} is read from a full disk");
    }
    let refused = client.ask(&format!("EXISTS key:{written}"));
    assert_eq!(refused, ":0\\r\\n", "what was refused is not there");
    assert_eq!(client.ask("PING"), "+PONG\\r\\n");

    let ballast = format!("/proc/{}/root{}", daemon.pid(), daemon.dir().join("data/ballast").display());
    std::fs::remove_file(&ballast).expect("the ballast can be removed");
    wait_for("writes again", || (client.call(&[b"SET", b"after", &value]) == b"+OK\r\n").then_some(()));
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let addr = taken.local_addr().expect("it is bound").to_string();
    for (listen, metrics, option) in
        [(addr.as_str(), "127.0.0.1:0", "listen"), ("127.0.0.1:0", addr.as_str(), "metrics")]
    {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let mut command = Command::new(binary());
        clean(&mut command, dir.path());
        command.args(["--store", &format!("sqlite:{}", dir.path().join("c.db").display())]);
        command.args(["--listen", listen, "--metrics-listen", metrics]);
        let mut process = Process::start("cloakroom", &mut command);
        let status = process.wait();
        let said = process.output();
        assert_eq!(status.code(), Some(EXIT_IO), "{said}");
        assert!(said.contains(&addr) && said.contains(option) && said.contains("in use"), "{said}");
    }
}

/// A write that waits for the database when SIGTERM comes is finished and acknowledged; then the daemon ends well.
#[test]
fn sigterm_finishes_a_write_in_flight() {
    let cluster = Cluster::start();
    let mut daemon = Daemon::start(StoreKind::Postgres(&cluster), &[("postgres.statement_timeout", "30s")]);
    let mut client = daemon.client();
    let mut idle = daemon.client();
    assert_eq!(idle.ask("SET before 1"), "+OK\\r\\n");

    let lock = TableLock::take(&cluster);
    client.send(b"SET during 1\r\n");
    wait_for_a_waiter(&cluster);
    daemon.signal("TERM");
    let addr = SocketAddr::from(([127, 0, 0, 1], daemon.port()));
    wait_for("the port is closed", || TcpStream::connect(addr).is_err().then_some(()));
    assert!(daemon.is_running(), "it waits for the write:\n{}", daemon.log());
    lock.release();

    assert_eq!(client.read_to_close(), Ok(b"+OK\r\n".to_vec()), "the write in flight is acknowledged");
    assert_eq!(idle.read_to_close(), Ok(Vec::new()), "an idle connection is closed");
    let status = daemon.wait();
    assert!(status.success(), "{status}:\n{}", daemon.log());
    daemon.start_again();
    assert_eq!(daemon.client().ask("MGET before during"), "*2\\r\\n$1\\r\\n1\\r\\n$1\\r\\n1\\r\\n");
}

#[test]
fn sigterm_and_sigint_end_an_idle_daemon_well() {
    for signal in ["TERM", "INT"] {
        let mut daemon = Daemon::start(StoreKind::Sqlite, &[]);
        let mut client = daemon.client();
        assert_eq!(client.ask("SET a 1"), "+OK\\r\\n");
        daemon.signal(signal);
        let status = daemon.wait();
        assert!(status.success(), "{signal}: {status}:\n{}", daemon.log());
        assert_eq!(client.read_to_close(), Ok(Vec::new()));
    }
}

/// The log is for operators: no key, value or password may be in it, whatever clients do.
#[test]
fn the_log_tells_no_secrets() {
    let mut cluster = Cluster::start();
    let settings = [("log.level", "trace"), ("password", "pass-phrase"), ("postgres.connect_timeout", "500ms")];
    let mut daemon = Daemon::start(StoreKind::Postgres(&cluster), &settings);
    let mut client = daemon.client();
    for line in [
        "AUTH wrong-guess",
        "AUTH pass-phrase",
        "SET secret-key secret-value EX 100",
        "GET secret-key",
        "NOPE secret-key secret-value",
        "INCR secret-key",
        "SET secret-key",
        "DEL secret-key",
    ] {
        client.ask(line);
    }
    cluster.stop();
    client.ask("SET secret-key secret-value");
    client.ask("GET other-secret-key");
    client.send(b"*1\r\nsecret-key secret-value\r\n");
    assert!(client.read_to_close().is_ok());
    daemon.terminate();
    let log = daemon.log();
    assert!(log.contains("listening"), "there is a log");
    for secret in ["secret-key", "secret-value", "pass-phrase", "wrong-guess"] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a secret is in the log");
    }
}

/// A command prefix that gives a process mounts of its own, if this user may.
fn private_mounts() -> Option<Vec<&'static str>> {
    [vec!["unshare", "-m"], vec!["unshare", "-Urm"]].into_iter().find(|prefix| {
        let mut command = Command::new(tool(prefix[0]));
        let probe = command.args(&prefix[1..]).args(["sh", "-c", "mount -t tmpfs tmpfs /mnt"]).output();
        let works = probe.is_ok_and(|output| output.status.success());
        if !works {
            show(&format!("{} does not work here", prefix.join(" ")));
        }
        works
    })
}

/// A transaction of psql that holds every table of the database.
struct TableLock {
    psql: Child,
    input: ChildStdin,
}

impl TableLock {
    fn take(cluster: &Cluster) -> Self {
        let mut psql = Command::new(tool("psql"))
            .args(["-X", "-q", "-d", &cluster.url()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("psql starts");
        let mut input = psql.stdin.take().expect("stdin is piped");
        let lock = "DO $$ DECLARE t record; BEGIN FOR t IN SELECT schemaname, tablename FROM pg_tables \
                    WHERE schemaname NOT IN ('pg_catalog', 'information_schema') LOOP \
                    EXECUTE format('LOCK TABLE %I.%I IN EXCLUSIVE MODE', t.schemaname, t.tablename); \
                    END LOOP; END $$;";
        writeln!(input, "BEGIN;\n{lock}\n\\echo locked").expect("psql reads");
        let mut output = BufReader::new(psql.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("psql answers");
        assert_eq!(line.trim(), "locked");
        Self { psql, input }
    }

    fn release(mut self) {
        writeln!(self.input, "COMMIT;\n\\q").expect("psql reads");
        assert!(self.psql.wait().expect("psql ends").success());
    }
}

impl Drop for TableLock {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}

/// Waits until some session of the database waits for a lock.
fn wait_for_a_waiter(cluster: &Cluster) {
    wait_for("the write waits for the lock", || {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        let output = Command::new(tool("psql")).args(["-X", "-At", "-c", count, "-d", &cluster.url()]).output().ok()?;
        (String::from_utf8_lossy(&output.stdout).trim() != "0").then_some(())
    });
}
