//! Keeps this node's cache current while other daemons write to the same store: what they change is forgotten here, what we
//! change is announced to them, and what cannot be proven current is not used. ARCHITECTURE.md has the protocol.
//!
//! It knows no store; [`watch`] is the only part that talks to one.

pub mod fences;
pub mod fleet;
pub mod lease;
pub mod payload;
pub mod proof;
pub mod status;
pub mod strict;
pub mod vigil;
pub mod watch;
pub mod writes;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch::{Receiver, Sender};
use tokio::sync::{Notify, mpsc};

use crate::config::{CoherenceConfig, CoherenceMode};
use crate::entry::Group;
use crate::keyspace::cache::Cache;
use crate::keyspace::clock::Tick;
use crate::keyspace::coherence::fences::{Fences, Owner};
use crate::keyspace::coherence::fleet::Fleet;
use crate::keyspace::coherence::payload::{Body, Keys, Message, NodeId};
use crate::keyspace::coherence::proof::Proof;
use crate::keyspace::coherence::status::{Counts, Figures, State};
use crate::keyspace::coherence::writes::Writes;
use crate::store::link::Order;

/// A node that has not been heard for this long is not there any more.
const PEER_SILENCE: Tick = 90_000_000;

/// See the file's header.
pub struct Coherence {
    config: CoherenceConfig,
    /// Whether there may be other nodes that listen.
    linked: bool,
    node: NodeId,
    cache: Arc<Cache>,
    proof: Proof,
    /// Until when this node may serve from its cache at all.
    lease_until: AtomicU64,
    batches: AtomicU64,
    /// Held while the cache is told of a commit of ours or of another's, so that the two do not pass each other.
    gate: Mutex<Gate>,
    /// How many fences there are.
    fences: AtomicUsize,
    fleet: Mutex<Fleet>,
    /// Takes orders while there is a link.
    orders: Mutex<Option<mpsc::Sender<Order>>>,
    /// The link did not take an order.
    broken: Notify,
    /// Changes when a batch that waits for others should look again.
    news: Sender<u64>,
    peers: Mutex<HashMap<NodeId, Tick>>,
    state: Sender<State>,
    counts: Counts,
}

/// What decides on what may enter the cache.
#[derive(Debug, Default)]
struct Gate {
    writes: Writes,
    fences: Fences,
}

/// A batch of ours on its way to a commit.
#[derive(Clone, Copy, Debug)]
pub struct Sailing(u64);

/// A batch of ours whose commit has ended, while the cache is told.
pub struct Settling<'a> {
    coherence: &'a Coherence,
    batch: Sailing,
    gate: MutexGuard<'a, Gate>,
    /// Hashes of keys whose write may still happen.
    doubtful: Vec<u64>,
}

impl Coherence {
    /// For a cache that is empty. `shared`: whether other daemons can be on this store.
    #[must_use]
    pub fn new(config: CoherenceConfig, shared: bool, cache: Arc<Cache>) -> Self {
        let linked = shared && config.mode != CoherenceMode::Off;
        let eternal = !linked && (!shared || config.max_age.is_none());
        if linked {
            cache.seal();
        }
        Self {
            config,
            linked,
            // The standard library's hasher is seeded at random.
            node: NodeId(RandomState::new().hash_one(std::process::id())),
            cache,
            proof: if eternal { Proof::eternal() } else { Proof::none() },
            lease_until: AtomicU64::new(Tick::MAX),
            batches: AtomicU64::new(0),
            gate: Mutex::new(Gate::default()),
            fences: AtomicUsize::new(0),
            fleet: Mutex::new(Fleet::default()),
            orders: Mutex::new(None),
            broken: Notify::new(),
            news: Sender::new(0),
            peers: Mutex::new(HashMap::new()),
            state: Sender::new(if linked { State::Unlinked } else { State::Off }),
            counts: Counts::default(),
        }
    }

    /// Until when the cache may answer.
    #[must_use]
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// A batch sets out: the changes that others make to its keys from now on are noted.
    pub fn begin(&self, groups: &[Group]) -> Sailing {
        if self.linked {
            self.lock_gate().writes.begin(groups.iter().flatten().map(|mutation| mutation.key.hash()));
        }
        Sailing(self.batches.fetch_add(1, Ordering::Relaxed))
    }

    /// What is to be announced with a transaction of the batch that changes keys (`None`: all).
    #[must_use]
    pub fn announce(&self, batch: Sailing, hashes: Option<&[u64]>) -> Vec<String> {
        if !self.linked {
            return Vec::new();
        }
        let texts = payload::change(self.node, batch.0, hashes);
        self.counts.sent.fetch_add(texts.len() as u64, Ordering::Relaxed);
        texts
    }

    /// The commit of a batch has ended. Until the result is dropped no other change reaches the cache.
    pub fn settle(&self, batch: Sailing) -> Settling<'_> {
        let mut gate = self.lock_gate();
        gate.fences.lower((self.node, batch.0), &Keys::All);
        Settling { coherence: self, batch, gate, doubtful: Vec::new() }
    }

    /// A flush has ended at `now`; `in_doubt`: or may still happen.
    pub fn settle_flush(&self, batch: Sailing, in_doubt: bool, now: Tick) {
        if in_doubt {
            self.fence((self.node, batch.0), &Keys::All, now);
        } else {
            self.lower((self.node, batch.0), &Keys::All);
        }
    }

    /// The batch is over for the others, too: what they keep fenced for it and do not hear changed, they may let go.
    pub fn lift(&self, batch: Sailing, changed_all: bool, in_doubt: bool) {
        if self.lock_fleet().end(batch.0) && !changed_all && !in_doubt {
            self.order(Order::Announce(payload::lift(self.node, batch.0)));
        }
    }

    /// Flights of these keys are about to depart: those of fenced keys are not to be joined any more, and fill nothing.
    pub fn depart(&self, hashes: impl Iterator<Item = u64>) {
        if self.fences.load(Ordering::SeqCst) == 0 {
            return;
        }
        let gate = self.lock_gate();
        for hash in hashes.filter(|hash| gate.fences.has(*hash)) {
            self.cache.forget(hash);
        }
    }

    /// Lowers fences that have stood too long. To be called every second or so.
    pub fn expire_fences(&self, now: Tick) {
        let mut gate = self.lock_gate();
        gate.fences.expire(now);
        self.fences.store(gate.fences.count(), Ordering::SeqCst);
    }

    /// Something was heard at `now`. The number of the heartbeat, if it is one of ours.
    pub fn hear(&self, text: &str, now: Tick) -> Option<u64> {
        let Some(Message { node, number, body }) = payload::decode(text) else {
            self.counts.received.fetch_add(1, Ordering::Relaxed);
            self.forget(None, &Keys::All);
            return None;
        };
        let own = node == self.node;
        match body {
            Body::Beat(_) if own => return Some(number),
            Body::Beat(strict) => self.meet_peer(node, strict, now),
            Body::Change(keys) if own => self.forget_what_was((node, number), &keys),
            Body::Change(keys) => {
                self.counts.received.fetch_add(1, Ordering::Relaxed);
                self.forget(Some((node, number)), &keys);
            }
            Body::Fence(_) | Body::Lift if own => {}
            Body::Fence(keys) => {
                self.fence((node, number), &keys, now);
                if self.is_strict() {
                    self.order(Order::Announce(payload::acknowledge(self.node, number, node)));
                }
            }
            Body::Acknowledge(owner) => {
                if owner == self.node && self.lock_fleet().acknowledge(number, node) {
                    self.tell_news();
                }
            }
            Body::Lift => self.lower((node, number), &Keys::All),
        }
        None
    }

    /// Whether no other node was heard of late. It may be there nevertheless.
    pub fn is_alone(&self, now: Tick) -> bool {
        self.count_peers(now) == 0
    }

    /// Other nodes that were heard of late.
    fn count_peers(&self, now: Tick) -> usize {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|_, heard| now < *heard + PEER_SILENCE);
        peers.len()
    }

    fn meet_peer(&self, node: NodeId, strict: bool, now: Tick) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = peers.insert(node, now).is_none();
        drop(peers);
        if is_new && strict != self.is_strict() {
            tracing::warn!(
                peer_is_strict = strict,
                "another daemon on this store has another coherence.mode: strict writes do not wait for those that are not"
            );
        }
    }

    /// Another node has changed these keys, with the batch that it may have had them fenced for.
    fn forget(&self, owner: Option<Owner>, keys: &Keys) {
        let mut gate = self.lock_gate();
        let killed: u64 = match keys {
            Keys::Some(hashes) => hashes
                .iter()
                .map(|hash| u64::from(gate.writes.cross(*hash)) + u64::from(self.cache.forget(*hash)))
                .sum(),
            Keys::All => {
                self.cache.clear();
                gate.writes.cross_all()
            }
        };
        if let Some(owner) = owner {
            gate.fences.lower(owner, keys);
        }
        self.fences.store(gate.fences.count(), Ordering::SeqCst);
        drop(gate);
        self.counts.killed.fetch_add(killed, Ordering::Relaxed);
    }

    /// Keys must not be cached until their write is over.
    fn fence(&self, owner: Owner, keys: &Keys, now: Tick) {
        let mut gate = self.lock_gate();
        gate.fences.raise(owner, keys, now);
        self.fences.store(gate.fences.count(), Ordering::SeqCst);
        match keys {
            Keys::Some(hashes) => {
                for hash in hashes {
                    self.cache.forget(*hash);
                }
            }
            Keys::All => self.cache.clear(),
        }
    }

    /// A batch of ours was committed. The cache is told when the answer comes; should this be heard before, others can see the
    /// change by now, and what the cache has is what was there before: the answer may be long in coming. If the outcome was in
    /// doubt, this ends it.
    fn forget_what_was(&self, owner: Owner, keys: &Keys) {
        let mut gate = self.lock_gate();
        match keys {
            Keys::Some(hashes) => {
                for hash in hashes.iter().filter(|hash| gate.writes.is_in_flight(**hash)) {
                    self.cache.forget(*hash);
                }
            }
            Keys::All => self.cache.clear(),
        }
        gate.fences.lower(owner, keys);
        self.fences.store(gate.fences.count(), Ordering::SeqCst);
    }

    fn lower(&self, owner: Owner, keys: &Keys) {
        let mut gate = self.lock_gate();
        gate.fences.lower(owner, keys);
        self.fences.store(gate.fences.count(), Ordering::SeqCst);
    }

    /// Gives the link an order. One that cannot keep up is ended: what it would not take may be what others wait for.
    fn order(&self, order: Order) {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if orders.as_ref().is_some_and(|orders| orders.try_send(order).is_err()) {
            self.broken.notify_one();
        }
    }

    fn tell_news(&self) {
        self.news.send_modify(|news| *news += 1);
    }

    /// Everything committed until `at` has been heard.
    fn prove(&self, at: Tick) {
        let current = at + self.config.max_staleness.as_micros() as Tick;
        let current = current.min(self.lease_until.load(Ordering::Relaxed));
        // Nobody waits for a strict node that is cut off longer than its lease lasts, so it has nothing to answer instead.
        let outage = if self.is_strict() { 0 } else { current + self.config.serve_stale.as_micros() as Tick };
        self.proof.renew(current, outage);
    }

    /// Nothing is heard any more. What is cached is kept for an outage, and nothing is added.
    fn part(&self) {
        self.proof.withdraw();
        self.cache.seal();
        *self.orders.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.lock_fleet().leave();
    }

    /// Everything is heard from now on: a new epoch, with an empty cache.
    fn meet(&self) {
        self.cache.open();
        self.counts.epochs.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, state: State) {
        self.state.send_if_modified(|held| {
            let changed = *held != state;
            *held = state;
            changed
        });
    }

    /// Resolves when the state is known to be good or bad, so that a start can wait for it; after `patience` anyway.
    pub async fn known(&self, patience: Duration) {
        let mut states: Receiver<State> = self.state.subscribe();
        let known = states.wait_for(|state| *state != State::Unlinked);
        let _ = tokio::time::timeout(patience, known).await;
    }

    /// Figures for `INFO` and the metrics page at `now`.
    #[must_use]
    pub fn figures(&self, now: Tick) -> Figures {
        Figures {
            mode: self.config.mode,
            state: *self.state.borrow(),
            covered: self.proof.covers(now),
            covered_by_outage: self.proof.covers_outage(now),
            node: self.node.0,
            peers: self.count_peers(now) as u64,
            members: self.lock_fleet().others() as u64,
            fences: self.fences.load(Ordering::Relaxed) as u64,
            epoch: self.counts.epochs.load(Ordering::Relaxed),
            staleness: self.staleness(now),
            sent: self.counts.sent.load(Ordering::Relaxed),
            received: self.counts.received.load(Ordering::Relaxed),
            killed: self.counts.killed.load(Ordering::Relaxed),
            stale: self.counts.stale.load(Ordering::Relaxed),
        }
    }

    /// A read was answered from the cache because the store is away.
    pub fn count_stale(&self) {
        self.counts.stale.fetch_add(1, Ordering::Relaxed);
    }

    fn staleness(&self, now: Tick) -> Option<Duration> {
        let proven = self.counts.proven.load(Ordering::Relaxed);
        (proven > 0).then(|| Duration::from_micros(now.saturating_sub(proven)))
    }

    fn lock_gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Settling<'_> {
    /// The write of the key is over; whether the cache may hold what it left.
    pub fn end(&mut self, hash: u64) -> bool {
        (!self.coherence.linked || self.gate.writes.end(hash)) && !self.gate.fences.has(hash)
    }

    /// The write of the key may still happen.
    pub fn doubt(&mut self, hash: u64) {
        self.doubtful.push(hash);
    }

    /// The whole batch has ended, at `now`.
    pub fn finish(mut self, now: Tick) {
        let hashes = std::mem::take(&mut self.doubtful);
        if !hashes.is_empty() {
            let keys = Keys::Some(hashes.clone());
            self.gate.fences.raise((self.coherence.node, self.batch.0), &keys, now);
        }
        self.coherence.fences.store(self.gate.fences.count(), Ordering::SeqCst);
        for hash in hashes {
            self.coherence.cache.forget(hash);
        }
    }
}
