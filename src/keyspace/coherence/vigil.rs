//! The watch over one life of the link: heartbeats that this node sends to itself, and what follows from those that return
//! or do not. A state machine that is told the time; it sends nothing.
//!
//! What is heard comes in the order of commits. So a heartbeat that returns proves that everything committed before it was
//! sent has been heard.

use std::collections::VecDeque;
use std::time::Duration;

use crate::keyspace::clock::Tick;

/// Beats unanswered at once before the link can be given up: after a pause of the whole process the first are late
/// through no fault of the link.
const MIN_UNANSWERED: usize = 4;

/// How long a heartbeat may take from the store's having taken it to being heard, before anything has been heard. They
/// come together, so this is generous.
const UNHEARD: Tick = 1_000_000;

/// The times of a watch.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two heartbeats.
    pub beat: Tick,
    /// How long a heartbeat may be on its way before the link is given up.
    pub patience: Tick,
}

impl Timing {
    /// Four beats within what the cache may lag behind; the link is given up after several times that.
    #[must_use]
    pub fn of(max_staleness: Duration) -> Self {
        let bound = max_staleness.as_micros() as Tick;
        Self { beat: (bound / 4).max(1), patience: (bound * 4).max(2_000_000) }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this time.
    Wait(Tick),
    /// Send the heartbeat of this number; it counts as sent.
    Beat(u64),
    /// Give the link up.
    GiveUp(Loss),
}

/// Why a link is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The store takes what is sent, but nothing comes back: something between does not pass notifications on.
    Unheard,
    /// Nothing comes back any more.
    Silent,
}

/// What a returned heartbeat proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    /// Everything committed until then has been heard.
    pub at: Tick,
    /// It is the first of this link: whatever was cached before proves nothing.
    pub first: bool,
}

/// See the file's header.
#[derive(Debug)]
pub struct Vigil {
    timing: Timing,
    /// Number and time of those that have not returned, in order.
    unanswered: VecDeque<(u64, Tick)>,
    next: u64,
    due: Tick,
    heard_any: bool,
    /// When the store took the first heartbeat, while none was heard.
    taken: Option<Tick>,
}

impl Vigil {
    /// A watch that begins with a heartbeat at once, numbered `next`. Numbers of earlier watches must be lower.
    #[must_use]
    pub fn new(timing: Timing, next: u64, now: Tick) -> Self {
        Self { timing, unanswered: VecDeque::new(), next, due: now, heard_any: false, taken: None }
    }

    /// The number after the last that was used.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// What is to be done at `now`. To be asked again after a beat, and after the time of a wait.
    pub fn step(&mut self, now: Tick) -> Step {
        let unheard = self.taken.map(|taken| taken + UNHEARD);
        if unheard.is_some_and(|end| now >= end) {
            return Step::GiveUp(Loss::Unheard);
        }
        let enough = !self.heard_any || self.unanswered.len() >= MIN_UNANSWERED;
        if enough && self.unanswered.front().is_some_and(|(_, sent)| now >= sent + self.timing.patience) {
            return Step::GiveUp(Loss::Silent);
        }
        if now < self.due {
            return Step::Wait(unheard.map_or(self.due, |end| end.min(self.due)));
        }
        let number = self.next;
        self.next += 1;
        self.due = now + self.timing.beat;
        self.unanswered.push_back((number, now));
        Step::Beat(number)
    }

    /// The store has taken a heartbeat.
    pub fn taken(&mut self, now: Tick) {
        if !self.heard_any && self.taken.is_none() {
            self.taken = Some(now);
        }
    }

    /// A heartbeat of this node was heard. `None` if it is not of this link.
    pub fn heard(&mut self, number: u64) -> Option<Proven> {
        let index = self.unanswered.iter().position(|(sent, _)| *sent == number)?;
        let (_, at) = self.unanswered.drain(..=index).next_back()?;
        self.taken = None;
        let first = !std::mem::replace(&mut self.heard_any, true);
        Some(Proven { at, first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing { beat: 250_000, patience: 4_000_000 };

    fn beat(vigil: &mut Vigil, now: Tick) -> u64 {
        match vigil.step(now) {
            Step::Beat(number) => number,
            other => panic!("no beat at {now}: {other:?}"),
        }
    }

    #[test]
    fn a_beat_proves_the_time_it_was_sent_at() {
        let mut vigil = Vigil::new(TIMING, 7, 1_000);
        assert_eq!(beat(&mut vigil, 1_000), 7);
        assert_eq!(vigil.step(1_001), Step::Wait(251_000));
        assert_eq!(vigil.heard(7), Some(Proven { at: 1_000, first: true }));
        assert_eq!(vigil.heard(7), None, "once");
        assert_eq!(beat(&mut vigil, 300_000), 8);
        assert_eq!(beat(&mut vigil, 550_000), 9);
        assert_eq!(vigil.heard(9), Some(Proven { at: 550_000, first: false }));
        assert_eq!(vigil.heard(8), None, "answered by its successor");
        assert_eq!(vigil.heard(3), None, "an earlier link's");
        assert_eq!(vigil.next(), 10);
    }

    #[test]
    fn a_probe_that_is_taken_and_not_heard_is_swallowed_by_something() {
        let mut vigil = Vigil::new(TIMING, 0, 0);
        beat(&mut vigil, 0);
        vigil.taken(10_000);
        beat(&mut vigil, 250_000);
        vigil.taken(300_000);
        assert_eq!(vigil.step(300_001), Step::Wait(500_000));
        for now in [500_000, 750_000, 1_000_000] {
            beat(&mut vigil, now);
        }
        assert_eq!(vigil.step(1_000_001), Step::Wait(1_010_000));
        assert_eq!(vigil.step(1_010_000), Step::GiveUp(Loss::Unheard));
    }

    #[test]
    fn a_stalled_store_is_not_a_pooler() {
        let mut vigil = Vigil::new(TIMING, 0, 0);
        let mut now = 0;
        let end = loop {
            match vigil.step(now) {
                Step::Beat(_) => {}
                Step::Wait(until) => now = until,
                Step::GiveUp(loss) => break (loss, now),
            }
        };
        assert_eq!(end, (Loss::Silent, 4_000_000));
    }

    #[test]
    fn a_late_beat_on_the_same_link_is_as_good_as_any() {
        let mut vigil = Vigil::new(TIMING, 0, 0);
        beat(&mut vigil, 0);
        vigil.heard(0);
        beat(&mut vigil, 250_000);
        assert_eq!(beat(&mut vigil, 3_000_000), 2);
        assert_eq!(vigil.heard(1), Some(Proven { at: 250_000, first: false }));
    }

    #[test]
    fn a_process_that_was_stopped_gives_its_link_a_chance() {
        let mut vigil = Vigil::new(TIMING, 0, 0);
        beat(&mut vigil, 0);
        vigil.heard(0);
        beat(&mut vigil, 250_000);
        // An hour later, with the answer still unread.
        let mut now = 3_600_000_000;
        beat(&mut vigil, now);
        assert_eq!(vigil.heard(1), Some(Proven { at: 250_000, first: false }));
        // And if there is none, a few beats more decide.
        for _ in 0..3 {
            now += TIMING.beat;
            beat(&mut vigil, now);
        }
        assert!(matches!(vigil.step(now + 1), Step::Wait(_)));
        let mut silent = now;
        let end = loop {
            silent += TIMING.beat;
            if let Step::GiveUp(loss) = vigil.step(silent) {
                break loss;
            }
        };
        assert_eq!((end, silent), (Loss::Silent, 3_600_000_000 + TIMING.patience));
    }
}
