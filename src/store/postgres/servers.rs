//! What the pool and the link know of each other: that both talk to the same server, in the same life of it. What a server
//! says that the link does not talk to is not what the link's notifications are about, so nothing of it may be cached.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::SimpleQueryMessage;
use tokio_util::sync::CancellationToken;

use crate::store::link::Incarnation;
use crate::store::postgres::error::Fault;

/// How long the daemon may take to notice that its link was ended.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a server says of itself when asked [`crate::store::postgres::statement::INCARNATION`].
pub(super) struct Met {
    /// Which server it is, and which life of it.
    pub(super) incarnation: Incarnation,
    /// Whether it takes no writes.
    pub(super) is_standby: bool,
    /// The mark of the session, empty if there is none: see `dial.rs`.
    pub(super) mark: String,
}

impl Met {
    /// From the answer to statements of which that was the last.
    pub(super) fn from_answer(messages: &[SimpleQueryMessage]) -> Result<Self, Fault> {
        let row = messages.iter().rev().find_map(|message| match message {
            SimpleQueryMessage::Row(row) if row.len() == 3 => Some(row),
            _ => None,
        });
        let row = row.ok_or_else(|| Fault::away("the server did not say which one it is"))?;
        let text = |index: usize| row.get(index).unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        text(1).hash(&mut hasher);
        Ok(Self { incarnation: Incarnation(hasher.finish()), is_standby: text(0) == "t", mark: text(2).to_owned() })
    }
}

/// See the file's header.
#[derive(Default)]
pub(super) struct Servers {
    link: Mutex<Option<Linked>>,
}

/// One life of the link.
#[derive(Clone)]
pub(super) struct Linked {
    /// What the link talks to.
    pub(super) incarnation: Incarnation,
    /// Since when. What the pool connected to later is newer knowledge than this.
    pub(super) since: Instant,
    /// Ends the link.
    pub(super) end: CancellationToken,
    /// The daemon does not use the link any more, nor what it has cached.
    pub(super) ended: CancellationToken,
}

impl Servers {
    /// There is a new link.
    pub(super) fn linked(&self, link: Linked) {
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
    }

    /// Whether a connection that was made then, to this server, is one to a server that the link has left since.
    pub(super) fn has_left(&self, incarnation: Incarnation, made: Instant) -> bool {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.as_ref().is_some_and(|link| link.incarnation != incarnation && made < link.since)
    }

    /// A server has been met. If it is another than the link's, the link is ended, so that the next one may find it; and this
    /// returns only when the cache takes nothing any more, or fails.
    pub(super) async fn met(&self, incarnation: Incarnation) -> Result<(), Fault> {
        let Some(link) = self.other_link(incarnation) else { return Ok(()) };
        if !link.end.is_cancelled() {
            tracing::info!("another postgres server answers than the one that the link talks to");
        }
        link.end.cancel();
        // Dropped meanwhile: the link ends nevertheless.
        let ended = tokio::time::timeout(PATIENCE, link.ended.cancelled()).await;
        ended.map_err(|_| Fault::away("the link to another server has not ended yet"))
    }

    fn other_link(&self, incarnation: Incarnation) -> Option<Linked> {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.clone().filter(|link| link.incarnation != incarnation && !link.ended.is_cancelled())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(incarnation: u64, since: Instant) -> Linked {
        let (end, ended) = (CancellationToken::new(), CancellationToken::new());
        Linked { incarnation: Incarnation(incarnation), since, end, ended }
    }

    #[tokio::test]
    async fn connections_to_a_server_that_was_left_are_known() {
        let servers = Servers::default();
        let before = Instant::now();
        assert!(!servers.has_left(Incarnation(1), before), "nothing is known yet");
        let since = before + Duration::from_secs(1);
        servers.linked(link(1, since));
        assert!(!servers.has_left(Incarnation(1), before));
        assert!(servers.has_left(Incarnation(2), before));
        assert!(!servers.has_left(Incarnation(2), since), "as new as the link");
    }

    #[tokio::test]
    async fn another_server_ends_the_link_and_waits_until_the_cache_knows() {
        let servers = Servers::default();
        servers.met(Incarnation(1)).await.expect("nothing is to be ended");
        let link = link(1, Instant::now());
        servers.linked(link.clone());
        servers.met(Incarnation(1)).await.expect("nothing is to be ended");
        assert!(!link.end.is_cancelled());
        let daemon = async {
            link.end.cancelled().await;
            link.ended.cancel();
        };
        let (met, ()) = tokio::join!(servers.met(Incarnation(2)), daemon);
        met.expect("it was ended");
        assert!(link.end.is_cancelled());
        // It is over already: nobody waits for it.
        servers.met(Incarnation(2)).await.expect("it has ended");
    }
    #[tokio::test]
    async fn where_the_link_does_not_end_nothing_is_read() {
        let servers = Servers::default();
        servers.linked(link(1, Instant::now()));
        assert!(servers.met(Incarnation(2)).await.is_err());
    }
}
