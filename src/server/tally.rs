//! Counting commands: a connection tallies a batch of input locally and books it once, so that a pipelined command
//! costs an addition to a local and not to shared memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::command::table::{self, CommandId};
use crate::metrics::histogram::{Histogram, SECONDS};

/// Counts of one command.
#[derive(Debug)]
pub struct CommandStats {
    /// Calls that were answered without an error.
    pub ok: AtomicU64,
    /// Calls that were answered with an error.
    pub error: AtomicU64,
    /// Time from the arrival of the last byte of the request's batch to the hand-over of its reply to the socket, in ns.
    pub duration: Histogram,
}

/// Counts of all commands; the last is for unknown ones.
#[derive(Debug)]
pub struct Commands {
    stats: Box<[CommandStats]>,
}

/// The metric label of commands that do not exist.
const UNKNOWN: &str = "unknown";

impl Commands {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        let stats = (0..=table::count())
            .map(|_| CommandStats {
                ok: AtomicU64::new(0),
                error: AtomicU64::new(0),
                duration: Histogram::new(&SECONDS),
            })
            .collect();
        Self { stats }
    }

    /// Each command's name and counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &CommandStats)> {
        table::names().iter().copied().chain([UNKNOWN]).zip(&self.stats)
    }

    fn of(&self, id: Option<CommandId>) -> &CommandStats {
        &self.stats[id.map_or(self.stats.len() - 1, CommandId::index)]
    }
}

/// One connection's counts of the batch of input that it is working on.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Vec<Count>,
}

#[derive(Debug)]
struct Count {
    id: Option<CommandId>,
    ok: u64,
    error: u64,
}

impl Tally {
    /// Counts one answered command.
    pub fn add(&mut self, id: Option<CommandId>, failed: bool) {
        // Batches are mostly of one command: look from the newest.
        let count = match self.counts.iter().rposition(|count| count.id == id) {
            Some(at) => &mut self.counts[at],
            None => {
                self.counts.push(Count { id, ok: 0, error: 0 });
                self.counts.last_mut().expect("just pushed")
            }
        };
        if failed {
            count.error += 1;
        } else {
            count.ok += 1;
        }
    }

    /// Adds the batch to the shared counts and starts a new one. Returns how many commands it had.
    pub fn book(&mut self, commands: &Commands, took: Duration) -> u64 {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let mut total = 0;
        for Count { id, ok, error } in self.counts.drain(..) {
            let stats = commands.of(id);
            if ok > 0 {
                stats.ok.fetch_add(ok, Ordering::Relaxed);
            }
            if error > 0 {
                stats.error.fetch_add(error, Ordering::Relaxed);
            }
            stats.duration.record(took, ok + error);
            total += ok + error;
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_booked_once() {
        let commands = Commands::new();
        let get = table::find(b"PING").map(|(id, _)| id);
        let mut tally = Tally::default();
        tally.add(get, false);
        tally.add(None, true);
        tally.add(get, false);
        assert_eq!(tally.book(&commands, Duration::from_micros(5)), 3);
        assert_eq!(tally.book(&commands, Duration::from_micros(5)), 0);
        let stats = commands.of(get);
        assert_eq!((stats.ok.load(Ordering::Relaxed), stats.duration.count()), (2, 2));
        let (label, unknown) = commands.iter().last().expect("the last is for unknown commands");
        assert_eq!((label, unknown.error.load(Ordering::Relaxed)), (UNKNOWN, 1));
    }
}
