//! The checked configuration: a value that cannot be wrong, passed down from `main`. [`mod@load`]
//! makes it; nothing here is global.

pub mod fault;
mod flags;
pub mod load;
pub mod password;
pub mod settings;
pub mod show;
mod sources;
mod value;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::password::Password;

/// Where to accept Redis clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A unix socket (`unix:/path`).
    Unix(PathBuf),
}

/// Which store keeps the truth.
#[derive(Clone, Debug)]
pub enum StoreConfig {
    /// The embedded store.
    Sqlite(SqliteConfig),
    /// Postgres, by its URL, which may hold a password: never print it.
    Postgres(PostgresConfig),
}

/// The embedded store.
#[derive(Clone, Debug)]
pub struct SqliteConfig {
    /// The database file; its directory is created if it is missing.
    pub path: PathBuf,
}

/// The Postgres store.
#[derive(Clone)]
pub struct PostgresConfig {
    /// `postgres://…` as libpq takes it; checked at start-up.
    pub url: String,
    /// The same for the link between daemons, if that cannot go the same way.
    pub listen_url: Option<String>,
    /// Connections in the pool.
    pub connections: u32,
    /// How long to wait for a connection (a new one, or a free one).
    pub connect_timeout: Duration,
    /// How long a statement may take.
    pub statement_timeout: Duration,
}

/// The secrets stay out of `Debug`.
impl std::fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresConfig").field("connections", &self.connections).finish_non_exhaustive()
    }
}

/// How the caches of several daemons on one store are kept current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoherenceMode {
    /// A cache may lag behind another daemon's write by at most the bound.
    On,
    /// Daemons do not hear of each other; entries are cached for a bounded time.
    Off,
    /// A write is acknowledged when no daemon's cache holds what it replaces any more.
    Strict,
}

/// See [`CoherenceMode`].
#[derive(Clone, Copy, Debug)]
pub struct CoherenceConfig {
    /// How.
    pub mode: CoherenceMode,
    /// What is cached is used only while it is proven to be no older than this.
    pub max_staleness: Duration,
    /// For so much longer it is used while the store is away.
    pub serve_stale: Duration,
    /// With coherence off: how long what is cached may be used; `None`: for ever.
    pub max_age: Option<Duration>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Everything that can be configured, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to accept Redis clients; at least one.
    pub listen: Vec<Listen>,
    /// Where to serve metrics and health, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// The store.
    pub store: StoreConfig,
    /// Put before every key.
    pub key_prefix: Vec<u8>,
    /// What `AUTH` takes; none means protected mode.
    pub password: Option<Password>,
    /// Threads that serve; 0: half of the processors.
    pub workers: u32,
    /// Bound on the cache's memory, in bytes.
    pub cache_max_bytes: u64,
    /// How caches are kept current.
    pub coherence: CoherenceConfig,
    /// Connections served at once.
    pub max_clients: u32,
    /// The largest value, in bytes.
    pub max_value_bytes: usize,
    /// By how much the durable expiry of a session may lag behind what clients are told, at most.
    pub touch_slack: Duration,
    /// Patterns of the keys that the logout guard covers; none: it is off.
    pub guarded: Vec<Vec<u8>>,
    /// How long a deletion of them is guarded.
    pub guard_window: Duration,
    /// The pause between two passes of the sweeper.
    pub sweeper_interval: Duration,
    /// How long connections may finish what they began at shutdown.
    pub shutdown_timeout: Duration,
    /// How long a script may take.
    pub script_time_limit: Duration,
    /// How much memory a script may take, in bytes.
    pub script_memory_limit: usize,
    /// Log format.
    pub log_format: LogFormat,
    /// Log level, or `target=level` directives separated by commas; [`crate::logging`] knows how to read it.
    pub log_level: String,
}
