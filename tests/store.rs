//! The conformance suite: one list of cases that every store passes.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloakroom::config::{PostgresConfig, SqliteConfig};
use cloakroom::entry::{Applied, Change, Entry, Expect, Group, Key, KeyHasher, Kind, Mutation, Outcome, Version};
use cloakroom::store::error::{StoreError, StoreErrorKind};
use cloakroom::store::postgres::PostgresStore;
use cloakroom::store::sqlite::SqliteStore;
use cloakroom::store::{ScanQuery, Store, slot};
use cloakroom::tasks::Tasks;
use futures_util::future::{BoxFuture, join_all};
use support::pgbouncer::PgBouncer;
use support::postgres::Cluster;

/// A case: it has a store of its own, empty at first.
type Case = fn(Fixture) -> BoxFuture<'static, ()>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        &[$((stringify!($name), |fixture| Box::pin($name(fixture)) as BoxFuture<'static, ()>)),*]
    };
}

const CASES: &[(&str, Case)] = cases![
    every_expectation_meets_every_state,
    a_batch_answers_each_group_in_order,
    groups_apply_whole_or_not_at_all,
    versions_never_repeat,
    load_answers_in_order_and_repeats,
    an_expiry_leaves_the_value_alone,
    any_bytes_are_kept,
    a_scan_sees_what_stays,
    a_scan_shows_what_was_asked_for,
    pages_hold_whole_slots,
    a_random_key_is_a_live_one,
    a_flush_takes_what_it_names,
    counts_are_of_live_entries,
    marks_of_deletions_are_kept_but_not_listed,
    a_sweep_removes_the_expired,
    sweeps_and_writers_do_not_meet,
    a_bad_row_fails_alone,
    no_update_is_lost,
    crossing_batches_do_not_fail,
    what_is_kept_stays_until_the_commit,
    the_clock_decides_on_expiry,
    what_was_written_is_there_after_a_restart,
    a_closed_store_says_so,
];

#[test]
fn sqlite_conforms() {
    let dir = tempfile::tempdir().unwrap();
    run_all("sqlite", |name| Place::Sqlite(dir.path().join(name).join("sessions.db")));
}

/// Nothing here is about durability.
const HASTY: &[(&str, &str)] = &[("fsync", "off"), ("max_connections", "200"), ("deadlock_timeout", "100ms")];

#[test]
fn postgres_conforms() {
    run_all_on("postgres", Cluster::start_with(HASTY));
}

#[test]
fn postgres_18_conforms() {
    run_all_on("postgres 18", Cluster::start_18_with(HASTY));
}

fn run_all_on(store: &str, cluster: Cluster) {
    let cluster = Arc::new(cluster);
    run_all(store, |name| {
        cluster.create_database(name);
        Place::Postgres(Arc::clone(&cluster), name.to_owned(), None)
    });
}

#[test]
fn postgres_behind_a_transaction_pooler_conforms() {
    let cluster = Arc::new(Cluster::start_with(HASTY));
    let pooler = Arc::new(PgBouncer::start(&cluster));
    run_all("postgres behind pgbouncer", |name| {
        cluster.create_database(name);
        Place::Postgres(Arc::clone(&cluster), name.to_owned(), Some(Arc::clone(&pooler)))
    });
}

/// Runs all cases, or the one named in `CASE`, each in a place of its own.
fn run_all(store: &str, place: impl Fn(&str) -> Place) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let only = std::env::var("CASE").ok();
    let mut failed = Vec::new();
    for (name, case) in CASES.iter().filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name)) {
        let tasks = Tasks::default();
        let place = place(name);
        let result = runtime.block_on(async {
            let fixture = Fixture { store: place.open(&tasks).await.unwrap(), place, tasks: tasks.clone() };
            tasks.spawn(case(fixture)).await
        });
        if result.is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "failed on {store}: {failed:?}");
}

/// Where a store keeps its entries.
#[derive(Clone)]
enum Place {
    Sqlite(PathBuf),
    /// A database of a cluster, perhaps behind a pooler.
    Postgres(Arc<Cluster>, String, Option<Arc<PgBouncer>>),
}

impl Place {
    async fn open(&self, tasks: &Tasks) -> Result<Arc<dyn Store>, StoreError> {
        match self {
            Self::Sqlite(path) => {
                let store = SqliteStore::open(&SqliteConfig { path: path.clone() })?;
                Ok(Arc::new(store))
            }
            Self::Postgres(cluster, database, pooler) => {
                let direct = || cluster.url_of(database);
                let config = PostgresConfig {
                    url: pooler.as_ref().map_or_else(direct, |pooler| pooler.url_of(database)),
                    listen_url: None,
                    connections: 4,
                    connect_timeout: Duration::from_secs(20),
                    statement_timeout: Duration::from_secs(20),
                };
                Ok(Arc::new(PostgresStore::open(&config, tasks).await?))
            }
        }
    }
}

/// What a case gets.
struct Fixture {
    store: Arc<dyn Store>,
    place: Place,
    tasks: Tasks,
}

impl Fixture {
    fn key(&self, name: impl AsRef<[u8]>) -> Key {
        self.key_in(0, name)
    }

    fn key_in(&self, db: u8, name: impl AsRef<[u8]>) -> Key {
        Key::new(&KeyHasher::new(&self.store.hash_secret()), db, name.as_ref().into())
    }

    /// The same store as another daemon would open it, where that can be.
    async fn another(&self) -> Arc<dyn Store> {
        match self.place {
            Place::Sqlite(_) => Arc::clone(&self.store),
            Place::Postgres(..) => self.place.open(&self.tasks).await.unwrap(),
        }
    }

    async fn commit(&self, batch: Vec<Group>) -> Vec<Outcome> {
        let results = self.store.commit(&batch, None).await;
        results.into_iter().map(Result::unwrap).collect()
    }

    /// Commits one mutation; what was applied.
    async fn apply(&self, mutation: Mutation) -> Option<Applied> {
        match self.commit(vec![vec![mutation]]).await.pop().unwrap() {
            Outcome::Applied(applied) => Some(applied[0]),
            Outcome::Conflict => None,
        }
    }

    async fn put(&self, key: &Key, value: &[u8], expires_at: Option<i64>) -> Version {
        self.apply(put(key, Expect::Any, value, expires_at)).await.unwrap().version
    }

    async fn load(&self, key: &Key) -> Option<Entry> {
        self.store.load(vec![key.clone()]).await.unwrap().pop().unwrap()
    }

    async fn value(&self, key: &Key) -> Option<Vec<u8>> {
        self.load(key).await.map(|entry| entry.value.to_vec())
    }

    async fn now(&self) -> i64 {
        self.store.now().await.unwrap()
    }

    /// Runs SQL behind the store's back.
    fn sql(&self, sqlite: &str, postgres: &str) {
        match &self.place {
            Place::Sqlite(path) => rusqlite::Connection::open(path).unwrap().execute_batch(sqlite).unwrap(),
            Place::Postgres(cluster, database, _) => drop(cluster.psql_in(database, postgres)),
        }
    }

    /// All pages of a scan.
    async fn scan(&self, db: u8, prefix: &[u8], limit: u32, kind: Option<Kind>) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        let mut cursor = 0;
        loop {
            let query = ScanQuery { db, prefix: prefix.to_vec(), cursor, limit, kind };
            let page = self.store.scan(query).await.unwrap();
            names.extend(page.names.into_iter().map(<[u8]>::into_vec));
            assert!(page.next < 1 << 31);
            assert!(page.next == 0 || page.next > cursor, "the cursor goes forward");
            cursor = page.next;
            if cursor == 0 {
                return names;
            }
        }
    }
}

fn mutation(key: &Key, expect: Expect, change: Change) -> Mutation {
    Mutation { key: key.clone(), expect, change }
}

fn put(key: &Key, expect: Expect, value: &[u8], expires_at: Option<i64>) -> Mutation {
    mutation(key, expect, Change::Put { kind: Kind::String, value: value.into(), expires_at })
}

fn delete(key: &Key, expect: Expect) -> Mutation {
    mutation(key, expect, Change::Delete)
}

/// A time at which these tests are history.
const FUTURE: i64 = 4_000_000_000_000;
/// A time at which nobody ran them.
const PAST: i64 = 1_000_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Absent,
    Live,
    LiveForever,
    Expired,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Put,
    Expire,
    Delete,
    Keep,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Want {
    Any,
    Absent,
    Present,
    ThisVersion,
    OtherVersion,
}

/// Each combination as a single group, and as part of a larger one that must follow it.
async fn every_expectation_meets_every_state(fixture: Fixture) {
    let mut number = 0;
    for state in [State::Absent, State::Live, State::LiveForever, State::Expired] {
        for want in [Want::Any, Want::Absent, Want::Present, Want::ThisVersion, Want::OtherVersion] {
            for what in [What::Put, What::Expire, What::Delete, What::Keep] {
                let has_no_meaning = match want {
                    Want::Any => matches!(what, What::Expire | What::Keep),
                    Want::Absent => what == What::Expire,
                    _ => false,
                };
                if has_no_meaning {
                    continue;
                }
                for grouped in [false, true] {
                    number += 1;
                    let key = fixture.key(format!("key {number}"));
                    check_one(&fixture, &key, state, want, what, grouped).await;
                }
            }
        }
    }
}

async fn check_one(fixture: &Fixture, key: &Key, state: State, want: Want, what: What, grouped: bool) {
    let context = format!("{what:?} expecting {want:?} of {state:?}, grouped: {grouped}");
    let before = match state {
        State::Absent => None,
        State::Live => Some(Some(FUTURE)),
        State::LiveForever => Some(None),
        State::Expired => Some(Some(PAST)),
    };
    let version = match before {
        Some(expires_at) => fixture.put(key, b"before", expires_at).await,
        None => 0,
    };
    let live = matches!(state, State::Live | State::LiveForever);
    let (expect, admitted) = match want {
        Want::Any => (Expect::Any, true),
        Want::Absent => (Expect::Absent, !live),
        Want::Present => (Expect::Present, live),
        Want::ThisVersion => (Expect::Version(version), live),
        Want::OtherVersion => (Expect::Version(version + 1), false),
    };
    let change = match what {
        What::Put => Change::Put { kind: Kind::String, value: (*b"after").into(), expires_at: Some(FUTURE + 1) },
        What::Expire => Change::Expire(Some(FUTURE + 1)),
        What::Delete => Change::Delete,
        What::Keep => Change::Keep,
    };
    let witness = fixture.key([key.name(), b" witness"].concat());
    let mut group = vec![mutation(key, expect, change)];
    if grouped {
        group.insert(0, put(&witness, Expect::Any, b"seen", None));
    }
    let outcome = fixture.commit(vec![group]).await.pop().unwrap();
    let after = fixture.load(key).await;
    if grouped {
        assert_eq!(fixture.load(&witness).await.is_some(), admitted, "{context}");
    }
    match outcome {
        Outcome::Conflict => {
            assert!(!admitted, "{context}");
            assert_eq!(after.as_ref().map(|entry| entry.version), live.then_some(version), "{context}");
            assert_eq!(after.map(|entry| entry.value.to_vec()), live.then(|| b"before".to_vec()), "{context}");
        }
        Outcome::Applied(applied) => {
            assert!(admitted, "{context}");
            assert_eq!(applied.len(), 1 + usize::from(grouped), "{context}");
            let applied = applied.last().unwrap();
            if what == What::Keep {
                assert_eq!(after.as_ref().map(|entry| entry.version), live.then_some(version), "{context}");
                assert_eq!(after.map(|entry| entry.value.to_vec()), live.then(|| b"before".to_vec()), "{context}");
                return;
            }
            assert_eq!(applied.existed, what == What::Delete && live, "{context}");
            let value: &[u8] = if what == What::Expire { b"before" } else { b"after" };
            let expected = (what != What::Delete).then(|| Entry {
                kind: Kind::String,
                value: value.into(),
                expires_at: Some(FUTURE + 1),
                version: applied.version,
            });
            assert!(applied.version != version || what == What::Delete, "{context}");
            assert_eq!(after, expected, "{context}");
        }
    }
}

async fn a_batch_answers_each_group_in_order(fixture: Fixture) {
    assert_eq!(fixture.commit(vec![]).await, vec![]);
    assert_eq!(fixture.commit(vec![vec![]]).await, vec![Outcome::Applied(vec![])]);
    // In ascending and descending order of keys, as stores sort.
    for ascending in [true, false] {
        fixture.store.flush(None, vec![], None).await.unwrap();
        let name = |n: u32| format!("{:03}", if ascending { n } else { 999 - n });
        for n in (0..300).step_by(3) {
            fixture.put(&fixture.key(name(n)), b"old", None).await;
        }
        // Every third key exists; of seven kinds of group, each meets both.
        let group = |n: u32| {
            let (key, twin) = (fixture.key(name(n)), fixture.key_in(1, name(n)));
            match n % 7 {
                0 => vec![put(&key, Expect::Any, b"new", None)],
                1 => vec![put(&key, Expect::Absent, b"new", None)],
                2 => vec![put(&key, Expect::Present, b"new", None)],
                3 => vec![delete(&key, Expect::Any)],
                4 => vec![mutation(&key, Expect::Present, Change::Expire(Some(FUTURE)))],
                5 => vec![put(&key, Expect::Any, b"new", None), delete(&twin, Expect::Any)],
                _ => vec![put(&key, Expect::Absent, b"new", None), put(&twin, Expect::Any, b"new", None)],
            }
        };
        let outcomes = fixture.commit((0..300).map(group).collect()).await;
        let keys = (0..300).map(|n| fixture.key(name(n))).collect();
        let entries = fixture.store.load(keys).await.unwrap();
        for ((n, outcome), entry) in (0..300).zip(outcomes).zip(entries) {
            let existed = n % 3 == 0;
            let value = entry.as_ref().map(|entry| entry.value.to_vec());
            let old = existed.then(|| b"old".to_vec());
            let new = Some(b"new".to_vec());
            let (applies, after) = match n % 7 {
                0 | 5 => (true, new),
                1 | 6 => (!existed, if existed { old } else { new }),
                2 => (existed, if existed { new } else { None }),
                3 => (true, None),
                _ => (existed, old),
            };
            assert_eq!(value, after, "{n}");
            match outcome {
                Outcome::Conflict => assert!(!applies, "{n}"),
                Outcome::Applied(applied) => {
                    assert!(applies, "{n}");
                    assert_eq!(applied[0].existed, n % 7 == 3 && existed, "{n}");
                    assert!(n % 7 == 3 || entry.unwrap().version == applied[0].version, "{n}");
                }
            }
        }
    }
}

async fn groups_apply_whole_or_not_at_all(fixture: Fixture) {
    let keys: Vec<Key> = (0..6).map(|n| fixture.key(format!("{n}"))).collect();
    let versions = join_all(keys[..3].iter().map(|key| fixture.put(key, b"old", None))).await;
    // One mutation of each kind, and each in turn made to fail.
    let group = |bad: Option<usize>| {
        let wrong = |n: usize, good: Expect, otherwise: Expect| if bad == Some(n) { otherwise } else { good };
        vec![
            put(&keys[0], wrong(0, Expect::Version(versions[0]), Expect::Version(versions[0] - 1)), b"new", None),
            mutation(&keys[1], wrong(1, Expect::Present, Expect::Version(0)), Change::Expire(Some(FUTURE))),
            delete(&keys[2], wrong(2, Expect::Present, Expect::Version(0))),
            put(&keys[3], wrong(3, Expect::Absent, Expect::Present), b"new", None),
            delete(&keys[4], wrong(4, Expect::Absent, Expect::Present)),
            put(&keys[5], wrong(5, Expect::Any, Expect::Present), b"new", None),
        ]
    };
    let before = fixture.store.load(keys.clone()).await.unwrap();
    for bad in 0..6 {
        assert_eq!(fixture.commit(vec![group(Some(bad))]).await, vec![Outcome::Conflict], "{bad}");
        assert_eq!(fixture.store.load(keys.clone()).await.unwrap(), before, "{bad}");
    }
    let outcome = fixture.commit(vec![group(None)]).await.pop().unwrap();
    let Outcome::Applied(applied) = outcome else { panic!("{outcome:?}") };
    assert_eq!(applied.iter().map(|one| one.existed).collect::<Vec<_>>(), [false, false, true, false, false, false]);
    let after = fixture.store.load(keys.clone()).await.unwrap();
    let values: Vec<Option<&[u8]>> = after.iter().map(|entry| entry.as_ref().map(|entry| &*entry.value)).collect();
    assert_eq!(values, [Some(&b"new"[..]), Some(b"old"), None, Some(b"new"), None, Some(b"new")]);
}

async fn versions_never_repeat(fixture: Fixture) {
    let another = fixture.another().await;
    let key = fixture.key("key");
    let mut seen = HashSet::new();
    for round in 0..50 {
        let store = if round % 2 == 0 { &fixture.store } else { &another };
        let others = (0..20).map(|n| vec![put(&fixture.key(format!("other {n}")), Expect::Any, b"", None)]);
        let batch: Vec<Group> = others.chain([vec![put(&key, Expect::Absent, b"", None)]]).collect();
        for result in store.commit(&batch, None).await {
            let Outcome::Applied(applied) = result.unwrap() else { panic!("conflict in {round}") };
            assert!(seen.insert(applied[0].version), "repeated in {round}");
        }
        assert!(fixture.apply(delete(&key, Expect::Present)).await.unwrap().existed);
    }
}

async fn load_answers_in_order_and_repeats(fixture: Fixture) {
    assert_eq!(fixture.store.load(vec![]).await.unwrap(), vec![]);
    let (a, b) = (fixture.key("a"), fixture.key("b"));
    let (a7, absent) = (fixture.key_in(7, "a"), fixture.key("absent"));
    for (key, value) in [(&a, "0a"), (&b, "0b"), (&a7, "7a")] {
        fixture.put(key, value.as_bytes(), None).await;
    }
    let asked = [&a, &absent, &b, &a7, &a, &absent, &a7];
    let found = fixture.store.load(asked.into_iter().cloned().collect()).await.unwrap();
    let values: Vec<Option<&[u8]>> = found.iter().map(|entry| entry.as_ref().map(|entry| &*entry.value)).collect();
    let [zero_a, zero_b, seven_a] = [Some(&b"0a"[..]), Some(&b"0b"[..]), Some(&b"7a"[..])];
    assert_eq!(values, [zero_a, None, zero_b, seven_a, zero_a, None, seven_a]);
    // More than one page of anything.
    let keys: Vec<Key> = (0..3000).map(|n| fixture.key(format!("{n}"))).collect();
    let batch = keys.iter().map(|key| vec![put(key, Expect::Any, key.name(), None)]).collect();
    fixture.commit(batch).await;
    let found = fixture.store.load(keys.clone()).await.unwrap();
    assert!(keys.iter().zip(found).all(|(key, entry)| *entry.unwrap().value == *key.name()));
}

async fn an_expiry_leaves_the_value_alone(fixture: Fixture) {
    // Below and above what stores keep within the row.
    for size in [0, 10, 5_000, 300_000] {
        let key = fixture.key(format!("{size}"));
        let value: Vec<u8> = (0..size).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut version = fixture.put(&key, &value, None).await;
        for expires_at in [Some(FUTURE), None, Some(FUTURE + 5)] {
            let change = Change::Expire(expires_at);
            let applied = fixture.apply(mutation(&key, Expect::Version(version), change)).await.unwrap();
            assert_ne!(applied.version, version);
            version = applied.version;
            let expected = Entry { kind: Kind::String, value: value.as_slice().into(), expires_at, version };
            assert_eq!(fixture.load(&key).await, Some(expected), "{size}");
        }
        // An expiry in the past is an end.
        assert!(fixture.apply(mutation(&key, Expect::Present, Change::Expire(Some(PAST)))).await.is_some());
        assert_eq!(fixture.load(&key).await, None, "{size}");
    }
}

async fn any_bytes_are_kept(fixture: Fixture) {
    let all: Vec<u8> = (0..=255).collect();
    let long = vec![0xee; cloakroom::limits::MAX_KEY];
    let names: [&[u8]; 6] = [b"", b"\0", b"%_\\'", &all, &long, "ключ".as_bytes()];
    let big = vec![7; 3 * 1024 * 1024];
    let values: [&[u8]; 4] = [b"", b"\0\0", &all, &big];
    for value in values {
        let batch = names.iter().map(|name| vec![put(&fixture.key(name), Expect::Any, value, None)]).collect();
        fixture.commit(batch).await;
        for name in names {
            assert_eq!(fixture.value(&fixture.key(name)).await.as_deref(), Some(value));
        }
    }
    let mut found = fixture.scan(0, b"", 10, None).await;
    found.sort();
    let mut expected = names.map(<[u8]>::to_vec);
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(fixture.store.count(vec![]).await.unwrap(), [(0, 6, 0)]);
    let deletes = names.iter().map(|name| vec![delete(&fixture.key(name), Expect::Any)]).collect();
    fixture.commit(deletes).await;
    assert_eq!(fixture.store.count(vec![]).await.unwrap(), []);
}

async fn a_scan_sees_what_stays(fixture: Fixture) {
    let staying: Vec<Key> = (0..400).map(|n| fixture.key(format!("stays {n}"))).collect();
    let leaving: Vec<Key> = (0..400).map(|n| fixture.key(format!("leaves {n}"))).collect();
    let all = staying.iter().chain(&leaving).map(|key| vec![put(key, Expect::Any, b"v", None)]).collect();
    fixture.commit(all).await;
    let mut seen = Vec::new();
    let mut cursor = 0;
    for round in 0.. {
        let query = ScanQuery { db: 0, prefix: vec![], cursor, limit: 9, kind: None };
        let page = fixture.store.scan(query).await.unwrap();
        assert!(page.names.len() <= 9, "no two of these keys share a slot");
        seen.extend(page.names.into_iter().map(<[u8]>::into_vec));
        // Entries come and go, and are rewritten, all the time.
        let arriving = fixture.key(format!("arrives {round}"));
        let mut batch = vec![vec![put(&arriving, Expect::Any, b"v", None)]];
        batch.extend(
            leaving.get(round * 5..round * 5 + 5).into_iter().flatten().map(|key| vec![delete(key, Expect::Any)]),
        );
        batch.push(vec![put(&staying[round % 400], Expect::Any, b"again", None)]);
        fixture.commit(batch).await;
        cursor = page.next;
        if cursor == 0 {
            break;
        }
    }
    let unique: HashSet<&Vec<u8>> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "no key twice");
    assert!(staying.iter().all(|key| unique.contains(&key.name().to_vec())));
}

async fn a_scan_shows_what_was_asked_for(fixture: Fixture) {
    let mut batch = Vec::new();
    for n in 0..60 {
        let expires_at = [None, Some(FUTURE), Some(PAST)][n % 3];
        for (db, prefix) in [(0, "a:"), (0, "a%:"), (0, "b:"), (3, "a:")] {
            batch.push(vec![put(&fixture.key_in(db, format!("{prefix}{n}")), Expect::Any, b"v", expires_at)]);
        }
    }
    fixture.commit(batch).await;
    for (db, prefix, count) in
        [(0, "", 120), (0, "a", 80), (0, "a:", 40), (0, "b:", 40), (0, "c", 0), (3, "", 40), (5, "", 0)]
    {
        for limit in [1, 7, 1000] {
            let names = fixture.scan(db, prefix.as_bytes(), limit, Some(Kind::String)).await;
            assert_eq!(names.len(), count, "db {db} prefix {prefix} limit {limit}");
            assert!(names.iter().all(|name| name.starts_with(prefix.as_bytes())));
        }
    }
    for cursor in [1 << 31, u32::MAX] {
        let query = ScanQuery { db: 0, prefix: vec![], cursor, limit: 10, kind: None };
        let page = fixture.store.scan(query).await.unwrap();
        assert_eq!((page.names.len(), page.next), (0, 0));
    }
}

async fn pages_hold_whole_slots(fixture: Fixture) {
    // The hash is ours to say: 20 keys in each of some slots, the first and the last among them.
    let slots = [0, 1, 77, (1 << 31) - 1];
    let mut batch = Vec::new();
    for slot_wanted in slots {
        for n in 0..20 {
            let key = Key::with_hash(u64::from(slot_wanted) << 33, 0, format!("{slot_wanted} {n}").into_bytes().into());
            assert_eq!(slot(&key) as u32, slot_wanted);
            batch.push(vec![put(&key, Expect::Any, b"v", None)]);
        }
    }
    fixture.commit(batch).await;
    for limit in [1, 3, 19, 20, 21, 45, 100] {
        let names = fixture.scan(0, b"", limit, None).await;
        let unique: HashSet<_> = names.iter().collect();
        assert_eq!((names.len(), unique.len()), (80, 80), "limit {limit}");
    }
}

async fn a_random_key_is_a_live_one(fixture: Fixture) {
    assert_eq!(fixture.store.random(0, vec![]).await.unwrap(), None);
    let expired = (0..500).map(|n| vec![put(&fixture.key(format!("expired {n}")), Expect::Any, b"", Some(PAST))]);
    fixture.commit(expired.collect()).await;
    assert_eq!(fixture.store.random(0, vec![]).await.unwrap(), None);
    let live = (0..5).map(|n| vec![put(&fixture.key(format!("live {n}")), Expect::Any, b"", None)]);
    fixture.commit(live.collect()).await;
    fixture.put(&fixture.key("other"), b"", None).await;
    let mut seen = HashSet::new();
    for _ in 0..200 {
        let name = fixture.store.random(0, b"live".to_vec()).await.unwrap().unwrap();
        assert!(name.starts_with(b"live"));
        seen.insert(name);
    }
    // The chance that 200 draws miss all but one of five is nil.
    assert!(seen.len() > 1);
    assert_eq!(fixture.store.random(1, vec![]).await.unwrap(), None);
}

async fn a_flush_takes_what_it_names(fixture: Fixture) {
    // (flush, what is left of the keys below)
    let keys = [(0, "a1"), (0, "a2"), (0, "b1"), (1, "a1"), (1, "b1")];
    let cases: [(Option<u8>, &str, &[usize]); 6] = [
        (Some(0), "", &[3, 4]),
        (Some(0), "a", &[2, 3, 4]),
        (None, "a", &[2, 4]),
        (None, "", &[]),
        (Some(9), "", &[0, 1, 2, 3, 4]),
        (None, "c", &[0, 1, 2, 3, 4]),
    ];
    for (db, prefix, left) in cases {
        for (db, name) in keys {
            fixture.put(&fixture.key_in(db, name), b"v", None).await;
        }
        fixture.store.flush(db, prefix.as_bytes().to_vec(), None).await.unwrap();
        let found =
            fixture.store.load(keys.iter().map(|(db, name)| fixture.key_in(*db, name)).collect()).await.unwrap();
        let found: Vec<usize> = found.iter().enumerate().filter(|(_, entry)| entry.is_some()).map(|(n, _)| n).collect();
        assert_eq!(found, left, "{db:?} {prefix}");
    }
}

async fn marks_of_deletions_are_kept_but_not_listed(fixture: Fixture) {
    let (marked, other) = (fixture.key("marked"), fixture.key("other"));
    let old = fixture.put(&marked, b"v", Some(FUTURE)).await;
    let change = Change::Put { kind: Kind::Deleted, value: b""[..].into(), expires_at: Some(FUTURE) };
    let mark = Mutation { key: marked.clone(), expect: Expect::Version(old), change };
    let version = fixture.apply(mark).await.unwrap().version;
    let found = fixture.load(&marked).await.unwrap();
    assert_eq!((found.kind, found.version, found.value.len()), (Kind::Deleted, version, 0));
    assert_eq!(fixture.store.random(0, vec![]).await.unwrap(), None);
    fixture.put(&other, b"v", None).await;
    assert_eq!(fixture.scan(0, b"", 10, None).await, [b"other"]);
    assert_eq!(fixture.store.count(vec![]).await.unwrap(), [(0, 1, 0)]);
    for limit in [1, 2] {
        assert_eq!(fixture.scan(0, b"mar", limit, None).await, Vec::<Vec<u8>>::new());
    }
    // It stands in the way of what expects an absent key or another version, and expires as any entry does.
    assert!(fixture.apply(put(&marked, Expect::Absent, b"w", None)).await.is_none());
    assert!(fixture.apply(put(&marked, Expect::Version(old), b"w", None)).await.is_none());
    assert!(fixture.apply(put(&marked, Expect::Version(version), b"w", None)).await.is_some());
    assert_eq!(fixture.store.count(vec![]).await.unwrap(), [(0, 2, 0)]);
}

async fn counts_are_of_live_entries(fixture: Fixture) {
    assert_eq!(fixture.store.count(vec![]).await.unwrap(), []);
    for (db, name, expires_at) in [
        (0, "a1", None),
        (0, "a2", Some(FUTURE)),
        (0, "b1", Some(FUTURE)),
        (0, "b2", Some(PAST)),
        (2, "a1", Some(PAST)),
        (15, "a1", None),
    ] {
        fixture.put(&fixture.key_in(db, name), b"v", expires_at).await;
    }
    assert_eq!(fixture.store.count(vec![]).await.unwrap(), [(0, 3, 2), (15, 1, 0)]);
    assert_eq!(fixture.store.count(b"a".to_vec()).await.unwrap(), [(0, 2, 1), (15, 1, 0)]);
    assert_eq!(fixture.store.count(b"c".to_vec()).await.unwrap(), []);
}

async fn a_sweep_removes_the_expired(fixture: Fixture) {
    let swept = fixture.store.sweep(None, 10).await.unwrap();
    assert_eq!((swept.removed, swept.next), (0, None));
    let key = |n: usize| fixture.key_in((n % 3) as u8, format!("{n:03}"));
    let expiry = |n: usize| [None, Some(FUTURE), Some(PAST), Some(PAST)][n % 4];
    for limit in [1, 7, 50, 100, 101, 1000] {
        let batch: Vec<Group> = (0..100).map(|n| vec![put(&key(n), Expect::Any, b"v", expiry(n))]).collect();
        fixture.commit(batch).await;
        let (mut removed, mut steps, mut from) = (0, 0, None);
        loop {
            let swept = fixture.store.sweep(from, limit).await.unwrap();
            assert!(swept.removed <= u64::from(limit));
            removed += swept.removed;
            steps += 1;
            from = swept.next;
            if from.is_none() {
                break;
            }
        }
        assert_eq!((removed, steps), (50, 100 / limit + 1), "limit {limit}");
        let found = fixture.store.load((0..100).map(key).collect()).await.unwrap();
        assert!(found.iter().enumerate().all(|(n, entry)| entry.is_some() == (n % 4 < 2)));
        // Their rows are gone indeed: nothing is left for another pass.
        assert_eq!(fixture.store.sweep(None, 1000).await.unwrap().removed, 0);
    }
}

async fn sweeps_and_writers_do_not_meet(fixture: Fixture) {
    let another = fixture.another().await;
    let keys: Vec<Key> = (0..200).map(|n| fixture.key(format!("{n}"))).collect();
    let done = AtomicBool::new(false);
    let writer = async {
        for round in 0..30 {
            let expired = keys.iter().map(|key| vec![put(key, Expect::Any, b"old", Some(PAST))]).collect();
            fixture.commit(expired).await;
            let live = keys.iter().map(|key| vec![put(key, Expect::Absent, b"new", Some(FUTURE))]).collect();
            let outcomes = fixture.commit(live).await;
            assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Applied(_))), "{round}");
            let found = fixture.store.load(keys.clone()).await.unwrap();
            assert!(found.iter().all(Option::is_some), "a live entry was swept in {round}");
        }
        done.store(true, Ordering::Relaxed);
    };
    let sweeper = async |store: &dyn Store| {
        let mut from = None;
        while !done.load(Ordering::Relaxed) {
            from = store.sweep(from, 20).await.unwrap().next;
        }
    };
    tokio::join!(writer, sweeper(&*fixture.store), sweeper(&*another));
}

async fn a_bad_row_fails_alone(fixture: Fixture) {
    fixture.sql(
        "CREATE TRIGGER refuse BEFORE INSERT ON entry WHEN new.key >= x'626164' AND new.key < x'626165' \
         BEGIN SELECT RAISE(ABORT, 'the value is secret'); END",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'the value is secret'; END $$; \
         CREATE TRIGGER refuse BEFORE INSERT ON cloakroom.entry FOR EACH ROW \
         WHEN (new.key >= 'bad' AND new.key < 'bae') EXECUTE FUNCTION refuse()",
    );
    let is_bad = |n: usize| n == 13 || n == 37 || n == 77;
    let batch: Vec<Group> = (0..100)
        .map(|n| {
            let word = if is_bad(n) { "bad" } else { "good" };
            let key = fixture.key(format!("{word} {n}"));
            let twin = fixture.key(format!("twin {n}"));
            match n % 4 {
                0 => vec![put(&key, Expect::Any, b"secret", None)],
                1 => vec![put(&twin, Expect::Any, b"secret", None), put(&key, Expect::Any, b"secret", None)],
                2 => vec![put(&key, Expect::Absent, b"secret", None)],
                _ => vec![delete(&key, Expect::Any)],
            }
        })
        .chain([vec![
            put(&fixture.key("good last"), Expect::Absent, b"secret", None),
            put(&fixture.key("bad last"), Expect::Absent, b"secret", None),
        ]])
        .collect();
    let results = fixture.store.commit(&batch, None).await;
    for (n, result) in results.iter().enumerate() {
        // Deleting what is not there offends nobody.
        if n == 100 || (is_bad(n) && n % 4 != 3) {
            let error = result.as_ref().unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Rejected, "{n}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        } else {
            assert!(matches!(result, Ok(Outcome::Applied(_))), "{n}: {result:?}");
        }
    }
    assert_eq!(fixture.value(&fixture.key("twin 1")).await.as_deref(), Some(&b"secret"[..]));
    assert_eq!(fixture.value(&fixture.key("twin 13")).await, None);
    assert_eq!(fixture.value(&fixture.key("good last")).await, None);
}

/// Counters, each incremented by tasks on both stores that read, add one, and write if nobody else has.
async fn no_update_is_lost(fixture: Fixture) {
    const TASKS: u64 = 8;
    const ROUNDS: u64 = 20;
    let another = fixture.another().await;
    let keys: Vec<Key> = (0..6).map(|n| fixture.key(format!("{n}"))).collect();
    for key in &keys {
        fixture.put(key, b"0", None).await;
    }
    let increments = (0..TASKS).map(|task| {
        let store = Arc::clone(if task % 2 == 0 { &fixture.store } else { &another });
        let mut keys = keys.clone();
        fixture.tasks.spawn(async move {
            keys.rotate_left((task % 6) as usize);
            for round in 0..ROUNDS {
                increment(&*store, &keys, round % 2 == 0).await;
            }
        })
    });
    for result in join_all(increments).await {
        result.unwrap();
    }
    for key in &keys {
        let value = fixture.value(key).await.unwrap();
        assert_eq!(String::from_utf8(value).unwrap(), (TASKS * ROUNDS).to_string());
    }
}

/// Adds one to each counter: all in one group, or each in its own and again until it applied.
async fn increment(store: &dyn Store, keys: &[Key], as_one: bool) {
    let mut left = keys.to_vec();
    while !left.is_empty() {
        let entries = store.load(left.clone()).await.unwrap();
        let mutations: Vec<Mutation> = left
            .iter()
            .zip(entries)
            .map(|(key, entry)| {
                let entry = entry.unwrap();
                let count: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                put(key, Expect::Version(entry.version), (count + 1).to_string().as_bytes(), None)
            })
            .collect();
        let batch = if as_one { vec![mutations] } else { mutations.into_iter().map(|one| vec![one]).collect() };
        let results = store.commit(&batch, None).await;
        let done: Vec<bool> = results.into_iter().map(|result| result.unwrap() != Outcome::Conflict).collect();
        if as_one {
            if done[0] {
                return;
            }
        } else {
            let mut done = done.into_iter();
            left.retain(|_| !done.next().unwrap());
        }
    }
}

/// Batches of all kinds over the same keys from both stores, which lock rows in each other's way.
async fn crossing_batches_do_not_fail(fixture: Fixture) {
    let another = fixture.another().await;
    let keys: Vec<Key> = (0..10).map(|n| fixture.key(format!("{n}"))).collect();
    let writers = (0..6_usize).map(|task| {
        let store = Arc::clone(if task % 2 == 0 { &fixture.store } else { &another });
        let keys = keys.clone();
        fixture.tasks.spawn(async move {
            for round in 0..25 {
                let mut batch = Vec::new();
                for (n, key) in keys.iter().enumerate() {
                    batch.push(vec![match (n * 7 + task * 3 + round) % 6 {
                        0 => delete(key, Expect::Any),
                        1 => put(key, Expect::Absent, b"v", None),
                        2 => put(key, Expect::Present, b"v", None),
                        3 => mutation(key, Expect::Present, Change::Expire(Some(FUTURE))),
                        4 => mutation(key, Expect::Present, Change::Keep),
                        _ => put(key, Expect::Any, b"v", None),
                    }]);
                }
                if task < 2 {
                    batch = vec![batch.into_iter().flatten().collect()];
                }
                for result in store.commit(&batch, None).await {
                    result.unwrap();
                }
                if task == 5 && round % 8 == 0 {
                    store.flush(None, vec![], None).await.unwrap();
                }
            }
        })
    });
    for result in join_all(writers).await {
        result.unwrap();
    }
}

/// Two writers, each of which changes one key if the other's is as it was: never both.
async fn what_is_kept_stays_until_the_commit(fixture: Fixture) {
    let another = fixture.another().await;
    for round in 0..60 {
        let keys = [fixture.key(format!("a{round}")), fixture.key(format!("b{round}"))];
        let mut expect = [Expect::Absent; 2];
        if round % 2 == 0 {
            for (key, expect) in keys.iter().zip(&mut expect) {
                *expect = Expect::Version(fixture.put(key, b"before", Some(FUTURE)).await);
            }
        }
        let writers = [(0, 1, &fixture.store), (1, 0, &another)].map(|(kept, written, store)| {
            let group = vec![
                mutation(&keys[kept], expect[kept], Change::Keep),
                put(&keys[written], expect[written], b"after", Some(FUTURE)),
            ];
            let store = Arc::clone(store);
            fixture.tasks.spawn(async move { store.commit(&[group], None).await.pop().unwrap().unwrap() })
        });
        let outcomes: Vec<Outcome> = join_all(writers).await.into_iter().map(Result::unwrap).collect();
        let applied = outcomes.iter().filter(|outcome| **outcome != Outcome::Conflict).count();
        assert_eq!(applied, 1, "round {round}: {outcomes:?}");
    }
}

async fn the_clock_decides_on_expiry(fixture: Fixture) {
    let (key, other) = (fixture.key("key"), fixture.key("other"));
    let start = fixture.now().await;
    assert!(start > 1_700_000_000_000, "milliseconds since 1970");
    let end = start + 300;
    fixture.put(&key, b"v", Some(end)).await;
    fixture.put(&other, b"v", Some(FUTURE)).await;
    loop {
        // An entry that was seen as live was so at a moment no later than the load's end, and the other way round.
        let before = fixture.now().await;
        let live = fixture.load(&key).await.is_some();
        let after = fixture.now().await;
        assert!(before <= after);
        assert!(live || after >= end, "gone {} ms early", end - after);
        assert!(!live || before < end, "there {} ms late", before - end);
        if !live {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(fixture.apply(put(&key, Expect::Present, b"late", None)).await.is_none());
    assert!(fixture.apply(put(&key, Expect::Absent, b"new", None)).await.is_some());
    assert_eq!(fixture.value(&other).await.as_deref(), Some(&b"v"[..]));
}

async fn what_was_written_is_there_after_a_restart(fixture: Fixture) {
    let (key, secret) = (fixture.key("key"), fixture.store.hash_secret());
    let version = fixture.put(&key, b"v", Some(FUTURE)).await;
    fixture.store.close().await;
    let store = fixture.place.open(&fixture.tasks).await.unwrap();
    assert_eq!(store.hash_secret(), secret);
    let fixture = Fixture { store, ..fixture };
    let entry = fixture.load(&key).await.unwrap();
    assert_eq!((&*entry.value, entry.version, entry.expires_at), (&b"v"[..], version, Some(FUTURE)));
    assert_ne!(fixture.put(&key, b"w", None).await, version);
    assert!(secret.iter().any(|byte| *byte != 0));
}

async fn a_closed_store_says_so(fixture: Fixture) {
    let key = fixture.key("key");
    // A commit that was begun is finished.
    let begun = {
        let store = Arc::clone(&fixture.store);
        let batch: Vec<Group> =
            (0..500).map(|n| vec![put(&fixture.key(format!("{n}")), Expect::Any, b"v", None)]).collect();
        fixture.tasks.spawn(async move { store.commit(&batch, None).await })
    };
    while fixture.store.pool().idle == fixture.store.pool().open && !begun.is_finished() {
        tokio::task::yield_now().await;
    }
    fixture.store.close().await;
    assert!(begun.await.unwrap().iter().all(Result::is_ok));
    let error = fixture.store.load(vec![key.clone()]).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let results = fixture.store.commit(&[vec![put(&key, Expect::Any, b"v", None)]], None).await;
    assert_eq!(results[0].as_ref().unwrap_err().kind(), StoreErrorKind::Unavailable);
    assert_eq!(fixture.store.now().await.unwrap_err().kind(), StoreErrorKind::Unavailable);
    fixture.store.close().await;
}
