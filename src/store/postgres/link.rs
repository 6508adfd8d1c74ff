//! The link between daemons on Postgres: a connection of its own, to a server that takes writes, with LISTEN and NOTIFY.
//! It knows nothing of what is announced.
//!
//! Postgres puts the notifications of a transaction into one queue at its commit, under a lock that it holds until the
//! commit is done, and a session hears of a transaction only when it would see it. So what is heard comes in the order of
//! commits, and a load that begins after it sees what it is about.

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, Statement};
use tokio_util::sync::CancellationToken;

use crate::config::PostgresConfig;
use crate::store::error::StoreError;
use crate::store::link::{Link, LinkEvent, Order};
use crate::store::postgres::dial::{self, Dialled, Wire};
use crate::store::postgres::error::{Fault, Sent};
use crate::store::postgres::lease::whole;
use crate::store::postgres::manager::Connection;
use crate::store::postgres::pool::Pool;
use crate::store::postgres::servers::{Linked, Met};
use crate::store::postgres::statement::{ANNOUNCE, ENTER, LEAVE, MEMBERS, RENEW, link_setup};
use crate::store::postgres::taken::Taken;
use crate::store::postgres::url::{self, HostTarget, Target};
use crate::tasks::Tasks;

/// Events that wait for the daemon; beyond, the server waits with them.
const MAX_EVENTS: usize = 1024;

/// Orders that wait for the server.
const MAX_ORDERS: usize = 256;

/// Prepared on the link.
struct Statements {
    notify: Statement,
    enter: Statement,
    renew: Statement,
    members: Statement,
    leave: Statement,
}

/// Makes links.
pub(super) struct Linker {
    target: Arc<Target>,
    connect_timeout: Duration,
    statement_timeout: Duration,
    /// The link goes the same way as everything else.
    is_same: bool,
    tasks: Tasks,
    /// Ends all links.
    closed: CancellationToken,
}

impl Linker {
    /// For the URL of the configuration that is meant for it. Connects to nothing.
    pub(super) fn new(config: &PostgresConfig, tasks: &Tasks) -> Result<Self, StoreError> {
        let url = config.listen_url.as_ref().unwrap_or(&config.url);
        let target = url::parse(url, &|name| std::env::var(name).ok())
            .map_err(|faults| StoreError::permanent(faults.join("; ")))?;
        Ok(Self {
            target: Arc::new(target),
            connect_timeout: config.connect_timeout,
            statement_timeout: config.statement_timeout,
            is_same: config.listen_url.is_none(),
            tasks: tasks.clone(),
            closed: CancellationToken::new(),
        })
    }

    /// A link to the first host that takes writes, of which the pool is told. `for_commits`: small ones may go on it, if it
    /// goes the same way as they do otherwise.
    pub(super) async fn link(&self, pool: &Pool, for_commits: bool) -> Result<Link, Fault> {
        let timeout_of_commits = (for_commits && self.is_same).then_some(self.statement_timeout);
        let mut failure: Option<Fault> = None;
        for host in dial::order(&self.target) {
            let limit = dial::patience(host, self.connect_timeout);
            let linked = timeout(limit, self.link_to(host, limit, pool, timeout_of_commits)).await;
            match linked.unwrap_or_else(|_| Err(Fault::away("connecting took too long"))) {
                Ok(link) => return Ok(link),
                // That one is there but takes no writes says more than that another is away.
                Err(fault) if failure.as_ref().is_none_or(|held| !held.is_read_only()) => failure = Some(fault),
                Err(_) => {}
            }
        }
        Err(failure.unwrap_or_else(|| Fault::permanent("the URL of the link names no host")))
    }

    async fn link_to(
        &self,
        host: &HostTarget,
        limit: Duration,
        pool: &Pool,
        timeout_of_commits: Option<Duration>,
    ) -> Result<Link, Fault> {
        let Dialled { client, mut wire, mark } = dial::dial(&self.target, host, limit, |_| {}).await?;
        let since = Instant::now();
        let (mut heard, events) = mpsc::channel(MAX_EVENTS);
        let setup = set_up(client, &mark, timeout_of_commits);
        tokio::pin!(setup);
        // Nobody drives the connection yet but we. What it hears already counts.
        let mut early = Vec::new();
        let (client, met, statements) = loop {
            tokio::select! {
                biased;
                message = poll_fn(|cx| wire.poll_message(cx)) => match message {
                    Some(message) => early.extend(event_of(message?)),
                    None => return Err(Fault::away("the server ended the connection")),
                },
                ready = &mut setup => break ready?,
            }
        };
        let (orders, mut ordered) = mpsc::channel(MAX_ORDERS);
        let incarnation = met.incarnation;
        let Some(statements) = statements else {
            // Whoever receives finds the end.
            return Ok(Link { incarnation, events, orders, since, is_direct: false });
        };
        let (end, ended) = (self.closed.child_token(), CancellationToken::new());
        let connection = Connection::new(client, &self.target, incarnation, since);
        let taken = Arc::new(Taken::of_link(connection, Arc::clone(pool.sessions()), end.clone()));
        let for_commits = if timeout_of_commits.is_some() { Arc::downgrade(&taken) } else { Weak::new() };
        pool.linked(Linked { incarnation, since, end: end.clone(), ended: ended.clone() }, for_commits);
        self.tasks.spawn(async move {
            let work = async {
                for event in early {
                    let _ = heard.send(event).await;
                }
                drive(&mut wire, taken.connection(), statements, &mut ordered, &mut heard).await
            };
            let result = tokio::select! {
                result = work => result,
                () = end.cancelled() => Ok(()),
            };
            // Nobody comes onto it any more.
            end.cancel();
            // The daemon sees the end of events, draws its conclusions, and lets go of the link.
            drop(heard);
            let let_go = async {
                while ordered.recv().await.is_some() {}
                ended.cancel();
            };
            tokio::join!(let_go, part(result, wire, &taken));
        });
        Ok(Link { incarnation, events, orders, since, is_direct: true })
    }

    /// Ends all links.
    pub(super) async fn close(&self) {
        self.closed.cancel();
        tokio::task::yield_now().await;
    }
}

/// Parts with the connection of a link that has ended so.
async fn part(ended: Result<(), Fault>, mut wire: Wire, taken: &Taken) {
    match ended {
        Ok(()) => finish(&mut wire, taken).await,
        Err(fault) => {
            tracing::info!(error = %fault, kind = fault.kind(Sent::Nothing).label(), "link to postgres ended");
            taken.sessions.lost();
        }
    }
}

/// Lets commits that are under way on a link that has ended go on to their end.
async fn finish(wire: &mut Wire, taken: &Taken) {
    while taken.is_ridden() {
        tokio::select! {
            message = poll_fn(|cx| wire.poll_message(cx)) => {
                // What it still hears is of no use; the riders find out by themselves that it was lost.
                if !matches!(message, Some(Ok(_))) {
                    return;
                }
            }
            () = taken.emptied() => {}
        }
    }
}

/// Makes a session hear announcements, and readies it to send them; not one that others may get, as notifications for one
/// of them go to any.
async fn set_up(
    client: Client,
    mark: &str,
    timeout_of_commits: Option<Duration>,
) -> Result<(Client, Met, Option<Statements>), Fault> {
    let met = Met::from_answer(&client.simple_query(&link_setup(mark, timeout_of_commits)).await?)?;
    if met.is_standby {
        return Err(Fault::read_only("the server is a standby"));
    }
    if met.mark != mark {
        return Ok((client, met, None));
    }
    // In a session that may not write, this fails as it should.
    client.batch_execute("LISTEN cloakroom").await?;
    let [notify, enter, renew, members, leave] = [ANNOUNCE, ENTER, RENEW, MEMBERS, LEAVE];
    let statements = Statements {
        notify: client.prepare(notify).await?,
        enter: client.prepare(enter).await?,
        renew: client.prepare(renew).await?,
        members: client.prepare(members).await?,
        leave: client.prepare(leave).await?,
    };
    Ok((client, met, Some(statements)))
}

/// Runs the link until either side ends it.
async fn drive(
    wire: &mut Wire,
    connection: &Connection,
    statements: Statements,
    orders: &mut mpsc::Receiver<Order>,
    heard: &mut mpsc::Sender<LinkEvent>,
) -> Result<(), Fault> {
    let mut given = FuturesOrdered::new();
    loop {
        let event = tokio::select! {
            biased;
            message = poll_fn(|cx| wire.poll_message(cx)) => match message {
                Some(message) => event_of(message?),
                None => return Err(Fault::away("the server ended the connection")),
            },
            Some(done) = given.next() => Some(done?),
            order = orders.recv() => {
                // Nobody is there any more.
                let Some(order) = order else { return Ok(()) };
                given.push_back(whole(&connection.sending, execute(&connection.client, &statements, order)));
                None
            }
        };
        if let Some(event) = event
            && heard.send(event).await.is_err()
        {
            return Ok(());
        }
    }
}

/// Carries out an order.
async fn execute(client: &Client, statements: &Statements, order: Order) -> Result<LinkEvent, Fault> {
    let int8 = |number: u64| number as i64;
    Ok(match order {
        Order::Announce(text) => {
            client.execute(&statements.notify, &[&vec![text]]).await?;
            LinkEvent::Sent
        }
        Order::Enter(node, lease) => {
            let row = client.query_one(&statements.enter, &[&int8(node), &lease]).await?;
            LinkEvent::Entered(Duration::from_millis(row.try_get::<_, i64>(0)? as u64))
        }
        Order::Renew(node, lease) => {
            let row = client.query_one(&statements.renew, &[&int8(node), &lease]).await?;
            LinkEvent::Renewed(row.try_get(0)?)
        }
        Order::Members => {
            let rows = client.query(&statements.members, &[]).await?;
            let nodes = rows.iter().map(|row| Ok::<_, Fault>(row.try_get::<_, i64>(0)? as u64));
            LinkEvent::Members(nodes.collect::<Result<_, _>>()?)
        }
        Order::Leave(node) => {
            client.execute(&statements.leave, &[&int8(node)]).await?;
            LinkEvent::Left
        }
    })
}

/// What a message of the server is on the link; notices are nothing.
fn event_of(message: AsyncMessage) -> Option<LinkEvent> {
    match message {
        AsyncMessage::Notification(notification) => Some(LinkEvent::Heard(notification.payload().to_owned())),
        _ => None,
    }
}
