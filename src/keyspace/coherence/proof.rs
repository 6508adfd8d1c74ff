//! Until when what is cached may be used: two moments, read by every command and moved by heartbeats. Decides nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::keyspace::clock::Tick;

/// See the file's header.
///
/// Whoever reads compares with a time of its own, taken after its request came. So a process that was stopped for a while
/// cannot use its cache first and notice later.
#[derive(Debug)]
pub struct Proof {
    current: AtomicU64,
    outage: AtomicU64,
}

impl Proof {
    /// Nothing is proven.
    #[must_use]
    pub fn none() -> Self {
        Self { current: AtomicU64::new(0), outage: AtomicU64::new(0) }
    }

    /// What is cached is current for ever: nobody else changes anything.
    #[must_use]
    pub fn eternal() -> Self {
        Self { current: AtomicU64::new(Tick::MAX), outage: AtomicU64::new(Tick::MAX) }
    }

    /// Whether the cache may answer at `now`.
    #[must_use]
    pub fn covers(&self, now: Tick) -> bool {
        // Relaxed: whoever finds an entry takes its shard's lock after this, and the cache is cleared before the proof
        // is renewed.
        now < self.current.load(Ordering::Relaxed)
    }

    /// Whether it may at `now`, if the store cannot.
    #[must_use]
    pub fn covers_outage(&self, now: Tick) -> bool {
        now < self.outage.load(Ordering::Relaxed)
    }

    /// The cache may answer until then.
    pub fn renew(&self, current: Tick, outage: Tick) {
        self.outage.store(outage, Ordering::Release);
        self.current.store(current, Ordering::Release);
    }

    /// The cache may not answer any more, unless the store is away.
    pub fn withdraw(&self) {
        self.current.store(0, Ordering::Release);
    }
}
