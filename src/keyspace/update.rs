//! Read, decide, write expecting what was read; on conflict, again.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{Mutex, MutexGuard};

use crate::entry::{Change, Entry, Expect, Group, Key, Mutation, Outcome, UnixMs};
use crate::keyspace::Keyspace;
use crate::keyspace::committer::told;
use crate::keyspace::error::KeyspaceError;
use crate::keyspace::guard::{is_mark, revives, session};
use crate::keyspace::key::KeyRef;
use crate::keyspace::touch::Touch;
use crate::limits::MAX_UPDATE_TRIES;

/// What an update's function decides about the entries that it was shown.
pub enum Decision<T> {
    /// Changes nothing.
    Answer(T),
    /// As [`Decision::Answer`], for a command that asked for a change of keys which are not all there. Refused if one of
    /// them was deleted a moment ago and is guarded.
    Missed(T),
    /// Applies changes to keys (by index), if none of those keys has changed since, and then answers. Refused if it would
    /// bring back a key that was deleted a moment ago and is guarded.
    Write(Vec<(usize, Change)>, T),
    /// As [`Decision::Write`], for a command that only creates: it may bring back such a key.
    Create(Vec<(usize, Change)>, T),
}

/// Locks by key hash: updates of one key on this daemon take turns, so that they conflict only with other daemons.
pub struct Stripes {
    locks: Box<[Mutex<()>]>,
}

/// Power of two; two keys of one stripe merely wait for each other.
const STRIPES: usize = 4096;

impl Stripes {
    /// All free.
    #[must_use]
    pub fn new() -> Self {
        Self { locks: (0..STRIPES).map(|_| Mutex::new(())).collect() }
    }

    /// Waits for the stripes of all keys, in one order for everybody.
    pub(super) async fn lock(&self, keys: &[Key]) -> Vec<MutexGuard<'_, ()>> {
        let mut indices: Vec<usize> = keys.iter().map(|key| key.hash() as usize % STRIPES).collect();
        indices.sort_unstable();
        indices.dedup();
        let mut guards = Vec::with_capacity(indices.len());
        for index in indices {
            guards.push(self.locks[index].lock().await);
        }
        guards
    }
}

impl Keyspace {
    /// Reads `keys`, lets `decide` choose, and writes its changes expecting the versions that were read; on
    /// conflict, again, a bounded number of times. `decide` gets the live entries in order, and the time.
    /// A key may be read without being changed. The keys must be pairwise different.
    ///
    /// Dropping the future before it resolves may leave the write done or not.
    pub fn update<T, F>(
        self: &Arc<Self>,
        keys: Vec<Key>,
        mut decide: F,
    ) -> impl Future<Output = Result<T, KeyspaceError>> + Send + 'static + use<T, F>
    where
        T: Send + 'static,
        F: FnMut(&[Option<Entry>], UnixMs) -> Decision<T> + Send + 'static,
    {
        let keyspace = Arc::clone(self);
        async move {
            let _turn = keyspace.stripes.lock(&keys).await;
            for _ in 0..MAX_UPDATE_TRIES {
                let entries = keyspace.entries(&keys).await?;
                let sessions: Vec<_> = entries.iter().cloned().map(session).collect();
                let (changes, creates, answer) = match decide(&sessions, keyspace.now()) {
                    Decision::Missed(_) if entries.iter().flatten().any(is_mark) => return Err(KeyspaceError::Guarded),
                    Decision::Answer(answer) | Decision::Missed(answer) => return Ok(answer),
                    Decision::Write(changes, answer) => (changes, false, answer),
                    Decision::Create(changes, answer) => (changes, true, answer),
                };
                if keyspace.write_expecting(&keys, &entries, changes, creates).await? {
                    return Ok(answer);
                }
                keyspace.stats.conflicts.fetch_add(1, Ordering::Relaxed);
            }
            Err(KeyspaceError::Contended)
        }
    }

    /// The live entries and marks of `keys`, in order.
    pub async fn entries(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>, KeyspaceError> {
        let now = self.moment();
        let mut answers = Vec::with_capacity(keys.len());
        for key in keys {
            answers.push(self.fly(&KeyRef::of(key), now));
        }
        let mut entries = Vec::with_capacity(keys.len());
        for answer in answers {
            entries.push(match answer {
                Ok(entry) => entry,
                Err(awaited) => awaited.landed().await?,
            });
        }
        Ok(entries)
    }

    /// Whether the changes were applied.
    async fn write_expecting(
        &self,
        keys: &[Key],
        entries: &[Option<Entry>],
        changes: Vec<(usize, Change)>,
        creates: bool,
    ) -> Result<bool, KeyspaceError> {
        let now = self.now();
        let mut group = Group::with_capacity(changes.len());
        let mut seen = Vec::with_capacity(changes.len());
        for (index, change) in changes {
            let (key, entry) = (&keys[index], &entries[index]);
            let change = self.guard.in_place_of(key, change, now);
            if !creates && revives(&change) && entry.as_ref().is_some_and(is_mark) {
                return Err(KeyspaceError::Guarded);
            }
            if entry.is_none() && matches!(change, Change::Delete) {
                continue;
            }
            let expect = entry.as_ref().map_or(Expect::Absent, |entry| Expect::Version(entry.version));
            group.push(Mutation { key: key.clone(), expect, change });
            seen.push(entry.clone());
        }
        Ok(group.is_empty() || self.is_touch(&group, &seen) || self.submit(group, seen).await?)
    }

    /// Whether the group only moved an expiry, which needed no write and is done.
    pub(super) fn is_touch(&self, group: &Group, seen: &[Option<Entry>]) -> bool {
        let ([mutation], [Some(seen)]) = (group.as_slice(), seen) else { return false };
        let touch = Touch::of(&mutation.change, seen);
        touch.is_some_and(|touch| self.touch(&KeyRef::of(&mutation.key), &touch, self.moment()))
    }

    /// Whether the group was applied, which expects the entries that were `seen`.
    pub(super) async fn submit(&self, group: Group, seen: Vec<Option<Entry>>) -> Result<bool, KeyspaceError> {
        if !self.health.is_up() {
            return Err(KeyspaceError::Store(self.health.refusal().kind()));
        }
        match told(self.committer.submit(group, seen)?).await? {
            Outcome::Applied(_) => Ok(true),
            Outcome::Conflict => Ok(false),
        }
    }
}
