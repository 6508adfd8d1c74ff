//! What commands may know of the server that they run in: settings, counters, and who is connected. No socket here:
//! a connection registers itself, and is asked to end by a token that it watches.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::config::password::Password;
use crate::config::{Config, Listen, StoreConfig};
use crate::entry::UnixMs;
use crate::keyspace::Figures;
use crate::resp::reply::Protocol;
use crate::script::source::Scripts;
use crate::script::{Limits, Pool};

/// The Redis version whose behaviour clients may expect of us; they choose commands by it.
pub const COMPATIBLE_VERSION: &str = "7.2.4";

/// Our own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What commands may know of the server.
#[derive(Debug)]
pub struct ServerInfo {
    /// What does not change while it runs.
    pub settings: Settings,
    /// Counts since the start.
    pub counters: Counters,
    /// Who is connected.
    pub clients: Clients,
    /// Lua scripts by their SHA-1.
    pub scripts: Scripts,
    /// Where they run.
    pub script_pool: Pool,
    started: Instant,
    /// What `AUTH` takes; none means that everyone who may connect is in. Can be replaced while clients are served.
    password: Mutex<Option<Password>>,
    /// What the counts were when `CONFIG RESETSTAT` was last called.
    baseline: Mutex<Counts>,
}

/// What does not change while the server runs. Holds no secret.
#[derive(Debug)]
pub struct Settings {
    /// Connections served at once.
    pub max_clients: u32,
    /// The addresses that are listened on.
    pub listening: Vec<Listen>,
    /// Which kind of store keeps the truth: `postgres` or `sqlite`.
    pub store: &'static str,
    /// The largest value, in bytes.
    pub max_value_bytes: usize,
    /// Bound on the cache's memory, in bytes.
    pub cache_max_bytes: u64,
    /// The names of all commands, by their place in the table.
    pub command_names: &'static [&'static str],
}

/// Counts since the start, kept by the server.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections turned away: too many clients, or protected mode.
    pub rejected: AtomicU64,
    /// Commands processed; a connection adds once per batch of input.
    pub commands: AtomicU64,
}

/// Counts that `INFO` prints and `CONFIG RESETSTAT` sets back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// See [`Counters::connections`].
    pub connections: u64,
    /// See [`Counters::rejected`].
    pub rejected: u64,
    /// See [`Counters::commands`].
    pub commands: u64,
    /// See [`Figures::hits`].
    pub hits: u64,
    /// See [`Figures::misses`].
    pub misses: u64,
    /// See [`Figures::evicted`].
    pub evicted: u64,
    /// See [`Figures::elided`].
    pub elided: u64,
    /// See [`Figures::expired`].
    pub expired: u64,
}

impl ServerInfo {
    /// A server that starts now. `listening` are the addresses really bound; `command_names` is the table's.
    #[must_use]
    pub fn new(config: &Config, listening: Vec<Listen>, command_names: &'static [&'static str]) -> Arc<Self> {
        let settings = Settings {
            max_clients: config.max_clients,
            listening,
            store: match config.store {
                StoreConfig::Sqlite(_) => "sqlite",
                StoreConfig::Postgres(_) => "postgres",
            },
            max_value_bytes: config.max_value_bytes,
            cache_max_bytes: config.cache_max_bytes,
            command_names,
        };
        Arc::new(Self {
            settings,
            counters: Counters::default(),
            clients: Clients::default(),
            scripts: Scripts::new(),
            script_pool: Pool::new(Limits { time: config.script_time_limit, memory: config.script_memory_limit }),
            started: Instant::now(),
            password: Mutex::new(config.password.clone()),
            baseline: Mutex::default(),
        })
    }

    /// Whether a new connection must authenticate before it may run commands.
    #[must_use]
    pub fn needs_auth(&self) -> bool {
        lock(&self.password).is_some()
    }

    /// Whether `given` is the password; without one, anything is.
    #[must_use]
    pub fn is_password(&self, given: &[u8]) -> bool {
        lock(&self.password).as_ref().is_none_or(|expected| expected.matches(given))
    }

    /// Replaces the password. Connections that have authenticated stay so, as in Redis.
    pub fn set_password(&self, password: Option<Password>) {
        *lock(&self.password) = password;
    }

    /// How long it has run.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes a connection into `CLIENT LIST`, until the registration is dropped. `closing` is cancelled by `CLIENT KILL`;
    /// the connection ends then without a word.
    #[must_use = "the connection leaves the list when the registration is dropped"]
    pub fn register(
        self: &Arc<Self>,
        addr: String,
        laddr: String,
        now: UnixMs,
        closing: CancellationToken,
    ) -> Registration {
        let summary = Arc::new(ClientSummary {
            id: self.clients.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            addr,
            laddr,
            connected_at: now,
            last_seen: AtomicI64::new(now),
            last_command: AtomicUsize::new(usize::MAX),
            details: Mutex::default(),
            closing,
        });
        lock(&self.clients.connected).insert(summary.id, Arc::clone(&summary));
        Registration { server: Arc::clone(self), summary }
    }

    /// The counts since the start, or since [`ServerInfo::reset_counts`].
    #[must_use]
    pub fn counts(&self, figures: &Figures) -> Counts {
        let (now, before) = (self.counts_since_start(figures), *lock(&self.baseline));
        Counts {
            connections: now.connections.saturating_sub(before.connections),
            rejected: now.rejected.saturating_sub(before.rejected),
            commands: now.commands.saturating_sub(before.commands),
            hits: now.hits.saturating_sub(before.hits),
            misses: now.misses.saturating_sub(before.misses),
            evicted: now.evicted.saturating_sub(before.evicted),
            elided: now.elided.saturating_sub(before.elided),
            expired: now.expired.saturating_sub(before.expired),
        }
    }

    /// Makes [`ServerInfo::counts`] begin at zero. Metrics are not touched: they must not go backwards.
    pub fn reset_counts(&self, figures: &Figures) {
        *lock(&self.baseline) = self.counts_since_start(figures);
    }

    fn counts_since_start(&self, figures: &Figures) -> Counts {
        Counts {
            connections: self.counters.connections.load(Ordering::Relaxed),
            rejected: self.counters.rejected.load(Ordering::Relaxed),
            commands: self.counters.commands.load(Ordering::Relaxed),
            hits: figures.hits,
            misses: figures.misses,
            evicted: figures.evicted,
            elided: figures.elided,
            expired: figures.expired,
        }
    }
}

/// The connected clients, by id.
#[derive(Debug, Default)]
pub struct Clients {
    connected: Mutex<BTreeMap<u64, Arc<ClientSummary>>>,
    last_id: AtomicU64,
}

impl Clients {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.connected).len()
    }

    /// All of them, in order of their ids.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<ClientSummary>> {
        lock(&self.connected).values().cloned().collect()
    }

    /// The one with this id.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Arc<ClientSummary>> {
        lock(&self.connected).get(&id).cloned()
    }
}

/// What others may see of a client.
#[derive(Debug)]
pub struct ClientSummary {
    /// The connection's number, unique in this process.
    pub id: u64,
    /// The peer.
    pub addr: String,
    /// The local end.
    pub laddr: String,
    /// When the connection was made, on the store's clock.
    pub connected_at: UnixMs,
    last_seen: AtomicI64,
    /// Its place in the table; `usize::MAX` before the first.
    last_command: AtomicUsize,
    details: Mutex<ClientDetails>,
    closing: CancellationToken,
}

/// What a client says of itself, by commands that are rare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientDetails {
    /// The selected database.
    pub db: u8,
    /// The protocol version.
    pub protocol: Protocol,
    /// `CLIENT SETNAME`.
    pub name: String,
    /// `CLIENT SETINFO LIB-NAME`.
    pub lib_name: String,
    /// `CLIENT SETINFO LIB-VER`.
    pub lib_ver: String,
    /// `CLIENT NO-EVICT ON`.
    pub no_evict: bool,
}

impl ClientSummary {
    /// When it last sent something, on the store's clock.
    #[must_use]
    pub fn last_seen(&self) -> UnixMs {
        self.last_seen.load(Ordering::Relaxed)
    }

    /// The place in the table of the command it sent last.
    #[must_use]
    pub fn last_command(&self) -> Option<usize> {
        Some(self.last_command.load(Ordering::Relaxed)).filter(|place| *place != usize::MAX)
    }

    /// What it said of itself.
    #[must_use]
    pub fn details(&self) -> ClientDetails {
        lock(&self.details).clone()
    }

    /// Changes what it said of itself.
    pub fn set_details(&self, details: ClientDetails) {
        *lock(&self.details) = details;
    }

    /// Asks its connection to end.
    pub fn kill(&self) {
        self.closing.cancel();
    }
}

/// A connection's place in the list; dropping it leaves the list.
#[derive(Debug)]
pub struct Registration {
    server: Arc<ServerInfo>,
    summary: Arc<ClientSummary>,
}

impl Registration {
    /// The connection's number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.summary.id
    }

    /// Notes, once per batch of input, that something came, and its last command's place in the table.
    pub fn seen(&self, now: UnixMs, command: usize) {
        self.summary.last_seen.store(now, Ordering::Relaxed);
        self.summary.last_command.store(command, Ordering::Relaxed);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        lock(&self.server.clients.connected).remove(&self.summary.id);
    }
}

/// Locks; what is under these locks is whole at every moment, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::{LogFormat, SqliteConfig};

    /// A server for tests, with or without a password.
    pub(crate) fn server(password: Option<&str>) -> Arc<ServerInfo> {
        let config = Config {
            listen: Vec::new(),
            metrics_listen: None,
            store: StoreConfig::Sqlite(SqliteConfig { path: PathBuf::from("unused.db") }),
            key_prefix: Vec::new(),
            password: password.and_then(|password| Password::new(password.as_bytes())),
            workers: 0,
            cache_max_bytes: 1 << 20,
            coherence: crate::keyspace::testing::COHERENCE,
            max_clients: 100,
            max_value_bytes: 1 << 20,
            touch_slack: Duration::from_secs(60),
            guarded: Vec::new(),
            guard_window: Duration::from_secs(30),
            sweeper_interval: Duration::from_secs(1),
            script_time_limit: Duration::from_secs(5),
            script_memory_limit: 1 << 26,
            shutdown_timeout: Duration::from_secs(1),
            log_format: LogFormat::Text,
            log_level: String::new(),
        };
        let listening = vec![
            Listen::Unix(PathBuf::from("/run/cloakroom.sock")),
            Listen::Tcp("127.0.0.1:7000".parse().expect("an address")),
        ];
        ServerInfo::new(&config, listening, &["get", "set"])
    }

    #[test]
    fn clients_come_and_go() {
        let server = server(None);
        let closing = CancellationToken::new();
        let first = server.register("a:1".into(), "b:2".into(), 1000, closing.clone());
        let second = server.register("a:2".into(), "b:2".into(), 2000, CancellationToken::new());
        assert_eq!((first.id(), second.id(), server.clients.count()), (1, 2, 2));

        let summary = server.clients.get(1).expect("it is registered");
        assert_eq!((summary.last_seen(), summary.last_command()), (1000, None));
        first.seen(1500, 1);
        assert_eq!((summary.last_seen(), summary.last_command()), (1500, Some(1)));

        summary.kill();
        assert!(closing.is_cancelled());
        drop(first);
        assert_eq!(server.clients.all().iter().map(|client| client.id).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn counts_begin_again_after_a_reset() {
        let server = server(None);
        server.counters.commands.store(10, Ordering::Relaxed);
        let figures = Figures { hits: 3, ..Figures::default() };
        assert_eq!(server.counts(&figures), Counts { commands: 10, hits: 3, ..Counts::default() });
        server.reset_counts(&figures);
        server.counters.commands.fetch_add(2, Ordering::Relaxed);
        assert_eq!(server.counts(&figures), Counts { commands: 2, ..Counts::default() });
    }
}
