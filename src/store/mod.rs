//! The `Store` trait: where the truth is kept. It never sees RESP, and decides nothing about caching.
//!
//! There are two implementors, [`crate::store::postgres`] and [`crate::store::sqlite`]; both pass the
//! conformance suite in `tests/store.rs`.

pub mod error;
pub mod link;
mod page;
pub mod postgres;
pub mod sqlite;

use futures_util::future::BoxFuture;

use crate::entry::{Entry, Group, Key, Kind, Outcome, UnixMs};
use crate::store::error::StoreError;
use crate::store::link::{Announce, Link};

/// One page of a `SCAN`.
#[derive(Clone, Debug)]
pub struct ScanQuery {
    /// The numbered database.
    pub db: u8,
    /// Only keys that begin with these bytes (the configured key prefix); empty: all.
    pub prefix: Vec<u8>,
    /// Where to go on: 0 at the start, else the last page's `next`.
    pub cursor: u32,
    /// About how many keys to look at; a page may hold more where slots collide.
    pub limit: u32,
    /// Only entries of this kind.
    pub kind: Option<Kind>,
}

/// The keys found by one page of a scan.
///
/// Keys lie in order of their *slot*, 31 bits of their hash. A page ends between slots, so a key that
/// exists throughout a scan is seen, whatever is inserted, deleted or restarted meanwhile, and the
/// cursor means the same on every daemon.
#[derive(Debug, Default)]
pub struct ScanPage {
    /// Live keys, prefix included.
    pub names: Vec<Box<[u8]>>,
    /// The cursor of the next page, below 2^31; 0 when the scan is complete.
    pub next: u32,
}

/// What one step of the sweeper did.
#[derive(Debug, Default)]
pub struct Swept {
    /// How many expired entries were removed.
    pub removed: u64,
    /// Where the next step starts (opaque to the caller); `None` at the end of the table, or if
    /// another daemon is sweeping.
    pub next: Option<SweepCursor>,
}

/// A position in the table's key order.
pub type SweepCursor = (u8, Box<[u8]>);

/// `(db, live keys, those with an expiry)` of each database that has any, in order.
pub type Counts = Vec<(u8, u64, u64)>;

/// Gauges of a store's connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolState {
    /// Open connections.
    pub open: u32,
    /// Of them, not in use.
    pub idle: u32,
}

/// The 31-bit scan slot of a key.
#[must_use]
pub fn slot(key: &Key) -> i32 {
    // The top bits, as the cache's shards use the lower ones; the shift leaves 31.
    (key.hash() >> 33) as i32
}

/// Where entries are kept durably.
///
/// All operations are safe to cancel in memory; a dropped [`Store::commit`] has an unknown outcome.
/// A store that is away answers with [`StoreError`] within its configured timeouts and heals by itself.
pub trait Store: Send + Sync + 'static {
    /// The secret that keys [`crate::entry::KeyHasher`], the same for every daemon on this store.
    fn hash_secret(&self) -> [u8; 16];

    /// The entries of `keys`, in order; `None` where no live entry is. Keys may repeat.
    fn load(&self, keys: Vec<Key>) -> BoxFuture<'_, Result<Vec<Option<Entry>>, StoreError>>;

    /// Applies groups; each has its own outcome, in order. All keys of a batch are pairwise different.
    ///
    /// A result that is `Ok` is durable. Groups are independent: one that fails does not fail another. Each transaction
    /// announces what it changes.
    fn commit<'a>(
        &'a self,
        batch: &'a [Group],
        announce: Announce<'a>,
    ) -> BoxFuture<'a, Vec<Result<Outcome, StoreError>>>;

    /// One page of keys.
    fn scan(&self, query: ScanQuery) -> BoxFuture<'_, Result<ScanPage, StoreError>>;

    /// A random live key of `db` that begins with `prefix`, if there is one.
    fn random(&self, db: u8, prefix: Vec<u8>) -> BoxFuture<'_, Result<Option<Box<[u8]>>, StoreError>>;

    /// Deletes every entry whose key begins with `prefix`, of one database or (`None`) of all, and announces it.
    fn flush<'a>(
        &'a self,
        db: Option<u8>,
        prefix: Vec<u8>,
        announce: Announce<'a>,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// The numbers of live entries whose key begins with `prefix`, and of those with an expiry:
    /// `(db, keys, expires)` for each database that has any, in order. Reads the whole table.
    fn count(&self, prefix: Vec<u8>) -> BoxFuture<'_, Result<Counts, StoreError>>;

    /// Looks at up to `limit` rows after `from` (`None`: the beginning) and removes the expired ones.
    fn sweep(&self, from: Option<SweepCursor>, limit: u32) -> BoxFuture<'_, Result<Swept, StoreError>>;

    /// The store's clock. Also the probe behind `/readyz`.
    fn now(&self) -> BoxFuture<'_, Result<UnixMs, StoreError>>;

    /// A new link to the other daemons on this store; `None` if there can be none. A store that takes no writes has no
    /// links: that is an error of kind [`error::StoreErrorKind::ReadOnly`].
    ///
    /// `for_commits`: commits may go the same way as what is heard, if that is less work for the store. Then a commit that
    /// takes long holds up what is heard, the daemon's heartbeats included.
    fn link(&self, for_commits: bool) -> BoxFuture<'_, Result<Option<Link>, StoreError>>;

    /// Gauges for the metrics page.
    fn pool(&self) -> PoolState;

    /// Ends connections and threads; commits that were begun are finished first.
    fn close(&self) -> BoxFuture<'_, ()>;
}
