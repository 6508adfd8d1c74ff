//! What a strict node does before it changes keys: it has them fenced by every other strict node, so that none serves what
//! is about to be replaced. The decisions are those of [`super::fleet`].

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::config::CoherenceMode;
use crate::keyspace::clock::Clock;
use crate::keyspace::coherence::fleet::Way;
use crate::keyspace::coherence::payload::{self, Keys, NodeId};
use crate::keyspace::coherence::{Coherence, Sailing};
use crate::store::link::{Acknowledged, Order};

/// How long a batch waits for acknowledgements before the store is asked again who is there, and all are told again.
const ASK: Duration = Duration::from_millis(100);

/// How long a batch waits before it fails. Longer than a lease, so that a node that died does not fail it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long after its first fence a batch may go, in milliseconds. The fences of the others stand at least four times as
/// long, so that its transaction is over before they fall.
const HOLDS_MS: i64 = 15_000;

impl Coherence {
    /// Whether writes wait for other nodes.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.linked && self.config.mode == CoherenceMode::Strict
    }

    /// Waits until no other strict node has anything cached of the batch's keys (`None`: all), and will not before the
    /// batch is over. Who has said so; `None` if that could not be had in time. [`Coherence::settle`] ends it.
    ///
    /// What was said holds for a while only, as the others let go of a batch that they hear no more of. So a batch that
    /// is held up for long, with its whole process perhaps, must not go; and as acknowledgements of its first try may
    /// still be on their way, it must not try anew either.
    pub async fn clear_way(&self, batch: Sailing, hashes: Option<&[u64]>, clock: &Clock) -> Option<Acknowledged> {
        let keys = hashes.map_or(Keys::All, |hashes| Keys::Some(hashes.to_vec()));
        self.fence((self.node, batch.0), &keys, clock.tick());
        let end = Instant::now() + PATIENCE;
        let mut news = self.news.subscribe();
        let until = self.lock_fleet().holds_until(batch.0, clock.now() + HOLDS_MS);
        while clock.now() < until {
            news.mark_unchanged();
            let way = self.lock_fleet().way(batch.0, clock.tick());
            let until = match way {
                Way::Clear(nodes) => {
                    let nodes = nodes.into_iter().chain([self.node]).map(|NodeId(node)| node).collect();
                    return Some(Acknowledged { nodes, until });
                }
                Way::Fence => {
                    self.order(Order::Announce(payload::fence(self.node, batch.0, hashes)));
                    Instant::now() + ASK
                }
                Way::Wait(Some(until)) => clock.instant(until),
                Way::Wait(None) => Instant::now() + ASK,
            };
            tokio::select! {
                // It cannot end before this node does.
                _ = news.changed() => {}
                () = sleep_until(until) => {
                    self.lock_fleet().doubt(batch.0);
                    self.order(Order::Members);
                }
                () = sleep_until(end) => return None,
            }
        }
        None
    }

    /// The store knows of a node that has not acknowledged: asks it anew who is there, and waits for the answer.
    pub fn look_again(&self, batch: Sailing) {
        self.lock_fleet().doubt(batch.0);
        self.order(Order::Members);
    }
}
