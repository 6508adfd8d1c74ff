//! How the cache stands towards the other daemons, in words and numbers. Decides nothing.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::config::CoherenceMode;

/// Whether this node hears of what others change, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It need not: nobody else is there, or it was told not to.
    Off,
    /// It has not tried yet, or is at it.
    Unlinked,
    /// It does.
    Linked,
    /// It did, but the last heartbeat is overdue.
    Late,
    /// The store cannot be reached.
    Unreachable,
    /// Announcements are swallowed by something between.
    Unheard,
    /// Only standbys can be reached.
    Standby,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Off, Self::Unlinked, Self::Linked, Self::Late, Self::Unreachable, Self::Unheard, Self::Standby];

    /// A word for `INFO` and labels.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Unlinked => "connecting",
            Self::Linked => "linked",
            Self::Late => "late",
            Self::Unreachable => "unreachable",
            Self::Unheard => "unheard",
            Self::Standby => "standby",
        }
    }
}

/// What is counted.
#[derive(Debug, Default)]
pub struct Counts {
    /// Epochs begun.
    pub epochs: AtomicU64,
    /// Announcements of changes sent.
    pub sent: AtomicU64,
    /// Announcements of others' changes heard.
    pub received: AtomicU64,
    /// Loads and writes on their way that another's change kept out of the cache.
    pub killed: AtomicU64,
    /// Reads answered from the cache because the store was away.
    pub stale: AtomicU64,
    /// When the last returned heartbeat was sent, as a tick of the clock; 0: never.
    pub proven: AtomicU64,
}

/// Figures for `INFO` and the metrics page.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// As configured.
    pub mode: CoherenceMode,
    /// See [`State`].
    pub state: State,
    /// Whether the cache may answer now.
    pub covered: bool,
    /// Whether it may if the store is away.
    pub covered_by_outage: bool,
    /// The node's own id.
    pub node: u64,
    /// Other nodes heard of lately.
    pub peers: u64,
    /// Other nodes that strict writes wait for.
    pub members: u64,
    /// Writes under way whose keys are not cached.
    pub fences: u64,
    /// Epochs begun.
    pub epoch: u64,
    /// How old the last proof is; `None`: there was none.
    pub staleness: Option<Duration>,
    /// See [`Counts::sent`].
    pub sent: u64,
    /// See [`Counts::received`].
    pub received: u64,
    /// See [`Counts::killed`].
    pub killed: u64,
    /// See [`Counts::stale`].
    pub stale: u64,
}
