//! The link between the daemons on one store: what one sends, all receive, itself included, in the order of the store's
//! commits. It knows neither what is said nor how it travels.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::entry::UnixMs;

/// Makes the announcements of one transaction from the hashes of the keys that it changes (`None`: of all keys).
pub type Announcer<'a> = &'a (dyn Fn(Option<&[u64]>) -> Vec<String> + Send + Sync);

/// What a transaction does beside its changes.
#[derive(Clone, Copy)]
pub struct Aboard<'a> {
    /// Makes what is announced with it: nobody hears of a change that was not committed, and no change is committed
    /// unheard.
    pub announcer: Announcer<'a>,
    /// Nobody else is known to hear it. Then the session that listens may do the work itself: see
    /// [`crate::store::Store::link`]. Where others have to be woken it is slower so.
    pub is_alone: bool,
    /// If this does not hold, nothing is applied and the error is
    /// [`crate::store::error::StoreErrorKind::Unacknowledged`]. `None`: it does not matter.
    pub acknowledged: Option<&'a Acknowledged>,
}

/// That the keys of a transaction are held by nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// These daemons do not hold the keys any more; no other one has a lease that is alive.
    pub nodes: Vec<u64>,
    /// Until when they will not, on the store's clock, with room for a transaction that begins by then.
    pub until: UnixMs,
}

/// See [`Aboard`]; `None`: nothing.
pub type Announce<'a> = Option<Aboard<'a>>;

/// Which server, and which life of it, a connection talks to. What is heard on a link holds for this one only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Incarnation(pub u64);

/// What happens on a link.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// An announcement, from this daemon or another.
    Heard(String),
    /// The store has taken an announcement; whether anybody hears it is another question.
    Sent,
    /// The daemon has a lease; it must not write for so long, as leases may be alive that the store does not know of.
    Entered(Duration),
    /// Whether the lease was renewed; if not, the daemon had none.
    Renewed(bool),
    /// Who has a live lease.
    Members(Vec<u64>),
    /// The lease was given back.
    Left,
}

/// What a daemon wants of a link. Each is answered by its event, in order.
#[derive(Debug)]
pub enum Order {
    /// To be heard by all; at most [`MAX_ANNOUNCEMENT`] bytes.
    Announce(String),
    /// A lease for this daemon, for some milliseconds. From before until it is granted, no write that heeds leases is
    /// committed.
    Enter(u64, i64),
    /// The same for longer, while it lasts.
    Renew(u64, i64),
    /// Who has one.
    Members,
    /// No lease any more.
    Leave(u64),
}

/// One life of the link. Everything committed after it was made, and before it ends, is heard.
#[derive(Debug)]
pub struct Link {
    /// The server it is made to, which takes writes.
    pub incarnation: Incarnation,
    /// What happens, in order; ends when the link is lost. While nobody receives, the store's side waits.
    pub events: mpsc::Receiver<LinkEvent>,
    /// Takes orders. When the last sender is dropped, the link ends.
    pub orders: mpsc::Sender<Order>,
    /// When it was made.
    pub since: Instant,
    /// Whether the session on the other side is ours alone. If not, nothing can be heard on it, nor is.
    pub is_direct: bool,
}

/// Bytes of one announcement: what Postgres takes in a notification.
pub const MAX_ANNOUNCEMENT: usize = 7999;
