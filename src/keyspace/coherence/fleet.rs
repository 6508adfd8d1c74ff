//! What a strict node knows of the others, and which of them have acknowledged which fence. Pure.

use std::collections::{HashMap, HashSet};

use crate::entry::UnixMs;
use crate::keyspace::clock::Tick;
use crate::keyspace::coherence::payload::NodeId;

/// What a batch that waits for the others has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Go: these have acknowledged the fence.
    Clear(Vec<NodeId>),
    /// Tell the others of the fence.
    Fence,
    /// Wait for news, at most until then.
    Wait(Option<Tick>),
}

/// The fence of one batch.
#[derive(Debug, Default)]
struct Round {
    acknowledged: HashSet<NodeId>,
    /// Who was told, in this life of the link.
    told: HashSet<NodeId>,
    /// Whether anybody ever was.
    raised: bool,
    /// The others are to be learnt anew first.
    doubtful: bool,
    /// Until when it may go.
    until: Option<UnixMs>,
}

/// See the file's header.
#[derive(Debug, Default)]
pub struct Fleet {
    /// The others whose lease was alive when the store was last asked; `None` while there is no link.
    others: Option<HashSet<NodeId>>,
    /// No batch may go before: leases that this store does not know of may be alive.
    not_before: Tick,
    rounds: HashMap<u64, Round>,
}

impl Fleet {
    /// A link was made, and the store told who is there. Nothing may go before `not_before`.
    pub fn enter(&mut self, others: HashSet<NodeId>, not_before: Tick) {
        self.others = Some(others);
        self.not_before = not_before;
    }

    /// The link is lost: whom it was to tell may not have heard, and who answers is not heard.
    pub fn leave(&mut self) {
        self.others = None;
        self.rounds.values_mut().for_each(|round| round.told.clear());
    }

    /// The store told anew who is there.
    pub fn learn(&mut self, others: HashSet<NodeId>) {
        if self.others.is_some() {
            self.others = Some(others);
            self.rounds.values_mut().for_each(|round| round.doubtful = false);
        }
    }

    /// A batch has waited in vain, or was turned back: it goes on when the store has told who is there, and tells those
    /// again that have not answered. They may not have been listening.
    pub fn doubt(&mut self, batch: u64) {
        let round = self.rounds.entry(batch).or_default();
        round.doubtful = true;
        round.told.clear();
    }

    /// Until when a batch may go, on the store's clock: what its first try said.
    pub fn holds_until(&mut self, batch: u64, until: UnixMs) -> UnixMs {
        *self.rounds.entry(batch).or_default().until.get_or_insert(until)
    }

    /// A batch has something to do before it goes.
    pub fn way(&mut self, batch: u64, now: Tick) -> Way {
        let Some(others) = &self.others else { return Way::Wait(None) };
        if now < self.not_before {
            return Way::Wait(Some(self.not_before));
        }
        let round = self.rounds.entry(batch).or_default();
        if round.doubtful {
            return Way::Wait(None);
        }
        if others.is_subset(&round.acknowledged) {
            return Way::Clear(round.acknowledged.iter().copied().collect());
        }
        let untold = others.iter().any(|other| !round.acknowledged.contains(other) && !round.told.contains(other));
        if untold {
            round.told.extend(others);
            round.raised = true;
            return Way::Fence;
        }
        Way::Wait(None)
    }

    /// Another node has acknowledged the fence of a batch; whether that is news.
    pub fn acknowledge(&mut self, batch: u64, node: NodeId) -> bool {
        self.rounds.get_mut(&batch).is_some_and(|round| round.acknowledged.insert(node))
    }

    /// The batch is over; whether anybody was told of a fence.
    pub fn end(&mut self, batch: u64) -> bool {
        self.rounds.remove(&batch).is_some_and(|round| round.raised)
    }

    /// How many others hold a lease, as far as is known.
    #[must_use]
    pub fn others(&self) -> usize {
        self.others.as_ref().map_or(0, HashSet::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u64]) -> HashSet<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    #[test]
    fn a_lone_node_goes_at_once_and_a_linkless_one_does_not() {
        let mut fleet = Fleet::default();
        assert_eq!(fleet.way(1, 0), Way::Wait(None));
        fleet.enter(nodes(&[]), 50);
        assert_eq!(fleet.way(1, 49), Way::Wait(Some(50)));
        assert_eq!(fleet.way(1, 50), Way::Clear(vec![]));
        assert!(!fleet.end(1), "nobody was told");
    }

    #[test]
    fn all_acknowledge_before_a_batch_goes() {
        let mut fleet = Fleet::default();
        fleet.enter(nodes(&[2, 3]), 0);
        assert_eq!(fleet.way(1, 0), Way::Fence);
        assert_eq!(fleet.way(1, 0), Way::Wait(None));
        assert_eq!((fleet.holds_until(1, 15_000), fleet.holds_until(1, 16_000)), (15_000, 15_000));
        assert!(fleet.acknowledge(1, NodeId(2)));
        assert!(!fleet.acknowledge(1, NodeId(2)) && !fleet.acknowledge(9, NodeId(2)));
        assert_eq!(fleet.way(1, 0), Way::Wait(None));
        // The third's lease ran out, but a fourth has come.
        fleet.learn(nodes(&[2, 4]));
        assert_eq!(fleet.way(1, 0), Way::Fence);
        fleet.acknowledge(1, NodeId(4));
        let Way::Clear(mut who) = fleet.way(1, 0) else { panic!("all have acknowledged") };
        who.sort_unstable_by_key(|node| node.0);
        assert_eq!(who, [NodeId(2), NodeId(4)]);
        assert!(fleet.end(1));
    }

    #[test]
    fn a_lost_link_means_telling_again() {
        let mut fleet = Fleet::default();
        fleet.enter(nodes(&[2]), 0);
        assert_eq!(fleet.way(1, 0), Way::Fence);
        fleet.leave();
        fleet.learn(nodes(&[]));
        assert_eq!(fleet.way(1, 0), Way::Wait(None), "who was asked on the old link does not count");
        fleet.enter(nodes(&[2]), 0);
        assert_eq!(fleet.way(1, 0), Way::Fence);
    }

    #[test]
    fn a_batch_that_was_turned_back_asks_who_is_there() {
        let mut fleet = Fleet::default();
        fleet.enter(nodes(&[]), 0);
        assert_eq!(fleet.way(1, 0), Way::Clear(vec![]));
        fleet.doubt(1);
        assert_eq!(fleet.way(1, 0), Way::Wait(None));
        fleet.learn(nodes(&[2]));
        assert_eq!(fleet.way(1, 0), Way::Fence);
        fleet.doubt(1);
        fleet.learn(nodes(&[2]));
        assert_eq!(fleet.way(1, 0), Way::Fence, "it may not have been listening");
        fleet.acknowledge(1, NodeId(2));
        assert_eq!(fleet.way(1, 0), Way::Clear(vec![NodeId(2)]));
    }
}
