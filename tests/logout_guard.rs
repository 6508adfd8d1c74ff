//! The logout guard: a deleted session cannot be brought back by a plain write for a while, on any node.
#![allow(missing_docs, reason = "tests")]

mod support;

use std::time::Duration;

use support::client::Client;
use support::daemon::{Daemon, StoreKind};
use support::postgres::Cluster;
use support::wait_for;

const GUARDED: (&str, &str) = ("logout_guard.patterns", "s:*,session?");
const REFUSED: &str = "-GUARDED this key was deleted a moment ago; only a write with NX can create it now";

fn ask_all(client: &mut Client, exchange: &[(&str, &str)]) {
    for (line, reply) in exchange {
        assert_eq!(client.ask(line), format!("{reply}\\r\\n"), "{line}");
    }
}

fn on_both(settings: &[(&str, &str)], check: impl Fn(&mut Daemon)) {
    check(&mut Daemon::start(StoreKind::Sqlite, settings));
    let cluster = Cluster::start();
    check(&mut Daemon::start(StoreKind::Postgres(&cluster), settings));
}

#[test]
fn a_deleted_session_is_not_brought_back() {
    on_both(&[GUARDED, ("logout_guard.window", "1h")], |daemon| {
        let mut client = daemon.client();
        for delete in [
            "DEL s:1",
            "UNLINK s:1",
            "GETDEL s:1",
            "EXPIRE s:1 -1",
            "PEXPIREAT s:1 1",
            "GETEX s:1 PXAT 1",
            "SET s:1 v PXAT 1",
            "RENAME s:1 elsewhere",
            "MOVE s:1 1",
            "DELEX s:1",
        ] {
            ask_all(&mut client, &[("SET s:1 v EX 1000 NX", "+OK")]);
            let reply = client.ask(delete);
            assert!(!reply.starts_with('-'), "{delete}: {reply}");
            ask_all(
                &mut client,
                &[
                    ("SET s:1 v", REFUSED),
                    ("SET s:1 v EX 1000", REFUSED),
                    ("SET s:1 v GET", REFUSED),
                    ("SET s:1 v KEEPTTL", REFUSED),
                    ("SETEX s:1 1000 v", REFUSED),
                    ("PSETEX s:1 1000000 v", REFUSED),
                    ("GETSET s:1 v", REFUSED),
                    ("APPEND s:1 v", REFUSED),
                    ("SETRANGE s:1 1 v", REFUSED),
                    ("INCR s:1", REFUSED),
                    ("INCRBYFLOAT s:1 1", REFUSED),
                    ("HSET s:1 f v", REFUSED),
                    ("MSET other v s:1 v", REFUSED),
                    ("EXPIRE s:1 1000", REFUSED),
                    ("EXPIREAT s:1 9999999999", REFUSED),
                    ("PEXPIRE s:1 1000000 XX", REFUSED),
                    ("SET there v", "+OK"),
                    ("RENAME there s:1", REFUSED),
                    ("COPY there s:1", REFUSED),
                    // All else sees no key.
                    ("SET s:1 v XX", "$-1"),
                    ("GET s:1", "$-1"),
                    ("GETEX s:1 EX 100", "$-1"),
                    ("EXISTS s:1 other", ":0"),
                    ("TTL s:1", ":-2"),
                    ("TYPE s:1", "+none"),
                    ("OBJECT ENCODING s:1", "$-1"),
                    ("PERSIST s:1", ":0"),
                    ("STRLEN s:1", ":0"),
                    ("HGETALL s:1", "*0"),
                    ("MGET s:1 there", "*2\\r\\n$-1\\r\\n$1\\r\\nv"),
                    ("KEYS s:*", "*0"),
                    ("DEL s:1", ":0"),
                    ("DEL there elsewhere s:1", if delete.starts_with("RENAME") { ":2" } else { ":1" }),
                ],
            );
        }
        ask_all(
            &mut client,
            &[
                ("DBSIZE", ":0"),
                ("RANDOMKEY", "$-1"),
                ("SCAN 0 COUNT 1000", "*2\\r\\n$1\\r\\n0\\r\\n*0"),
                // Other keys are not guarded.
                ("SET x v", "+OK"),
                ("DEL x", ":1"),
                ("SET x w", "+OK"),
                // A session that was never there is guarded, too: it may have expired just before.
                ("DEL session9", ":0"),
                ("SET session9 v", REFUSED),
                // What only creates is on purpose.
                ("SETNX s:1 v", ":1"),
                ("SET s:1 w", "+OK"),
                ("DEL s:1", ":1"),
                ("SET s:1 v NX GET", "$-1"),
                ("GET s:1", "$1\\r\\nv"),
                ("DEL s:1 session9", ":1"),
                ("MSETNX s:1 a session9 b", ":1"),
                ("MGET s:1 session9", "*2\\r\\n$1\\r\\na\\r\\n$1\\r\\nb"),
                ("EXPIRE s:1 1000", ":1"),
                ("FLUSHALL", "+OK"),
                ("SET s:1 v", "+OK"),
            ],
        );
    });
}

/// It is in the store: a restart does not forget it, and it ends by itself.
#[test]
fn the_guard_outlasts_a_restart_and_ends() {
    on_both(&[GUARDED, ("logout_guard.window", "1h"), ("key_prefix", "app:")], |daemon| {
        ask_all(&mut daemon.client(), &[("SET s:1 v", "+OK"), ("DEL s:1", ":1")]);
        daemon.kill9();
        daemon.start_again();
        ask_all(&mut daemon.client(), &[("GET s:1", "$-1"), ("SET s:1 v", REFUSED), ("EXPIRE s:1 100", REFUSED)]);
    });
    on_both(&[GUARDED, ("logout_guard.window", "1s"), ("sweeper.interval", "100ms")], |daemon| {
        let mut client = daemon.client();
        ask_all(&mut client, &[("SET s:1 v", "+OK"), ("DEL s:1", ":1")]);
        wait_for("the window is over", || (client.ask("SET s:1 w") == "+OK\\r\\n").then_some(()));
        let swept = daemon.metric("cloakroom_sweeper_removed_total", &[]);
        ask_all(&mut client, &[("GET s:1", "$1\\r\\nw"), ("DEL s:1", ":1")]);
        wait_for("the mark is swept out", || {
            (daemon.metric("cloakroom_sweeper_removed_total", &[]) > swept).then_some(())
        });
        ask_all(&mut client, &[("SET s:1 w", "+OK")]);
    });
}

#[test]
fn without_patterns_nothing_is_guarded() {
    on_both(&[], |daemon| {
        ask_all(
            &mut daemon.client(),
            &[("SET s:1 v", "+OK"), ("DEL s:1", ":1"), ("SET s:1 v", "+OK"), ("DEL s:1", ":1")],
        );
    });
}

#[test]
fn transactions_keep_to_the_guard() {
    on_both(&[GUARDED], |daemon| {
        let mut client = daemon.client();
        let (queued, gone) = ("+QUEUED", format!("*2\\r\\n+OK\\r\\n{REFUSED}"));
        ask_all(
            &mut client,
            &[
                ("SET s:1 v", "+OK"),
                ("MULTI", "+OK"),
                ("DEL s:1", queued),
                ("EXEC", "*1\\r\\n:1"),
                ("SET s:1 v", REFUSED),
                ("MULTI", "+OK"),
                ("SET x v", queued),
                ("SET s:1 v", queued),
                ("EXEC", &gone),
                ("GET x", "$1\\r\\nv"),
                ("MULTI", "+OK"),
                ("EXPIRE s:1 100", queued),
                ("GET s:1", queued),
                ("EXEC", &format!("*2\\r\\n{REFUSED}\\r\\n$-1")),
                ("MULTI", "+OK"),
                ("DEL s:2", queued),
                ("EXEC", "*1\\r\\n:0"),
                ("SET s:2 v", REFUSED),
                // Who watches a deleted session may create it.
                ("WATCH s:1", "+OK"),
                ("MULTI", "+OK"),
                ("SET s:1 v NX", queued),
                ("SET s:1 w", queued),
                ("EXEC", "*2\\r\\n+OK\\r\\n+OK"),
                ("GET s:1", "$1\\r\\nw"),
                // Writing a session anew in one transaction is no logout.
                ("MULTI", "+OK"),
                ("DEL s:1", queued),
                ("SET s:1 x", queued),
                ("EXEC", "*2\\r\\n:1\\r\\n+OK"),
                ("GET s:1", "$1\\r\\nx"),
            ],
        );
    });
}

/// In a pipeline each command sees the ones before it.
#[test]
fn pipelines_keep_their_order() {
    on_both(&[GUARDED], |daemon| {
        let mut client = daemon.client();
        for number in 0..50 {
            let key = format!("s:{number}");
            let pipeline =
                format!("SET {key} a\r\nDEL {key}\r\nSET {key} b\r\nSETNX {key} c\r\nSET {key} d\r\nGET {key}\r\n");
            let replies = format!("+OK\r\n:1\r\n{REFUSED}\r\n:1\r\n+OK\r\n$1\r\nd\r\n");
            client.send(pipeline.as_bytes());
            let found = client.read_exact(replies.len()).expect("all replies come");
            assert_eq!(String::from_utf8_lossy(&found), replies);
        }
    });
}

/// The request that began before the logout is on another node, which has the session in its cache.
#[test]
fn a_slow_request_on_another_node_cannot_undo_a_logout() {
    let cluster = Cluster::start();
    let settings = [GUARDED, ("logout_guard.window", "1h")];
    let (here, there) = (
        Daemon::start(StoreKind::Postgres(&cluster), &settings),
        Daemon::start(StoreKind::Postgres(&cluster), &settings),
    );
    let (mut logout, mut slow) = (here.client(), there.client());
    for round in 0..100 {
        let key = format!("s:{round}");
        ask_all(&mut logout, &[(&format!("SET {key} old EX 3600 NX"), "+OK")]);
        ask_all(&mut slow, &[(&format!("GET {key}"), "$3\\r\\nold")]);
        ask_all(&mut logout, &[(&format!("DEL {key}"), ":1")]);
        // At once: the node may not have heard of it.
        ask_all(&mut slow, &[(&format!("SETEX {key} 3600 changed"), REFUSED)]);
        ask_all(&mut logout, &[(&format!("GET {key}"), "$-1")]);
        ask_all(&mut slow, &[(&format!("EXPIRE {key} 3600"), REFUSED), (&format!("GET {key}"), "$-1")]);
    }
    assert_eq!(slow.ask("DBSIZE"), ":0\\r\\n");
}

/// The same on one node, with writers that never stop.
#[test]
fn writers_beside_a_logout_do_not_undo_it() {
    on_both(&[GUARDED, ("logout_guard.window", "1h")], |daemon| {
        let mut client = daemon.client();
        for round in 0..20 {
            let key = format!("s:{round}");
            ask_all(&mut client, &[(&format!("SET {key} old EX 3600"), "+OK")]);
            std::thread::scope(|scope| {
                for writer in 0..3 {
                    let (mut slow, key) = (daemon.client(), &key);
                    scope.spawn(move || {
                        for value in 0..20 {
                            let reply = slow.ask(&format!("SETEX {key} 3600 {writer}:{value}"));
                            assert!(reply.starts_with("+OK") || reply.starts_with("-GUARDED"), "{reply}");
                        }
                    });
                }
                std::thread::sleep(Duration::from_millis(2));
                ask_all(&mut client, &[(&format!("DEL {key}"), ":1")]);
                ask_all(&mut client, &[(&format!("GET {key}"), "$-1")]);
            });
            ask_all(&mut client, &[(&format!("GET {key}"), "$-1")]);
        }
    });
}
