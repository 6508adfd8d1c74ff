//! Group commit: while one transaction is in flight, arriving writes gather; then one batch commits them all.
//!
//! A lone write commits at once. The cache learns of a commit before its writers are told, and before the keys are
//! free for the next batch.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::entry::{Applied, Change, Entry, Expect, Group, Kind, Outcome, Value};
use crate::keyspace::cache::{Cache, Epoch};
use crate::keyspace::doubt::Doubts;
use crate::keyspace::error::KeyspaceError;
use crate::keyspace::health::Health;
use crate::keyspace::parts::Parts;
use crate::keyspace::queue::{Batch, Queue, QueueLimits, Submission, Written};
use crate::keyspace::stats::Stats;
use crate::store::Store;
use crate::store::error::{StoreError, StoreErrorKind};

/// Bounds: a queue for some seconds of a busy store, batches large enough that more rows gain nothing.
const LIMITS: QueueLimits = QueueLimits { max_waiting_bytes: 256 << 20, max_batch_rows: 512, max_batch_bytes: 8 << 20 };

/// Batches in flight at once. One suffices on a fast store; the second helps where a commit takes long.
const MAX_COMMITS: usize = 2;

/// A second batch starts beside one in flight only when so many rows have gathered; fewer wait for the first.
const SECOND_BATCH_ROWS: usize = 128;

/// Takes writes and tells their writers when they are durable.
pub struct Committer {
    queue: Mutex<Gathering>,
    arrived: Notify,
    doubts: Doubts,
}

struct Gathering {
    queue: Queue,
    /// How many rows must wait before the committer wants to be woken; `usize::MAX`: it does not.
    wake_at: usize,
    closed: bool,
}

/// A batch whose commit has ended.
struct Ended {
    batch: Batch,
    results: Vec<Result<Outcome, StoreError>>,
    epoch: Epoch,
}

impl Committer {
    /// A committer; [`Committer::run`] does its work.
    #[must_use]
    pub fn new() -> Self {
        let gathering = Gathering { queue: Queue::new(LIMITS), wake_at: 1, closed: false };
        Self { queue: Mutex::new(gathering), arrived: Notify::new(), doubts: Doubts::default() }
    }

    /// Queues a group. The receiver resolves when it is durable or refused; dropping it takes nothing back.
    pub fn submit(
        &self,
        group: Group,
        kept: Vec<Option<(Kind, Value)>>,
    ) -> Result<oneshot::Receiver<Written>, KeyspaceError> {
        debug_assert!(!group.is_empty(), "a group has a mutation");
        let (done, written) = oneshot::channel();
        let mut gathering = self.lock();
        if gathering.closed {
            return Err(KeyspaceError::Busy);
        }
        gathering.queue.push(Submission { group, kept, done }).map_err(|_| KeyspaceError::Busy)?;
        let wake = gathering.queue.rows() >= gathering.wake_at;
        if wake {
            gathering.wake_at = usize::MAX;
        }
        drop(gathering);
        if wake {
            self.arrived.notify_one();
        }
        Ok(written)
    }

    /// Commits until `stop`, and then until nothing waits any more. From then on writes are refused.
    pub async fn run(self: Arc<Self>, parts: Parts, stop: CancellationToken) {
        let Parts { store, cache, health, stats } = parts;
        let mut commits = FuturesUnordered::new();
        loop {
            while let Some(batch) = self.next_batch(commits.len(), &stats) {
                commits.push(commit(&*store, &health, &stats, batch, cache.epoch()));
            }
            tokio::select! {
                () = self.arrived.notified() => {}
                Some(ended) = commits.next(), if !commits.is_empty() => self.settle(ended, &cache, &health, &stats),
                () = stop.cancelled(), if commits.is_empty() => {
                    if self.close_if_empty() {
                        return;
                    }
                }
            }
        }
    }

    /// Takes keys whose last write has an unknown outcome out of the cache; to be called every second or so.
    pub fn forget_doubtful(&self, cache: &Cache) {
        self.doubts.forget(cache, Instant::now());
    }

    fn next_batch(&self, in_flight: usize, stats: &Stats) -> Option<Batch> {
        let mut gathering = self.lock();
        let needed = match in_flight {
            0 => 1,
            MAX_COMMITS.. => usize::MAX,
            _ => SECOND_BATCH_ROWS,
        };
        let batch = if gathering.queue.rows() >= needed { gathering.queue.take() } else { None };
        // Without a batch, wake when there may be one; with one, the caller asks again at once.
        gathering.wake_at = if batch.is_none() && !gathering.queue.is_empty() && in_flight > 0 {
            needed.max(gathering.queue.rows() + 1)
        } else {
            needed
        };
        stats.queued.store(gathering.queue.len() as u64, Ordering::Relaxed);
        stats.queued_bytes.store(gathering.queue.bytes() as u64, Ordering::Relaxed);
        batch
    }

    fn close_if_empty(&self) -> bool {
        let mut gathering = self.lock();
        gathering.closed = gathering.queue.is_empty();
        gathering.closed
    }

    /// Tells the cache, frees the keys, tells the writers: in this order.
    fn settle(&self, ended: Ended, cache: &Cache, health: &Health, stats: &Stats) {
        let Ended { batch, results, epoch } = ended;
        let mut answers = Vec::with_capacity(results.len());
        let mut noted = None;
        for ((group, kept), result) in batch.groups.iter().zip(&batch.kept).zip(results) {
            match &result {
                Ok(Outcome::Applied(applied)) => publish(cache, group, kept, applied, epoch),
                Ok(Outcome::Conflict) => refute(cache, group),
                Err(error) => {
                    for mutation in group {
                        cache.forget(&mutation.key);
                        if error.kind() == StoreErrorKind::UnknownOutcome {
                            self.doubts.add(mutation.key.clone(), Instant::now());
                        }
                    }
                    stats.commits.count_error(error.kind());
                    // A failed batch fails in one way mostly: one line in the log, not one for each row.
                    if noted.replace(error.kind()) != Some(error.kind()) {
                        health.note(error);
                    }
                }
            }
            answers.push(result.map_err(|error| KeyspaceError::Store(error.kind())));
        }
        self.lock().queue.release(batch.hashes());
        for (waiting, answer) in batch.waiting.into_iter().zip(answers) {
            for done in waiting {
                // A writer that left does not need the answer; its write stands.
                let _ = done.send(answer.clone());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Gathering> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn commit(store: &dyn Store, health: &Health, stats: &Stats, batch: Batch, epoch: Epoch) -> Ended {
    let begun = Instant::now();
    let count = batch.groups.len();
    stats.absorbed.fetch_add((batch.submissions - count) as u64, Ordering::Relaxed);
    let results = if health.is_up() {
        store.commit(&batch.groups).await
    } else {
        (0..count).map(|_| Err(StoreError::bare(StoreErrorKind::Unavailable))).collect()
    };
    debug_assert_eq!(results.len(), count, "a store answers for each group");
    stats.commits.observe(batch.rows as u64, begun.elapsed(), None);
    Ended { batch, results, epoch }
}

/// Puts what was committed into the cache.
fn publish(cache: &Cache, group: &Group, kept: &[Option<(Kind, Value)>], applied: &[Applied], epoch: Epoch) {
    for (index, (mutation, applied)) in group.iter().zip(applied).enumerate() {
        let version = applied.version;
        let entry = match &mutation.change {
            Change::Put { kind, value, expires_at } => {
                Some(Entry { kind: *kind, value: Arc::clone(value), expires_at: *expires_at, version })
            }
            Change::Expire(expires_at) => match kept.get(index) {
                Some(Some((kind, value))) => {
                    Some(Entry { kind: *kind, value: Arc::clone(value), expires_at: *expires_at, version })
                }
                _ => {
                    cache.forget(&mutation.key);
                    continue;
                }
            },
            Change::Delete => None,
        };
        cache.committed(&mutation.key, entry, epoch);
    }
}

/// An expectation failed: whatever made us expect it is not to be believed.
fn refute(cache: &Cache, group: &Group) {
    for mutation in group.iter().filter(|mutation| mutation.expect != Expect::Any) {
        cache.forget(&mutation.key);
    }
}
