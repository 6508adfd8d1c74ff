//! The replies that a connection still owes, in the order of their requests; and which keys they are about.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;

use crate::command::table::CommandId;
use crate::resp::reply::Reply;

/// A reply with the command it belongs to.
pub type Answered = (Option<CommandId>, Reply);

/// See the file's header. Dropping it forgets the replies; writes that were begun go on.
#[derive(Default)]
pub struct Pending {
    replies: FuturesOrdered<Owed>,
    /// Hashes of keys that unanswered commands touch, and whether they only write blindly.
    keys: Vec<(u64, bool)>,
    /// Whether some of them do not.
    some_read: bool,
    /// An unanswered command concerns all keys: nothing may start before it has ended.
    barrier: bool,
}

/// A reply that is waited for, or that waits for its turn.
struct Owed {
    id: Option<CommandId>,
    reply: Awaited,
}

enum Awaited {
    Later(BoxFuture<'static, Reply>),
    /// `None` once it was given.
    There(Option<Reply>),
}

impl Future for Owed {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answered> {
        let reply = match &mut self.reply {
            Awaited::Later(reply) => ready!(reply.as_mut().poll(context)),
            Awaited::There(reply) => reply.take().expect("polled until it is ready"),
        };
        Poll::Ready((self.id, reply))
    }
}

/// What a command touches.
pub enum Touches {
    /// These keys.
    Keys {
        /// Their hashes.
        hashes: Vec<u64>,
        /// It writes without reading: the keyspace keeps such writes of one key in order.
        blind: bool,
    },
    /// Everything, or nobody knows.
    All,
}

impl Pending {
    /// Whether every reply has been given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// How many replies are owed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.replies.len()
    }

    /// Whether a command that touches this must wait until all replies have been given. A connection's commands take
    /// effect in order for each key; blind writes do so by themselves.
    #[must_use]
    pub fn conflicts(&self, touches: &Touches) -> bool {
        match touches {
            _ if self.is_empty() => false,
            _ if self.barrier => true,
            Touches::All => true,
            Touches::Keys { hashes, blind } => {
                (self.some_read || !blind)
                    && self.keys.iter().any(|(hash, held_blind)| !(*blind && *held_blind) && hashes.contains(hash))
            }
        }
    }

    /// Whether an unanswered command touches a key that this touches.
    #[must_use]
    pub fn holds(&self, touches: &Touches) -> bool {
        match touches {
            Touches::All => !self.is_empty(),
            Touches::Keys { hashes, .. } => self.keys.iter().any(|(hash, _)| hashes.contains(hash)),
        }
    }

    /// Owes a reply that is not there yet.
    pub fn owe(&mut self, id: Option<CommandId>, reply: BoxFuture<'static, Reply>, touches: Touches) {
        match touches {
            Touches::All => self.barrier = true,
            Touches::Keys { hashes, blind } => {
                self.some_read |= !blind;
                self.keys.extend(hashes.into_iter().map(|hash| (hash, blind)));
            }
        }
        self.replies.push_back(Owed { id, reply: Awaited::Later(reply) });
    }

    /// Owes a reply that is there, but has to wait for its turn.
    pub fn queue(&mut self, id: Option<CommandId>, reply: Reply) {
        self.replies.push_back(Owed { id, reply: Awaited::There(Some(reply)) });
    }

    /// The next reply in order; `None` when none is owed.
    pub async fn next(&mut self) -> Option<Answered> {
        self.replies.next().await
    }

    /// All replies have been given: no key is touched any more.
    pub fn settle(&mut self) {
        debug_assert!(self.is_empty(), "replies are owed");
        self.keys.clear();
        self.some_read = false;
        self.barrier = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(hashes: &[u64], blind: bool) -> Touches {
        Touches::Keys { hashes: hashes.to_vec(), blind }
    }

    fn owing(touches: Touches) -> Pending {
        let mut pending = Pending::default();
        pending.owe(None, Box::pin(std::future::ready(Reply::OK)), touches);
        pending
    }

    #[test]
    fn order_per_key_holds() {
        assert!(!Pending::default().conflicts(&Touches::All), "nothing is owed");
        for (held, next, waits) in [
            (keys(&[1], true), keys(&[1], true), false),
            (keys(&[1], true), keys(&[1], false), true),
            (keys(&[1], false), keys(&[1], true), true),
            (keys(&[1], false), keys(&[2], false), false),
            (keys(&[1, 2], true), keys(&[3, 2], false), true),
            (keys(&[1], true), Touches::All, true),
            (Touches::All, keys(&[9], true), true),
        ] {
            assert_eq!(owing(held).conflicts(&next), waits);
        }
    }

    #[test]
    fn a_blind_write_knows_what_is_before_it() {
        let pending = owing(keys(&[1, 2], true));
        for (next, behind) in
            [(keys(&[1], true), true), (keys(&[3], true), false), (keys(&[3, 2], false), true), (Touches::All, true)]
        {
            assert_eq!(pending.holds(&next), behind);
        }
        assert!(!Pending::default().holds(&Touches::All));
    }

    #[tokio::test]
    async fn replies_come_in_order_and_then_keys_are_free() {
        let mut pending = owing(keys(&[1], false));
        pending.queue(None, Reply::Int(2));
        assert!(matches!(pending.next().await, Some((None, Reply::Simple(_)))));
        assert!(matches!(pending.next().await, Some((None, Reply::Int(2)))));
        assert!(pending.next().await.is_none());
        pending.settle();
        assert!(!pending.conflicts(&keys(&[1], false)));
    }
}
