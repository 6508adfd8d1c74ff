//! What is answered instead of an error while the store is away: what is cached, for a bounded time beyond its proof.

use std::sync::Arc;

use crate::entry::{Entry, Key};
use crate::keyspace::cache::Cache;
use crate::keyspace::clock::{Clock, Moment};
use crate::keyspace::coherence::Coherence;
use crate::keyspace::error::KeyspaceError;
use crate::keyspace::flight::{Landing, Ticket};
use crate::keyspace::key::KeyRef;
use crate::store::error::StoreErrorKind;

/// See the file's header.
pub struct Instead {
    cache: Arc<Cache>,
    coherence: Arc<Coherence>,
    clock: Arc<Clock>,
}

/// An answer that is on its way from the store.
pub struct Awaited {
    /// The flight that brings it.
    pub ticket: Ticket,
    /// For a read that passed the cache by: what to do if the flight fails.
    pub instead: Option<(Key, Instead)>,
}

impl Instead {
    /// Of these parts.
    pub fn new(cache: &Arc<Cache>, coherence: &Arc<Coherence>, clock: &Arc<Clock>) -> Self {
        Self { cache: Arc::clone(cache), coherence: Arc::clone(coherence), clock: Arc::clone(clock) }
    }

    /// What may be answered of a key at the moment `at`, now that the store is away; `None` if nothing may.
    pub fn of(&self, key: &KeyRef<'_>, at: Moment) -> Option<Option<Entry>> {
        if !self.coherence.proof().covers_outage(at.tick) {
            return None;
        }
        let known = self.cache.peek(key, at.unix);
        if known.is_some() {
            self.coherence.count_stale();
        }
        known
    }
}

impl Awaited {
    /// The answer.
    pub async fn landed(self) -> Landing {
        let landing = self.ticket.await.unwrap_or(Err(KeyspaceError::Busy));
        if let (Err(KeyspaceError::Store(StoreErrorKind::Unavailable)), Some((key, instead))) =
            (&landing, &self.instead)
            && let Some(entry) = instead.of(&KeyRef::of(key), instead.clock.moment())
        {
            return Ok(entry);
        }
        landing
    }
}
