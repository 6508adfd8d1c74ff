//! Cloakroom: a Redis-protocol session store whose truth is Postgres. `ARCHITECTURE.md` is the map.
//!
//! This file builds everything and owns the order in which it starts and ends.

pub mod command;
pub mod config;
pub mod entry;
pub mod glob;
pub mod keyspace;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod resp;
pub mod script;
pub mod server;
pub mod signals;
pub mod store;
pub mod tasks;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::sync::{SetOnce, watch};
use tokio::task::JoinError;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::command::server::ServerInfo;
use crate::config::password::Password;
use crate::config::{Config, Listen, StoreConfig};
use crate::keyspace::config::KeyspaceConfig;
use crate::keyspace::{Keyspace, Work};
use crate::limits::RequestLimits;
use crate::server::accept;
use crate::server::admin;
use crate::server::bind::{self, BindError, Listener};
use crate::server::shared::Shared;
use crate::server::tally::Commands;
use crate::store::Store;
use crate::store::error::StoreError;
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::SqliteStore;
use crate::tasks::Tasks;

/// The pause between two tries to reach a store at the start.
const OPEN_PAUSE: Duration = Duration::from_secs(1);
/// More commits that are stuck at once hold up others: each keeps a connection and up to a batch of memory.
const MAX_DETOURS: usize = 8;

/// Listeners, bound.
pub struct Bound {
    clients: Vec<Listener>,
    metrics: Option<TcpListener>,
}

/// Why the daemon ended, other than by being asked to.
#[derive(Debug)]
pub enum RunError {
    /// The store can never be opened as it is configured.
    Store(StoreError),
    /// A task that everything depends on has ended.
    Task(&'static str, Option<JoinError>),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(_) => f.write_str("cannot open the store"),
            Self::Task(name, _) => write!(f, "the {name} ended"),
        }
    }
}

impl std::error::Error for RunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Task(_, error) => error.as_ref().map(|error| error as _),
        }
    }
}

/// Binds everything that is listened on. Must be called inside of a runtime.
pub fn bind(config: &Config) -> Result<Bound, BindError> {
    let clients = config.listen.iter().map(Listener::bind).collect::<Result<_, _>>()?;
    let metrics = config.metrics_listen.map(bind::metrics).transpose()?;
    Ok(Bound { clients, metrics })
}

/// Serves until `shutdown` resolves, and then until what was begun is done, within the configured deadline.
///
/// From the start clients are accepted, and told to wait (`LOADING`) until the store has been reached.
///
/// `passwords` may bring another password at any time; `panics` is counted up by the process's panic hook.
pub async fn run(
    config: Config,
    bound: Bound,
    shutdown: impl Future<Output = ()>,
    passwords: watch::Receiver<Option<Password>>,
    panics: Arc<AtomicU64>,
) -> Result<(), RunError> {
    let daemon = Daemon::start(&config, bound, panics);
    daemon.background.spawn(follow_password(passwords, Arc::clone(&daemon.shared), daemon.stop_admin.clone()));
    let mut shutdown = std::pin::pin!(shutdown);
    let opened = tokio::select! {
        opened = daemon.open_store(&config) => Some(opened?),
        () = &mut shutdown => None,
    };
    let result = match opened {
        None => Ok(()),
        Some((store, mut work)) => {
            announce(&config);
            let result = tokio::select! {
                () = &mut shutdown => Ok(()),
                Some((name, ended)) = work.next() => Err(RunError::Task(name, ended.err())),
            };
            let deadline = Instant::now() + config.shutdown_timeout;
            daemon.drain_clients(deadline).await;
            if result.is_ok() {
                daemon.settle(deadline).await;
            }
            daemon.stop_work.cancel();
            if result.is_ok() {
                while work.next().await.is_some() {}
                store.close().await;
            }
            result
        }
    };
    daemon.stop_admin.cancel();
    tracing::info!("stopped");
    result
}

type RunningWork = FuturesUnordered<futures_util::future::BoxFuture<'static, (&'static str, Result<(), JoinError>)>>;

/// What runs.
struct Daemon {
    shared: Arc<Shared>,
    clients: Tasks,
    background: Tasks,
    stop_work: CancellationToken,
    stop_admin: CancellationToken,
}

impl Daemon {
    /// Starts the listeners.
    fn start(config: &Config, bound: Bound, panics: Arc<AtomicU64>) -> Self {
        let listening: Vec<Listen> = bound.clients.iter().filter_map(Listener::listening).collect();
        for listener in &bound.clients {
            tracing::info!(addr = %listener.address(), "listening");
        }
        let (clients, background) = (Tasks::default(), Tasks::default());
        let shared = Arc::new(Shared {
            keyspace: SetOnce::new(),
            info: ServerInfo::new(config, listening, command::table::names()),
            commands: Commands::new(),
            panics,
            request_limits: RequestLimits {
                max_bulk: limits::REQUEST.max_bulk.max(config.max_value_bytes),
                ..limits::REQUEST
            },
            stop: CancellationToken::new(),
            tasks: clients.clone(),
        });
        let stop_admin = CancellationToken::new();
        for listener in bound.clients {
            clients.spawn(accept::run(listener, Arc::clone(&shared)));
        }
        if let Some(listener) = bound.metrics {
            if let Ok(addr) = listener.local_addr() {
                tracing::info!(%addr, "metrics listening");
            }
            background.spawn(admin::run(listener, Arc::clone(&shared), stop_admin.clone()));
        }
        if let Some(every) = sd_notify::watchdog_enabled() {
            background.spawn(feed_watchdog(every / 2, stop_admin.clone()));
        }
        Self { shared, clients, background, stop_work: CancellationToken::new(), stop_admin }
    }

    /// Opens the store, waiting for one that cannot be reached yet, and starts the keyspace on it.
    async fn open_store(&self, config: &Config) -> Result<(Arc<dyn Store>, RunningWork), RunError> {
        let mut said = false;
        let (store, keyspace, work) = loop {
            let error = match self.try_open(config).await {
                Ok(opened) => break opened,
                Err(error) => error,
            };
            if error.is_permanent() {
                return Err(RunError::Store(error));
            }
            if !std::mem::replace(&mut said, true) {
                tracing::warn!(error = %store::error::Chain(&error), "waiting for the store");
            }
            sleep(OPEN_PAUSE).await;
        };
        let running = work
            .into_iter()
            .map(|Work { name, future }| {
                let handle = self.background.spawn(future);
                Box::pin(async move { (name, handle.await) }) as _
            })
            .collect();
        keyspace.settled().await;
        // Set once, here.
        let _ = self.shared.keyspace.set(keyspace);
        Ok((store, running))
    }

    async fn try_open(&self, config: &Config) -> Result<(Arc<dyn Store>, Arc<Keyspace>, Vec<Work>), StoreError> {
        let store: Arc<dyn Store> = match &config.store {
            StoreConfig::Sqlite(sqlite) => Arc::new(SqliteStore::open(sqlite)?),
            StoreConfig::Postgres(postgres) => Arc::new(PostgresStore::open(postgres, &self.background).await?),
        };
        let keyspace_config = KeyspaceConfig {
            prefix: config.key_prefix.clone(),
            cache_max_bytes: config.cache_max_bytes,
            max_value_bytes: config.max_value_bytes,
            sweeper_interval: config.sweeper_interval,
            coherence: config.coherence,
            shared: matches!(config.store, StoreConfig::Postgres(_)),
            detours: detours(&config.store),
            touch_slack: config.touch_slack,
            guarded: config.guarded.clone(),
            guard_window: config.guard_window,
        };
        let (keyspace, work) = Keyspace::new(keyspace_config, Arc::clone(&store), &self.stop_work).await?;
        Ok((store, keyspace, work))
    }

    /// Stops accepting, lets connections finish the batch that they are at, waits for them until the deadline.
    async fn drain_clients(&self, deadline: Instant) {
        tracing::info!(clients = self.shared.info.clients.count(), "stopping");
        let _ = sd_notify::notify(&[NotifyState::Stopping]);
        self.shared.stop.cancel();
        if timeout_at(deadline, self.clients.finished()).await.is_err() {
            tracing::warn!(clients = self.shared.info.clients.count(), "clients did not finish in time");
        }
    }

    /// Writes down what was answered from memory, as far as the deadline allows.
    async fn settle(&self, deadline: Instant) {
        if let Some(keyspace) = self.shared.keyspace.get()
            && timeout_at(deadline, keyspace.settle()).await.is_err()
        {
            tracing::warn!("not every touched expiry could be written in time");
        }
    }
}

/// Stuck commits keep at most half of the connections. `SQLite` does one commit after the other, whatever is sent.
fn detours(store: &StoreConfig) -> usize {
    match store {
        StoreConfig::Sqlite(_) => 0,
        StoreConfig::Postgres(postgres) => MAX_DETOURS.min(postgres.connections as usize / 2),
    }
}

/// The banner, and the word to systemd that we are ready.
fn announce(config: &Config) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        store = %config.store,
        cache_max_bytes = config.cache_max_bytes,
        protected_mode = config.password.is_none(),
        key_prefix_bytes = config.key_prefix.len(),
        "cloakroom is ready"
    );
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}

async fn follow_password(
    mut passwords: watch::Receiver<Option<Password>>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            Ok(()) = passwords.changed() => shared.info.set_password(passwords.borrow_and_update().clone()),
            () = stop.cancelled() => return,
        }
    }
}

async fn feed_watchdog(every: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = sleep(every) => {}
            () = stop.cancelled() => return,
        }
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
    }
}
