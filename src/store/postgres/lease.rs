//! A connection that was taken from the pool, and how statements run on it. Knows no table.
//!
//! Behind a transaction pooler (such as `PgBouncer`) each transaction may get another session. So nothing is assumed of
//! sessions there: statements have no name and go with the types of their parameters, in one round trip; a transaction
//! that writes sets for itself what sessions of our own are set to; and what may be cached says which server it is from.

use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use bb8::PooledConnection;
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};

use crate::store::postgres::error::Fault;
use crate::store::postgres::manager::{Connection, Manager, Sessions};
use crate::store::postgres::servers::Met;
use crate::store::postgres::statement::{INCARNATION, Sql};
use crate::store::postgres::taken::Taken;

/// A statement, ready to be run on the lease that it was prepared by.
pub(super) enum Statement {
    /// Known to the session.
    Named(tokio_postgres::Statement),
    /// To be sent with its parameters.
    Unnamed(Sql),
}

/// A connection for one piece of work. Dropping it unsettled closes the connection, once nobody else uses it.
pub(super) struct Lease {
    taken: Arc<Taken>,
    is_settled: bool,
    /// Pieces of work on the connection that the server does first.
    ahead: u32,
    /// Nobody else uses the connection, so that a transaction may be left open for a while.
    pub(super) is_exclusive: bool,
}

impl Lease {
    /// Takes a connection for one caller alone; it is unsettled.
    pub(super) fn new(connection: PooledConnection<'static, Manager>, sessions: Arc<Sessions>) -> Self {
        let taken = Arc::new(Taken::from_pool(connection, sessions));
        Self { taken, is_settled: false, ahead: 0, is_exclusive: true }
    }

    /// Lets others [`Lease::follow`], which leave no transaction open either.
    pub(super) fn open(&mut self) -> Weak<Taken> {
        self.is_exclusive = false;
        Arc::downgrade(&self.taken)
    }

    /// Another piece of work on a connection that is in use, if it takes one; unsettled.
    pub(super) fn follow(taken: Arc<Taken>) -> Option<Self> {
        let ahead = taken.board()?;
        Some(Self { taken, is_settled: false, ahead, is_exclusive: false })
    }

    /// What this is a lease of.
    pub(super) fn connection(&self) -> &Connection {
        self.taken.connection()
    }

    /// The statement, prepared by this connection's first use of it.
    pub(super) async fn prepared(&self, sql: Sql) -> Result<Statement, Fault> {
        let connection = self.connection();
        if connection.is_shared {
            return Ok(Statement::Unnamed(sql));
        }
        let known = &connection.statements[sql as usize];
        if let Some(statement) = known.get() {
            return Ok(Statement::Named(statement.clone()));
        }
        let statement = connection.client.prepare(sql.text()).await?;
        // Two who share the connection may both have prepared it.
        Ok(Statement::Named(known.get_or_init(|| statement).clone()))
    }

    /// The rows of a statement, which is sent when this is first polled.
    pub(super) async fn query(&self, statement: &Statement, values: Values<'_>) -> Result<Vec<Row>, Error> {
        match statement {
            Statement::Named(statement) => self.connection().client.query(statement, values).await,
            Statement::Unnamed(sql) => {
                Box::pin(self.connection().client.query_typed(sql.text(), &typed(*sql, values))).await
            }
        }
    }

    /// The one row of a statement.
    pub(super) async fn query_one(&self, statement: &Statement, values: Values<'_>) -> Result<Row, Error> {
        match statement {
            Statement::Named(statement) => self.connection().client.query_one(statement, values).await,
            Statement::Unnamed(sql) => {
                Box::pin(self.connection().client.query_typed_one(sql.text(), &typed(*sql, values))).await
            }
        }
    }

    /// The row of a statement, if there is one.
    pub(super) async fn query_opt(&self, statement: &Statement, values: Values<'_>) -> Result<Option<Row>, Error> {
        match statement {
            Statement::Named(statement) => self.connection().client.query_opt(statement, values).await,
            Statement::Unnamed(sql) => {
                Box::pin(self.connection().client.query_typed_opt(sql.text(), &typed(*sql, values))).await
            }
        }
    }

    /// Runs a statement that returns nothing of interest.
    pub(super) async fn execute(&self, statement: &Statement, values: Values<'_>) -> Result<u64, Error> {
        match statement {
            Statement::Named(statement) => self.connection().client.execute(statement, values).await,
            Statement::Unnamed(sql) => {
                Box::pin(self.connection().client.execute_typed(sql.text(), &typed(*sql, values))).await
            }
        }
    }

    /// Whether the session gives up soon where somebody has locked a row.
    pub(super) fn is_hurried(&self) -> bool {
        self.taken.is_link()
    }

    /// Whether a statement by itself has the settings that statements which write need.
    pub(super) fn has_session(&self) -> bool {
        !self.connection().is_shared
    }

    /// Begins a transaction with these further settings, sent when this is first polled.
    pub(super) async fn begin(&self, settings: &str) -> Result<(), Fault> {
        if self.has_session() {
            let text = format!("BEGIN; {settings}");
            return Ok(Box::pin(self.connection().client.batch_execute(&text)).await?);
        }
        let text = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; {}; {settings}; {INCARNATION}",
            self.taken.sessions.local_setup
        );
        Box::pin(self.meet(&text)).await
    }

    /// Runs reads that are all sent when `work` is first polled. What they find may be cached.
    pub(super) async fn read<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        if self.has_session() {
            return work.await;
        }
        let opening = format!("BEGIN READ ONLY; {INCARNATION}");
        let (begun, done, ended) = tokio::join!(biased;
            Box::pin(self.meet(&opening)),
            work,
            self.connection().client.batch_execute("COMMIT"),
        );
        begun?;
        let done = done?;
        ended?;
        Ok(done)
    }

    /// Runs simple statements of which the last says what server this is.
    async fn meet(&self, text: &str) -> Result<(), Fault> {
        let messages = self.connection().client.simple_query(text).await?;
        self.taken.sessions.met(Met::from_answer(&messages)?.incarnation).await
    }

    /// The result of `work`; or a fault that leaves the connection in doubt, after `limit`, or when somebody else on the
    /// connection has left it in doubt: the server answers in order.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let work = async {
            tokio::select! {
                biased;
                done = work => done,
                () = self.taken.doubted() => Err(Fault::late()),
            }
        };
        timeout(limit, work).await.unwrap_or_else(|_| Err(Fault::late()))
    }

    /// How long one piece of work with statements of the usual limit may take, and what the server does before it.
    pub(super) fn limit(&self) -> Duration {
        self.taken.sessions.limit * (1 + self.ahead)
    }

    /// Says that nothing of this is under way on the connection, as `result` came back: it may serve others.
    pub(super) fn settle<T>(&mut self, result: &Result<T, Fault>) {
        let is_over = match result {
            Ok(_) => true,
            Err(fault) => !fault.ends_connection(),
        };
        if is_over && !self.is_settled {
            self.is_settled = true;
            self.taken.settle();
        }
    }

    /// Whether the connection may be used again.
    pub(super) fn lasts(&self) -> bool {
        !self.connection().closing.load(Ordering::Relaxed)
    }

    /// Says that the connection should not be used again, though what is under way on it may go on.
    pub(super) fn retire(&self) {
        self.taken.close();
    }

    /// Says that work begins again on a connection that was settled.
    pub(super) fn unsettle(&mut self) {
        if self.is_settled {
            self.is_settled = false;
            self.ahead = self.taken.unsettle();
        }
    }

    /// Whether the URL demands a server that takes writes.
    pub(super) fn must_write(&self) -> bool {
        self.connection().must_write
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.taken.leave(self.is_settled);
    }
}

impl Deref for Lease {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.connection().client
    }
}

/// The values of a statement's parameters.
pub(super) type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// The values with their types.
fn typed(sql: Sql, values: Values<'_>) -> Vec<(&(dyn ToSql + Sync), Type)> {
    debug_assert_eq!(sql.types().len(), values.len(), "{sql:?}");
    values.iter().copied().zip(sql.types().iter().cloned()).collect()
}

/// Runs work that sends all it has to say when it is first polled, and lets nothing come between of other tasks that send in
/// the same way.
pub(super) async fn whole<T>(sending: &Mutex<()>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    let sent = poll_fn(|cx| {
        let _turn = sending.lock().unwrap_or_else(PoisonError::into_inner);
        Poll::Ready(work.as_mut().poll(cx))
    });
    match sent.await {
        Poll::Ready(done) => done,
        Poll::Pending => work.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tasks::Tasks;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_sent_whole_is_not_mixed() {
        let (sending, sent) = (Arc::new(Mutex::new(())), Arc::new(Mutex::new(Vec::new())));
        let tasks = ["a", "b"].map(|name| {
            let (sending, sent) = (Arc::clone(&sending), Arc::clone(&sent));
            Tasks::default().spawn(async move {
                for _ in 0..20 {
                    let work = async {
                        for _ in 0..3 {
                            sent.lock().expect("nobody panics").push(name);
                            std::thread::sleep(Duration::from_micros(100));
                        }
                        tokio::task::yield_now().await;
                    };
                    whole(&sending, work).await;
                }
            })
        });
        for task in tasks {
            task.await.expect("it does not panic");
        }
        let sent = sent.lock().expect("nobody panics");
        assert!(sent.chunks(3).all(|work| work.iter().all(|name| name == &work[0])), "{sent:?}");
    }
}
