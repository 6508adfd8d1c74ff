//! Commands that newer servers than Debian's Redis have: their replies are taken from the documentation of Redis 8.4
//! (`SET … IFEQ|IFNE`, `DELEX`) and Valkey 9 (`DELIFEQ`). On both stores, also after a restart and in a race.

mod support;

use std::thread;

use support::daemon::{Daemon, StoreKind};
use support::postgres::Cluster;

const WRONGTYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value\\r\\n";
const SYNTAX: &str = "-ERR syntax error\\r\\n";
const NIL: &str = "$-1\\r\\n";
const OK: &str = "+OK\\r\\n";

/// Requests with their replies, in order.
const STEPS: &[(&str, &str)] = &[
    ("SET k new IFEQ old", NIL),
    ("EXISTS k", ":0\\r\\n"),
    ("SET k new IFEQ old GET", NIL),
    ("SET k old IFNE anything", OK),
    ("SET k new IFNE old", NIL),
    ("GET k", "$3\\r\\nold\\r\\n"),
    ("SET k new IFEQ other", NIL),
    ("SET k new IFEQ other GET", "$3\\r\\nold\\r\\n"),
    ("SET k new IFEQ old EX 100 GET", "$3\\r\\nold\\r\\n"),
    ("TTL k", ":100\\r\\n"),
    ("SET k newer ifeq new KEEPTTL", OK),
    ("TTL k", ":100\\r\\n"),
    ("SET k x IFEQ newer", OK),
    ("TTL k", ":-1\\r\\n"),
    ("SET k v IFEQ", SYNTAX),
    ("SET k v IFEQ a NX", SYNTAX),
    ("SET k v XX IFNE a", SYNTAX),
    ("DELIFEQ k y", ":0\\r\\n"),
    ("DELIFEQ nope y", ":0\\r\\n"),
    ("DELIFEQ k x", ":1\\r\\n"),
    ("DELIFEQ k x", ":0\\r\\n"),
    ("SET k x", OK),
    ("DELEX k IFEQ y", ":0\\r\\n"),
    ("DELEX k IFNE x", ":0\\r\\n"),
    ("DELEX k ifne y", ":1\\r\\n"),
    ("DELEX k IFNE y", ":0\\r\\n"),
    ("SET k x", OK),
    ("DELEX k IFEQ x", ":1\\r\\n"),
    ("SET k x", OK),
    ("DELEX k", ":1\\r\\n"),
    ("DELEX k", ":0\\r\\n"),
    ("DELEX k IFEQ", SYNTAX),
    ("DELEX k IFXX a", SYNTAX),
    ("DELEX k IFEQ a b", SYNTAX),
    ("HSET h f 1", ":1\\r\\n"),
    ("SET h v IFEQ 1", WRONGTYPE),
    ("SET h v IFNE 1", WRONGTYPE),
    ("DELIFEQ h 1", WRONGTYPE),
    ("DELEX h IFNE 1", WRONGTYPE),
    ("DELEX h", ":1\\r\\n"),
];

#[test]
fn comparisons_answer_as_documented() {
    check(&Daemon::start(StoreKind::Sqlite, &[]));
    let cluster = Cluster::start();
    check(&Daemon::start(StoreKind::Postgres(&cluster), &[]));
}

fn check(daemon: &Daemon) {
    let mut client = daemon.client();
    for (request, expected) in STEPS {
        assert_eq!(client.ask(request), *expected, "{request}");
    }
}

/// Many clients count up by compare-and-set; every success counts once.
#[test]
fn one_of_many_wins_each_comparison() {
    const CLIENTS: usize = 8;
    const WINS: usize = 25;
    let cluster = Cluster::start();
    let daemon = Daemon::start(StoreKind::Postgres(&cluster), &[]);
    assert_eq!(daemon.client().ask("SET n 0"), OK);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = daemon.client();
                let mut wins = 0;
                while wins < WINS {
                    let seen = client.value("GET n");
                    let seen = seen.text().expect("it is there");
                    let next = seen.parse::<u64>().expect("it is a number") + 1;
                    wins += usize::from(client.ask(&format!("SET n {next} IFEQ {seen}")) == OK);
                }
            });
        }
    });
    let total = CLIENTS * WINS;
    assert_eq!(daemon.client().value("GET n").text(), Some(total.to_string().as_str()));
}

/// A hash is one row, and its encoding is stored: it must be readable after a restart, in its order.
#[test]
fn hashes_survive_a_restart() {
    let cluster = Cluster::start();
    for store in [StoreKind::Sqlite, StoreKind::Postgres(&cluster)] {
        let mut daemon = Daemon::start(store, &[]);
        let mut client = daemon.client();
        assert_eq!(client.ask("HSET h b 2 a 1 c 3"), ":3\\r\\n");
        assert_eq!(client.ask("HINCRBY h a 41"), ":42\\r\\n");
        assert_eq!(client.ask("EXPIREAT h 4102444800"), ":1\\r\\n");
        daemon.kill9();
        daemon.start_again();
        let mut client = daemon.client();
        assert_eq!(
            client.ask("HGETALL h"),
            "*6\\r\\n$1\\r\\nb\\r\\n$1\\r\\n2\\r\\n$1\\r\\na\\r\\n$2\\r\\n42\\r\\n$1\\r\\nc\\r\\n$1\\r\\n3\\r\\n"
        );
        assert_eq!(client.ask("EXPIRETIME h"), ":4102444800\\r\\n");
        assert_eq!(client.ask("TYPE h"), "+hash\\r\\n");
    }
}
