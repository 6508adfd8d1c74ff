//! The policy between commands and the store: read-through, write-through, one flight per key, group commit, expiry.
//! It knows no RESP and no SQL.

pub mod audit;
pub mod cache;
pub mod clock;
pub mod coherence;
pub mod committer;
pub mod config;
pub mod error;
pub mod flight;
pub mod guard;
pub mod health;
pub mod instead;
pub mod keeper;
pub mod key;
pub mod loader;
pub mod parts;
pub mod queue;
pub mod room;
pub mod slot;
pub mod stage;
pub mod stats;
#[cfg(test)]
pub(crate) mod testing;
pub mod touch;
pub mod touched;
pub mod transact;
pub mod under_way;
pub mod update;
pub mod upkeep;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::config::CoherenceMode;
use crate::entry::{Entry, Group, Key, KeyHasher, Kind, Outcome, UnixMs, Version};
use crate::keyspace::cache::{Cache, CacheFigures, Cached};
use crate::keyspace::clock::{Clock, Moment};
use crate::keyspace::coherence::status::Figures as CoherenceFigures;
use crate::keyspace::coherence::{Coherence, Sailing, watch};
use crate::keyspace::committer::{Committer, told};
use crate::keyspace::config::KeyspaceConfig;
use crate::keyspace::error::KeyspaceError;
use crate::keyspace::guard::{Guard, session};
use crate::keyspace::health::Health;
use crate::keyspace::instead::{Awaited, Instead};
use crate::keyspace::key::KeyRef;
use crate::keyspace::loader::Loader;
use crate::keyspace::parts::Parts;
use crate::keyspace::stats::Stats;
use crate::keyspace::touch::{Slack, Touch};
use crate::keyspace::update::Stripes;
use crate::limits::MAX_KEY;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::link::Aboard;
use crate::store::{Counts, PoolState, ScanQuery, Store};

/// The entries of all databases, as commands see them.
pub struct Keyspace {
    config: KeyspaceConfig,
    slack: Slack,
    guard: Guard,
    hasher: KeyHasher,
    store: Arc<dyn Store>,
    cache: Arc<Cache>,
    coherence: Arc<Coherence>,
    clock: Arc<Clock>,
    loader: Arc<Loader>,
    committer: Arc<Committer>,
    stripes: Arc<Stripes>,
    health: Arc<Health>,
    stats: Arc<Stats>,
    last_count: Mutex<Counts>,
}

/// A piece of the keyspace's background work, to be spawned by whoever owns the tasks. None may end before its stop.
pub struct Work {
    /// What it is, for the log.
    pub name: &'static str,
    /// The work; ends after the stop, when what it took on is done.
    pub future: BoxFuture<'static, ()>,
}

/// The answer to a read.
pub enum Read<T> {
    /// The cache could prove it.
    Hit(T),
    /// The store is being asked; the question is on its way before this is returned.
    Miss(BoxFuture<'static, Result<T, KeyspaceError>>),
}

/// One page of a `SCAN`, as clients see it.
#[derive(Debug)]
pub struct Page {
    /// The next cursor; 0 when complete.
    pub cursor: u32,
    /// Key names without the configured prefix.
    pub names: Vec<Vec<u8>>,
}

/// Figures for `INFO` and the metrics page, since the start unless they are gauges.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Reads answered from the cache.
    pub hits: u64,
    /// Reads that asked the store.
    pub misses: u64,
    /// Entries dropped from the cache for room.
    pub evicted: u64,
    /// Touches that needed no write.
    pub elided: u64,
    /// Expired entries that the sweeper removed from the store.
    pub expired: u64,
    /// Entries in the cache now.
    pub cache_entries: u64,
    /// Bytes of the cache now.
    pub cache_bytes: u64,
    /// The bound on the cache's bytes.
    pub cache_max_bytes: u64,
    /// What of the bound may be used now; see [`room`].
    pub cache_room: u64,
    /// Whether the store answered when it was last asked.
    pub store_up: bool,
}

/// How long a start waits to hear of other daemons before it goes on without a cache.
const START_PATIENCE: Duration = Duration::from_secs(1);

impl Keyspace {
    /// A keyspace over an open store, and the work that must run for it.
    ///
    /// # Errors
    /// If the store does not tell its time.
    pub async fn new(
        config: KeyspaceConfig,
        store: Arc<dyn Store>,
        stop: &CancellationToken,
    ) -> Result<(Arc<Self>, Vec<Work>), StoreError> {
        let clock = Arc::new(Clock::new());
        upkeep::set_clock(&clock, &*store).await?;
        let cache = Arc::new(Cache::new(config.cache_max_bytes));
        let coherence = Arc::new(Coherence::new(config.coherence, config.shared, Arc::clone(&cache)));
        let keyspace = Arc::new(Self {
            slack: slack(&config),
            guard: Guard::new(config.guarded.clone(), config.guard_window, config.prefix.len()),
            hasher: KeyHasher::new(&store.hash_secret()),
            cache,
            clock,
            loader: Arc::new(Loader::new()),
            committer: Arc::new(Committer::new(config.detours)),
            coherence,
            stripes: Arc::new(Stripes::new()),
            health: Arc::new(Health::new()),
            stats: Arc::new(Stats::new()),
            last_count: Mutex::new(Vec::new()),
            store,
            config,
        });
        let work = keyspace.work(stop);
        Ok((keyspace, work))
    }

    fn work(self: &Arc<Self>, stop: &CancellationToken) -> Vec<Work> {
        let parts = || Parts {
            store: Arc::clone(&self.store),
            cache: Arc::clone(&self.cache),
            coherence: Arc::clone(&self.coherence),
            clock: Arc::clone(&self.clock),
            health: Arc::clone(&self.health),
            stats: Arc::clone(&self.stats),
        };
        let loader = Arc::clone(&self.loader).run(parts(), stop.clone());
        let committer = Arc::clone(&self.committer).run(parts(), stop.clone());
        let (coherence, store, clock) = (Arc::clone(&self.coherence), Arc::clone(&self.store), Arc::clone(&self.clock));
        vec![
            Work { name: "coherence", future: Box::pin(watch::run(coherence, store, clock, stop.clone())) },
            Work { name: "loader", future: Box::pin(loader) },
            Work { name: "committer", future: Box::pin(committer) },
            Work { name: "keeper", future: Box::pin(keeper::run(Arc::clone(self), stop.clone())) },
            Work { name: "auditor", future: Box::pin(audit::run(Arc::clone(self), stop.clone())) },
            Work { name: "watcher", future: Box::pin(upkeep::watch(Arc::clone(self), stop.clone())) },
            Work { name: "sweeper", future: Box::pin(upkeep::sweep(Arc::clone(self), stop.clone())) },
            Work { name: "room", future: Box::pin(upkeep::keep_room(Arc::clone(self), stop.clone())) },
            Work { name: "counter", future: Box::pin(upkeep::count(Arc::clone(self), stop.clone())) },
        ]
    }

    /// The key that a client calls `name` in database `db`, hashed.
    ///
    /// # Errors
    /// [`KeyspaceError::KeyTooLong`] if prefix and name together exceed the limit.
    pub fn key<'a>(&'a self, db: u8, name: &'a [u8]) -> Result<KeyRef<'a>, KeyspaceError> {
        let key = KeyRef::new(&self.hasher, db, &self.config.prefix, name);
        if key.stored_len() > MAX_KEY { Err(KeyspaceError::KeyTooLong) } else { Ok(key) }
    }

    /// The live entry of a key at the moment `at`.
    pub fn read(&self, key: &KeyRef<'_>, at: Moment) -> Read<Option<Entry>> {
        match self.fly(key, at) {
            Ok(entry) => Read::Hit(session(entry)),
            Err(awaited) => Read::Miss(Box::pin(async move { Ok(session(awaited.landed().await?)) })),
        }
    }

    /// The live entries of several keys at the moment `at`, in order.
    pub fn read_all(&self, keys: &[KeyRef<'_>], at: Moment) -> Read<Vec<Option<Entry>>> {
        self.look(keys, at, session)
    }

    /// The versions of several keys at the moment `at`, in order: of live entries and of the marks of deletions.
    pub fn versions(&self, keys: &[KeyRef<'_>], at: Moment) -> Read<Vec<Option<Version>>> {
        self.look(keys, at, |entry| entry.map(|entry| entry.version))
    }

    /// What `of` makes of each live entry or mark, in order.
    fn look<T: Send + 'static>(&self, keys: &[KeyRef<'_>], at: Moment, of: fn(Option<Entry>) -> T) -> Read<Vec<T>> {
        let answers: Vec<_> = keys.iter().map(|key| self.fly(key, at)).collect();
        if answers.iter().any(Result::is_err) {
            return Read::Miss(Box::pin(async move {
                let mut entries = Vec::with_capacity(answers.len());
                for answer in answers {
                    entries.push(of(match answer {
                        Ok(entry) => entry,
                        Err(awaited) => awaited.landed().await?,
                    }));
                }
                Ok(entries)
            }));
        }
        Read::Hit(answers.into_iter().flatten().map(of).collect())
    }

    /// The cache's answer, or what to wait for.
    fn fly(&self, key: &KeyRef<'_>, at: Moment) -> Result<Option<Entry>, Awaited> {
        let proof = self.coherence.proof();
        let (cached, instead) = if proof.covers(at.tick) {
            (self.cache.get_or_fly(key, at.unix), None)
        } else {
            let instead = Instead::new(&self.cache, &self.coherence, &self.clock);
            if !self.health.is_up()
                && let Some(entry) = instead.of(key, at)
            {
                return Ok(entry);
            }
            (self.cache.fly(key), Some((key.to_key(), instead)))
        };
        match cached {
            Cached::Known(entry) => Ok(entry),
            Cached::Joined(ticket) => Err(Awaited { ticket, instead }),
            Cached::Started(flight, ticket) => {
                if let Err(flight) = self.loader.take_on(flight) {
                    self.cache.land(&flight, &Err(KeyspaceError::Busy));
                }
                Err(Awaited { ticket, instead })
            }
        }
    }

    /// Moves the expiry of a cached entry that is proven current at the moment `at`, if nothing needs to be written for
    /// that. Whether it did; if not, the wish is to be written. The caller sees to it that no earlier write of its own
    /// client is pending.
    pub fn touch(&self, key: &KeyRef<'_>, touch: &Touch<'_>, at: Moment) -> bool {
        self.coherence.proof().covers(at.tick) && self.cache.touch(key, touch, at.unix, self.slack)
    }

    /// Which keys the logout guard covers.
    #[must_use]
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Submits a group to the committer, at once. The future resolves when the group is durable, or refused.
    ///
    /// Groups submitted one after the other that share a key are applied in that order. Dropping the future does
    /// not take the write back. The keys of a group must be pairwise different, and none may be guarded: those are
    /// written by [`Keyspace::update`].
    pub fn write(&self, group: Group) -> impl Future<Output = Result<Outcome, KeyspaceError>> + Send + 'static + use<> {
        let submitted = if self.health.is_up() {
            self.committer.submit(group, Vec::new())
        } else {
            Err(KeyspaceError::Store(self.health.refusal().kind()))
        };
        if matches!(submitted, Err(KeyspaceError::Busy)) {
            self.stats.refused.fetch_add(1, Ordering::Relaxed);
        }
        async move { told(submitted?).await }
    }

    /// One page of keys of `db`; about `count` keys are looked at.
    pub fn scan(
        self: &Arc<Self>,
        db: u8,
        cursor: u32,
        count: u32,
        kind: Option<Kind>,
    ) -> BoxFuture<'static, Result<Page, KeyspaceError>> {
        let keyspace = Arc::clone(self);
        Box::pin(async move {
            let prefix = keyspace.config.prefix.clone();
            let query = ScanQuery { db, prefix, cursor, limit: count, kind };
            let page = keyspace.ask(|store| store.scan(query)).await?;
            let skip = keyspace.config.prefix.len();
            let names = page.names.iter().map(|name| name[skip..].to_vec()).collect();
            Ok(Page { cursor: page.next, names })
        })
    }

    /// A random key of `db`, without the configured prefix.
    pub fn random(self: &Arc<Self>, db: u8) -> BoxFuture<'static, Result<Option<Vec<u8>>, KeyspaceError>> {
        let keyspace = Arc::clone(self);
        Box::pin(async move {
            let prefix = keyspace.config.prefix.clone();
            let name = keyspace.ask(|store| store.random(db, prefix)).await?;
            Ok(name.map(|name| name[keyspace.config.prefix.len()..].to_vec()))
        })
    }

    /// Removes every entry of one database, or of all, from the store and the cache.
    ///
    /// The cache is cleared before and after: what was read or written while the store worked may be from before.
    pub fn flush(self: &Arc<Self>, db: Option<u8>) -> BoxFuture<'static, Result<(), KeyspaceError>> {
        let keyspace = Arc::clone(self);
        Box::pin(async move {
            let prefix = keyspace.config.prefix.clone();
            let sailing = keyspace.coherence.begin(&[]);
            keyspace.cache.clear();
            let flushed = keyspace.flush_store(db, &prefix, sailing).await;
            keyspace.cache.clear();
            let in_doubt = flushed == Err(KeyspaceError::Store(StoreErrorKind::UnknownOutcome));
            keyspace.coherence.settle_flush(sailing, in_doubt, keyspace.clock.tick());
            keyspace.coherence.lift(sailing, flushed.is_ok(), in_doubt);
            flushed
        })
    }

    async fn flush_store(&self, db: Option<u8>, prefix: &[u8], sailing: Sailing) -> Result<(), KeyspaceError> {
        let announcer = |hashes: Option<&[u64]>| self.coherence.announce(sailing, hashes);
        loop {
            let acknowledged = if self.coherence.is_strict() {
                let acknowledged = self.coherence.clear_way(sailing, None, &self.clock).await;
                Some(acknowledged.ok_or(KeyspaceError::Store(StoreErrorKind::Unacknowledged))?)
            } else {
                None
            };
            let aboard = Aboard { announcer: &announcer, is_alone: false, acknowledged: acknowledged.as_ref() };
            let flushed = self.ask(|store| store.flush(db, prefix.to_vec(), Some(aboard))).await;
            if flushed != Err(KeyspaceError::Store(StoreErrorKind::Unacknowledged)) {
                return flushed;
            }
            self.coherence.look_again(sailing);
        }
    }

    /// `(db, keys, keys with an expiry)` of each database that has any, counted now. Reads the whole table.
    pub fn count(self: &Arc<Self>) -> BoxFuture<'static, Result<Counts, KeyspaceError>> {
        let keyspace = Arc::clone(self);
        Box::pin(async move {
            let prefix = keyspace.config.prefix.clone();
            let counted = keyspace.ask(|store| store.count(prefix)).await?;
            keyspace.last_count.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&counted);
            Ok(counted)
        })
    }

    /// As [`Keyspace::count`], from the last time it was counted; cheap.
    pub fn last_count(&self) -> Counts {
        self.last_count.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a client calls a stored key.
    #[must_use]
    pub fn name_of<'a>(&self, key: &'a Key) -> &'a [u8] {
        key.name().get(self.config.prefix.len()..).unwrap_or_default()
    }

    /// The largest value that may be stored, in bytes.
    #[must_use]
    pub fn max_value(&self) -> usize {
        self.config.max_value_bytes
    }

    /// Now, on the store's clock.
    #[must_use]
    pub fn now(&self) -> UnixMs {
        self.clock.now()
    }

    /// Now, on the store's clock and on this machine's.
    #[must_use]
    pub fn moment(&self) -> Moment {
        self.clock.moment()
    }

    /// As [`Keyspace::moment`], at an instant of this machine's clock.
    #[must_use]
    pub fn moment_at(&self, instant: Instant) -> Moment {
        self.clock.moment_at(instant)
    }

    /// Resolves when it is known whether the cache can be used, or after a while.
    pub async fn settled(&self) {
        self.coherence.known(START_PATIENCE).await;
    }

    /// How the cache stands towards other daemons.
    #[must_use]
    pub fn coherence(&self) -> CoherenceFigures {
        self.coherence.figures(self.clock.tick())
    }

    /// Bytes that an entry with this key and value occupies in the cache (`MEMORY USAGE`).
    #[must_use]
    pub fn memory_usage(key: &KeyRef<'_>, entry: &Entry) -> usize {
        slot::cost(key.stored_len(), Some(entry.value.len()))
    }

    /// Figures for `INFO` and the metrics page.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let CacheFigures { hits, misses, evictions, elided, entries, bytes } = self.cache.figures();
        Figures {
            hits,
            misses,
            evicted: evictions,
            elided,
            expired: self.stats.swept.load(Ordering::Relaxed),
            cache_entries: entries,
            cache_bytes: bytes,
            cache_max_bytes: self.cache.max_bytes(),
            cache_room: self.cache.room(),
            store_up: self.health.is_up(),
        }
    }

    /// Histograms and counters of the store's operations.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Writes that wait for a commit now, and their bytes.
    #[must_use]
    pub fn waiting_writes(&self) -> (usize, usize) {
        self.committer.waiting()
    }

    /// Gauges of the store's connections.
    #[must_use]
    pub fn pool(&self) -> PoolState {
        self.store.pool()
    }

    /// Asks the store something that is neither a load nor a commit.
    async fn ask<'a, T, F>(&'a self, question: F) -> Result<T, KeyspaceError>
    where
        F: FnOnce(&'a dyn Store) -> BoxFuture<'a, Result<T, StoreError>>,
    {
        if !self.health.is_up() {
            return Err(KeyspaceError::Store(self.health.refusal().kind()));
        }
        let begun = Instant::now();
        let answer = question(&*self.store).await;
        self.stats.others.observe(1, begun.elapsed(), answer.as_ref().err().map(StoreError::kind));
        answer.map_err(|error| {
            self.health.note(&error, begun);
            KeyspaceError::Store(error.kind())
        })
    }
}

/// Where no node may serve what another has changed, none may answer a write from memory either.
fn slack(config: &KeyspaceConfig) -> Slack {
    if config.coherence.mode == CoherenceMode::Strict { Slack::OFF } else { Slack::new(config.touch_slack) }
}
