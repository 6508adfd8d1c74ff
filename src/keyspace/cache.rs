//! The bounded local cache: sharded LRU of entries and of known absences, with the flights of keys being loaded.
//!
//! It knows no store and no clock. Its one rule: an entry enters only from a load whose flight is still alive, or from
//! a commit of the same epoch; everything that changes a key kills the key's flight. So no late fill wins.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::entry::{Entry, Key, UnixMs};
use crate::keyspace::flight::{Flight, Landing, Ticket};
use crate::keyspace::key::{Carried, KeyRef, Lookup};

/// Bytes an entry takes beside its key and value: the list node, the table's slot and its spare room, and the headers
/// and rounding of three allocations. Measured by the memory benchmark.
const OVERHEAD: usize = 176;

/// At most so many shards, so that cores seldom meet on one lock.
const MAX_SHARDS: u64 = 64;

/// A shard holds at least so much, so that no ordinary session is too large for its share.
const MIN_SHARE: u64 = 4 * 1024 * 1024;

/// See the file's header.
pub struct Cache {
    shards: Box<[Mutex<Shard>]>,
    epoch: AtomicU64,
    max_bytes: u64,
}

/// What the cache says of a key.
pub enum Cached {
    /// The entry, or that there is none.
    Known(Option<Entry>),
    /// Not cached, and being loaded: wait for the flight.
    Joined(Ticket),
    /// Not cached: the caller must load the key and land the flight.
    Started(Arc<Flight>, Ticket),
}

/// Counts over all shards.
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheFigures {
    /// Reads that were answered.
    pub hits: u64,
    /// Reads that were not.
    pub misses: u64,
    /// Entries dropped for room.
    pub evictions: u64,
    /// Entries now, known absences included.
    pub entries: u64,
    /// Bytes now.
    pub bytes: u64,
}

/// A generation of the cache: what was decided in an earlier one must not fill it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u64);

struct Shard {
    entries: LruCache<Key, Option<Entry>, Carried>,
    flights: HashMap<Key, Arc<Flight>, Carried>,
    epoch: u64,
    figures: CacheFigures,
}

impl Cache {
    /// An empty cache of at most about `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        let count = (max_bytes / MIN_SHARE).clamp(1, MAX_SHARDS);
        let shards = (0..count).map(|_| Mutex::new(Shard::new(0))).collect();
        Self { shards, epoch: AtomicU64::new(0), max_bytes }
    }

    /// Looks a key up; if it is not there, joins or starts the flight that loads it.
    pub fn get_or_fly(&self, key: &KeyRef<'_>, now: UnixMs) -> Cached {
        let mut shard = self.shard(key.hash());
        if let Some(known) = shard.get(key, now) {
            return Cached::Known(known);
        }
        if let Some(flight) = shard.flights.get(key as &dyn Lookup) {
            return Cached::Joined(flight.join());
        }
        let flight = Arc::new(Flight::new(key.to_key()));
        let ticket = flight.join();
        shard.flights.insert(flight.key().clone(), Arc::clone(&flight));
        Cached::Started(flight, ticket)
    }

    /// Ends a flight: fills the cache if nothing happened to the key meanwhile, and answers those who wait.
    pub fn land(&self, flight: &Arc<Flight>, landing: &Landing) {
        let mut shard = self.shard(flight.key().hash());
        let alive = shard.flights.get(flight.key()).is_some_and(|current| Arc::ptr_eq(current, flight));
        if alive {
            shard.flights.remove(flight.key());
            if let Ok(entry) = landing {
                shard.put(flight.key(), entry.clone(), self.share());
            }
        }
        drop(shard);
        flight.answer(landing);
    }

    /// The generation to hand to [`Cache::committed`] later. Taken before the store is asked.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// A commit of ours made `entry` (`None`: deleted) the truth of `key`; it was begun in `epoch`.
    pub fn committed(&self, key: &Key, entry: Option<Entry>, epoch: Epoch) {
        let mut shard = self.shard(key.hash());
        shard.flights.remove(key);
        if shard.epoch == epoch.0 {
            shard.put(key, entry, self.share());
        } else {
            shard.drop_entry(key);
        }
    }

    /// Forgets a key, because what is cached is in doubt.
    pub fn forget(&self, key: &Key) {
        let mut shard = self.shard(key.hash());
        shard.flights.remove(key);
        shard.drop_entry(key);
    }

    /// Forgets everything and starts a new epoch.
    pub fn clear(&self) {
        let epoch = self.epoch.fetch_add(1, Ordering::AcqRel) + 1;
        for shard in &self.shards {
            let mut shard = lock(shard);
            let fresh = Shard { figures: shard.figures, ..Shard::new(epoch) };
            let old = std::mem::replace(&mut *shard, fresh);
            shard.figures.entries = 0;
            shard.figures.bytes = 0;
            drop(shard);
            // Freed outside of the lock: a large shard takes a while.
            drop(old);
        }
    }

    /// Counts over all shards.
    #[must_use]
    pub fn figures(&self) -> CacheFigures {
        let mut sum = CacheFigures::default();
        for shard in &self.shards {
            let figures = lock(shard).figures;
            sum.hits += figures.hits;
            sum.misses += figures.misses;
            sum.evictions += figures.evictions;
            sum.entries += figures.entries;
            sum.bytes += figures.bytes;
        }
        sum
    }

    /// The bound.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    fn share(&self) -> u64 {
        self.max_bytes / self.shards.len() as u64
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The table inside a shard indexes by the low bits and tags by the top ones: take some between.
        let middle = (hash >> 32) as u32 as usize;
        lock(&self.shards[middle % self.shards.len()])
    }
}

/// Bytes that an entry of these sizes is counted for.
#[must_use]
pub fn cost(key_bytes: usize, value_bytes: usize) -> usize {
    key_bytes + value_bytes + OVERHEAD
}

/// A shard is consistent between statements, so a panic elsewhere while it was locked does no harm.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    fn new(epoch: u64) -> Self {
        Self {
            entries: LruCache::unbounded_with_hasher(Carried::default()),
            flights: HashMap::with_hasher(Carried::default()),
            epoch,
            figures: CacheFigures::default(),
        }
    }

    /// The outer `None` is a miss.
    fn get(&mut self, key: &KeyRef<'_>, now: UnixMs) -> Option<Option<Entry>> {
        let Some(held) = self.entries.get(key as &dyn Lookup) else {
            self.figures.misses += 1;
            return None;
        };
        self.figures.hits += 1;
        // An expired entry is a known absence: whoever sets the key again comes through here or invalidates it.
        Some(held.as_ref().filter(|entry| entry.is_live(now)).cloned())
    }

    fn put(&mut self, key: &Key, entry: Option<Entry>, share: u64) {
        let bytes = slot_cost(key, entry.as_ref());
        if bytes > share {
            // It would push everything else out: such a value is read from the store each time.
            self.drop_entry(key);
            return;
        }
        if let Some(held) = self.entries.get_mut(key) {
            let old = std::mem::replace(held, entry);
            self.figures.bytes -= slot_cost(key, old.as_ref());
        } else {
            self.entries.push(key.clone(), entry);
            self.figures.entries += 1;
        }
        self.figures.bytes += bytes;
        while self.figures.bytes > share {
            let Some((key, entry)) = self.entries.pop_lru() else { break };
            self.figures.bytes -= slot_cost(&key, entry.as_ref());
            self.figures.entries -= 1;
            self.figures.evictions += 1;
        }
    }

    fn drop_entry(&mut self, key: &Key) {
        if let Some(entry) = self.entries.pop(key) {
            self.figures.bytes -= slot_cost(key, entry.as_ref());
            self.figures.entries -= 1;
        }
    }
}

fn slot_cost(key: &Key, entry: Option<&Entry>) -> u64 {
    cost(key.name().len(), entry.map_or(0, |entry| entry.value.len())) as u64
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
