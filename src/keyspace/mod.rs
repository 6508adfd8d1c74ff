//! The policy between commands and the store: read-through, write-through, one flight per key, group commit, expiry.
//! It knows no RESP and no SQL.

pub mod error;
pub mod key;

use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::entry::{Change, Entry, Group, Key, Kind, Outcome, UnixMs};
use crate::keyspace::error::KeyspaceError;
use crate::keyspace::key::KeyRef;

/// The entries of all databases, as commands see them.
pub struct Keyspace {}

/// The answer to a read.
pub enum Read<T> {
    /// The cache could prove it.
    Hit(T),
    /// The store is being asked; the question is on its way before this is returned.
    Miss(BoxFuture<'static, Result<T, KeyspaceError>>),
}

/// What an update's function decides about the entries that it was shown.
pub enum Decision<T> {
    /// Changes nothing.
    Answer(T),
    /// Applies changes to keys (by index), if none of those keys has changed since, and then answers.
    Write(Vec<(usize, Change)>, T),
}

/// One page of a `SCAN`, as clients see it.
pub struct Page {
    /// The next cursor; 0 when complete.
    pub cursor: u32,
    /// Key names without the configured prefix.
    pub names: Vec<Vec<u8>>,
}

impl Keyspace {
    /// The key that a client calls `name` in database `db`, hashed.
    ///
    /// # Errors
    /// [`KeyspaceError::KeyTooLong`] if prefix and name together exceed the limit.
    pub fn key<'a>(&'a self, db: u8, name: &'a [u8]) -> Result<KeyRef<'a>, KeyspaceError> {
        let _ = (db, name);
        todo!()
    }

    /// The live entry of a key at `now`.
    pub fn read(self: &Arc<Self>, key: &KeyRef<'_>, now: UnixMs) -> Read<Option<Entry>> {
        let _ = (key, now);
        todo!()
    }

    /// The live entries of several keys at `now`, in order.
    pub fn read_all(self: &Arc<Self>, keys: &[KeyRef<'_>], now: UnixMs) -> Read<Vec<Option<Entry>>> {
        let _ = (keys, now);
        todo!()
    }

    /// Submits a group to the committer, at once. The future resolves when the group is durable, or refused.
    ///
    /// Groups submitted one after the other that share a key are applied in that order. Dropping the future does
    /// not take the write back. The keys of a group must be pairwise different.
    pub fn write(self: &Arc<Self>, group: Group) -> BoxFuture<'static, Result<Outcome, KeyspaceError>> {
        let _ = group;
        todo!()
    }

    /// Reads `keys`, lets `decide` choose, and writes its changes expecting the versions that were read; on
    /// conflict, again, a bounded number of times. `decide` gets the live entries in order, and the time.
    /// A key may be read without being changed. The keys must be pairwise different.
    pub fn update<T, F>(
        self: &Arc<Self>,
        keys: Vec<Key>,
        decide: F,
    ) -> impl Future<Output = Result<T, KeyspaceError>> + Send + 'static + use<T, F>
    where
        T: Send + 'static,
        F: FnMut(&[Option<Entry>], UnixMs) -> Decision<T> + Send + 'static,
    {
        let _ = (keys, decide);
        async { todo!() }
    }

    /// One page of keys of `db`; about `count` keys are looked at.
    pub fn scan(
        self: &Arc<Self>,
        db: u8,
        cursor: u32,
        count: u32,
        kind: Option<Kind>,
    ) -> BoxFuture<'static, Result<Page, KeyspaceError>> {
        let _ = (db, cursor, count, kind);
        todo!()
    }

    /// A random key of `db`, without the configured prefix.
    pub fn random(self: &Arc<Self>, db: u8) -> BoxFuture<'static, Result<Option<Vec<u8>>, KeyspaceError>> {
        let _ = db;
        todo!()
    }

    /// Removes every entry of one database, or of all, from the store and the cache.
    pub fn flush(self: &Arc<Self>, db: Option<u8>) -> BoxFuture<'static, Result<(), KeyspaceError>> {
        let _ = db;
        todo!()
    }

    /// `(db, keys, keys with an expiry)` of each database that has any, counted now. Reads the whole table.
    pub fn count(self: &Arc<Self>) -> BoxFuture<'static, Result<Vec<(u8, u64, u64)>, KeyspaceError>> {
        todo!()
    }

    /// As [`Keyspace::count`], from the last time it was counted in the background; cheap.
    pub fn last_count(&self) -> Vec<(u8, u64, u64)> {
        todo!()
    }

    /// The largest value that may be stored, in bytes.
    #[must_use]
    pub fn max_value(&self) -> usize {
        todo!()
    }

    /// Now, on the store's clock.
    #[must_use]
    pub fn now(&self) -> UnixMs {
        todo!()
    }

    /// Bytes that an entry with this key and value occupies in the cache (`MEMORY USAGE`).
    #[must_use]
    pub fn memory_usage(key: &KeyRef<'_>, entry: &Entry) -> usize {
        let _ = (key, entry);
        todo!()
    }

    /// Figures for `INFO`: entries and bytes in the cache, hits, misses, and so on.
    #[must_use]
    pub fn figures(&self) -> Figures {
        todo!()
    }
}

/// Figures for `INFO`, since the start unless they are gauges.
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
