//! Makes connections as the URL says, and says in the log how that goes. Knows neither when they are needed nor for what.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bb8::{ErrorSink, ManageConnection};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_postgres::Client;

use crate::config::PostgresConfig;
use crate::store::link::Incarnation;
use crate::store::postgres::dial::{self, Dialled};
use crate::store::postgres::error::{Fault, Sent};
use crate::store::postgres::servers::{Met, Servers};
use crate::store::postgres::statement::{Sql, session_setup, transaction_setup};
use crate::store::postgres::url::{HostTarget, Target};
use crate::store::postgres::versions::Versions;
use crate::tasks::Tasks;

/// After a failure to connect, how long callers get that failure at once instead of another attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How often the same trouble is logged.
const LOG_PAUSE: Duration = Duration::from_secs(30);
/// How much longer than the server we wait for a statement, before the connection itself is in doubt.
const STATEMENT_GRACE: Duration = Duration::from_millis(500);

/// One connection with what was prepared on it.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) statements: [OnceLock<tokio_postgres::Statement>; Sql::COUNT],
    /// It is not to be used again.
    pub(super) closing: AtomicBool,
    /// Held while several statements are sent that belong together.
    pub(super) sending: Mutex<()>,
    /// The URL demands a server that takes writes.
    pub(super) must_write: bool,
    /// What it talks to; behind a pooler, what it talked to at first.
    pub(super) incarnation: Incarnation,
    /// When it was made.
    pub(super) made: std::time::Instant,
    /// It has no session of its own.
    pub(super) is_shared: bool,
}

impl Connection {
    /// One with a session of our own, with nobody on it.
    pub(super) fn new(client: Client, target: &Target, incarnation: Incarnation, made: std::time::Instant) -> Self {
        Self {
            client,
            statements: [const { OnceLock::new() }; Sql::COUNT],
            closing: AtomicBool::new(false),
            sending: Mutex::new(()),
            must_write: target.must_write,
            incarnation,
            made,
            is_shared: false,
        }
    }
}

/// What all connections have in common.
pub(super) struct Sessions {
    /// How long one piece of work with statements of the usual limit may take.
    pub(super) limit: Duration,
    /// What a transaction sets where it has no session of ours.
    pub(super) local_setup: String,
    /// Whether the last connection that was made is behind a pooler.
    shared: AtomicBool,
    /// What is known of the servers.
    pub(super) servers: Servers,
    versions: Arc<Versions>,
    last_met: AtomicU64,
}

impl Sessions {
    /// Whether it is the server that was last met.
    pub(super) fn is_met(&self, incarnation: Incarnation) -> bool {
        self.last_met.load(Ordering::Relaxed) == incarnation.0
    }

    /// A connection was lost: perhaps a fail-over to a server that has not seen our block of versions.
    pub(super) fn lost(&self) {
        self.versions.forget();
    }

    /// A server answers: is it the one that the link talks to? See [`Servers::met`].
    pub(super) async fn met(&self, incarnation: Incarnation) -> Result<(), Fault> {
        if self.last_met.swap(incarnation.0, Ordering::Relaxed) != incarnation.0 {
            self.lost();
        }
        self.servers.met(incarnation).await
    }
}

/// Makes connections for bb8.
pub(super) struct Manager {
    target: Target,
    statement_timeout: Duration,
    pub(super) sessions: Arc<Sessions>,
    connect_timeout: Duration,
    tasks: Tasks,
    pub(super) health: Arc<Health>,
    alive: mpsc::Sender<()>,
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = Fault;

    async fn connect(&self) -> Result<Connection, Fault> {
        let mut failure: Option<Fault> = None;
        for host in dial::order(&self.target) {
            match self.connect_to(host).await {
                Ok(connection) => {
                    self.health.succeeded();
                    return Ok(connection);
                }
                // A host that may come back matters more than one that will not have us.
                Err(fault) if fault.is_permanent() && failure.is_some() => {}
                Err(fault) => failure = Some(fault),
            }
        }
        let failure = failure.unwrap_or_else(|| Fault::permanent("the store URL names no host"));
        self.health.failed(&failure);
        Err(failure)
    }

    async fn is_valid(&self, connection: &mut Connection) -> Result<(), Fault> {
        Ok(connection.client.check_connection().await?)
    }

    fn has_broken(&self, connection: &mut Connection) -> bool {
        *connection.closing.get_mut() || connection.client.is_closed()
    }
}

impl Manager {
    /// For the hosts of a URL. Each connection holds a clone of `alive` as long as it lives.
    pub(super) fn new(
        target: Target,
        config: &PostgresConfig,
        tasks: &Tasks,
        versions: &Arc<Versions>,
        alive: mpsc::Sender<()>,
    ) -> Self {
        let sessions = Sessions {
            limit: config.statement_timeout + STATEMENT_GRACE,
            local_setup: transaction_setup(config.statement_timeout),
            shared: AtomicBool::new(false),
            servers: Servers::default(),
            versions: Arc::clone(versions),
            last_met: AtomicU64::new(0),
        };
        Self {
            target,
            statement_timeout: config.statement_timeout,
            sessions: Arc::new(sessions),
            connect_timeout: config.connect_timeout,
            tasks: tasks.clone(),
            health: Arc::new(Health::new()),
            alive,
        }
    }

    /// A connection to one host, with its session set up.
    async fn connect_to(&self, host: &HostTarget) -> Result<Connection, Fault> {
        let limit = dial::patience(host, self.connect_timeout);
        let work = async {
            let made = std::time::Instant::now();
            let dialled = dial::dial(&self.target, host, limit, |error| self.health.warn(error)).await?;
            let Dialled { client, wire, mark } = dialled;
            self.drive(wire.run());
            let setup = session_setup(self.statement_timeout, &mark);
            let met = Met::from_answer(&client.simple_query(&setup).await?)?;
            let is_shared = met.mark != mark;
            if self.sessions.shared.swap(is_shared, Ordering::Relaxed) != is_shared && is_shared {
                tracing::info!("postgres is behind a pooler: statements are not prepared");
            }
            self.sessions.met(met.incarnation).await?;
            Ok(Connection { is_shared, ..Connection::new(client, &self.target, met.incarnation, made) })
        };
        timeout(limit, work).await.unwrap_or_else(|_| Err(Fault::away("connecting took too long")))
    }

    /// Runs the connection's I/O until it ends.
    fn drive(&self, connection: impl Future<Output = Result<(), Fault>> + Send + 'static) {
        let (alive, sessions) = (self.alive.clone(), Arc::clone(&self.sessions));
        self.tasks.spawn(async move {
            if let Err(fault) = connection.await {
                sessions.lost();
                lost(&fault);
            }
            drop(alive);
        });
    }
}

/// What is known of the server: the last failure to connect, shared by all who wait; and when it was logged.
pub(super) struct Health {
    pub(super) failures: watch::Sender<Option<(Instant, Fault)>>,
    logged: Mutex<Option<Instant>>,
}

impl Health {
    fn new() -> Self {
        Self { failures: watch::Sender::new(None), logged: Mutex::new(None) }
    }

    fn failed(&self, fault: &Fault) {
        self.failures.send_replace(Some((Instant::now(), fault.clone())));
    }

    fn succeeded(&self) {
        let before = self.failures.send_replace(None);
        if before.is_some() {
            *self.logged.lock().unwrap_or_else(PoisonError::into_inner) = None;
            tracing::info!("postgres can be reached again");
        }
    }

    /// The last failure to connect, if nothing has succeeded since.
    pub(super) fn failure(&self) -> Option<Fault> {
        self.failures.borrow().as_ref().map(|(_, fault)| fault.clone())
    }

    /// The same, if it has just happened.
    pub(super) fn recent_failure(&self) -> Option<Fault> {
        let failure = self.failures.borrow();
        failure.as_ref().filter(|(at, _)| at.elapsed() < RETRY_PAUSE).map(|(_, fault)| fault.clone())
    }

    fn may_log(&self) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let may = logged.is_none_or(|at| at.elapsed() >= LOG_PAUSE);
        if may {
            *logged = Some(Instant::now());
        }
        may
    }

    fn warn(&self, error: &str) {
        if self.may_log() {
            tracing::warn!(error, "password file not used");
        }
    }
}

/// Under kill or restart of the server each connection says so; once each, as each ends once.
fn lost(fault: &Fault) {
    tracing::info!(error = %fault, kind = fault.kind(Sent::Nothing).label(), "postgres connection ended");
}

/// Logs failures to connect, which bb8 finds in its own tasks.
#[derive(Clone)]
pub(super) struct Sink(pub(super) Arc<Health>);

impl ErrorSink<Fault> for Sink {
    fn sink(&self, fault: Fault) {
        if self.0.may_log() {
            tracing::warn!(error = %fault, "cannot connect to postgres");
        }
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<Fault>> {
        Box::new(self.clone())
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink")
    }
}
