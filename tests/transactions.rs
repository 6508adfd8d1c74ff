//! Transactions under concurrency, over their bounds, and without a store. What they answer is compared with Redis's in
//! `tests/differential.rs`.

mod support;

use std::thread;

use support::client::{Client, Value, encode};
use support::daemon::{Daemon, StoreKind};
use support::postgres::Cluster;

/// Clients of one test, and what each of them does.
const CLIENTS: usize = 6;
const ROUNDS: usize = 40;

/// Runs a test on SQLite, and on Postgres with two daemons; it gets the port of each client's daemon.
fn on_both_stores(test: impl Fn(&[u16])) {
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    test(&[daemon.port()]);
    let cluster = Cluster::start();
    let [one, other] = [(); 2].map(|()| Daemon::start(StoreKind::Postgres(&cluster), &[]));
    test(&[one.port(), other.port()]);
}

fn in_parallel(ports: &[u16], client: impl Fn(usize, Client) + Sync) {
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (port, client) = (ports[number % ports.len()], &client);
            scope.spawn(move || client(number, Client::connect(port)));
        }
    });
}

/// The replies of a transaction; none if it did not happen.
fn transaction(client: &mut Client, lines: &[String]) -> Option<Vec<Value>> {
    assert_eq!(client.ask("MULTI"), "+OK\\r\\n");
    for line in lines {
        assert_eq!(client.ask(line), "+QUEUED\\r\\n", "{line}");
    }
    match client.value("EXEC") {
        Value::List(replies) => Some(replies),
        Value::Null => None,
        other => panic!("EXEC answers {other:?}"),
    }
}

fn number(value: &Value) -> usize {
    value.text().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("a number: {value:?}"))
}

#[test]
fn no_update_of_a_watched_key_is_lost() {
    on_both_stores(|ports| {
        assert_eq!(Client::connect(ports[0]).ask("SET watched 0"), "+OK\\r\\n");
        in_parallel(ports, |_, mut client| {
            for _ in 0..ROUNDS {
                loop {
                    assert_eq!(client.ask("WATCH watched"), "+OK\\r\\n");
                    let sum = number(&client.value("GET watched")) + 1;
                    if transaction(&mut client, &[format!("SET watched {sum}")]).is_some() {
                        break;
                    }
                }
            }
        });
        assert_eq!(number(&Client::connect(ports[0]).value("GETEX watched PERSIST")), CLIENTS * ROUNDS);
    });
}

#[test]
fn no_update_in_a_transaction_is_lost() {
    on_both_stores(|ports| {
        in_parallel(ports, |number, mut client| {
            let (one, other) = if number % 2 == 0 { ("a", "b") } else { ("b", "a") };
            for _ in 0..ROUNDS {
                let lines = [format!("INCR {one}"), format!("INCRBY {other} 2"), format!("APPEND {number} x")];
                assert!(transaction(&mut client, &lines).is_some());
            }
        });
        // A transaction's reads are checked with the store, whatever this daemon's cache had.
        let lines = ["GET a", "GET b", "STRLEN 0"].map(str::to_owned);
        let replies = transaction(&mut Client::connect(ports[0]), &lines).expect("nothing is watched");
        let sums = CLIENTS / 2 * ROUNDS * 3;
        assert_eq!(replies.iter().map(self::number).collect::<Vec<_>>(), [sums, sums, ROUNDS]);
    });
}

#[test]
fn nobody_reads_half_a_transaction_in_a_transaction() {
    on_both_stores(|ports| {
        in_parallel(ports, |number, mut client| {
            for round in 0..ROUNDS {
                if number < CLIENTS / 2 {
                    let value = number * ROUNDS + round;
                    let lines = [format!("SET a {value}"), format!("SET b {value} EX 1000")];
                    assert!(transaction(&mut client, &lines).is_some());
                } else {
                    let lines = ["GET b", "GET a"].map(str::to_owned);
                    let replies = transaction(&mut client, &lines).expect("nothing is watched");
                    assert_eq!(replies[0], replies[1]);
                }
            }
        });
    });
}

#[test]
fn a_transaction_is_one_commit() {
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    let mut client = daemon.client();
    let commits = || daemon.metric("cloakroom_store_operation_duration_seconds_count", &["commit"]);
    let before = commits();
    let lines: Vec<String> = (0..100).map(|number| format!("SET k{number} v EX 1000")).collect();
    assert_eq!(transaction(&mut client, &lines).map(|replies| replies.len()), Some(100));
    assert!((commits() - before - 1.0).abs() < 0.5, "{before} commits before, {} after", commits());
}

#[test]
fn a_transaction_is_bounded() {
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    let mut client = daemon.client();
    let refused = "-ERR the transaction is too large\\r\\n";
    let aborted = "-EXECABORT Transaction discarded because of previous errors.\\r\\n";

    assert_eq!(client.ask("MULTI"), "+OK\\r\\n");
    let queued = 16 * 1024;
    client.send(&encode(&["SET", "a", "1"]).repeat(queued));
    for _ in 0..queued {
        assert_eq!(client.reply(), b"+QUEUED\r\n");
    }
    assert_eq!(client.ask("SET a 2"), refused);
    assert_eq!(client.ask("EXEC"), aborted);
    assert_eq!(client.ask("GET a"), "$-1\\r\\n");

    assert_eq!(client.ask("MULTI"), "+OK\\r\\n");
    let value = "x".repeat(10 << 20);
    let replies: Vec<Vec<u8>> = (0..7).map(|_| client.call(&[b"SET", b"b", value.as_bytes()])).collect();
    assert_eq!(replies.iter().filter(|reply| *reply == b"+QUEUED\r\n").count(), 6);
    assert_eq!(client.ask("EXEC"), aborted);

    let names: Vec<String> = (0..1025).map(|number| format!("w{number}")).collect();
    assert_eq!(client.ask(&format!("WATCH {}", names[..1024].join(" "))), "+OK\\r\\n");
    assert_eq!(client.ask(&format!("WATCH {}", names.join(" "))), "-ERR too many keys are watched\\r\\n");
    assert_eq!(client.ask("UNWATCH"), "+OK\\r\\n");
}

#[test]
fn what_cannot_be_part_of_a_transaction_is_refused() {
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    let mut client = daemon.client();
    let aborted = "-EXECABORT Transaction discarded because of previous errors.\\r\\n";
    assert_eq!(client.ask("SET a 1"), "+OK\\r\\n");
    for (lines, complaint) in [
        (&["FLUSHDB"][..], "-ERR this command is not supported inside a transaction\\r\\n"),
        (&["FLUSHALL ASYNC"], "-ERR this command is not supported inside a transaction\\r\\n"),
        (&["HELLO 3"], "-ERR this command is not supported inside a transaction\\r\\n"),
        (&["SET a 2", "DBSIZE"], "-ERR a command about all keys cannot follow a write in its transaction\\r\\n"),
        (
            &["DEL a", "PING", "RANDOMKEY"],
            "-ERR a command about all keys cannot follow a write in its transaction\\r\\n",
        ),
    ] {
        assert_eq!(client.ask("MULTI"), "+OK\\r\\n");
        for line in &lines[..lines.len() - 1] {
            assert_eq!(client.ask(line), "+QUEUED\\r\\n");
        }
        assert_eq!(client.ask(lines[lines.len() - 1]), complaint);
        assert_eq!(client.ask("EXEC"), aborted);
    }
    assert_eq!(client.ask("GET a"), "$1\\r\\n1\\r\\n");
}

#[test]
fn without_the_store_a_transaction_is_an_error() {
    let mut cluster = Cluster::start();
    let daemon = Daemon::start(StoreKind::Postgres(&cluster), &[("postgres.connect_timeout", "500ms")]);
    let mut client = daemon.client();
    assert_eq!(client.ask("SET a 1"), "+OK\\r\\n");
    cluster.kill9();
    for lines in [&["SET a 2", "SET b 2"][..], &["GET a", "GET never-seen"], &["INCR a"]] {
        assert_eq!(client.ask("MULTI"), "+OK\\r\\n");
        for line in lines {
            assert_eq!(client.ask(line), "+QUEUED\\r\\n");
        }
        let reply = client.ask("EXEC");
        assert!(reply.starts_with("-ERR the "), "{lines:?} answers {reply}");
    }
    // What could not be seen cannot be proved unchanged.
    assert!(client.ask("WATCH never-seen").starts_with('-'));
    assert_eq!(client.ask("MULTI"), "+OK\\r\\n");
    assert_eq!(client.ask("EXEC"), "*-1\\r\\n");
}
