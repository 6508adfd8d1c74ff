//! What only Postgres can be put through: servers that go away, freeze or refuse, TLS, plans, and fleets that start at once.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod support;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use cloakroom::config::PostgresConfig;
use cloakroom::entry::{Change, Expect, Group, Key, KeyHasher, Kind, Mutation, Outcome};
use cloakroom::store::Store;
use cloakroom::store::error::{StoreError, StoreErrorKind};
use cloakroom::store::link::{Aboard, Acknowledged, Announcer, Link, LinkEvent, Order};
use cloakroom::store::postgres::{PostgresStore, url};
use cloakroom::tasks::Tasks;
use futures_util::future::join_all;
use support::postgres::Cluster;
use tokio::time::timeout;

fn config(url: String) -> PostgresConfig {
    PostgresConfig {
        url,
        listen_url: None,
        connections: 4,
        connect_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(10),
    }
}

async fn open(url: String) -> Result<PostgresStore, StoreError> {
    PostgresStore::open(&config(url), &Tasks::default()).await
}

fn key(store: &dyn Store, name: &str) -> Key {
    Key::new(&KeyHasher::new(&store.hash_secret()), 0, name.as_bytes().into())
}

fn put(key: &Key, expect: Expect, value: &[u8]) -> Mutation {
    let change = Change::Put { kind: Kind::String, value: value.into(), expires_at: None };
    Mutation { key: key.clone(), expect, change }
}

async fn set(store: &dyn Store, name: &str, value: &str) -> Result<Outcome, StoreError> {
    let batch = vec![vec![put(&key(store, name), Expect::Any, value.as_bytes())]];
    store.commit(&batch, None).await.pop().unwrap()
}

async fn get(store: &dyn Store, name: &str) -> Result<Option<String>, StoreError> {
    let entry = store.load(vec![key(store, name)]).await?.pop().unwrap();
    Ok(entry.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap()))
}

/// Waits until `probe` is true.
async fn eventually(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    for _ in 0..1200 {
        if probe().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("never: {what}");
}

/// The error and its causes, as a log would show them.
fn told(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_and_comes_back_is_used_again() {
    let mut cluster = Cluster::start();
    let store = open(cluster.url()).await.unwrap();
    // Several connections, so that some are idle when the server goes.
    let sets = (0..20).map(|n| set(&store, ["a", "b", "c", "d"][n % 4], "1"));
    assert!(join_all(sets).await.into_iter().all(|result| result.is_ok()));
    for round in 0..3 {
        if round == 1 {
            cluster.kill9();
        } else {
            cluster.stop();
        }
        for _ in 0..20 {
            let error = get(&store, "a").await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{}", told(&error));
            let error = set(&store, "a", "2").await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{}", told(&error));
        }
        assert_eq!(store.now().await.unwrap_err().kind(), StoreErrorKind::Unavailable);
        cluster.run();
        eventually("reads after the restart", async || get(&store, "a").await.is_ok()).await;
        assert_eq!(get(&store, "a").await.unwrap().as_deref(), Some("1"));
        set(&store, "b", "2").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_a_crash_of_the_server() {
    let mut cluster = Cluster::start();
    let store = Arc::new(open(cluster.url()).await.unwrap());
    for round in 0..3 {
        let tasks = Tasks::default();
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let store = Arc::clone(&store);
                tasks.spawn(async move {
                    let mut acknowledged = Vec::new();
                    for n in 0.. {
                        let name = format!("{round} {writer} {n}");
                        match set(&*store, &name, &name).await {
                            Ok(_) => acknowledged.push(name),
                            Err(error) => {
                                let kinds = [StoreErrorKind::UnknownOutcome, StoreErrorKind::Unavailable];
                                assert!(kinds.contains(&error.kind()), "{}", told(&error));
                                break;
                            }
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        eventually("some writes", async || {
            let counted = store.count(format!("{round} ").into_bytes()).await.unwrap();
            counted.first().is_some_and(|(_, keys, _)| *keys > 300)
        })
        .await;
        cluster.kill9();
        let acknowledged: Vec<String> = join_all(writers).await.into_iter().flat_map(Result::unwrap).collect();
        assert!(acknowledged.len() > 100);
        cluster.run();
        eventually("reads after the crash", async || store.now().await.is_ok()).await;
        let keys = acknowledged.iter().map(|name| key(&*store, name)).collect();
        let found = store.load(keys).await.unwrap();
        assert!(found.iter().all(Option::is_some), "an acknowledged write is lost");
    }
}

const TERMINATE: &str =
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'cloakroom'";

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_terminated_is_replaced() {
    let cluster = Cluster::start();
    let store = open(cluster.url()).await.unwrap();
    set(&store, "a", "1").await.unwrap();
    // While it is idle: at most the request that races with it notices.
    for _ in 0..5 {
        assert_eq!(cluster.psql(TERMINATE), "1");
        eventually("reads", async || get(&store, "a").await.is_ok()).await;
    }
    // While it commits, behind a lock: nobody can say whether the write happened.
    set(&store, "a", "1").await.unwrap();
    let table_lock = lock_table(&cluster);
    let waiting = set(&store, "a", "2");
    let killer = async {
        wait_for_waiter(&cluster).await;
        cluster.psql(TERMINATE);
    };
    let (result, ()) = tokio::join!(waiting, killer);
    assert_eq!(result.unwrap_err().kind(), StoreErrorKind::UnknownOutcome);
    // A read cannot have changed anything, nor can a new connection that had not come to the write.
    let waiting = get(&store, "a");
    let killer = async {
        wait_for_waiter(&cluster).await;
        cluster.psql(TERMINATE);
    };
    let (result, ()) = tokio::join!(waiting, killer);
    assert_eq!(result.unwrap_err().kind(), StoreErrorKind::Unavailable);
    drop(table_lock);
    eventually("writes", async || set(&store, "a", "3").await.is_ok()).await;
    assert_eq!(get(&store, "a").await.unwrap().as_deref(), Some("3"));
}

/// How often the server's process at the other end had to be given memory.
fn faults_of(cluster: &Cluster) -> u64 {
    let pid = cluster.psql("SELECT pid FROM pg_stat_activity WHERE application_name = 'cloakroom'");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // proc(5): `minflt` is the eighth after the name, which is in brackets.
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(7).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_keeps_the_memory_of_a_batch_for_the_next() {
    const BATCHES: u64 = 50;
    let cluster = Cluster::start();
    let store = open(cluster.url()).await.unwrap();
    let batch: Vec<Group> =
        (0..100).map(|row| vec![put(&key(&store, &format!("row:{row}")), Expect::Any, &[b'v'; 1024])]).collect();
    let commits = async || {
        for _ in 0..BATCHES {
            assert!(store.commit(&batch, None).await.iter().all(Result::is_ok));
        }
    };
    commits().await;
    let before = faults_of(&cluster);
    commits().await;
    // A batch is of 25 pages at least, of which there are several copies.
    let faults = faults_of(&cluster) - before;
    assert!(faults < BATCHES * 10, "{faults} faults for {BATCHES} batches");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_goes_only_while_all_daemons_with_a_lease_let_it() {
    let cluster = Cluster::start();
    let store = open(cluster.url()).await.unwrap();
    let now = store.now().await.unwrap();
    let lease = |node: u64, until: i64| cluster.psql(&format!("INSERT INTO cloakroom.node VALUES ({node}, {until})"));
    lease(1, now + 600_000);
    lease(2, now - 1);
    let announcer: Announcer<'_> = &|_| Vec::new();
    for (nodes, until, goes) in [
        (vec![1], now + 600_000, true),
        (vec![1, 9], now + 600_000, true),
        (vec![], now + 600_000, false),
        (vec![2], now + 600_000, false),
        // They may have taken the write for given up.
        (vec![1], now - 1, false),
    ] {
        for expect in [Expect::Any, Expect::Present] {
            set(&store, "a", "old").await.unwrap();
            let acknowledged = Acknowledged { nodes: nodes.clone(), until };
            let batch = vec![vec![put(&key(&store, "a"), expect, b"new")]];
            let aboard = Aboard { announcer, is_alone: false, acknowledged: Some(&acknowledged) };
            let result = store.commit(&batch, Some(aboard)).await.pop().unwrap();
            assert_eq!(result.is_ok(), goes, "{acknowledged:?}");
            if let Err(error) = &result {
                assert_eq!(error.kind(), StoreErrorKind::Unacknowledged);
            }
            let found = get(&store, "a").await.unwrap();
            assert_eq!(found.as_deref(), Some(if goes { "new" } else { "old" }), "{acknowledged:?}");
        }
        set(&store, "a", "old").await.unwrap();
        let acknowledged = Acknowledged { nodes, until };
        let aboard = Aboard { announcer, is_alone: false, acknowledged: Some(&acknowledged) };
        assert_eq!(store.flush(None, Vec::new(), Some(aboard)).await.is_ok(), goes);
        assert_eq!(get(&store, "a").await.unwrap().is_none(), goes);
    }
}

/// A session that locks the table until it is dropped.
struct TableLock<'a> {
    cluster: &'a Cluster,
    session: Child,
}

/// Who holds that lock.
const HOLDERS: &str = "FROM pg_locks WHERE relation = 'cloakroom.entry'::regclass \
                       AND mode = 'AccessExclusiveLock' AND granted";

fn lock_table(cluster: &Cluster) -> TableLock<'_> {
    let mut command = cluster.psql_command("postgres");
    command.args(["-c", "BEGIN", "-c", "LOCK TABLE cloakroom.entry", "-c", "SELECT pg_sleep(600)"]);
    let session = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let lock = TableLock { cluster, session };
    while cluster.psql(&format!("SELECT count(*) {HOLDERS}")) == "0" {
        std::thread::sleep(Duration::from_millis(10));
    }
    lock
}

impl Drop for TableLock<'_> {
    fn drop(&mut self) {
        self.cluster.psql(&format!("SELECT pg_terminate_backend(pid) {HOLDERS}"));
        self.session.wait().unwrap();
    }
}

async fn wait_for_waiter(cluster: &Cluster) {
    let waits =
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cloakroom' AND wait_event_type = 'Lock'";
    eventually("a session that waits for the lock", async || cluster.psql(waits) != "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_too_long_is_undone() {
    let cluster = Cluster::start();
    let mut settings = config(cluster.url());
    settings.statement_timeout = Duration::from_millis(300);
    let store = PostgresStore::open(&settings, &Tasks::default()).await.unwrap();
    set(&store, "a", "1").await.unwrap();
    let table_lock = lock_table(&cluster);
    for batch in 0..3 {
        // One statement; several; a transaction that looks before it commits.
        let (a, b) = (key(&store, "a"), key(&store, "b"));
        let delete = Mutation { key: b.clone(), expect: Expect::Any, change: Change::Delete };
        let batch = match batch {
            0 => vec![vec![put(&a, Expect::Any, b"2")]],
            1 => vec![vec![put(&a, Expect::Any, b"2")], vec![delete]],
            _ => vec![vec![put(&a, Expect::Present, b"2"), delete]],
        };
        for result in store.commit(&batch, None).await {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{}", told(&error));
        }
    }
    assert_eq!(get(&store, "a").await.unwrap_err().kind(), StoreErrorKind::Unavailable);
    drop(table_lock);
    eventually("reads", async || get(&store, "a").await.is_ok()).await;
    assert_eq!(get(&store, "a").await.unwrap().as_deref(), Some("1"));
    set(&store, "a", "2").await.unwrap();
}

/// A store with one connection, for which whoever does not follow another waits in vain.
async fn narrow(cluster: &Cluster, statement_timeout: Duration) -> PostgresStore {
    let mut settings = config(cluster.url());
    (settings.connections, settings.connect_timeout) = (1, Duration::from_millis(500));
    settings.statement_timeout = statement_timeout;
    let store = PostgresStore::open(&settings, &Tasks::default()).await.unwrap();
    set(&store, "a", "0").await.unwrap();
    store
}

/// What becomes of `behind` after a write that waits for a lock, for longer than anybody waits for a connection.
async fn commit_behind(cluster: &Cluster, store: &PostgresStore, behind: &[Group]) -> Vec<Result<Outcome, StoreError>> {
    let table_lock = lock_table(cluster);
    let unlock = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(table_lock);
    };
    let (first, second, ()) = tokio::join!(biased; set(store, "a", "2"), store.commit(behind, None), unlock);
    first.unwrap();
    second
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_commit_follows_another_on_its_connection() {
    let cluster = Cluster::start();
    let store = narrow(&cluster, Duration::from_secs(10)).await;
    let row = |name: &str, expect| vec![put(&key(&store, name), expect, b"1")];
    let large: Vec<Group> = (0..128).map(|number| row(&format!("large:{number}"), Expect::Any)).collect();
    for (behind, follows) in [
        (vec![row("b", Expect::Any)], true),
        // Two statements, sent in one go.
        (vec![row("b", Expect::Any), row("a", Expect::Present)], true),
        // A transaction that looks before it commits: nobody else's statements may come between.
        (vec![[row("b", Expect::Any), row("a", Expect::Present)].concat()], false),
        (large, false),
    ] {
        for result in commit_behind(&cluster, &store, &behind).await {
            assert_eq!(result.is_ok(), follows, "{} groups of {}", behind.len(), behind[0].len());
        }
    }
    // Two are on the connection; a third must not make them more.
    let table_lock = lock_table(&cluster);
    let third = async {
        let third = set(&store, "c", "3").await;
        drop(table_lock);
        third
    };
    let (first, second, third) = tokio::join!(biased; set(&store, "a", "3"), set(&store, "b", "3"), third);
    assert_eq!(third.unwrap_err().kind(), StoreErrorKind::Unavailable);
    first.and(second).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_follows_a_commit_that_is_stuck() {
    let cluster = Cluster::start();
    let store = narrow(&cluster, Duration::from_secs(10)).await;
    let table_lock = lock_table(&cluster);
    let late = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let late = set(&store, "b", "1").await;
        drop(table_lock);
        late
    };
    let (stuck, late) = tokio::join!(biased; set(&store, "a", "1"), late);
    assert_eq!(late.unwrap_err().kind(), StoreErrorKind::Unavailable);
    stuck.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_a_commit_that_fails_is_not_harmed() {
    let cluster = Cluster::start();
    let store = narrow(&cluster, Duration::from_millis(300)).await;
    let table_lock = lock_table(&cluster);
    let first = async {
        let first = set(&store, "a", "1").await;
        drop(table_lock);
        first
    };
    let (first, second) = tokio::join!(biased; first, set(&store, "b", "1"));
    assert_eq!(first.unwrap_err().kind(), StoreErrorKind::Unavailable);
    second.unwrap();
    assert_eq!(get(&store, "a").await.unwrap().as_deref(), Some("0"));
    assert_eq!(get(&store, "b").await.unwrap().as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_a_commit_whose_connection_is_cut_does_not_know_either() {
    let cluster = Cluster::start();
    let store = narrow(&cluster, Duration::from_secs(10)).await;
    let table_lock = lock_table(&cluster);
    let killer = async {
        wait_for_waiter(&cluster).await;
        cluster.psql(TERMINATE);
    };
    let (first, second, ()) = tokio::join!(biased; set(&store, "a", "1"), set(&store, "b", "1"), killer);
    for result in [first, second] {
        assert_eq!(result.unwrap_err().kind(), StoreErrorKind::UnknownOutcome);
    }
    drop(table_lock);
    // The connection is not used again.
    eventually("writes", async || set(&store, "a", "2").await.is_ok()).await;
    assert_eq!(get(&store, "a").await.unwrap().as_deref(), Some("2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_a_commit_that_is_given_up_is_given_up_with_it() {
    let cluster = Cluster::start();
    let store = narrow(&cluster, Duration::from_secs(2)).await;
    cluster.freeze();
    let order = std::sync::Mutex::new(Vec::new());
    let told = async |name: &'static str| {
        let error = set(&store, name, "1").await.unwrap_err();
        order.lock().unwrap().push((name, error.kind()));
    };
    // Whoever comes after the first is told sooner that there is no connection than the second would be by its own limit.
    let first = async {
        told("first").await;
        told("third").await;
    };
    tokio::join!(biased; first, told("second"));
    let (unknown, away) = (StoreErrorKind::UnknownOutcome, StoreErrorKind::Unavailable);
    assert_eq!(order.into_inner().unwrap(), [("first", unknown), ("second", unknown), ("third", away)]);
    cluster.thaw();
}

/// A write that is announced, by a daemon that knows of no other.
async fn set_alone(store: &dyn Store, name: &str, value: &str) -> Result<Outcome, StoreError> {
    let batch = vec![vec![put(&key(store, name), Expect::Any, value.as_bytes())]];
    let announcer: Announcer<'_> = &|_| vec![format!("changed {}", batch.len())];
    let aboard = Aboard { announcer, is_alone: true, acknowledged: None };
    store.commit(&batch, Some(aboard)).await.pop().unwrap()
}

/// Whether the last statement of the link was a write.
fn wrote_on_link(cluster: &Cluster) -> bool {
    cluster.psql("SELECT query LIKE '%INSERT%' FROM pg_stat_activity WHERE application_name = 'cloakroom link'") == "t"
}

/// Waits until this is heard.
async fn hear(link: &mut Link, text: &str) {
    let heard =
        async { while link.events.recv().await.expect("the link lasts") != LinkEvent::Heard(text.to_owned()) {} };
    timeout(Duration::from_secs(5), heard).await.expect("it is heard");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_alone_commits_on_the_link() {
    let cluster = Cluster::start();
    let store = open(cluster.url()).await.unwrap();
    let mut link = store.link(true).await.unwrap().unwrap();
    set(&store, "a", "1").await.unwrap();
    assert!(!wrote_on_link(&cluster), "others may be there");
    set_alone(&store, "a", "2").await.unwrap();
    assert!(wrote_on_link(&cluster));
    hear(&mut link, "changed 1").await;
    // Several statements, with one of the link's own that must not come between.
    let mixed =
        vec![vec![put(&key(&store, "b"), Expect::Any, b"1")], vec![put(&key(&store, "a"), Expect::Present, b"3")]];
    let announcer: Announcer<'_> = &|_| vec!["mixed".to_owned()];
    let aboard = Aboard { announcer, is_alone: true, acknowledged: None };
    for round in 0..100 {
        link.orders.send(Order::Announce(format!("beat {round}"))).await.unwrap();
        assert!(store.commit(&mixed, Some(aboard)).await.iter().all(Result::is_ok));
        hear(&mut link, &format!("beat {round}")).await;
    }
    drop(link);
    let _link = store.link(false).await.unwrap().unwrap();
    set_alone(&store, "a", "4").await.unwrap();
    assert!(!wrote_on_link(&cluster), "it is not for commits");
}

/// Its reads would not see what it wrote.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_from_a_standby_does_not_write_on_the_link() {
    let primary = Cluster::start();
    set(&open(primary.url()).await.unwrap(), "a", "1").await.unwrap();
    let standby = Cluster::start_standby(&primary);
    let url = format!("postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres", standby.port(), primary.port());
    let store = open(url).await.unwrap();
    let mut link = store.link(true).await.unwrap().unwrap();
    // As a daemon does.
    let let_go_when_it_ends = async {
        while link.events.recv().await.is_some() {}
        drop(link);
        std::future::pending().await
    };
    let set = tokio::select! {
        set = set_alone(&store, "a", "2") => set,
        never = let_go_when_it_ends => never,
    };
    assert_eq!(set.unwrap_err().kind(), StoreErrorKind::ReadOnly);
    assert_eq!(get(&open(primary.url()).await.unwrap(), "a").await.unwrap().as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_waits_for_a_lock_does_not_hold_up_the_link() {
    let cluster = Cluster::start();
    let store = open(cluster.url()).await.unwrap();
    let mut link = store.link(true).await.unwrap().unwrap();
    let table_lock = lock_table(&cluster);
    let beats = async {
        wait_for_waiter(&cluster).await;
        for text in ["one", "two"] {
            link.orders.send(Order::Announce(text.to_owned())).await.unwrap();
            hear(&mut link, text).await;
        }
        drop(table_lock);
    };
    let (first, second, ()) = tokio::join!(biased; set_alone(&store, "a", "1"), set_alone(&store, "b", "1"), beats);
    first.and(second).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_on_a_link_that_ends_goes_on() {
    let cluster = Cluster::start();
    let store = open(cluster.url()).await.unwrap();
    for round in 0..20 {
        let link = store.link(true).await.unwrap().unwrap();
        let value = round.to_string();
        let (set, ()) = tokio::join!(biased; set_alone(&store, "a", &value), async { drop(link) });
        set.unwrap();
        assert_eq!(get(&store, "a").await.unwrap(), Some(value));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_freezes_is_not_waited_for() {
    let cluster = Cluster::start();
    let mut settings = config(cluster.url());
    settings.statement_timeout = Duration::from_millis(200);
    settings.connect_timeout = Duration::from_millis(500);
    let store = PostgresStore::open(&settings, &Tasks::default()).await.unwrap();
    set(&store, "a", "1").await.unwrap();
    cluster.freeze();
    // The one that was sent to the frozen server may yet happen; the others could not connect.
    assert_eq!(set(&store, "a", "2").await.unwrap_err().kind(), StoreErrorKind::UnknownOutcome);
    assert_eq!(set(&store, "a", "3").await.unwrap_err().kind(), StoreErrorKind::Unavailable);
    assert_eq!(get(&store, "a").await.unwrap_err().kind(), StoreErrorKind::Unavailable);
    cluster.thaw();
    eventually("reads", async || get(&store, "a").await.is_ok()).await;
    set(&store, "a", "4").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_serves_reads() {
    let cluster = Cluster::start();
    let store = open(cluster.url()).await.unwrap();
    set(&store, "a", "1").await.unwrap();
    cluster.set("default_transaction_read_only", "on");
    // The setting reaches sessions one by one.
    eventually("a refusal", async || set(&store, "b", "1").await.is_err()).await;
    let (a, b) = (key(&store, "a"), key(&store, "b"));
    let delete = Mutation { key: b.clone(), expect: Expect::Any, change: Change::Delete };
    let batch = vec![
        vec![put(&a, Expect::Any, b"2")],
        vec![delete.clone()],
        vec![put(&key(&store, "c"), Expect::Absent, b"2"), delete],
    ];
    for result in store.commit(&batch, None).await {
        assert_eq!(result.unwrap_err().kind(), StoreErrorKind::ReadOnly);
    }
    assert_eq!(store.flush(None, vec![], None).await.unwrap_err().kind(), StoreErrorKind::ReadOnly);
    assert_eq!(get(&store, "a").await.unwrap().as_deref(), Some("1"));
    // A daemon that starts now serves reads too; one whose URL demands a primary waits for it.
    let reader = open(cluster.url()).await.unwrap();
    assert_eq!(get(&reader, "a").await.unwrap().as_deref(), Some("1"));
    let error = open(format!("{}?target_session_attrs=read-write", cluster.url())).await.err().unwrap();
    assert_eq!((error.kind(), error.is_permanent()), (StoreErrorKind::Unavailable, false), "{}", told(&error));
    cluster.set("default_transaction_read_only", "off");
    eventually("writes", async || set(&store, "b", "1").await.is_ok()).await;
    set(&reader, "b", "2").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_are_tried_until_one_takes_writes() {
    let standby = Cluster::start_with(&[("default_transaction_read_only", "on")]);
    let mut primary = Cluster::start();
    let hosts = format!("127.0.0.1:1,127.0.0.1:{},127.0.0.1:{}", standby.port(), primary.port());
    for shuffle in ["disable", "random"] {
        let parameters = format!("target_session_attrs=read-write&load_balance_hosts={shuffle}");
        let store = open(format!("postgres://postgres@{hosts}/postgres?{parameters}")).await.unwrap();
        set(&store, "a", "1").await.unwrap();
        store.close().await;
    }
    // The other way round: the one that serves becomes read-only under the pool.
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres?target_session_attrs=read-write", primary.port());
    let store = open(url).await.unwrap();
    primary.set("default_transaction_read_only", "on");
    eventually("no server for writes", async || {
        set(&store, "a", "2").await.is_err_and(|error| error.kind() == StoreErrorKind::Unavailable)
    })
    .await;
    primary.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_succeed_is_told_from_what_may() {
    let mut cluster = Cluster::start();
    cluster.psql("CREATE ROLE app LOGIN PASSWORD 'right horse'");
    cluster.psql("CREATE ROLE poor LOGIN PASSWORD 'poor horse'");
    cluster.create_database("newer");
    cluster.psql_in(
        "newer",
        "CREATE SCHEMA cloakroom; CREATE TABLE cloakroom.migration (number integer); \
         INSERT INTO cloakroom.migration VALUES (99)",
    );
    cluster.psql("ALTER DATABASE postgres OWNER TO app");
    cluster.set_hba("host all postgres all trust\nhost all all all scram-sha-256\nlocal all all trust\n");
    let host = format!("127.0.0.1:{}", cluster.port());
    let cases = [
        (format!("postgres://app:wrong%20horse@{host}/postgres"), "password authentication failed"),
        (format!("postgres://app:wrong%20horse@{host},{host}/postgres"), "password authentication failed"),
        (format!("postgres://app@{host}/postgres"), "password missing"),
        (format!("postgres://nobody-known:x@{host}/postgres"), "password authentication failed"),
        (format!("postgres://postgres@{host}/missing"), "does not exist"),
        (format!("postgres://postgres@{host}/newer"), "newer cloakroom"),
        (format!("postgres://poor:poor%20horse@{host}/postgres"), "permission denied"),
        (format!("postgres://postgres@{host}/postgres?sslmode=require"), "does not support TLS"),
        ("postgres://postgres@host:nonsense/db".to_owned(), "port"),
    ];
    for (url, reason) in cases {
        let error = open(url).await.err().unwrap();
        assert!(error.is_permanent() && told(&error).contains(reason), "{reason}: {}", told(&error));
        assert!(!told(&error).contains("horse") && !format!("{error:?}").contains("horse"));
    }
    let store = open(format!("postgres://app:right%20horse@{host}/postgres")).await.unwrap();
    set(&store, "a", "1").await.unwrap();
    // One host that may come back is worth waiting for.
    let error = open(format!("postgres://app:wrong%20horse@127.0.0.1:1,{host}/postgres")).await.err().unwrap();
    assert!(!error.is_permanent() && told(&error).contains("refused"), "{}", told(&error));
    let url = cluster.url();
    cluster.stop();
    let error = open(url).await.err().unwrap();
    assert_eq!((error.kind(), error.is_permanent()), (StoreErrorKind::Unavailable, false));
    assert!(told(&error).contains("Connection refused"), "{}", told(&error));
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_and_password_files_work() {
    let cluster = Cluster::start();
    let store = open(cluster.socket_url_of("postgres")).await.unwrap();
    set(&store, "a", "1").await.unwrap();
    cluster.psql("CREATE ROLE app LOGIN SUPERUSER PASSWORD 'a:b\\c'");
    cluster.set_hba("host all postgres all trust\nhost all all all scram-sha-256\n");
    let line = format!("127.0.0.1:{}:postgres:app:a\\:b\\\\c\n", cluster.port());
    let file = cluster.write_file("pgpass", line.as_bytes());
    let url = format!("postgres://app@127.0.0.1:{}/postgres?passfile={}", cluster.port(), file.display());
    url::check(&url).unwrap();
    let store = open(url).await.unwrap();
    assert_eq!(get(&store, "a").await.unwrap().as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_may_start_at_once() {
    let cluster = Cluster::start();
    let stores = join_all((0..8).map(|_| open(cluster.url()))).await;
    let stores: Vec<PostgresStore> = stores.into_iter().map(Result::unwrap).collect();
    assert!(stores.windows(2).all(|pair| pair[0].hash_secret() == pair[1].hash_secret()));
    assert_eq!(cluster.psql("SELECT count(*) = max(number) FROM cloakroom.migration"), "t");
    // Nobody shares a block of versions.
    for store in &stores {
        set(store, "a", "1").await.unwrap();
    }
    let blocks = cluster.psql("SELECT last_value / 1048576 FROM cloakroom.version");
    assert_eq!(blocks, "8");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lazy_server_is_made_to_keep_what_it_acknowledges() {
    let cluster =
        Cluster::start_with(&[("synchronous_commit", "off"), ("default_transaction_isolation", "serializable")]);
    let store = open(cluster.url()).await.unwrap();
    // Asked through the store's own sessions, by a trigger that writes down their settings.
    cluster.psql(
        "CREATE TABLE seen (text text); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         INSERT INTO public.seen VALUES (current_setting('synchronous_commit') || ' ' || \
         current_setting('transaction_isolation')); RETURN new; END $$; \
         CREATE TRIGGER note BEFORE INSERT ON cloakroom.entry FOR EACH ROW EXECUTE FUNCTION note()",
    );
    set(&store, "a", "1").await.unwrap();
    assert_eq!(cluster.psql("SELECT text FROM seen"), "on read committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_use_the_primary_key_whatever_the_statistics_say() {
    let cluster = Cluster::start_with(&[
        ("autovacuum", "off"),
        ("shared_preload_libraries", "auto_explain"),
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_analyze", "on"),
    ]);
    let store = open(cluster.url()).await.unwrap();
    // Plans are made while the table is empty, and kept.
    exercise(&store).await;
    let plans_of_empty = cluster.log_since(0);
    assert_index_plans(&plans_of_empty);
    cluster.psql(
        "INSERT INTO cloakroom.entry SELECT n, NULL, n * 20000, 0, 1, 'x' || n::text::bytea, 'v' \
         FROM generate_series(1, 100000) n",
    );
    // By sessions with kept plans, without statistics; then with fresh plans; then with statistics.
    let mark = cluster.log_since(0).len();
    exercise(&store).await;
    exercise(&open(cluster.url()).await.unwrap()).await;
    cluster.psql("ANALYZE cloakroom.entry");
    exercise(&store).await;
    let plans = cluster.log_since(mark);
    assert_index_plans(&plans);
}

/// Every statement of the daily work, several times.
async fn exercise(store: &PostgresStore) {
    for _ in 0..3 {
        for expect in [Expect::Any, Expect::Absent, Expect::Present, Expect::Version(7)] {
            let puts = (0..50).map(|n| vec![put(&key(store, &format!("{n}")), expect, b"v")]);
            store.commit(&puts.collect::<Vec<_>>(), None).await;
            let deletes =
                (0..10).map(|n| vec![Mutation { key: key(store, &format!("{n}")), expect, change: Change::Delete }]);
            store.commit(&deletes.collect::<Vec<_>>(), None).await;
        }
        let (a, b) = (key(store, "a"), key(store, "b"));
        let change = Change::Delete;
        store
            .commit(&[vec![put(&a, Expect::Absent, b"v"), Mutation { key: b, expect: Expect::Present, change }]], None)
            .await;
        store.load((0..50).map(|n| key(store, &format!("{n}"))).collect()).await.unwrap();
        store.random(0, vec![]).await.unwrap();
        store.sweep(None, 50).await.unwrap();
    }
}

fn assert_index_plans(log: &str) {
    let entries = log.matches("Query Text:").count();
    assert!(entries > 20, "plans were logged: {entries}");
    for plan in log.split("Query Text:").filter(|plan| plan.contains("cloakroom.entry") || plan.contains(" entry")) {
        // Those that the test itself runs.
        if plan.contains("generate_series") || plan.contains("ANALYZE") {
            continue;
        }
        for bad in ["Seq Scan", "Hash Join", "Merge Join", "Bitmap"] {
            assert!(!plan.contains(bad), "{bad} in {plan}");
        }
        assert!(!plan.contains("ORDER BY slot") || !plan.contains("Sort  ("), "a page is sorted in {plan}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_moves_neither_index_nor_value() {
    let cluster = Cluster::start();
    let store = open(cluster.url()).await.unwrap();
    let value: Vec<u8> = (0..20_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let key = key(&store, "a");
    store.commit(&[vec![put(&key, Expect::Any, &value)]], None).await.pop().unwrap().unwrap();
    // Rows of the table that holds long values, written since it was made; and the rewrites of ours that needed no index.
    let written = "SELECT coalesce(n_tup_ins, 0) FROM pg_stat_all_tables WHERE relid = \
                   (SELECT reltoastrelid FROM pg_class WHERE oid = 'cloakroom.entry'::regclass)";
    let hot = "SELECT n_tup_hot_upd, n_tup_upd FROM pg_stat_all_tables WHERE relid = 'cloakroom.entry'::regclass";
    for n in 0..10 {
        let change = Change::Expire(Some(4_000_000_000_000 + n));
        let batch = vec![vec![Mutation { key: key.clone(), expect: Expect::Present, change }]];
        assert!(matches!(store.commit(&batch, None).await.pop().unwrap().unwrap(), Outcome::Applied(_)));
    }
    store.close().await;
    // Sessions report their counts when they end.
    eventually("counts", async || cluster.psql(hot).ends_with("|10")).await;
    assert_eq!(cluster.psql(hot), "10|10");
    let chunks = cluster.psql(&format!(
        "SELECT count(*) FROM {}",
        cluster.psql("SELECT reltoastrelid::regclass FROM pg_class WHERE oid = 'cloakroom.entry'::regclass")
    ));
    assert_eq!(cluster.psql(written), chunks);
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_means_what_libpq_means_by_it() {
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name).display().to_string();
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").args(args).current_dir(files.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    for ca in ["ca", "other"] {
        let (key, crt, name) = (format!("{ca}.key"), format!("{ca}.crt"), format!("/CN={ca}"));
        openssl(&[&["req", "-x509", "-days", "3"], &ec[..], &["-keyout", &key, "-out", &crt, "-subj", &name]].concat());
    }
    for (name, subject, san) in [("server", "/CN=server", "DNS:localhost"), ("client", "/CN=app", "DNS:app")] {
        let (key, csr, crt) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        openssl(&[&["req"], &ec[..], &["-keyout", &key, "-out", &csr, "-subj", subject]].concat());
        std::fs::write(path("ext"), format!("subjectAltName={san}\nbasicConstraints=CA:FALSE\n")).unwrap();
        let sign = ["x509", "-req", "-days", "3", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"];
        openssl(&[&sign[..], &["-extfile", "ext", "-in", &csr, "-out", &crt]].concat());
    }
    let mut cluster = Cluster::start();
    if !cluster.has_tls() {
        return;
    }
    for name in ["server.key", "server.crt", "ca.crt"] {
        cluster.write_file(name, &std::fs::read(path(name)).unwrap());
    }
    let dir = cluster.data().parent().unwrap().display().to_string();
    for (name, file) in [("ssl_key_file", "server.key"), ("ssl_cert_file", "server.crt"), ("ssl_ca_file", "ca.crt")] {
        cluster.set(name, &format!("'{dir}/{file}'"));
    }
    cluster.set("ssl", "on");
    cluster.psql("CREATE ROLE app LOGIN SUPERUSER; CREATE ROLE word LOGIN SUPERUSER PASSWORD 'word'");
    // Everything but the helper's own connections must use TLS.
    cluster.set_hba("host all postgres all trust\nhostssl all app all cert\nhostssl all word all scram-sha-256\n");
    cluster.restart();

    let port = cluster.port();
    let (ca, other) = (path("ca.crt"), path("other.crt"));
    let client = format!("&sslcert={}&sslkey={}", path("client.crt"), path("client.key"));
    let server = path("server.crt");
    // (user, host, parameters, what the error must say; none: it connects)
    let cases = [
        ("word:word", "127.0.0.1", "sslmode=disable".to_owned(), Some("no encryption")),
        ("word:word", "127.0.0.1", "sslmode=allow".to_owned(), None),
        ("word:word", "127.0.0.1", "sslmode=prefer".to_owned(), None),
        ("word:word", "127.0.0.1", "sslmode=require&channel_binding=require".to_owned(), None),
        ("word:word", "127.0.0.1", format!("sslmode=require&sslrootcert={other}"), Some("UnknownIssuer")),
        ("word:word", "127.0.0.1", format!("sslmode=verify-ca&sslrootcert={ca}"), None),
        ("word:word", "127.0.0.1", format!("sslmode=verify-ca&sslrootcert={other}"), Some("UnknownIssuer")),
        ("word:word", "127.0.0.1", format!("sslmode=verify-full&sslrootcert={ca}"), Some("not valid for name")),
        ("word:word", "localhost", format!("sslmode=verify-full&sslrootcert={ca}"), None),
        ("word:word", "localhost", format!("sslmode=verify-full&sslrootcert={server}"), None),
        ("word:word", "localhost", format!("sslmode=verify-full&sslrootcert={ca}&hostaddr=127.0.0.1"), None),
        ("word:word", "127.0.0.1", "sslmode=verify-ca".to_owned(), Some("need `sslrootcert`")),
        ("word:word", "127.0.0.1", "sslmode=verify-ca&sslrootcert=/missing".to_owned(), Some("/missing")),
        ("word:word", "localhost", "sslrootcert=system".to_owned(), Some("")),
        ("app", "localhost", format!("sslmode=verify-full&sslrootcert={ca}{client}"), None),
        ("app", "localhost", format!("sslmode=verify-full&sslrootcert={ca}"), Some("certificate")),
    ];
    for (user, host, parameters, refusal) in cases {
        let result = open(format!("postgres://{user}@{host}:{port}/postgres?{parameters}")).await;
        match (&result, refusal) {
            (Ok(store), None) => {
                let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                                 WHERE application_name = 'cloakroom'";
                assert_eq!(cluster.psql(encrypted), "t", "{parameters}");
                store.close().await;
            }
            (Err(error), Some(refusal)) => {
                assert!(told(error).contains(refusal), "{parameters}: {}", told(error));
                assert!(error.is_permanent(), "{parameters}: {}", told(error));
            }
            (Ok(_), Some(_)) => panic!("connected with {parameters}"),
            (Err(error), None) => panic!("{parameters}: {}", told(error)),
        }
    }
}
