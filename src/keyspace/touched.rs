//! Which slots of a shard have touches that the store does not know of, for whoever writes them down in time. It knows
//! hashes only, and is gone through in rounds, a part at a time; the slots themselves say what is to be done.

use std::collections::VecDeque;

use crate::keyspace::touch::Rescue;

/// Touched entries that were pushed out of the cache and wait to be written. More are forgotten: their sessions end
/// earlier, by the slack at most.
const MAX_EVICTED: usize = 4096;

/// See the file's header.
#[derive(Debug)]
pub struct Touched {
    /// Hashes of touched slots, and of some that are touched or there no more.
    list: VecDeque<u64>,
    /// How many of the list this round has still to see.
    left: usize,
    /// How many of them at a time.
    step: usize,
    /// The number of this round, never 0: a slot remembers it, so that one that is in the list twice is found out.
    round: u8,
    evicted: Vec<Rescue>,
}

impl Touched {
    /// Nothing is touched.
    #[must_use]
    pub fn new() -> Self {
        Self { list: VecDeque::new(), left: 0, step: 0, round: 1, evicted: Vec::new() }
    }

    /// Whether there is room in the list, beside a shard of `slots` slots. Slots that are gone leave it in the next
    /// round; should that many be gone, a touch has to be written.
    #[must_use]
    pub fn has_room(&self, slots: usize) -> bool {
        self.list.len() <= 2 * slots + 64
    }

    /// Adds a slot that is not in the list, or puts it back for the next round; the slot remembers the round.
    pub fn add(&mut self, hash: u64) -> u8 {
        self.list.push_back(hash);
        self.round
    }

    /// Begins the next part of a round of `parts` parts, or a new round if the last one is over; how many slots to see.
    pub fn begin_part(&mut self, parts: usize) -> usize {
        if self.left == 0 {
            self.left = self.list.len();
            self.step = self.left.div_ceil(parts);
            self.round = self.round.checked_add(1).unwrap_or(1);
        }
        self.step.min(self.left)
    }

    /// The next slot to see, with the number of this round.
    pub fn take_next(&mut self) -> Option<(u64, u8)> {
        self.left = self.left.checked_sub(1)?;
        Some((self.list.pop_front()?, self.round))
    }

    /// Keeps a touched entry that is no longer cached.
    pub fn evict(&mut self, rescue: Rescue) {
        if self.evicted.len() < MAX_EVICTED {
            self.evicted.push(rescue);
        }
    }

    /// Hands out what was kept.
    pub fn take_evicted(&mut self) -> Vec<Rescue> {
        std::mem::take(&mut self.evicted)
    }
}
