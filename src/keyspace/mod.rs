//! The policy between commands and the store: read-through, write-through, one flight per key, group commit, expiry.
//! It knows no RESP and no SQL.

pub mod cache;
pub mod clock;
pub mod committer;
pub mod doubt;
pub mod error;
pub mod flight;
pub mod health;
pub mod key;
pub mod loader;
pub mod parts;
pub mod queue;
pub mod stats;
pub mod update;
pub mod upkeep;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::entry::{Entry, Group, KeyHasher, Kind, Outcome, UnixMs};
use crate::keyspace::cache::{Cache, CacheFigures, Cached};
use crate::keyspace::clock::Clock;
use crate::keyspace::committer::Committer;
use crate::keyspace::error::KeyspaceError;
use crate::keyspace::flight::{Landing, Ticket};
use crate::keyspace::health::Health;
use crate::keyspace::key::KeyRef;
use crate::keyspace::loader::Loader;
use crate::keyspace::parts::Parts;
use crate::keyspace::stats::Stats;
use crate::keyspace::update::Stripes;
use crate::limits::MAX_KEY;
use crate::store::error::StoreError;
use crate::store::{Counts, PoolState, ScanQuery, Store};

/// What of the configuration the keyspace needs.
#[derive(Clone, Debug)]
pub struct KeyspaceConfig {
    /// Put before every key.
    pub prefix: Vec<u8>,
    /// Bound on the cache, in bytes.
    pub cache_max_bytes: u64,
    /// The largest value, in bytes.
    pub max_value_bytes: usize,
    /// The pause between two passes of the sweeper, before jitter.
    pub sweeper_interval: Duration,
}

/// The entries of all databases, as commands see them.
pub struct Keyspace {
    config: KeyspaceConfig,
    hasher: KeyHasher,
    store: Arc<dyn Store>,
    cache: Arc<Cache>,
    clock: Clock,
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
    /// Expired entries that the sweeper removed from the store.
    pub expired: u64,
    /// Entries in the cache now.
    pub cache_entries: u64,
    /// Bytes of the cache now.
    pub cache_bytes: u64,
    /// The bound on the cache's bytes.
    pub cache_max_bytes: u64,
    /// Whether the store answered when it was last asked.
    pub store_up: bool,
}

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
        let clock = Clock::new(0);
        let sounding = clock.sound();
        clock.correct(sounding, store.now().await?);
        let keyspace = Arc::new(Self {
            hasher: KeyHasher::new(&store.hash_secret()),
            cache: Arc::new(Cache::new(config.cache_max_bytes)),
            clock,
            loader: Arc::new(Loader::new()),
            committer: Arc::new(Committer::new()),
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
            health: Arc::clone(&self.health),
            stats: Arc::clone(&self.stats),
        };
        let loader = Arc::clone(&self.loader).run(parts(), stop.clone());
        let committer = Arc::clone(&self.committer).run(parts(), stop.clone());
        vec![
            Work { name: "loader", future: Box::pin(loader) },
            Work { name: "committer", future: Box::pin(committer) },
            Work { name: "watcher", future: Box::pin(upkeep::watch(Arc::clone(self), stop.clone())) },
            Work { name: "sweeper", future: Box::pin(upkeep::sweep(Arc::clone(self), stop.clone())) },
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

    /// The live entry of a key at `now`.
    pub fn read(&self, key: &KeyRef<'_>, now: UnixMs) -> Read<Option<Entry>> {
        match self.fly(key, now) {
            Ok(entry) => Read::Hit(entry),
            Err(ticket) => Read::Miss(Box::pin(landed(ticket))),
        }
    }

    /// The live entries of several keys at `now`, in order.
    pub fn read_all(&self, keys: &[KeyRef<'_>], now: UnixMs) -> Read<Vec<Option<Entry>>> {
        let answers: Vec<_> = keys.iter().map(|key| self.fly(key, now)).collect();
        if answers.iter().any(Result::is_err) {
            return Read::Miss(Box::pin(async move {
                let mut entries = Vec::with_capacity(answers.len());
                for answer in answers {
                    entries.push(match answer {
                        Ok(entry) => entry,
                        Err(ticket) => landed(ticket).await?,
                    });
                }
                Ok(entries)
            }));
        }
        Read::Hit(answers.into_iter().flatten().collect())
    }

    /// The cache's answer, or a ticket for the store's.
    fn fly(&self, key: &KeyRef<'_>, now: UnixMs) -> Result<Option<Entry>, Ticket> {
        match self.cache.get_or_fly(key, now) {
            Cached::Known(entry) => Ok(entry),
            Cached::Joined(ticket) => Err(ticket),
            Cached::Started(flight, ticket) => {
                if let Err(flight) = self.loader.take_on(flight) {
                    self.cache.land(&flight, &Err(KeyspaceError::Busy));
                }
                Err(ticket)
            }
        }
    }

    /// Submits a group to the committer, at once. The future resolves when the group is durable, or refused.
    ///
    /// Groups submitted one after the other that share a key are applied in that order. Dropping the future does
    /// not take the write back. The keys of a group must be pairwise different.
    pub fn write(&self, group: Group) -> BoxFuture<'static, Result<Outcome, KeyspaceError>> {
        let submitted = if self.health.is_up() {
            self.committer.submit(group, Vec::new())
        } else {
            Err(KeyspaceError::Store(self.health.refusal().kind()))
        };
        if matches!(submitted, Err(KeyspaceError::Busy)) {
            self.stats.refused.fetch_add(1, Ordering::Relaxed);
        }
        Box::pin(async move { submitted?.await.unwrap_or(Err(KeyspaceError::Busy)) })
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
            keyspace.cache.clear();
            let flushed = keyspace.ask(|store| store.flush(db, prefix)).await;
            keyspace.cache.clear();
            flushed
        })
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

    /// Bytes that an entry with this key and value occupies in the cache (`MEMORY USAGE`).
    #[must_use]
    pub fn memory_usage(key: &KeyRef<'_>, entry: &Entry) -> usize {
        cache::cost(key.stored_len(), entry.value.len())
    }

    /// Figures for `INFO` and the metrics page.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let CacheFigures { hits, misses, evictions, entries, bytes } = self.cache.figures();
        Figures {
            hits,
            misses,
            evicted: evictions,
            expired: self.stats.swept.load(Ordering::Relaxed),
            cache_entries: entries,
            cache_bytes: bytes,
            cache_max_bytes: self.cache.max_bytes(),
            store_up: self.health.is_up(),
        }
    }

    /// Histograms and counters of the store's operations.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
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
            self.health.note(&error);
            KeyspaceError::Store(error.kind())
        })
    }
}

async fn landed(ticket: Ticket) -> Landing {
    ticket.await.unwrap_or(Err(KeyspaceError::Busy))
}
