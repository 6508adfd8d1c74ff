//! OK means committed: whatever dies, every acknowledged write is there afterwards, and no older one in its place.

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use support::client::{Client, encode, shown};
use support::daemon::{Daemon, StoreKind};
use support::postgres::Cluster;
use support::wait_for;

/// Acknowledged writes that a test waits for.
const WRITES: usize = 10_000;
/// Connections that write.
const WRITERS: usize = 8;
/// Requests in flight on the connections that pipeline (every other one).
const PIPELINE: usize = 16;
/// Keys of each writer: few, so that most writes overwrite.
const KEYS: usize = 100;

#[test]
fn acknowledged_writes_survive_kills_on_postgres() {
    let mut cluster = Cluster::start();
    let mut daemon = Daemon::start(StoreKind::Postgres(&cluster), &[]);
    let load = Load::start(daemon.port());

    load.wait_for(WRITES / 4);
    daemon.kill9();
    daemon.start_again();
    load.wait_for(WRITES / 2);
    cluster.kill9();
    cluster.run();
    load.wait_for(WRITES * 3 / 4);
    // Both at once, the store first back.
    daemon.kill9();
    cluster.kill9();
    cluster.run();
    daemon.start_again();

    let acknowledged = load.finish();
    // A new process has an empty cache: it shows what the store has.
    daemon.restart();
    acknowledged.check(&daemon);
}

#[test]
fn acknowledged_writes_survive_kills_on_sqlite() {
    let mut daemon = Daemon::start(StoreKind::Sqlite, &[]);
    let load = Load::start(daemon.port());
    for part in 1..4 {
        load.wait_for(WRITES * part / 4);
        daemon.kill9();
        daemon.start_again();
    }
    let acknowledged = load.finish();
    daemon.restart();
    acknowledged.check(&daemon);
}

#[test]
fn a_restart_keeps_values_and_expiries_on_postgres() {
    let cluster = Cluster::start();
    check_restart(Daemon::start(StoreKind::Postgres(&cluster), &[]));
}

#[test]
fn a_restart_keeps_values_and_expiries_on_sqlite() {
    check_restart(Daemon::start(StoreKind::Sqlite, &[]));
}

fn check_restart(mut daemon: Daemon) {
    let writes = [
        "SET never v",
        "SET far v EXAT 4102444800",
        "SET ex v EX 5000",
        "SET px v PX 5000123",
        "SET bytes \"\\x00\\r\\n\\xff\"",
        "SET empty \"\"",
        "SET kept v EX 5000",
        "SET kept w KEEPTTL",
        "SET persisted v EX 5000",
        "PERSIST persisted",
        "SET later v EX 60",
        "EXPIRE later 7000",
        "SET gone v",
        "DEL gone",
        "SET moved v EX 5000",
        "RENAME moved there",
        "INCRBY counter 41",
        "SELECT 3",
        "SET elsewhere v EX 5000",
        "SELECT 0",
        "SET short v PX 40",
    ];
    let questions = |client: &mut Client| -> Vec<String> {
        let keys = "never far ex px bytes empty kept persisted later gone moved there counter short";
        let mut answers = vec![client.ask(&format!("MGET {keys}"))];
        for key in keys.split(' ') {
            answers.push(format!("{key} {}", client.ask(&format!("PEXPIRETIME {key}"))));
        }
        for line in ["DBSIZE", "SELECT 3", "GET elsewhere", "PEXPIRETIME elsewhere", "SELECT 0"] {
            answers.push(client.ask(line));
        }
        answers
    };
    let mut client = daemon.client();
    for line in writes {
        let reply = client.ask(line);
        assert!(!reply.starts_with('-'), "{line}: {reply}");
    }
    std::thread::sleep(Duration::from_millis(80));
    let before = questions(&mut client);
    assert!(before[0].contains("\\x00\\r\\n\\xff"), "{before:?}");
    assert_eq!(before[15], ":11\\r\\n", "eleven of the keys of database 0 live");
    daemon.restart();
    assert_eq!(questions(&mut daemon.client()), before, "after a stop in good order");
    daemon.kill9();
    daemon.start_again();
    assert_eq!(questions(&mut daemon.client()), before, "after a kill");
}

/// Connections that write until enough is acknowledged.
struct Load {
    acknowledged: Arc<AtomicUsize>,
    writers: Vec<JoinHandle<Ledger>>,
}

/// For each key, the number of the last acknowledged write and of the last one sent.
#[derive(Default)]
struct Ledger(HashMap<String, (usize, usize)>);

impl Load {
    fn start(port: u16) -> Self {
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let writers = (0..WRITERS)
            .map(|number| {
                let counter = Arc::clone(&acknowledged);
                let pipeline = if number % 2 == 0 { PIPELINE } else { 1 };
                std::thread::spawn(move || write(number, port, pipeline, &counter))
            })
            .collect();
        Self { acknowledged, writers }
    }

    fn wait_for(&self, count: usize) {
        wait_for(&format!("{count} acknowledged writes"), || {
            (self.acknowledged.load(Ordering::Relaxed) >= count).then_some(())
        });
    }

    fn finish(self) -> Ledger {
        self.wait_for(WRITES);
        Ledger(self.writers.into_iter().flat_map(|writer| writer.join().expect("writers do not panic").0).collect())
    }
}

impl Ledger {
    fn check(&self, daemon: &Daemon) {
        let mut client = daemon.client();
        let mut lost = Vec::new();
        for (key, (acknowledged, sent)) in &self.0 {
            let reply = shown(&client.call(&[b"GET", key.as_bytes()]));
            let found = reply.split("\\r\\n").nth(1).and_then(|value| value.split(':').next()?.parse::<usize>().ok());
            if !found.is_some_and(|number| number >= *acknowledged && number <= *sent) && *acknowledged > 0 {
                lost.push(format!("{key}: acknowledged {acknowledged}, sent {sent}, found {found:?}"));
            }
        }
        assert!(lost.is_empty(), "{} keys lost acknowledged writes:\n{}", lost.len(), lost.join("\n"));
        assert!(self.0.len() > WRITERS * KEYS / 2, "most keys were written: {}", self.0.len());
    }
}

/// One connection's work: numbered writes over its own keys, again on a new connection when one breaks.
fn write(number: usize, port: u16, pipeline: usize, counter: &AtomicUsize) -> Ledger {
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let mut ledger = Ledger::default();
    let mut next = 1;
    while counter.load(Ordering::Relaxed) < WRITES {
        let Ok(mut client) = Client::try_connect(addr) else {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        };
        while counter.load(Ordering::Relaxed) < WRITES {
            let numbers: Vec<usize> = (next..next + pipeline).collect();
            next += pipeline;
            // Two writes in a row to each key: in a pipeline, the second may not overtake the first.
            let keys: Vec<String> = numbers.iter().map(|n| format!("writer:{number}:{}", n / 2 % KEYS)).collect();
            let mut requests = Vec::new();
            for (key, n) in keys.iter().zip(&numbers) {
                let value = format!("{n}:{}", "x".repeat(n % 300));
                match n % 3 {
                    0 => requests.extend(encode(&["SET", key, &value, "EX", "86400"])),
                    1 => requests.extend(encode(&["SET", key, &value])),
                    _ => requests.extend(encode(&["SETEX", key, "86400", &value])),
                }
                ledger.0.entry(key.clone()).or_default().1 = *n;
            }
            if client.try_send(&requests).is_err() {
                break;
            }
            let mut refused = false;
            let mut closed = false;
            for (key, n) in keys.iter().zip(&numbers) {
                match client.next_reply(support::PATIENCE) {
                    Ok(reply) if reply == b"+OK\r\n" => {
                        ledger.0.entry(key.clone()).or_default().0 = *n;
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(_) => refused = true,
                    Err(_) => {
                        closed = true;
                        break;
                    }
                }
            }
            if closed {
                break;
            }
            if refused {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
    ledger
}
