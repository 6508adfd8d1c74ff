//! Misses on their way to the store: whatever gathered while loads were in flight goes out as one question.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::keyspace::error::KeyspaceError;
use crate::keyspace::flight::{Flight, Landing};
use crate::keyspace::parts::Parts;
use crate::store::error::StoreError;

/// Keys of one question to the store.
const MAX_KEYS: usize = 256;

/// Questions in flight at once.
const MAX_LOADS: usize = 4;

/// Keys waiting to be asked for; more are refused. A connection has a bounded number of misses open, so this is met
/// only when the store has stalled under very many connections.
const MAX_WAITING: usize = 64 * 1024;

/// Takes misses and answers their flights.
pub struct Loader {
    waiting: Mutex<Vec<Arc<Flight>>>,
    arrived: Notify,
}

impl Loader {
    /// A loader; [`Loader::run`] does its work.
    #[must_use]
    pub fn new() -> Self {
        Self { waiting: Mutex::new(Vec::new()), arrived: Notify::new() }
    }

    /// Takes on a flight. Gives it back if too many wait already.
    pub fn take_on(&self, flight: Arc<Flight>) -> Result<(), Arc<Flight>> {
        let mut waiting = self.lock();
        if waiting.len() >= MAX_WAITING {
            return Err(flight);
        }
        waiting.push(flight);
        drop(waiting);
        self.arrived.notify_one();
        Ok(())
    }

    /// Loads until `stop`; then answers what still waits with an error and returns.
    pub async fn run(self: Arc<Self>, parts: Parts, stop: CancellationToken) {
        let parts = &parts;
        let cache = &parts.cache;
        let mut loads = FuturesUnordered::new();
        loop {
            while loads.len() < MAX_LOADS {
                let flights = self.next_batch();
                if flights.is_empty() {
                    break;
                }
                loads.push(load(parts, flights));
            }
            tokio::select! {
                () = self.arrived.notified(), if loads.len() < MAX_LOADS => {
                    // Whoever is about to miss as well does so first, and rides along. It takes no time if nobody is.
                    tokio::task::yield_now().await;
                }
                Some(()) = loads.next(), if !loads.is_empty() => {}
                () = stop.cancelled(), if loads.is_empty() => break,
            }
        }
        for flight in self.next_batch() {
            cache.land(&flight, &Err(KeyspaceError::Busy));
        }
    }

    fn next_batch(&self) -> Vec<Arc<Flight>> {
        let mut waiting = self.lock();
        let take = waiting.len().min(MAX_KEYS);
        if take == waiting.len() { std::mem::take(&mut *waiting) } else { waiting.drain(..take).collect() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Flight>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn load(parts: &Parts, flights: Vec<Arc<Flight>>) {
    let Parts { store, cache, coherence, health, stats, .. } = parts;
    let begun = Instant::now();
    let keys = flights.iter().map(|flight| flight.key().clone()).collect();
    for flight in &flights {
        flight.depart();
    }
    coherence.depart(flights.iter().map(|flight| flight.key().hash()));
    let loaded = if health.is_up() { store.load(keys).await } else { Err(health.refusal()) };
    stats.loads.observe(flights.len() as u64, begun.elapsed(), loaded.as_ref().err().map(StoreError::kind));
    match loaded {
        Ok(entries) => {
            debug_assert_eq!(entries.len(), flights.len(), "a store answers for each key");
            for (flight, entry) in flights.iter().zip(entries) {
                cache.land(flight, &Ok(entry));
            }
        }
        Err(error) => {
            health.note(&error, begun);
            let landing: Landing = Err(KeyspaceError::Store(error.kind()));
            for flight in &flights {
                cache.land(flight, &landing);
            }
        }
    }
}
