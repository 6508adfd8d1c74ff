//! What of the configuration the keyspace needs.

use std::time::Duration;

use crate::config::CoherenceConfig;

/// See the file's header.
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
    /// How the cache is kept current.
    pub coherence: CoherenceConfig,
    /// Whether other daemons can be on the store.
    pub shared: bool,
    /// Commits that take long, as for somebody's lock, around which the store can do others.
    pub detours: usize,
    /// Patterns of the names that the logout guard covers.
    pub guarded: Vec<Vec<u8>>,
    /// How long a deletion of them is guarded.
    pub guard_window: Duration,
    /// By how much a durable expiry may lag behind what clients are told; see [`crate::keyspace::touch`].
    pub touch_slack: Duration,
}
