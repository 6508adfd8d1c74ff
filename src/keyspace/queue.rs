//! Writes that wait for a commit, and how batches are taken from them. Pure: no task, no store, no clock.
//!
//! A key is in at most one batch in flight, and a write never overtakes an earlier one of the same key: so the order
//! of each key's writes holds, however many batches are in flight and however many keys a group has.

use std::collections::{HashMap, HashSet, VecDeque};

use tokio::sync::oneshot;

use crate::entry::{Change, Entry, Expect, Group, Outcome};
use crate::keyspace::error::KeyspaceError;
use crate::keyspace::key::Carried;

/// How a write ended.
pub type Written = Result<Outcome, KeyspaceError>;

/// A group on its way to a commit.
#[derive(Debug)]
pub struct Submission {
    /// What to commit.
    pub group: Group,
    /// For each mutation that expects a version: the entry that has it. As long as the group, or empty.
    pub seen: Vec<Option<Entry>>,
    /// Whom to tell.
    pub done: oneshot::Sender<Written>,
}

/// Groups that are committed together.
#[derive(Debug, Default)]
pub struct Batch {
    /// The groups; their keys are pairwise different.
    pub groups: Vec<Group>,
    /// See [`Submission::seen`]; one element per group.
    pub seen: Vec<Vec<Option<Entry>>>,
    /// Who waits for each group.
    pub waiting: Vec<oneshot::Sender<Written>>,
    /// Who waits beside them, by the number of the group: writers whose put a later one of the same key replaced.
    pub absorbed: Vec<(usize, oneshot::Sender<Written>)>,
    /// Mutations in all groups.
    pub rows: usize,
    /// Bytes of all mutations.
    pub bytes: usize,
    /// Submissions in the batch.
    pub submissions: usize,
}

/// Bounds of the queue and of one batch.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Bytes that may wait.
    pub max_waiting_bytes: usize,
    /// Mutations of one batch; a larger group goes alone.
    pub max_batch_rows: usize,
    /// Bytes of one batch; a larger group goes alone.
    pub max_batch_bytes: usize,
}

/// See the file's header.
#[derive(Debug)]
pub struct Queue {
    limits: QueueLimits,
    waiting: VecDeque<Submission>,
    waiting_bytes: usize,
    waiting_rows: usize,
    /// Hashes of the keys of batches in flight. Two keys with one hash only wait for each other.
    busy: HashSet<u64, Carried>,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            waiting_rows: 0,
            busy: HashSet::with_hasher(Carried::default()),
        }
    }

    /// Adds a write. Gives it back if the queue is full.
    pub fn push(&mut self, submission: Submission) -> Result<(), Submission> {
        let bytes = group_bytes(&submission.group);
        if self.waiting_bytes + bytes > self.limits.max_waiting_bytes && !self.waiting.is_empty() {
            return Err(submission);
        }
        self.waiting_bytes += bytes;
        self.waiting_rows += submission.group.len();
        self.waiting.push_back(submission);
        Ok(())
    }

    /// Writes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no write waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Mutations that wait.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.waiting_rows
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Takes the next batch: the oldest writes whose keys are free. `None` if there are none.
    pub fn take(&mut self) -> Option<Batch> {
        let mut builder = Builder::default();
        builder.taken.reserve(self.waiting_rows.min(self.limits.max_batch_rows));
        let mut deferred = VecDeque::new();
        while let Some(submission) = self.waiting.pop_front() {
            let (rows, bytes) = (submission.group.len(), group_bytes(&submission.group));
            let full = builder.batch.rows + rows > self.limits.max_batch_rows
                || builder.batch.bytes + bytes > self.limits.max_batch_bytes;
            if full && builder.batch.rows > 0 {
                self.waiting.push_front(submission);
                break;
            }
            match builder.admit(submission, bytes, &self.busy) {
                None => {
                    self.waiting_rows -= rows;
                    self.waiting_bytes -= bytes;
                }
                Some(submission) => deferred.push_back(submission),
            }
        }
        while let Some(submission) = deferred.pop_back() {
            self.waiting.push_front(submission);
        }
        let batch = builder.batch;
        self.busy.extend(batch.hashes());
        (batch.submissions > 0).then_some(batch)
    }

    /// The keys of a batch are free again.
    pub fn release(&mut self, hashes: impl Iterator<Item = u64>) {
        for hash in hashes {
            self.busy.remove(&hash);
        }
    }

    /// Takes everything that waits.
    pub fn drain(&mut self) -> VecDeque<Submission> {
        self.waiting_bytes = 0;
        self.waiting_rows = 0;
        std::mem::take(&mut self.waiting)
    }
}

impl Batch {
    /// The hashes of the batch's keys.
    pub fn hashes(&self) -> impl Iterator<Item = u64> + '_ {
        self.groups.iter().flatten().map(|mutation| mutation.key.hash())
    }
}

#[derive(Default)]
struct Builder {
    batch: Batch,
    /// Keys of the batch, with the index of the group if that is a lone blind put.
    taken: HashMap<u64, Option<usize>, Carried>,
    /// Keys of writes that had to wait: later writes of them wait, too.
    blocked: HashSet<u64, Carried>,
}

impl Builder {
    /// Takes the write into the batch, or gives it back to wait for the next.
    fn admit(&mut self, submission: Submission, bytes: usize, busy: &HashSet<u64, Carried>) -> Option<Submission> {
        let free = |hash: &u64| !busy.contains(hash) && !self.blocked.contains(hash);
        let mut hashes = submission.group.iter().map(|mutation| mutation.key.hash());
        if hashes.all(|hash| free(&hash) && !self.taken.contains_key(&hash)) {
            self.append(submission, bytes);
            return None;
        }
        if let Some(index) = self.absorbing(&submission) {
            self.absorb(index, submission, bytes);
            return None;
        }
        self.blocked.extend(submission.group.iter().map(|mutation| mutation.key.hash()));
        Some(submission)
    }

    fn append(&mut self, submission: Submission, bytes: usize) {
        let index = self.batch.groups.len();
        let alone = is_blind_put(&submission.group).then_some(index);
        self.taken.extend(submission.group.iter().map(|mutation| (mutation.key.hash(), alone)));
        self.batch.rows += submission.group.len();
        self.batch.bytes += bytes;
        self.batch.submissions += 1;
        self.batch.groups.push(submission.group);
        self.batch.seen.push(submission.seen);
        self.batch.waiting.push(submission.done);
    }

    /// The group of the batch that this write may replace: both are lone blind puts of one key.
    fn absorbing(&self, submission: &Submission) -> Option<usize> {
        let [mutation] = submission.group.as_slice() else { return None };
        let hash = mutation.key.hash();
        let index = (*self.taken.get(&hash)?)?;
        let same = is_blind_put(&submission.group)
            && !self.blocked.contains(&hash)
            && self.batch.groups[index][0].key == mutation.key;
        same.then_some(index)
    }

    /// Both writes happen in the one commit, the later one last: only its value can ever be seen.
    fn absorb(&mut self, index: usize, submission: Submission, bytes: usize) {
        self.batch.bytes = self.batch.bytes + bytes - group_bytes(&self.batch.groups[index]);
        self.batch.groups[index] = submission.group;
        self.batch.submissions += 1;
        self.batch.absorbed.push((index, submission.done));
    }
}

fn is_blind_put(group: &Group) -> bool {
    matches!(group.as_slice(), [one] if one.expect == Expect::Any && matches!(one.change, Change::Put { .. }))
}

fn group_bytes(group: &Group) -> usize {
    group
        .iter()
        .map(|mutation| {
            let value = if let Change::Put { value, .. } = &mutation.change { value.len() } else { 0 };
            mutation.key.name().len() + value + MUTATION_OVERHEAD
        })
        .sum()
}

/// Bytes that a waiting mutation takes beside its key and value, about.
const MUTATION_OVERHEAD: usize = 128;

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
