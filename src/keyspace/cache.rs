//! The bounded local cache: sharded LRU of entries and of known absences, with the flights of keys being loaded.
//!
//! Both are found by the key's 64-bit hash, so that what changes elsewhere can be forgotten by hash alone; of two keys
//! with one hash, the later takes the other's place. It knows no store and no clock. Its one rule: an entry enters only
//! from a load whose flight is still alive, or from a commit of the same epoch; everything that changes a key kills the
//! key's flight. So no late fill wins.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::entry::{Entry, Key, UnixMs};
use crate::keyspace::flight::{Boarding, Flight, Landing, Ticket};
use crate::keyspace::key::{Carried, KeyRef};
use crate::keyspace::slot::{self, Said, Slot};
use crate::keyspace::touch::{Rescue, Slack, Touch};
use crate::keyspace::touched::Touched;

/// At most so many shards, so that cores seldom meet on one lock.
const MAX_SHARDS: u64 = 64;

/// A shard holds at least so much, so that no ordinary session is too large for its share.
const MIN_SHARE: u64 = 4 * 1024 * 1024;

/// See the file's header.
pub struct Cache {
    shards: Box<[Mutex<Shard>]>,
    epoch: AtomicU64,
    max_bytes: u64,
    /// What of that may be used now.
    room: AtomicU64,
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
    /// Touches that needed no write.
    pub elided: u64,
    /// Entries now, known absences included.
    pub entries: u64,
    /// Bytes now.
    pub bytes: u64,
}

/// A generation of the cache: what was decided in an earlier one must not fill it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u64);

/// The order is by use, but not to the last place: an entry in the newer half of the list stays where it is when it is
/// used, which spares the memory of its neighbours. So what was used is not evicted before half as many others as there
/// are have been used or put.
struct Shard {
    slots: LruCache<u64, Slot, Carried>,
    flights: HashMap<u64, Arc<Flight>, Carried>,
    touched: Touched,
    epoch: u64,
    /// Moves to the front of the list, ever.
    moves: u32,
    /// Nothing enters.
    sealed: bool,
    figures: CacheFigures,
}

/// Slots that are seen under one hold of a shard's lock.
const SEEN_AT_ONCE: usize = 64;

impl Cache {
    /// An empty cache of at most about `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        let count = (max_bytes / MIN_SHARE).clamp(1, MAX_SHARDS);
        let shards = (0..count).map(|_| Mutex::new(Shard::new(0))).collect();
        Self { shards, epoch: AtomicU64::new(0), max_bytes, room: AtomicU64::new(max_bytes) }
    }

    /// Looks a key up; if it is not there, joins or starts the flight that loads it.
    pub fn get_or_fly(&self, key: &KeyRef<'_>, now: UnixMs) -> Cached {
        let mut shard = self.shard(key.hash());
        match shard.get(key, now) {
            Some(known) => Cached::Known(known),
            None => shard.fly(key, Boarding::UntilLanding),
        }
    }

    /// Passes by what is cached: joins a flight for which the store has not been asked yet, or starts one.
    pub fn fly(&self, key: &KeyRef<'_>) -> Cached {
        self.shard(key.hash()).fly(key, Boarding::UntilDeparture)
    }

    /// Ends a flight: fills the cache if nothing happened to the key meanwhile, and answers those who wait.
    pub fn land(&self, flight: &Arc<Flight>, landing: &Landing) {
        let hash = flight.key().hash();
        let mut shard = self.shard(hash);
        let alive = shard.flights.get(&hash).is_some_and(|current| Arc::ptr_eq(current, flight));
        if alive {
            shard.flights.remove(&hash);
            if let Ok(entry) = landing {
                shard.fill(flight.key(), entry.clone(), self.share());
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

    /// A commit of ours made `entry` (`None`: deleted) the truth of `key`; it was begun in `epoch`, and `seen` is the
    /// entry that it expected, if it did.
    pub fn committed(&self, key: &Key, entry: Option<Entry>, seen: Option<&Entry>, epoch: Epoch) {
        let mut shard = self.shard(key.hash());
        shard.flights.remove(&key.hash());
        if shard.epoch == epoch.0 {
            shard.put(key, entry, seen, self.share());
        } else {
            shard.drop_slot(key.hash());
        }
    }

    /// Moves the expiry of a live entry, if nothing needs to be written for that. Whether it did.
    pub fn touch(&self, key: &KeyRef<'_>, touch: &Touch<'_>, now: UnixMs, slack: Slack) -> bool {
        self.shard(key.hash()).touch(key, touch, now, slack)
    }

    /// Touched entries of one shard whose durable expiry is not after `until`, and those that were pushed out: what is to
    /// be written. `parts` calls see the whole shard.
    pub fn rescues(&self, shard: usize, parts: usize, until: UnixMs) -> Vec<Rescue> {
        let shard = &self.shards[shard];
        let mut rescues = lock(shard).touched.take_evicted();
        let mut left = lock(shard).touched.begin_part(parts);
        while left > 0 {
            let some = left.min(SEEN_AT_ONCE);
            let mut shard = lock(shard);
            rescues.extend((0..some).filter_map(|_| shard.see_touched(until)));
            left -= some;
        }
        rescues
    }

    /// The number of shards.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Forgets what has this hash, because what is cached is in doubt. Whether a load was on its way, which now does not
    /// fill the cache.
    pub fn forget(&self, hash: u64) -> bool {
        let mut shard = self.shard(hash);
        shard.drop_slot(hash);
        shard.flights.remove(&hash).is_some()
    }

    /// What is known of a key at `now`, current or not. Counts nothing.
    #[must_use]
    pub fn peek(&self, key: &KeyRef<'_>, now: UnixMs) -> Option<Option<Entry>> {
        let shard = self.shard(key.hash());
        match shard.slots.peek(&key.hash()).filter(|slot| slot.is_of(key))?.entry(now) {
            Said::Known(entry) => Some(entry),
            Said::Lapsed => None,
        }
    }

    /// A key that something is known of: in the first shard from number `shard` on that knows any, the `nth` of those used
    /// last or of those used first.
    #[must_use]
    pub fn draw(&self, shard: usize, nth: usize) -> Option<Key> {
        let shards = (0..self.shards.len()).map(|offset| &self.shards[shard.wrapping_add(offset) % self.shards.len()]);
        shards.map(lock).find(|shard| !shard.slots.is_empty()).and_then(|shard| {
            let mut slots = shard.slots.iter();
            let nth = nth % (2 * slots.len());
            let drawn = if nth.is_multiple_of(2) { slots.nth(nth / 2) } else { slots.nth_back(nth / 2) };
            drawn.map(|(hash, slot)| slot.key(*hash))
        })
    }

    /// Lets nothing in any more. What is cached stays, until it is changed.
    pub fn seal(&self) {
        for shard in &self.shards {
            lock(shard).sealed = true;
        }
    }

    /// Forgets everything, starts a new epoch, and lets entries in.
    pub fn open(&self) {
        self.restart(Some(false));
    }

    /// Forgets everything and starts a new epoch.
    pub fn clear(&self) {
        self.restart(None);
    }

    fn restart(&self, seal: Option<bool>) {
        let epoch = self.epoch.fetch_add(1, Ordering::AcqRel) + 1;
        for shard in &self.shards {
            let mut shard = lock(shard);
            let sealed = seal.unwrap_or(shard.sealed);
            let fresh = Shard { figures: shard.figures, sealed, ..Shard::new(epoch) };
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
            sum.elided += figures.elided;
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

    /// How many bytes it may account for now.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.room.load(Ordering::Relaxed)
    }

    /// Leaves the cache so many bytes to account for, of its bound. What is over is dropped.
    pub fn set_room(&self, bytes: u64) {
        let before = self.room.swap(bytes.min(self.max_bytes), Ordering::Relaxed);
        if bytes >= before {
            return;
        }
        let share = self.share();
        for shard in &self.shards {
            // Others may pass between.
            while lock(shard).make_room(share, SEEN_AT_ONCE) {}
        }
    }

    fn share(&self) -> u64 {
        self.room() / self.shards.len() as u64
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The table inside a shard indexes by the low bits and tags by the top ones: take some between.
        let middle = (hash >> 32) as u32 as usize;
        lock(&self.shards[middle % self.shards.len()])
    }
}

/// A shard is consistent between statements, so a panic elsewhere while it was locked does no harm.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    fn new(epoch: u64) -> Self {
        Self {
            slots: LruCache::unbounded_with_hasher(Carried::default()),
            flights: HashMap::with_hasher(Carried::default()),
            touched: Touched::new(),
            epoch,
            moves: 0,
            sealed: false,
            figures: CacheFigures::default(),
        }
    }

    /// The outer `None` is a miss.
    fn get(&mut self, key: &KeyRef<'_>, now: UnixMs) -> Option<Option<Entry>> {
        let half = self.slots.len() as u32 / 2;
        let slot = self.slots.peek_mut(&key.hash()).filter(|slot| slot.is_of(key));
        let Some((Said::Known(entry), slot)) = slot.map(|slot| (slot.entry(now), slot)) else {
            self.figures.misses += 1;
            return None;
        };
        self.figures.hits += 1;
        // At most so many stand before it as were moved since it was.
        if self.moves.wrapping_sub(slot.moved) > half {
            self.moves = self.moves.wrapping_add(1);
            slot.moved = self.moves;
            self.slots.promote(&key.hash());
        }
        Some(entry)
    }

    fn touch(&mut self, key: &KeyRef<'_>, touch: &Touch<'_>, now: UnixMs, slack: Slack) -> bool {
        let room = self.touched.has_room(self.slots.len());
        self.moves = self.moves.wrapping_add(1);
        let Some(slot) = self.slots.get_mut(&key.hash()).filter(|slot| slot.is_of(key)) else { return false };
        slot.moved = self.moves;
        let listed = slot.round != 0;
        if !(listed || room) || !slot.touch(touch, now, slack) {
            return false;
        }
        if !listed && slot.is_touched() {
            slot.round = self.touched.add(key.hash());
        }
        self.figures.elided += 1;
        true
    }

    /// Sees the next slot in the list of the touched: it leaves the list, or is put back, perhaps to be rescued.
    fn see_touched(&mut self, until: UnixMs) -> Option<Rescue> {
        let (hash, round) = self.touched.take_next()?;
        let slot = self.slots.peek_mut(&hash)?;
        if slot.round == 0 || slot.round == round {
            return None;
        }
        if !slot.is_touched() {
            slot.round = 0;
            return None;
        }
        slot.round = self.touched.add(hash);
        slot.expiry().filter(|expiry| expiry.durable() <= until)?;
        slot.rescue(hash)
    }

    /// Takes over what a load brought, unless it is what is known already, perhaps with touches.
    fn fill(&mut self, key: &Key, entry: Option<Entry>, share: u64) {
        let held = self.slots.peek(&key.hash());
        if entry.as_ref().is_some_and(|entry| held.is_some_and(|slot| slot.has(key, entry.version))) {
            return;
        }
        self.put(key, entry, None, share);
    }

    /// Joins the flight of a key, or starts one; the one that it replaces fills nothing any more.
    fn fly(&mut self, key: &KeyRef<'_>, boarding: Boarding) -> Cached {
        let current = self.flights.get(&key.hash()).filter(|flight| key.is(flight.key().db(), flight.key().name()));
        if let Some(ticket) = current.and_then(|flight| flight.join(boarding)) {
            return Cached::Joined(ticket);
        }
        let flight = Arc::new(Flight::new(key.to_key()));
        let ticket = flight.join(boarding).expect("it has not departed");
        self.flights.insert(key.hash(), Arc::clone(&flight));
        Cached::Started(flight, ticket)
    }

    fn put(&mut self, key: &Key, entry: Option<Entry>, seen: Option<&Entry>, share: u64) {
        if self.sealed {
            self.drop_slot(key.hash());
            return;
        }
        let bytes = slot::cost(key.name().len(), entry.as_ref().map(|entry| entry.value.len())) as u64;
        if bytes > share {
            // It would push everything else out: such a value is read from the store each time.
            self.drop_slot(key.hash());
            return;
        }
        self.moves = self.moves.wrapping_add(1);
        match self.slots.get_mut(&key.hash()) {
            Some(slot) => {
                self.figures.bytes -= slot.cost() as u64;
                slot.assign(key, entry, seen);
                slot.moved = self.moves;
            }
            None => {
                let mut slot = Slot::new(key, entry);
                slot.moved = self.moves;
                self.slots.push(key.hash(), slot);
                self.figures.entries += 1;
            }
        }
        self.figures.bytes += bytes;
        self.make_room(share, usize::MAX);
    }

    /// Drops what was used least recently while there is more than `share`, at most so many slots. Whether there is still more.
    fn make_room(&mut self, share: u64, slots: usize) -> bool {
        for _ in 0..slots {
            if self.figures.bytes <= share {
                return false;
            }
            let Some((hash, slot)) = self.slots.pop_lru() else { return false };
            self.figures.bytes -= slot.cost() as u64;
            if let Some(rescue) = slot.rescue(hash) {
                self.touched.evict(Rescue { seen: None, ..rescue });
            }
            self.figures.entries -= 1;
            self.figures.evictions += 1;
        }
        self.figures.bytes > share
    }

    fn drop_slot(&mut self, hash: u64) {
        if let Some(slot) = self.slots.pop(&hash) {
            self.figures.bytes -= slot.cost() as u64;
            self.figures.entries -= 1;
        }
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "touched_tests.rs"]
mod touched_tests;
