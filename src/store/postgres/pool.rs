//! Connections to Postgres, pooled by bb8 and thrown away when in doubt. Knows no table.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bb8::{ManageConnection, QueueStrategy, RunError};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::config::PostgresConfig;
use crate::store::PoolState;
use crate::store::postgres::error::Fault;
use crate::store::postgres::lease::Lease;
use crate::store::postgres::manager::{Connection, Health, Manager, Sessions, Sink};
use crate::store::postgres::servers::Linked;
use crate::store::postgres::taken::Taken;
use crate::store::postgres::url::Target;
use crate::store::postgres::versions::Versions;
use crate::tasks::Tasks;

/// How long a statement over the whole table may take.
pub(super) const BULK_TIMEOUT: Duration = Duration::from_mins(2);

/// A connection is replaced at this age, so that the load follows a changed DNS entry or balancer.
const MAX_LIFETIME: Duration = Duration::from_mins(30);
/// A connection beyond those in use is closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_mins(10);
/// The pool. Connections are checked when they are taken, without a round trip.
pub(super) struct Pool {
    inner: Mutex<Option<bb8::Pool<Manager>>>,
    health: Arc<Health>,
    connect_timeout: Duration,
    sessions: Arc<Sessions>,
    /// The connection that was last taken for work which others may follow.
    lane: Mutex<Weak<Taken>>,
    /// The connection of the link, if others may use it.
    link: Mutex<Weak<Taken>>,
    /// Ends when the last driver of a connection has ended.
    ended: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

impl Pool {
    /// A pool that holds one connection, made by this call so that its failure is seen.
    pub(super) async fn open(
        target: Target,
        config: &PostgresConfig,
        tasks: &Tasks,
        versions: &Arc<Versions>,
    ) -> Result<Self, Fault> {
        let (alive, ended) = mpsc::channel(1);
        let manager = Manager::new(target, config, tasks, versions, alive);
        let (sessions, health) = (Arc::clone(&manager.sessions), Arc::clone(&manager.health));
        let first = manager.connect().await?;
        let inner = bb8::Pool::builder()
            .max_size(config.connections.max(1))
            .min_idle(None)
            .test_on_check_out(false)
            .max_lifetime(Some(MAX_LIFETIME))
            .idle_timeout(Some(IDLE_TIMEOUT))
            .reaper_rate(Duration::from_secs(30))
            .connection_timeout(config.connect_timeout)
            // Waiting callers are told of the failure instead; the next caller is the retry.
            .retry_connection(false)
            .error_sink(Box::new(Sink(Arc::clone(&health))))
            // The last used first, so that connections beyond the need become idle and are closed.
            .queue_strategy(QueueStrategy::Lifo)
            .build_unchecked(manager);
        // Cannot be full yet; if the connection broke already, the next caller makes another.
        let _ = inner.add(first);
        Ok(Self {
            inner: Mutex::new(Some(inner)),
            health,
            connect_timeout: config.connect_timeout,
            sessions,
            lane: Mutex::default(),
            link: Mutex::default(),
            ended: tokio::sync::Mutex::new(ended),
        })
    }

    /// A connection for one caller. Dropping it unsettled closes it.
    ///
    /// Fails within the connect timeout; at once when the server has just refused and no connection is left.
    pub(super) async fn get(&self) -> Result<Lease, Fault> {
        let pool = self.current().ok_or_else(|| Fault::away("the store was closed"))?;
        let no_connection = |pool: &bb8::Pool<Manager>| pool.state().connections == 0;
        if let Some(fault) = self.health.recent_failure()
            && no_connection(&pool)
        {
            return Err(fault);
        }
        let mut failures = self.health.failures.subscribe();
        let work = async {
            loop {
                tokio::select! {
                    biased;
                    got = pool.get_owned() => match got {
                        // One that broke while it was idle; dropping it makes room for another.
                        Ok(connection) if connection.client.is_closed() => {}
                        // One to a server that was left.
                        Ok(connection) if self.has_left(&connection) => {
                            connection.closing.store(true, Ordering::Relaxed);
                        }
                        Ok(connection) => return Ok(Lease::new(connection, Arc::clone(&self.sessions))),
                        Err(RunError::User(fault)) => return Err(fault),
                        Err(RunError::TimedOut) => return Err(Fault::away("no connection became free in time")),
                    },
                    Ok(()) = failures.changed() => {
                        let failure = failures.borrow_and_update().clone();
                        if let Some((_, fault)) = failure && no_connection(&pool) {
                            return Err(fault);
                        }
                    }
                }
            }
        };
        match timeout(self.connect_timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(self.health.failure().unwrap_or_else(|| Fault::away("no connection became free in time"))),
        }
    }

    /// A connection for work that is sent whole and leaves no transaction open: one with such work under way, so that the
    /// server goes from one to the other without waiting for us, or else one of its own. Fails as [`Pool::get`] does.
    ///
    /// `hurried`: it may give up soon where somebody has locked a row. Such work goes on the link if that takes it: a session
    /// that listens itself need not be woken for what it announces.
    ///
    /// Statements that depend on each other's answers must not run on it: others may come between them.
    pub(super) async fn get_behind(&self, hurried: bool) -> Result<Lease, Fault> {
        // What is read comes from the server that the pool talks to, which may not be the link's.
        let is_same = |link: &Connection| self.sessions.is_met(link.incarnation);
        if hurried && let Some(lease) = following(&self.link, is_same) {
            return Ok(lease);
        }
        if let Some(lease) = following(&self.lane, |connection| !self.has_left(connection)) {
            return Ok(lease);
        }
        let mut lease = self.get().await?;
        // A pooler may give each transaction another server, and so order nothing.
        if lease.has_session() {
            *self.lane.lock().unwrap_or_else(PoisonError::into_inner) = lease.open();
        }
        Ok(lease)
    }

    /// The daemon has a new link, with this connection if others may use it. Connections to other servers are not used any
    /// more, and a newer one ends the link.
    pub(super) fn linked(&self, link: Linked, connection: Weak<Taken>) {
        self.sessions.servers.linked(link);
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = connection;
    }

    /// What all connections have in common.
    pub(super) fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    fn has_left(&self, connection: &Connection) -> bool {
        !connection.is_shared && self.sessions.servers.has_left(connection.incarnation, connection.made)
    }

    /// Gauges.
    pub(super) fn state(&self) -> PoolState {
        let state = self.current().map(|pool| pool.state());
        state.map_or_else(PoolState::default, |state| PoolState {
            open: state.connections,
            idle: state.idle_connections,
        })
    }

    /// Refuses new callers, and waits until those that have a connection are done and all connections have ended.
    pub(super) async fn close(&self) {
        drop(self.inner.lock().unwrap_or_else(PoisonError::into_inner).take());
        // Nothing is ever sent: this returns when every sender, one per connection and the manager's, is gone.
        while self.ended.lock().await.recv().await.is_some() {}
    }

    fn current(&self) -> Option<bb8::Pool<Manager>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn following(taken: &Mutex<Weak<Taken>>, fits: impl Fn(&Connection) -> bool) -> Option<Lease> {
    let taken = taken.lock().unwrap_or_else(PoisonError::into_inner).upgrade()?;
    if fits(taken.connection()) { Lease::follow(taken) } else { None }
}
