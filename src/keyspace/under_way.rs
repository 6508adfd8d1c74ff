//! Which commits are under way, and which of them take so long that others should not wait for them. Pure.

use std::time::{Duration, Instant};

/// After so long a commit is stuck: it waits for somebody else's lock, most likely. A little longer than until a connection
/// with work on it is avoided (`store/postgres/taken.rs`), so that nobody who goes around it is sent behind it.
const STUCK: Duration = Duration::from_millis(125);

/// The beginnings of the commits that are under way.
#[derive(Debug)]
pub struct UnderWay {
    begun: Vec<Instant>,
    detours: usize,
}

impl UnderWay {
    /// None yet. Others go around at most `detours` stuck ones.
    #[must_use]
    pub fn new(detours: usize) -> Self {
        Self { begun: Vec::new(), detours }
    }

    /// One has begun.
    pub fn begin(&mut self, now: Instant) {
        self.begun.push(now);
    }

    /// One that began then has ended.
    pub fn end(&mut self, begun: Instant) {
        if let Some(index) = self.begun.iter().position(|other| *other == begun) {
            self.begun.swap_remove(index);
        }
    }

    /// How many of them the next one has to consider.
    #[must_use]
    pub fn count(&self, now: Instant) -> usize {
        let stuck = self.begun.iter().filter(|begun| now.saturating_duration_since(**begun) >= STUCK).count();
        self.begun.len() - stuck.min(self.detours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_that_are_stuck_do_not_count() {
        let start = Instant::now();
        let mut commits = UnderWay::new(2);
        for _ in 0..3 {
            commits.begin(start);
        }
        assert_eq!(commits.count(start), 3);
        assert_eq!(commits.count(start + STUCK), 1);
        commits.begin(start + STUCK);
        assert_eq!(commits.count(start + STUCK), 2);
        commits.end(start);
        commits.end(start);
        assert_eq!(commits.count(start + STUCK), 1);
        commits.end(start + STUCK);
        assert_eq!(commits.count(start + STUCK), 0);
        commits.end(start);
        assert_eq!(commits.count(start), 0);
    }
}
