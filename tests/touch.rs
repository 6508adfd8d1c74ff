//! Touches from memory: what is answered without a commit, how far the store may lag behind, and what a crash costs.
//! What the store has is read from its files and tables, past the daemon.
#![allow(missing_docs, reason = "tests")]

mod support;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, OpenFlags};
use support::client::Client;
use support::daemon::{Daemon, StoreKind};
use support::postgres::Cluster;
use support::wait_for;

/// The default of `touch_slack`.
const SLACK_MS: i64 = 60_000;

/// A daemon, and a way past it to its store.
struct Subject<'a> {
    daemon: Daemon,
    store: Direct<'a>,
}

enum Direct<'a> {
    Sqlite(PathBuf),
    Postgres(&'a Cluster),
}

impl Subject<'_> {
    /// The expiry that the store has for a key that it must have.
    fn durable(&self, key: &str) -> i64 {
        let sql = "SELECT expires_at FROM entry WHERE db = 0 AND key = ";
        match &self.store {
            Direct::Sqlite(path) => {
                let store = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("it is a file");
                store.query_row(&format!("{sql}?1"), [key.as_bytes()], |row| row.get(0)).expect("the key is there")
            }
            Direct::Postgres(cluster) => {
                let sql = sql.replace("FROM entry", "FROM cloakroom.entry");
                cluster.psql(&format!("{sql}'{key}'::bytea")).trim().parse().expect("the key is there")
            }
        }
    }

    /// Touches that were answered from memory, and rows that were written.
    fn counts(&self) -> (f64, f64) {
        let rows = self.daemon.metric("cloakroom_store_operation_rows_sum", &["operation=\"commit\""]);
        (self.daemon.metric("cloakroom_writes_elided_total", &[]), rows)
    }
}

fn on_both(settings: &[(&str, &str)], check: impl Fn(Subject<'_>)) {
    let daemon = Daemon::start(StoreKind::Sqlite, settings);
    let store = Direct::Sqlite(daemon.dir().join("data").join("cloakroom.db"));
    check(Subject { daemon, store });
    let cluster = Cluster::start();
    let daemon = Daemon::start(StoreKind::Postgres(&cluster), settings);
    check(Subject { daemon, store: Direct::Postgres(&cluster) });
}

/// The expiry that the daemon tells.
fn shown(client: &mut Client, key: &str) -> i64 {
    number(&client.ask(&format!("PEXPIRETIME {key}")))
}

fn number(reply: &str) -> i64 {
    reply.trim_start_matches(':').trim_end_matches("\\r\\n").parse().expect("an integer")
}

fn ask_all(client: &mut Client, exchange: &[(&str, &str)]) {
    for (line, reply) in exchange {
        assert_eq!(client.ask(line), format!("{reply}\\r\\n"), "{line}");
    }
}

#[test]
fn extensions_are_answered_from_memory_while_the_store_is_within_the_slack() {
    on_both(&[], |subject| {
        let mut client = subject.daemon.client();
        ask_all(&mut client, &[("SET k v EX 3600", "+OK")]);
        let written = subject.durable("k");
        let before = subject.counts();
        // Each is later than the one before, by a time that does not depend on how fast the test runs.
        let at = |ms: i64| (written + ms).to_string();
        for (line, reply) in [
            (format!("PEXPIREAT k {}", at(1_000)), ":1"),
            (format!("PEXPIREAT k {} XX", at(2_000)), ":1"),
            (format!("PEXPIREAT k {} GT", at(3_000)), ":1"),
            (format!("SET k v PXAT {}", at(4_000)), "+OK"),
            (format!("SET k v PXAT {} XX", at(5_000)), "+OK"),
            (format!("SET k v PXAT {} GET", at(6_000)), "$1\\r\\nv"),
            (format!("GETEX k PXAT {}", at(7_000)), "$1\\r\\nv"),
            ("SET k v KEEPTTL".into(), "+OK"),
            (format!("PEXPIREAT k {}", at(SLACK_MS)), ":1"),
        ] {
            assert_eq!(client.ask(&line), format!("{reply}\\r\\n"), "{line}");
        }
        assert_eq!(shown(&mut client, "k"), written + SLACK_MS, "clients see what they asked for");
        assert_eq!(subject.durable("k"), written);
        let (elided, rows) = subject.counts();
        assert_eq!((elided - before.0, rows - before.1), (9.0, 0.0), "none was written");
        let info = client.ask("INFO cloakroom");
        assert!(info.contains(&format!("writes_elided:{elided}")), "{info}");

        // In a transaction, alone.
        for (line, reply) in [
            ("MULTI", "+OK"),
            ("GET k", "+QUEUED"),
            (&format!("PEXPIREAT k {}", at(SLACK_MS)), "+QUEUED"),
            ("EXEC", "*2\\r\\n$1\\r\\nv\\r\\n:1"),
        ] {
            assert_eq!(client.ask(line), format!("{reply}\\r\\n"), "{line}");
        }
        assert_eq!(subject.counts(), (elided + 1.0, rows));

        // Refused by its condition, which is judged by what is shown.
        for line in [format!("PEXPIREAT k {} GT", at(SLACK_MS)), format!("PEXPIREAT k {} NX", at(SLACK_MS + 1))] {
            ask_all(&mut client, &[(&line, ":0")]);
        }
        // One ms too much.
        ask_all(&mut client, &[(&format!("PEXPIREAT k {}", at(SLACK_MS + 1)), ":1")]);
        assert_eq!((shown(&mut client, "k"), subject.durable("k")), (written + SLACK_MS + 1, written + SLACK_MS + 1));
        // And so on from there.
        ask_all(&mut client, &[(&format!("PEXPIREAT k {}", at(SLACK_MS + 2)), ":1")]);
        assert_eq!(subject.durable("k"), written + SLACK_MS + 1);
    });
}

#[test]
fn everything_else_is_written_at_once() {
    on_both(&[], |subject| {
        let mut client = subject.daemon.client();
        ask_all(&mut client, &[("SET k v EX 3600", "+OK"), ("SET forever v", "+OK")]);
        let written = subject.durable("k");
        ask_all(&mut client, &[(&format!("PEXPIREAT k {}", written + 10), ":1")]);
        assert_eq!(subject.durable("k"), written);
        // Earlier than what is shown, though not than what the store has; much earlier; the same time with another value.
        for line in [
            format!("PEXPIREAT k {}", written + 5),
            format!("SET k v PXAT {written}"),
            format!("GETEX k PXAT {}", written - 100_000),
            format!("SET k w PXAT {written}"),
            format!("PSETEX k {} x", 3_700_000),
        ] {
            client.ask(&format!("PEXPIREAT k {}", written + 10));
            let reply = client.ask(&line);
            assert!(!reply.starts_with('-'), "{line}: {reply}");
            assert_eq!(shown(&mut client, "k"), subject.durable("k"), "{line}");
        }
        // A write that keeps the expiry makes durable what is shown.
        let end = shown(&mut client, "k");
        ask_all(
            &mut client,
            &[
                (&format!("PEXPIREAT k {}", end + 7), ":1"),
                ("APPEND k y", ":2"),
                ("PEXPIREAT k 9999999999999", ":1"),
                ("SET k 41 KEEPTTL", "+OK"),
                ("PEXPIREAT k 9999999999999", ":1"),
                ("INCR k", ":42"),
                ("PEXPIREAT forever 9999999999999", ":1"),
                ("PERSIST k", ":1"),
                ("SET k v PXAT 9999999999999", "+OK"),
            ],
        );
        for key in ["k", "forever"] {
            assert_eq!((subject.durable(key), shown(&mut client, key)), (9_999_999_999_999, 9_999_999_999_999));
        }
        ask_all(&mut client, &[("SETEX k 3600 v", "+OK"), ("SET k v", "+OK"), ("TTL k", ":-1")]);
    });
}

#[test]
fn below_five_minutes_every_expiry_is_exact() {
    on_both(&[], |subject| {
        let mut client = subject.daemon.client();
        for (index, line) in
            ["EXPIRE k 299", "PEXPIRE k 299500", "SETEX k 299 v", "GETEX k EX 299", "SET k v EX 299 XX"]
                .iter()
                .cycle()
                .take(25)
                .enumerate()
        {
            if index == 0 {
                ask_all(&mut client, &[("SET k v EX 299", "+OK")]);
            }
            client.ask(line);
            assert_eq!(shown(&mut client, "k"), subject.durable("k"), "{line}");
        }
        assert!(subject.counts().0.abs() < 0.5, "none was answered from memory");
    });
}

#[test]
fn without_slack_every_touch_is_written() {
    on_both(&[("touch_slack", "0s")], |subject| {
        let mut client = subject.daemon.client();
        for line in ["SET k v EX 3600", "EXPIRE k 3600", "SETEX k 3600 v", "GETEX k EX 3600", "EXPIRE k 3601"] {
            client.ask(line);
            assert_eq!(shown(&mut client, "k"), subject.durable("k"), "{line}");
        }
        assert!(subject.counts().0.abs() < 0.5, "none was answered from memory");
    });
}

#[test]
fn a_crash_ends_a_session_early_by_at_most_the_slack_and_a_stop_does_not() {
    on_both(&[], |mut subject| {
        let mut client = subject.daemon.client();
        for key in ["a", "b"] {
            ask_all(&mut client, &[(&format!("SET {key} v EX 86400"), "+OK")]);
        }
        let written = subject.durable("a");
        ask_all(&mut client, &[(&format!("PEXPIREAT a {}", written + 40_000), ":1")]);
        subject.daemon.kill9();
        assert_eq!(subject.durable("a"), written);
        subject.daemon.start_again();
        let mut client = subject.daemon.client();
        ask_all(&mut client, &[("GET a", "$1\\r\\nv")]);
        let after = shown(&mut client, "a");
        assert!((written..=written + SLACK_MS).contains(&after), "{after} after a crash, {written} was written");

        let written = subject.durable("b");
        for key in ["a", "b"] {
            ask_all(&mut client, &[(&format!("PEXPIREAT {key} {}", written + 50_000), ":1")]);
            assert!(subject.durable(key) <= written);
        }
        let status = subject.daemon.terminate();
        assert!(status.success(), "{status}:\n{}", subject.daemon.log());
        for key in ["a", "b"] {
            assert_eq!(subject.durable(key), written + 50_000, "a stop in good order writes what was kept");
        }
    });
}

#[test]
fn touches_of_evicted_sessions_are_written() {
    on_both(&[("cache.max_bytes", "1MiB")], |subject| {
        let mut client = subject.daemon.client();
        let keys: Vec<String> = (0..20).map(|number| format!("k{number}")).collect();
        for key in &keys {
            ask_all(&mut client, &[(&format!("SET {key} v PXAT 9999999000000"), "+OK")]);
            ask_all(&mut client, &[(&format!("PEXPIREAT {key} 9999999050000"), ":1")]);
            assert_eq!(subject.durable(key), 9_999_999_000_000);
        }
        let large = "x".repeat(200_000);
        for number in 0..10 {
            assert_eq!(client.call(&[b"SET", format!("large{number}").as_bytes(), large.as_bytes()]), b"+OK\r\n");
        }
        for key in &keys {
            wait_for("the keeper writes it", || (subject.durable(key) == 9_999_999_050_000).then_some(()));
            assert_eq!(shown(&mut client, key), 9_999_999_050_000);
        }
    });
}

/// In a pipeline, what is cached is from before the writes that are still on their way.
#[test]
fn a_touch_does_not_overtake_a_write_of_its_own_connection() {
    on_both(&[], |subject| {
        let mut client = subject.daemon.client();
        for (pipeline, replies) in [
            ("SET k b EX 3600\r\nSET k a EX 3600\r\nGET k\r\n", "+OK\r\n+OK\r\n$1\r\na\r\n"),
            ("DEL k\r\nSETEX k 3600 a\r\nEXISTS k\r\n", ":1\r\n+OK\r\n:1\r\n"),
            ("DEL k\r\nEXPIRE k 3600\r\nEXISTS k\r\n", ":1\r\n:0\r\n:0\r\n"),
            ("SET k b\r\nEXPIRE k 3600\r\nSET k b EX 3600\r\nGET k\r\n", "+OK\r\n:1\r\n+OK\r\n$1\r\nb\r\n"),
            ("MSET k b l c\r\nSET k a EX 3600\r\nMGET k l\r\n", "+OK\r\n+OK\r\n*2\r\n$1\r\na\r\n$1\r\nc\r\n"),
        ] {
            for _ in 0..50 {
                ask_all(&mut client, &[("SET k a EX 3600", "+OK")]);
                client.send(pipeline.as_bytes());
                let found = client.read_exact(replies.len()).expect("all replies come");
                assert_eq!(String::from_utf8_lossy(&found), replies, "{pipeline}");
            }
        }
    });
}

/// A touch beside a deletion or an overwrite happens before it or fails; it never brings the old session back.
#[test]
fn a_touch_beside_a_write_of_another_connection_does_not_undo_it() {
    on_both(&[], |subject| {
        let mut client = subject.daemon.client();
        let end = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for line in ["EXPIRE k 3600", "GETEX k EX 3600"] {
                let (mut toucher, end) = (subject.daemon.client(), &end);
                scope.spawn(move || {
                    while !end.load(Ordering::Relaxed) {
                        toucher.ask(line);
                    }
                });
            }
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for _ in 0..150 {
                    ask_all(
                        &mut client,
                        &[
                            ("SET k old EX 3600", "+OK"),
                            ("DEL k", ":1"),
                            ("GET k", "$-1"),
                            ("EXISTS k", ":0"),
                            ("SET k old EX 3600", "+OK"),
                            ("SET k new EX 7200", "+OK"),
                            ("GET k", "$3\\r\\nnew"),
                            ("DEL k", ":1"),
                        ],
                    );
                }
            }));
            end.store(true, Ordering::Relaxed);
            if let Err(panic) = result {
                std::panic::resume_unwind(panic);
            }
        });
        assert!(subject.counts().0 > 0.0, "some were answered from memory");
    });
}

/// Commands that keep the expiry while it is being touched keep the touches, too. Without other daemons: where the daemon
/// hears that its write is committed before the answer comes, it forgets the entry, and the touch beside the write with it.
#[test]
fn an_update_does_not_undo_touches_beside_it() {
    on_both(&[("coherence.mode", "off")], |subject| {
        let mut toucher = subject.daemon.client();
        ask_all(&mut toucher, &[("SET k 0 PXAT 9999990000000", "+OK")]);
        let end = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (mut counter, end) = (subject.daemon.client(), &end);
            scope.spawn(move || {
                while !end.load(Ordering::Relaxed) {
                    counter.ask("INCR k");
                }
            });
            let undone = (1..3000).find_map(|step| {
                let wanted = 9_999_990_000_000 + step;
                assert_eq!(toucher.ask(&format!("PEXPIREAT k {wanted}")), ":1\\r\\n");
                let found = shown(&mut toucher, "k");
                (found != wanted).then_some((wanted, found))
            });
            end.store(true, Ordering::Relaxed);
            assert_eq!(undone, None, "wanted and found");
        });
        assert!(subject.counts().0 > 0.0, "some were answered from memory");
        assert_ne!(toucher.ask("GET k"), "$1\\r\\n0\\r\\n");
    });
}
