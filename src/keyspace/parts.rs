//! What the keyspace's background work shares with it. It does nothing by itself.

use std::sync::Arc;

use crate::keyspace::cache::Cache;
use crate::keyspace::clock::Clock;
use crate::keyspace::coherence::Coherence;
use crate::keyspace::health::Health;
use crate::keyspace::stats::Stats;
use crate::store::Store;

/// Handles to the parts that the loader and the committer work with.
pub struct Parts {
    /// Where the truth is.
    pub store: Arc<dyn Store>,
    /// What is filled.
    pub cache: Arc<Cache>,
    /// What keeps it current.
    pub coherence: Arc<Coherence>,
    /// The store's clock, and this machine's.
    pub clock: Arc<Clock>,
    /// Whether the store answers.
    pub health: Arc<Health>,
    /// What is counted.
    pub stats: Arc<Stats>,
}
