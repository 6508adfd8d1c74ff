//! What goes wrong with a commit, on a real Postgres: what every client that waits is told, that nothing acknowledged is
//! lost, and that nothing refused is served.
#![allow(missing_docs, reason = "tests")]

mod support;

use std::io::Write;
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use support::client::{Client, encode, shown};
use support::daemon::{Daemon, StoreKind};
use support::postgres::Cluster;
use support::proxy::{Proxy, Weather};
use support::wait_for;

const REJECTED: &str = "-ERR the session store refused this value\r\n";
const UNAVAILABLE: &str = "-ERR the session store is not available, try again later\r\n";
const UNKNOWN: &str = "-ERR the connection to the session store was lost while committing: the write may or may not have \
                       been applied\r\n";
const OK: &str = "+OK\r\n";

/// Clients that write beside the one that has bad luck; they ride in its commit.
const OTHERS: usize = 20;

/// Sessions of a `psql` that wait in the middle of a transaction.
struct Session {
    psql: Child,
    input: ChildStdin,
}

impl Session {
    fn open(cluster: &Cluster, name: &str) -> Self {
        let mut psql = cluster
            .psql_command("postgres")
            .env("PGAPPNAME", name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("psql starts");
        let input = psql.stdin.take().expect("stdin is piped");
        Self { psql, input }
    }

    fn run(&mut self, sql: &str) {
        writeln!(self.input, "{sql}").expect("psql reads");
    }

    fn end(mut self, sql: &str) {
        self.run(sql);
        drop(self.input);
        assert!(self.psql.wait().expect("psql ends").success());
    }
}

/// A session in the middle of a transaction that has done this.
fn holder(cluster: &Cluster, sql: &str) -> Session {
    let mut holder = Session::open(cluster, "holder");
    holder.run(&format!("BEGIN; {sql};"));
    wait_for_sessions(cluster, "holder", "idle in transaction");
    holder
}

/// The daemon's answer. After a failed commit it may take some time to give one, as another failure is noticed late.
fn get(client: &mut Client, key: &str) -> String {
    let text = wait_for("reads go on", || {
        let reply = client.call(&[b"GET", key.as_bytes()]);
        (!reply.starts_with(b"-")).then(|| shown(&reply))
    });
    text.split("\\r\\n").nth(1).filter(|_| !text.starts_with("$-1")).unwrap_or("nil").to_owned()
}

/// What the database has of a key, past the daemon.
fn durable(cluster: &Cluster, key: &str) -> String {
    let value = cluster.psql(&format!("SELECT convert_from(value, 'UTF8') FROM cloakroom.entry WHERE key = '{key}'"));
    if value.is_empty() { "nil".into() } else { value }
}

/// Sends a write of each connection at once; their replies in order.
fn together(clients: &mut [Client], requests: &[Vec<u8>]) -> Vec<String> {
    for (client, request) in clients.iter_mut().zip(requests) {
        client.send(request);
    }
    clients.iter_mut().map(|client| String::from_utf8_lossy(&client.reply()).into_owned()).collect()
}

/// A request for each of the others, on keys of their own.
fn requests_of_others(value: &str) -> Vec<Vec<u8>> {
    (0..OTHERS).map(|number| encode(&["SET", &format!("other:{number}"), value])).collect()
}

fn clients(daemon: &Daemon, count: usize) -> Vec<Client> {
    (0..count).map(|_| daemon.client()).collect()
}

/// Makes every daemon's answer and the database agree, for each key: what was acknowledged is there, what was refused is
/// not, before and after a restart.
fn check(daemon: &mut Daemon, cluster: &Cluster, expected: &[(String, String)]) {
    for round in ["cached", "after a restart"] {
        let mut client = daemon.client();
        for (key, value) in expected {
            assert_eq!(get(&mut client, key), *value, "{key} {round}");
            assert_eq!(durable(cluster, key), *value, "{key} in the database");
        }
        if round == "cached" {
            daemon.kill9();
            daemon.start_again();
        }
    }
}

/// A pipeline rides in one commit, and some of its rows are bad.
#[test]
fn a_bad_row_fails_alone() {
    let cluster = Cluster::start();
    let mut daemon = Daemon::start(StoreKind::Postgres(&cluster), &[]);
    let mut pipeline = daemon.client();
    assert_eq!(pipeline.ask("SET bad old"), "+OK\\r\\n");
    cluster.psql("ALTER TABLE cloakroom.entry ADD CONSTRAINT good CHECK (value <> 'bad'::bytea)");

    let mut requests = requests_of_others("new").concat();
    requests.extend_from_slice(
        b"SET p:1 new\r\nSET bad bad\r\nSET p:2 new\r\nSET p:2 bad\r\nMSET p:3 new p:4 bad\r\nSET p:5 new\r\n",
    );
    requests.extend(encode(&["SET", "p:6", "new"]));
    pipeline.send(&requests);
    for _ in 0..OTHERS {
        assert_eq!(String::from_utf8_lossy(&pipeline.reply()), OK);
    }
    // What a bad one of the same key overwrote in the same commit shares its fate.
    for expected in [OK, REJECTED, REJECTED, REJECTED, REJECTED, OK, OK] {
        assert_eq!(String::from_utf8_lossy(&pipeline.reply()), expected);
    }
    let mut expected: Vec<(String, String)> = [
        ("bad", "old"),
        ("p:1", "new"),
        ("p:2", "nil"),
        ("p:3", "nil"),
        ("p:4", "nil"),
        ("p:5", "new"),
        ("p:6", "new"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec();
    expected.extend((0..OTHERS).map(|number| (format!("other:{number}"), "new".to_owned())));
    check(&mut daemon, &cluster, &expected);
}

/// Waits until a session of this name is in this state and, if it is active, waits for something.
fn wait_for_sessions(cluster: &Cluster, name: &str, state: &str) {
    let waiting = if state == "active" { "AND wait_event_type = 'Lock'" } else { "" };
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND state = '{state}' {waiting}"
    );
    wait_for(&format!("{name} is {state}"), || (cluster.psql(&sql) != "0").then_some(()));
}

/// Somebody keeps rows locked for long: their writers wait, and nobody else for more than a moment.
#[test]
fn a_locked_row_holds_up_its_own_writers_only() {
    let cluster = Cluster::start();
    let mut daemon = Daemon::start(StoreKind::Postgres(&cluster), &[("postgres.statement_timeout", "60s")]);
    let mut client = daemon.client();
    assert_eq!(client.ask("MSET held:0 old held:1 old held:2 old"), "+OK\\r\\n");
    let holder = holder(&cluster, "UPDATE cloakroom.entry SET kind = kind WHERE key LIKE 'held:%'");

    let mut held = clients(&daemon, 3);
    for (number, client) in held.iter_mut().enumerate() {
        client.send(&encode(&["SET", &format!("held:{number}"), "new"]));
        // What comes right after it may be on its connection, and wait as well.
        let mut probes = 0;
        wait_for("others go on", || {
            probes += 1;
            let mut probe = daemon.client();
            probe.send(&encode(&["SET", &format!("probe:{number}:{probes}"), "new"]));
            (probe.next_reply(Duration::from_millis(300)).ok()? == OK.as_bytes()).then_some(())
        });
    }
    let mut others = clients(&daemon, OTHERS);
    // More writes of a locked one wait behind the first, and still nobody else does.
    client.send(b"SET held:0 newer\r\n");
    let replies = together(&mut others, &requests_of_others("new"));
    assert!(replies.iter().all(|reply| reply == OK), "{replies:?}");
    assert!(daemon.metric("cloakroom_writes_queued", &[]) >= 1.0);
    assert_eq!(durable(&cluster, "held:0"), "old");

    holder.end("COMMIT;");
    for client in held.iter_mut().chain([&mut client]) {
        assert_eq!(String::from_utf8_lossy(&client.reply()), OK);
    }
    let mut expected: Vec<(String, String)> =
        [("held:0", "newer"), ("held:1", "new"), ("held:2", "new")].map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec();
    expected.extend((0..OTHERS).map(|number| (format!("other:{number}"), "new".to_owned())));
    check(&mut daemon, &cluster, &expected);
}

/// Foreign SQL locks the same rows in the other order, and the daemon is the one that is told to give way.
#[test]
fn a_deadlock_with_foreign_sql_is_run_again() {
    let cluster = Cluster::start_with(&[("deadlock_timeout", "100ms")]);
    let mut daemon = Daemon::start(StoreKind::Postgres(&cluster), &[("postgres.statement_timeout", "30s")]);
    let mut client = daemon.client();
    assert_eq!(client.ask("MSET a old b old"), "+OK\\r\\n");
    let before = cluster.log_since(0).len();

    let mut foreign = Session::open(&cluster, "foreign");
    foreign.run("SET deadlock_timeout = '1h'; BEGIN; UPDATE cloakroom.entry SET kind = kind WHERE key = 'b';");
    wait_for_sessions(&cluster, "foreign", "idle in transaction");
    client.send(b"MSET a new b new\r\n");
    wait_for_sessions(&cluster, "cloakroom", "active");
    foreign.run("UPDATE cloakroom.entry SET kind = kind WHERE key = 'a';");
    wait_for("a deadlock", || cluster.log_since(before).contains("deadlock detected").then_some(()));
    let replies = {
        foreign.end("COMMIT;");
        let mut others = clients(&daemon, OTHERS);
        together(&mut others, &requests_of_others("new"))
    };
    assert_eq!(String::from_utf8_lossy(&client.reply()), OK, "it was run again");
    assert!(replies.iter().all(|reply| reply == OK), "{replies:?}");
    let mut expected = vec![("a".to_owned(), "new".to_owned()), ("b".to_owned(), "new".to_owned())];
    expected.extend((0..OTHERS).map(|number| (format!("other:{number}"), "new".to_owned())));
    check(&mut daemon, &cluster, &expected);
}

/// Writes that a trigger refuses as not serializable: three times, or for ever.
#[test]
fn a_serialization_failure_is_run_again_but_not_for_ever() {
    let cluster = Cluster::start();
    let mut daemon = Daemon::start(StoreKind::Postgres(&cluster), &[]);
    let mut client = daemon.client();
    assert_eq!(client.ask("MSET thrice old never old"), "+OK\\r\\n");
    cluster.psql(
        "CREATE SEQUENCE public.tries;
         CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.key = 'never' OR NEW.key = 'thrice' AND nextval('public.tries') <= 3 THEN
                 RAISE EXCEPTION 'again' USING ERRCODE = 'serialization_failure';
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON cloakroom.entry FOR EACH ROW EXECUTE FUNCTION public.fail()",
    );
    assert_eq!(client.ask("SET thrice new"), shown(OK.as_bytes()));
    assert_eq!(cluster.psql("SELECT last_value > 3 FROM public.tries"), "t", "it failed before");
    assert_eq!(client.ask("SET never new"), shown(UNAVAILABLE.as_bytes()));
    assert_eq!(client.ask("EXPIRE never 100"), shown(UNAVAILABLE.as_bytes()));

    // Those that ride with it share its fate, and are told so: each reply agrees with the database.
    let mut writers = clients(&daemon, OTHERS + 1);
    let mut requests = requests_of_others("new");
    requests.push(encode(&["SET", "never", "new"]));
    let replies = together(&mut writers, &requests);
    assert_eq!(replies[OTHERS], UNAVAILABLE);
    let mut expected = vec![("thrice".to_owned(), "new".to_owned()), ("never".to_owned(), "old".to_owned())];
    for (number, reply) in replies[..OTHERS].iter().enumerate() {
        assert!(reply == OK || reply == UNAVAILABLE, "{reply}");
        expected.push((format!("other:{number}"), if reply == OK { "new".into() } else { "nil".into() }));
    }
    check(&mut daemon, &cluster, &expected);
}

/// A row that somebody else keeps locked: those who wait are told in time, and nothing of theirs happens later.
#[test]
fn a_statement_timeout_refuses_the_commit() {
    let cluster = Cluster::start();
    let mut daemon = Daemon::start(StoreKind::Postgres(&cluster), &[("postgres.statement_timeout", "500ms")]);
    let mut client = daemon.client();
    assert_eq!(client.ask("MSET held old free old"), "+OK\\r\\n");
    let holder = holder(&cluster, "UPDATE cloakroom.entry SET kind = kind WHERE key = 'held'");

    assert_eq!(client.ask("SET held new"), shown(UNAVAILABLE.as_bytes()));
    wait_for("reads go on", || client.ask("EXISTS probe").starts_with(':').then_some(()));
    assert_eq!(get(&mut client, "held"), "old", "what was refused is not served");
    let mut writers = clients(&daemon, OTHERS + 1);
    let mut requests = requests_of_others("new");
    requests.push(encode(&["SET", "held", "newer"]));
    let replies = together(&mut writers, &requests);
    assert_eq!(replies[OTHERS], UNAVAILABLE);
    let mut expected = vec![("held".to_owned(), "old".to_owned()), ("free".to_owned(), "old".to_owned())];
    for (number, reply) in replies[..OTHERS].iter().enumerate() {
        assert!(reply == OK || reply == UNAVAILABLE, "{reply}");
        expected.push((format!("other:{number}"), if reply == OK { "new".into() } else { "nil".into() }));
    }
    holder.end("ROLLBACK;");
    check(&mut daemon, &cluster, &expected);
    assert_eq!(daemon.client().ask("SET held new"), shown(OK.as_bytes()), "it heals by itself");
    check(&mut daemon, &cluster, &[("held".to_owned(), "new".to_owned())]);
}

/// The database committed, and the answer is lost with the connection; or it did not, for the same reason.
#[test]
fn a_connection_cut_in_the_middle_of_a_commit_is_an_unknown_outcome() {
    let cluster = Cluster::start();
    let proxy = Proxy::before(cluster.port());
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", proxy.port());
    // One connection, so that the write finds one that has prepared what it needs: no other answer is to be awaited.
    let settings = [
        ("postgres.statement_timeout", "30s"),
        ("postgres.connections", "1"),
        ("coherence.mode", "off"),
        ("cache.max_age", "0s"),
    ];
    let mut daemon = Daemon::start(StoreKind::Url(&url), &settings);
    for (round, applied) in [true, false, true, false].into_iter().enumerate() {
        let mut others = clients(&daemon, OTHERS);
        let (old, new, reply) = cut_a_commit(&cluster, &proxy, &daemon, &mut others, (round, applied));
        assert_eq!(reply, UNKNOWN, "round {round}");
        let replies: Vec<_> = others.iter_mut().map(|o| String::from_utf8_lossy(&o.reply()).into_owned()).collect();
        proxy.set(Weather::Clear);
        let mut client = daemon.client();
        wait_for("reads again", || client.ask("GET probe").starts_with('$').then_some(()));
        let mut expected = vec![("k".to_owned(), if applied { new.clone() } else { old })];
        for (number, reply) in replies.iter().enumerate() {
            let key = format!("other:{number}");
            match reply.as_str() {
                OK => expected.push((key, new.clone())),
                UNKNOWN => expected.push((key.clone(), durable(&cluster, &key))),
                UNAVAILABLE => assert_ne!(durable(&cluster, &key), new, "{key} was refused"),
                other => panic!("{key}: {other}"),
            }
        }
        check(&mut daemon, &cluster, &expected);
    }
}

/// Cuts the connection on which a `SET` of `k` is under way, while the others have sent writes that wait behind it: what was
/// there, what was to be there, and what the client was told.
///
/// The daemon may just be using all of its connections for something else, as its clock. Then the write is never sent, which its
/// client is told, and that is not what this is about.
fn cut_a_commit(
    cluster: &Cluster,
    proxy: &Proxy,
    daemon: &Daemon,
    others: &mut [Client],
    (round, applied): (usize, bool),
) -> (String, String, String) {
    for attempt in 0..20 {
        proxy.set(Weather::Clear);
        let mut client = daemon.client();
        let (old, new) = (format!("old{round}.{attempt}"), format!("new{round}.{attempt}"));
        wait_for("writes go on", || (client.ask(&format!("SET k {old}")) == "+OK\\r\\n").then_some(()));
        assert_eq!(get(&mut client, "k"), old, "it is cached");
        proxy.set(if applied { Weather::Deaf } else { Weather::Stalled });
        client.send(&encode(&["SET", "k", &new]));
        let mut told = None;
        wait_for("it is on its way", || {
            told = client.next_reply(Duration::from_millis(1)).ok();
            let is_on_its_way = if applied {
                durable(cluster, "k") == new
            } else {
                daemon.metric("cloakroom_writes_queued", &[]) == 0.0
            };
            (told.is_some() || is_on_its_way).then_some(())
        });
        let waits = told.is_none();
        if waits {
            // These wait behind it, and are sent when the connection is gone, or are refused.
            for (other, request) in others.iter_mut().zip(requests_of_others(&new)) {
                other.send(&request);
            }
            proxy.set(Weather::Cut);
        }
        let reply = told.unwrap_or_else(|| client.reply());
        let reply = String::from_utf8_lossy(&reply).into_owned();
        if reply != UNAVAILABLE {
            return (old, new, reply);
        }
        proxy.set(Weather::Clear);
        if waits {
            for other in others.iter_mut() {
                other.reply();
            }
        }
    }
    panic!("no write was ever sent");
}

/// Nothing can be committed, and clients go on writing: the queue fills up, and then they are told.
#[test]
fn a_full_queue_refuses_and_stays_bounded() {
    const VALUE: usize = 8 << 20;
    const WRITES: usize = 48;
    /// What may wait, by `src/keyspace/committer.rs`.
    const QUEUE: f64 = (256 << 20) as f64;
    let cluster = Cluster::start();
    let settings = [("postgres.statement_timeout", "60s"), ("cache.max_bytes", "1MiB")];
    let mut daemon = Daemon::start(StoreKind::Postgres(&cluster), &settings);
    let mut client = daemon.client();
    assert_eq!(client.ask("SET held old"), "+OK\\r\\n");
    let holder = holder(&cluster, "LOCK TABLE cloakroom.entry IN SHARE MODE");
    client.send(b"SET held new\r\n");
    wait_for_sessions(&cluster, "cloakroom", "active");

    let value = vec![b'v'; VALUE];
    let mut writers = clients(&daemon, WRITES);
    for (number, writer) in writers.iter_mut().enumerate() {
        // Some commits are in flight, and most of these wait for them.
        writer.send(&encode(&[b"SET".as_slice(), format!("large:{number}").as_bytes(), &value]));
    }
    wait_for("all have arrived", || {
        let (waiting, refused) =
            (daemon.metric("cloakroom_writes_queued", &[]), daemon.metric("cloakroom_writes_refused_total", &[]));
        // Few are in further commits.
        (refused >= 1.0 && waiting + refused >= (WRITES - 8) as f64).then_some(())
    });
    let waiting = daemon.metric("cloakroom_writes_queued_bytes", &[]);
    assert!(waiting > 0.5 * QUEUE && waiting <= QUEUE, "{waiting} bytes wait");
    let resident = daemon.metric("process_resident_memory_bytes", &[]);
    assert!(resident < 3.0 * QUEUE, "{resident} bytes are resident");
    holder.end("COMMIT;");

    assert_eq!(String::from_utf8_lossy(&client.reply()), OK);
    let replies: Vec<_> = writers.iter_mut().map(|w| String::from_utf8_lossy(&w.reply()).into_owned()).collect();
    let refused = replies.iter().filter(|reply| *reply == UNAVAILABLE).count();
    assert_eq!(replies.iter().filter(|reply| *reply == OK).count() + refused, WRITES, "{replies:?}");
    assert!(refused > 0 && refused < WRITES, "{refused} were refused");
    daemon.kill9();
    daemon.start_again();
    let mut client = daemon.client();
    for (number, reply) in replies.iter().enumerate() {
        let expected = if reply == OK { VALUE } else { 0 };
        assert_eq!(client.ask(&format!("STRLEN large:{number}")), format!(":{expected}\\r\\n"), "large:{number}");
    }
}
