//! A connection in use, and who may come onto it as well: the server then finds the next piece of work when it is done with
//! one, without waiting for us in between. Knows nothing of statements.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bb8::PooledConnection;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::store::postgres::manager::{Connection, Manager, Sessions};

/// How many may be on a connection: one that the server works on, and one that it finds when it is done.
const MAX_RIDERS: u32 = 2;

/// After so long work is taken to be stuck, and nobody goes behind it any more.
const STUCK: Duration = Duration::from_millis(100);

/// Whose a connection is.
enum Held {
    /// The pool's, to which it goes back when nobody uses it any more.
    Pooled(Box<PooledConnection<'static, Manager>>),
    /// The link's, which ends with this token; so it does if the connection is in doubt.
    Link(Box<Connection>, CancellationToken),
}

/// See the file's header.
pub(super) struct Taken {
    held: Held,
    pub(super) sessions: Arc<Sessions>,
    since: Instant,
    riders: Mutex<Riders>,
    left: Notify,
    doubted: Notify,
}

/// Who is on a connection.
struct Riders {
    count: u32,
    /// One left before it was known that its work had ended.
    in_doubt: bool,
    /// When one of them was done with something, or came onto an empty one.
    moved: Instant,
}

impl Taken {
    /// A connection of the pool, with one rider who is on it alone.
    pub(super) fn from_pool(connection: PooledConnection<'static, Manager>, sessions: Arc<Sessions>) -> Self {
        Self::new(Held::Pooled(Box::new(connection)), sessions, 1)
    }

    /// The connection of a link, with nobody on it, which lasts until `end`. Whoever has it drives it until then, and as long as it
    /// [`Taken::is_ridden`].
    pub(super) fn of_link(connection: Connection, sessions: Arc<Sessions>, end: CancellationToken) -> Self {
        Self::new(Held::Link(Box::new(connection), end), sessions, 0)
    }

    fn new(held: Held, sessions: Arc<Sessions>, count: u32) -> Self {
        let now = Instant::now();
        let riders = Mutex::new(Riders { count, in_doubt: false, moved: now });
        Self { held, sessions, since: now, riders, left: Notify::new(), doubted: Notify::new() }
    }

    pub(super) fn connection(&self) -> &Connection {
        match &self.held {
            Held::Pooled(connection) => connection,
            Held::Link(connection, _) => connection,
        }
    }

    /// Whether notifications are heard on it.
    pub(super) fn is_link(&self) -> bool {
        matches!(self.held, Held::Link(..))
    }

    /// Comes onto a connection that is sound, not crowded, and not stuck; how many are on it already.
    pub(super) fn board(&self) -> Option<u32> {
        let connection = self.connection();
        let lasts = match &self.held {
            // From time to time it goes back, for whoever waits for one.
            Held::Pooled(_) => self.since.elapsed() <= STUCK,
            Held::Link(_, end) => !end.is_cancelled(),
        };
        let mut riders = self.lock();
        let is_stuck = riders.count > 0 && riders.moved.elapsed() > STUCK;
        if !lasts
            || connection.closing.load(Ordering::Relaxed)
            || is_stuck
            || riders.count >= MAX_RIDERS
            || connection.client.is_closed()
        {
            return None;
        }
        if riders.count == 0 {
            riders.moved = Instant::now();
        }
        riders.count += 1;
        Some(riders.count - 1)
    }

    /// A rider is done with a piece of work.
    pub(super) fn settle(&self) {
        self.lock().moved = Instant::now();
    }

    /// A rider begins with another piece of work; how many others are on it.
    pub(super) fn unsettle(&self) -> u32 {
        self.lock().count - 1
    }

    /// A rider leaves; unsettled, it leaves a connection in doubt.
    pub(super) fn leave(&self, is_settled: bool) {
        let mut riders = self.lock();
        riders.count -= 1;
        riders.in_doubt |= !is_settled;
        let is_empty = riders.count == 0;
        drop(riders);
        if is_empty {
            self.left.notify_one();
        }
        if !is_settled {
            self.doubted.notify_waiters();
            self.close();
        }
    }

    /// Closes the connection when those who are on it have left.
    pub(super) fn close(&self) {
        self.connection().closing.store(true, Ordering::Relaxed);
        if let Held::Link(_, end) = &self.held {
            end.cancel();
        }
    }

    /// Resolves when a rider has left it in doubt.
    pub(super) async fn doubted(&self) {
        let doubted = self.doubted.notified();
        if !self.lock().in_doubt {
            doubted.await;
        }
    }

    /// Whether anybody is on it.
    pub(super) fn is_ridden(&self) -> bool {
        self.lock().count > 0
    }

    /// Resolves when the last rider may have left.
    pub(super) async fn emptied(&self) {
        self.left.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Riders> {
        self.riders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
