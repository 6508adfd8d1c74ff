//! Group commit: while one transaction is in flight, arriving writes gather; then one batch commits them all.
//!
//! A lone write commits at once. The cache learns of a commit before its writers are told, and before the keys are
//! free for the next batch.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::poll_immediate;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::entry::{Applied, Change, Entry, Expect, Group, Outcome};
use crate::keyspace::cache::{Cache, Epoch};
use crate::keyspace::coherence::{Sailing, Settling};
use crate::keyspace::error::KeyspaceError;
use crate::keyspace::parts::Parts;
use crate::keyspace::queue::{Batch, Queue, QueueLimits, Submission, Written};
use crate::keyspace::under_way::UnderWay;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::link::Aboard;

/// Bounds: a queue for some seconds of a busy store, batches large enough that more rows gain nothing.
const LIMITS: QueueLimits = QueueLimits { max_waiting_bytes: 256 << 20, max_batch_rows: 512, max_batch_bytes: 8 << 20 };

/// Batches in flight at once: one that the store works on, one that it finds when it is done with that, and a third for
/// where one of them takes long.
const MAX_COMMITS: usize = 3;

/// A second batch need not be larger than this.
const LARGE_BATCH_ROWS: usize = 128;

/// How often it is looked whether a commit is stuck, while there are any.
const LOOK: Duration = Duration::from_millis(50);

/// How often a strict write is tried while daemons come; each comes once.
const MAX_STRICT_TRIES: u32 = 16;

/// Takes writes and tells their writers when they are durable.
pub struct Committer {
    queue: Mutex<Gathering>,
    arrived: Notify,
    detours: usize,
}

struct Gathering {
    queue: Queue,
    /// How many rows must wait before the committer wants to be woken; `usize::MAX`: it does not.
    wake_at: usize,
    /// The rows of the last two batches.
    recent: [usize; 2],
    closed: bool,
}

impl Gathering {
    /// How many rows must wait for another batch to begin, with so many in flight that are not stuck.
    ///
    /// The second one begins before the store can do anything for it, so it must be as large as batches have been: else ever
    /// fewer rows would share what a commit costs. So they become halves of the crowd, of which the store has one while we
    /// hear from the other.
    fn needed(&self, in_flight: usize) -> usize {
        let usual = self.recent.iter().sum::<usize>() / 2;
        match in_flight {
            0 => 1,
            1 => usual.clamp(1, LARGE_BATCH_ROWS),
            MAX_COMMITS.. => usize::MAX,
            _ => LIMITS.max_batch_rows,
        }
    }

    fn take(&mut self) -> Option<Batch> {
        let batch = self.queue.take()?;
        self.recent = [self.recent[1], batch.rows];
        Some(batch)
    }
}

/// A batch whose commit has ended.
struct Ended {
    begun: Instant,
    batch: Batch,
    results: Vec<Result<Outcome, StoreError>>,
    epoch: Epoch,
    sailing: Sailing,
}

/// The writers of a batch, and what they are to be told.
struct Settled {
    waiting: Vec<oneshot::Sender<Written>>,
    absorbed: Vec<(usize, oneshot::Sender<Written>)>,
    answers: Vec<Written>,
}

impl Settled {
    /// Tells them. Who has left does not need the answer; the write stands.
    fn tell(self) {
        for (group, done) in self.absorbed {
            let _ = done.send(self.answers[group].clone());
        }
        for (done, answer) in self.waiting.into_iter().zip(self.answers) {
            let _ = done.send(answer);
        }
    }
}

impl Committer {
    /// A committer; [`Committer::run`] does its work. `detours`: so many commits that are stuck
    /// hold up nobody else.
    #[must_use]
    pub fn new(detours: usize) -> Self {
        let gathering = Gathering { queue: Queue::new(LIMITS), wake_at: 1, recent: [0; 2], closed: false };
        Self { queue: Mutex::new(gathering), arrived: Notify::new(), detours }
    }

    /// Queues a group, with the entries that it expects ([`Submission::seen`]). The receiver resolves when it is durable
    /// or refused; dropping it takes nothing back.
    pub fn submit(&self, group: Group, seen: Vec<Option<Entry>>) -> Result<oneshot::Receiver<Written>, KeyspaceError> {
        debug_assert!(!group.is_empty(), "a group has a mutation");
        let (done, written) = oneshot::channel();
        let mut gathering = self.lock();
        if gathering.closed {
            return Err(KeyspaceError::Busy);
        }
        gathering.queue.push(Submission { group, seen, done }).map_err(|_| KeyspaceError::Busy)?;
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
    ///
    /// Dropped before, or in a panic, it leaves batches whose outcome nobody knows, which is what [`told`] says of them, and
    /// refuses what waited behind them.
    pub async fn run(self: Arc<Self>, parts: Parts, stop: CancellationToken) {
        let _closing = Closing(&self);
        let parts = &parts;
        let mut commits = FuturesUnordered::new();
        let mut under_way = UnderWay::new(self.detours);
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ended: Option<Ended> = None;
        loop {
            let settled = ended.take().map(|ended| {
                under_way.end(ended.begun);
                self.settle(ended, parts)
            });
            let now = Instant::now();
            while let Some(batch) = self.next_batch(under_way.count(now)) {
                under_way.begin(now);
                commits.push(commit(parts, batch, now));
            }
            if let Some(settled) = settled {
                // Sends the next batch before all the writers of the last one have their turn: the store has nothing else
                // to do.
                ended = poll_immediate(commits.next()).await.flatten();
                settled.tell();
                if ended.is_some() {
                    continue;
                }
            }
            tokio::select! {
                () = self.arrived.notified() => {
                    // Whoever is about to write as well does so first, and rides along. It takes no time if nobody is.
                    tokio::task::yield_now().await;
                }
                Some(done) = commits.next(), if !commits.is_empty() => ended = Some(done),
                _ = looks.tick(), if !commits.is_empty() => {}
                () = stop.cancelled(), if commits.is_empty() => {
                    if self.close_if_empty() {
                        return;
                    }
                }
            }
        }
    }

    /// Writes that wait now, and their bytes.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        let gathering = self.lock();
        (gathering.queue.len(), gathering.queue.bytes())
    }

    fn next_batch(&self, in_flight: usize) -> Option<Batch> {
        let mut gathering = self.lock();
        let needed = gathering.needed(in_flight);
        let batch = if gathering.queue.rows() >= needed { gathering.take() } else { None };
        // Without a batch, wake when there may be one; with one, the caller asks again at once.
        gathering.wake_at = if batch.is_none() && !gathering.queue.is_empty() {
            needed.max(gathering.queue.rows() + 1)
        } else {
            needed
        };
        batch
    }

    fn close_if_empty(&self) -> bool {
        let mut gathering = self.lock();
        gathering.closed = gathering.queue.is_empty();
        gathering.closed
    }

    /// Tells the cache, then frees the keys. The writers are to be told after that.
    fn settle(&self, ended: Ended, parts: &Parts) -> Settled {
        let Parts { cache, coherence, health, stats, .. } = parts;
        let Ended { begun, batch, results, epoch, sailing } = ended;
        let mut settling = coherence.settle(sailing);
        let (mut changed_all, mut in_doubt) = (true, false);
        let mut answers = Vec::with_capacity(results.len());
        let mut noted = None;
        for ((group, seen), result) in batch.groups.iter().zip(&batch.seen).zip(results) {
            match &result {
                Ok(Outcome::Applied(applied)) => publish(cache, group, seen, applied, epoch, &mut settling),
                Ok(Outcome::Conflict) => {
                    changed_all = false;
                    refute(cache, group, &mut settling);
                }
                Err(error) => {
                    for mutation in group {
                        settling.end(mutation.key.hash());
                        cache.forget(mutation.key.hash());
                        if error.kind() == StoreErrorKind::UnknownOutcome {
                            settling.doubt(mutation.key.hash());
                            in_doubt = true;
                        }
                    }
                    changed_all = false;
                    stats.commits.count_error(error.kind());
                    // A failed batch fails in one way mostly: one line in the log, not one for each row.
                    if noted.replace(error.kind()) != Some(error.kind()) {
                        health.note(error, begun);
                    }
                }
            }
            // Where nothing was there to be changed, nothing was announced.
            changed_all &=
                group.iter().all(|mutation| matches!(mutation.change, Change::Put { .. } | Change::Expire(_)));
            answers.push(result.map_err(|error| KeyspaceError::Store(error.kind())));
        }
        settling.finish(parts.clock.tick());
        coherence.lift(sailing, changed_all, in_doubt);
        self.lock().queue.release(batch.hashes());
        Settled { waiting: batch.waiting, absorbed: batch.absorbed, answers }
    }

    fn lock(&self) -> MutexGuard<'_, Gathering> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a submitted write ended. If the committer died before it could say so, nobody knows.
pub async fn told(written: oneshot::Receiver<Written>) -> Written {
    written.await.unwrap_or(Err(KeyspaceError::Store(StoreErrorKind::UnknownOutcome)))
}

/// Refuses what still waits when the committer ends: nothing of it was sent.
struct Closing<'a>(&'a Committer);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut gathering = self.0.lock();
        gathering.closed = true;
        let left = gathering.queue.drain();
        drop(gathering);
        for submission in left {
            // Whoever left does not need the answer.
            let _ = submission.done.send(Err(KeyspaceError::Busy));
        }
    }
}

async fn commit(parts: &Parts, batch: Batch, begun: Instant) -> Ended {
    let Parts { store, cache, coherence, clock, health, stats } = parts;
    let epoch = cache.epoch();
    let count = batch.groups.len();
    stats.absorbed.fetch_add((batch.submissions - count) as u64, Ordering::Relaxed);
    let sailing = coherence.begin(&batch.groups);
    let results = if !health.is_up() {
        refused(count, StoreErrorKind::Unavailable)
    } else if coherence.is_strict() {
        commit_strictly(parts, &batch, sailing).await
    } else {
        let announcer = |hashes: Option<&[u64]>| coherence.announce(sailing, hashes);
        let is_alone = coherence.is_alone(clock.tick());
        store.commit(&batch.groups, Some(Aboard { announcer: &announcer, is_alone, acknowledged: None })).await
    };
    debug_assert_eq!(results.len(), count, "a store answers for each group");
    stats.commits.observe(batch.rows as u64, begun.elapsed(), None);
    Ended { begun, batch, results, epoch, sailing }
}

/// What was not even tried.
fn refused(count: usize, kind: StoreErrorKind) -> Vec<Result<Outcome, StoreError>> {
    (0..count).map(|_| Err(StoreError::bare(kind))).collect()
}

/// Commits when all daemons have let go of the keys. Groups that the store turns back, as another daemon has come
/// meanwhile, are tried again.
async fn commit_strictly(parts: &Parts, batch: &Batch, sailing: Sailing) -> Vec<Result<Outcome, StoreError>> {
    let Parts { store, coherence, clock, .. } = parts;
    let hashes: Vec<u64> = batch.hashes().collect();
    let announcer = |hashes: Option<&[u64]>| coherence.announce(sailing, hashes);
    let mut results = refused(batch.groups.len(), StoreErrorKind::Unacknowledged);
    let mut open: Vec<usize> = (0..batch.groups.len()).collect();
    for _ in 0..MAX_STRICT_TRIES {
        let Some(acknowledged) = coherence.clear_way(sailing, Some(&hashes), clock).await else { break };
        let aboard = Aboard { announcer: &announcer, is_alone: false, acknowledged: Some(&acknowledged) };
        let some: Vec<Group> = open.iter().map(|&index| batch.groups[index].clone()).collect();
        for (&index, result) in open.iter().zip(store.commit(&some, Some(aboard)).await) {
            results[index] = result;
        }
        let turned_back =
            |index: &usize| results[*index].as_ref().is_err_and(|error| error.kind() == StoreErrorKind::Unacknowledged);
        open.retain(turned_back);
        if open.is_empty() {
            break;
        }
        coherence.look_again(sailing);
    }
    results
}

/// Puts what was committed into the cache.
fn publish(
    cache: &Cache,
    group: &Group,
    seen: &[Option<Entry>],
    applied: &[Applied],
    epoch: Epoch,
    settling: &mut Settling<'_>,
) {
    if group.len() > 1 {
        // Whoever finds one key of the group new must not find another old afterwards.
        for mutation in group.iter().filter(|mutation| !matches!(mutation.change, Change::Keep)) {
            cache.forget(mutation.key.hash());
        }
    }
    for (index, (mutation, applied)) in group.iter().zip(applied).enumerate() {
        let version = applied.version;
        if !settling.end(mutation.key.hash()) {
            // Another node changed it as well, and which of the two came last is not known here.
            cache.forget(mutation.key.hash());
            continue;
        }
        let seen = seen.get(index).and_then(Option::as_ref);
        let entry = match &mutation.change {
            Change::Put { kind, value, expires_at } => {
                Some(Entry { kind: *kind, value: Arc::clone(value), expires_at: *expires_at, version })
            }
            Change::Expire(expires_at) => match seen {
                Some(seen) => Some(Entry { expires_at: *expires_at, version, ..seen.clone() }),
                None => {
                    cache.forget(mutation.key.hash());
                    continue;
                }
            },
            Change::Delete => None,
            Change::Keep => continue,
        };
        cache.committed(&mutation.key, entry, seen, epoch);
    }
}

/// An expectation failed: whatever made us expect it is not to be believed.
fn refute(cache: &Cache, group: &Group, settling: &mut Settling<'_>) {
    for mutation in group {
        if !settling.end(mutation.key.hash()) || mutation.expect != Expect::Any {
            cache.forget(mutation.key.hash());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;
    use crate::entry::{Kind, Mutation};
    use crate::keyspace::{Keyspace, testing};

    fn put(keyspace: &Keyspace, name: &[u8]) -> Group {
        let key = keyspace.key(0, name).expect("it is short").to_key();
        let change = Change::Put { kind: Kind::String, value: b"v"[..].into(), expires_at: None };
        vec![Mutation { key, expect: Expect::Any, change }]
    }

    #[test]
    fn a_batch_that_goes_ahead_is_as_large_as_batches_are() {
        for (recent, second) in [([0, 0], 1), ([1, 49], 25), ([512, 512], LARGE_BATCH_ROWS)] {
            let gathering = Gathering { queue: Queue::new(LIMITS), wake_at: 1, recent, closed: false };
            let needed = [0, 1, 2, 3].map(|in_flight| gathering.needed(in_flight));
            assert_eq!(needed, [1, second, LIMITS.max_batch_rows, usize::MAX]);
        }
    }

    /// What was sent may have happened; what waited has not; and nobody waits for ever.
    #[tokio::test]
    async fn a_committer_that_dies_tells_who_waits() {
        let (keyspace, work, _dir) = testing::keyspace(&CancellationToken::new()).await;
        let mut committer = work.into_iter().find(|work| work.name == "committer").expect("there is one").future;
        assert!(poll!(&mut committer).is_pending());
        let sent = keyspace.write(put(&keyspace, b"k"));
        while keyspace.waiting_writes().0 > 0 {
            assert!(poll!(&mut committer).is_pending());
        }
        // The first keeps the key busy.
        let behind = keyspace.write(put(&keyspace, b"k"));
        assert_eq!(keyspace.waiting_writes().0, 1);
        drop(committer);
        assert_eq!(sent.await, Err(KeyspaceError::Store(StoreErrorKind::UnknownOutcome)));
        assert_eq!(behind.await, Err(KeyspaceError::Busy));
        assert_eq!(keyspace.write(put(&keyspace, b"other")).await, Err(KeyspaceError::Busy));
    }
}
