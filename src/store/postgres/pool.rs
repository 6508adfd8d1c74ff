//! Connections to Postgres: made as the URL says, pooled by bb8, thrown away when in doubt. Knows no table.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bb8::{ErrorSink, ManageConnection, PooledConnection, QueueStrategy, RunError};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, NoTls, Statement};

use crate::config::PostgresConfig;
use crate::store::PoolState;
use crate::store::postgres::error::{Fault, Sent};
use crate::store::postgres::passfile;
use crate::store::postgres::statement::{Sql, session_setup};
use crate::store::postgres::url::{HostTarget, Target};
use crate::store::postgres::versions::Versions;
use crate::tasks::Tasks;

/// How long a statement over the whole table may take.
pub(super) const BULK_TIMEOUT: Duration = Duration::from_mins(2);

/// After a failure to connect, how long callers get that failure at once instead of another attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How often the same trouble is logged.
const LOG_PAUSE: Duration = Duration::from_secs(30);
/// A connection is replaced at this age, so that the load follows a changed DNS entry or balancer.
const MAX_LIFETIME: Duration = Duration::from_mins(30);
/// A connection beyond those in use is closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_mins(10);
/// How much longer than the server we wait for a statement, before the connection itself is in doubt.
const STATEMENT_GRACE: Duration = Duration::from_millis(500);
/// The oldest server whose behaviour we know.
const MIN_SERVER: u32 = 13;

/// The pool. Connections are checked when they are taken, without a round trip.
pub(super) struct Pool {
    inner: Mutex<Option<bb8::Pool<Manager>>>,
    health: Arc<Health>,
    connect_timeout: Duration,
    limit: Duration,
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
        let health = Arc::new(Health::new());
        let (alive, ended) = mpsc::channel(1);
        let manager = Manager {
            target,
            setup: session_setup(config.statement_timeout),
            connect_timeout: config.connect_timeout,
            tasks: tasks.clone(),
            health: Arc::clone(&health),
            versions: Arc::clone(versions),
            alive,
        };
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
            limit: config.statement_timeout + STATEMENT_GRACE,
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
                        Ok(mut connection) => {
                            connection.settled = false;
                            return Ok(Lease { connection, limit: self.limit });
                        }
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

/// A connection, taken from the pool.
pub(super) struct Lease {
    connection: PooledConnection<'static, Manager>,
    limit: Duration,
}

impl Lease {
    /// The prepared statement; prepared by this connection's first use of it.
    pub(super) async fn prepared(&mut self, sql: Sql) -> Result<Statement, Fault> {
        if let Some(statement) = &self.connection.statements[sql as usize] {
            return Ok(statement.clone());
        }
        let statement = self.connection.client.prepare(sql.text()).await?;
        self.connection.statements[sql as usize] = Some(statement.clone());
        Ok(statement)
    }

    /// How long one piece of work with statements of the usual limit may take.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Says that nothing is under way on the connection, as `result` came back: it may serve others.
    pub(super) fn settle<T>(&mut self, result: &Result<T, Fault>) {
        self.connection.settled = match result {
            Ok(_) => true,
            Err(fault) => !fault.ends_connection(),
        };
    }

    /// Says that work begins again on a connection that was settled.
    pub(super) fn unsettle(&mut self) {
        self.connection.settled = false;
    }

    /// Whether the URL demands a server that takes writes.
    pub(super) fn must_write(&self) -> bool {
        self.connection.must_write
    }
}

impl Deref for Lease {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.connection.client
    }
}

/// The result of `work`, or a fault that leaves the connection in doubt after `limit`.
pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(Fault::late()))
}

/// One connection with what was prepared on it.
pub(super) struct Connection {
    client: Client,
    statements: [Option<Statement>; Sql::COUNT],
    settled: bool,
    must_write: bool,
}

/// Makes connections for bb8.
pub(super) struct Manager {
    target: Target,
    setup: String,
    connect_timeout: Duration,
    tasks: Tasks,
    health: Arc<Health>,
    versions: Arc<Versions>,
    alive: mpsc::Sender<()>,
}

impl ManageConnection for Manager {
    type Connection = Connection;
    type Error = Fault;

    async fn connect(&self) -> Result<Connection, Fault> {
        let mut order: Vec<&HostTarget> = self.target.hosts.iter().collect();
        if self.target.shuffled {
            shuffle(&mut order);
        }
        let mut failure: Option<Fault> = None;
        for host in order {
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
        !connection.settled || connection.client.is_closed()
    }
}

impl Manager {
    /// A connection to one host, with its session set up.
    async fn connect_to(&self, host: &HostTarget) -> Result<Connection, Fault> {
        let mut config = host.config.clone();
        if config.get_password().is_none()
            && let Some(password) = self.password(host)
        {
            config.password(password);
        }
        let limit = config.get_connect_timeout().copied().unwrap_or(self.connect_timeout);
        config.connect_timeout(limit);
        let work = async {
            let client = match &self.target.tls {
                Some(tls) if !host.is_unix => {
                    let (client, connection) = config.connect(tls.clone()).await?;
                    self.check_version(connection.parameter("server_version"))?;
                    self.drive(connection);
                    client
                }
                _ => {
                    let (client, connection) = config.connect(NoTls).await?;
                    self.check_version(connection.parameter("server_version"))?;
                    self.drive(connection);
                    client
                }
            };
            client.batch_execute(&self.setup).await?;
            let statements = [const { None }; Sql::COUNT];
            Ok(Connection { client, statements, settled: true, must_write: self.target.must_write })
        };
        timeout(limit, work).await.unwrap_or_else(|_| Err(Fault::away("connecting took too long")))
    }

    /// Refuses servers that are too old to know.
    #[expect(clippy::unused_self, reason = "reads as a step of connecting")]
    fn check_version(&self, version: Option<&str>) -> Result<(), Fault> {
        let major = version.and_then(|text| text.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u32>().ok());
        match major {
            Some(major) if major < MIN_SERVER => {
                Err(Fault::permanent(&format!("the server is Postgres {major}; at least {MIN_SERVER} is needed")))
            }
            _ => Ok(()),
        }
    }

    /// Runs the connection's I/O until it ends.
    fn drive(&self, connection: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static) {
        let (alive, versions) = (self.alive.clone(), Arc::clone(&self.versions));
        self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                // Perhaps a fail-over to a server that has not seen our block of versions.
                versions.forget();
                lost(&Fault::from(error));
            }
            drop(alive);
        });
    }

    /// The password from the password file, read anew each time as it may change.
    fn password(&self, host: &HostTarget) -> Option<String> {
        let path: &PathBuf = self.target.passfile.as_ref()?;
        match passfile::read(path) {
            Ok(text) => passfile::lookup(&text, &host.account),
            Err(error) => {
                self.health.warn(&error);
                None
            }
        }
    }
}

/// A new order of `hosts`, not of cryptographic quality.
fn shuffle(hosts: &mut [&HostTarget]) {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new();
    hosts.sort_by_cached_key(|host| random.hash_one((&host.account.host, host.account.port)));
}

/// What is known of the server: the last failure to connect, shared by all who wait; and when it was logged.
struct Health {
    failures: watch::Sender<Option<(Instant, Fault)>>,
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

    fn failure(&self) -> Option<Fault> {
        self.failures.borrow().as_ref().map(|(_, fault)| fault.clone())
    }

    fn recent_failure(&self) -> Option<Fault> {
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
struct Sink(Arc<Health>);

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
