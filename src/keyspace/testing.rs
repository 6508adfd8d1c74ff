//! A keyspace for tests, over an embedded store of its own.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::config::{CoherenceConfig, CoherenceMode, SqliteConfig};
use crate::keyspace::config::KeyspaceConfig;
use crate::keyspace::{Keyspace, Work};
use crate::store::sqlite::SqliteStore;

/// As by default; without another daemon it is all the same.
pub(crate) const COHERENCE: CoherenceConfig = CoherenceConfig {
    mode: CoherenceMode::On,
    max_staleness: Duration::from_secs(1),
    serve_stale: Duration::from_secs(30),
    max_age: None,
};

/// The keyspace, the work that is to run for it until `stop`, and the directory of its file.
pub(crate) async fn keyspace(stop: &CancellationToken) -> (Arc<Keyspace>, Vec<Work>, TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let store = SqliteStore::open(&SqliteConfig { path: dir.path().join("s.db") }).expect("a new file can be opened");
    let config = KeyspaceConfig {
        prefix: Vec::new(),
        cache_max_bytes: 1 << 20,
        max_value_bytes: 1 << 20,
        sweeper_interval: Duration::from_secs(3600),
        coherence: COHERENCE,
        shared: false,
        detours: 0,
        touch_slack: Duration::from_secs(60),
        guarded: Vec::new(),
        guard_window: Duration::ZERO,
    };
    let (keyspace, work) = Keyspace::new(config, Arc::new(store), stop).await.expect("it tells the time");
    (keyspace, work, dir)
}
