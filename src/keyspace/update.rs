//! Read, decide, write expecting what was read; on conflict, again.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{Mutex, MutexGuard};

use crate::entry::{Change, Entry, Expect, Group, Key, Kind, Mutation, Outcome, UnixMs, Value};
use crate::keyspace::error::KeyspaceError;
use crate::keyspace::key::KeyRef;
use crate::keyspace::{Keyspace, Read};
use crate::limits::MAX_UPDATE_TRIES;

/// What an update's function decides about the entries that it was shown.
pub enum Decision<T> {
    /// Changes nothing.
    Answer(T),
    /// Applies changes to keys (by index), if none of those keys has changed since, and then answers.
    Write(Vec<(usize, Change)>, T),
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
    async fn lock(&self, keys: &[Key]) -> Vec<MutexGuard<'_, ()>> {
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
                let (changes, answer) = match decide(&entries, keyspace.now()) {
                    Decision::Answer(answer) => return Ok(answer),
                    Decision::Write(changes, answer) => (changes, answer),
                };
                if changes.is_empty() {
                    return Ok(answer);
                }
                if keyspace.write_expecting(&keys, &entries, changes).await? {
                    return Ok(answer);
                }
                keyspace.stats.conflicts.fetch_add(1, Ordering::Relaxed);
            }
            Err(KeyspaceError::Contended)
        }
    }

    async fn entries(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>, KeyspaceError> {
        let now = self.now();
        let mut answers = Vec::with_capacity(keys.len());
        for key in keys {
            answers.push(self.fly_key(key, now));
        }
        let mut entries = Vec::with_capacity(keys.len());
        for answer in answers {
            entries.push(match answer {
                Read::Hit(entry) => entry,
                Read::Miss(landing) => landing.await?,
            });
        }
        Ok(entries)
    }

    fn fly_key(&self, key: &Key, now: UnixMs) -> Read<Option<Entry>> {
        self.read(&KeyRef::of(key), now)
    }

    /// Whether the changes were applied.
    async fn write_expecting(
        &self,
        keys: &[Key],
        entries: &[Option<Entry>],
        changes: Vec<(usize, Change)>,
    ) -> Result<bool, KeyspaceError> {
        let mut group = Group::with_capacity(changes.len());
        let mut kept: Vec<Option<(Kind, Value)>> = Vec::with_capacity(changes.len());
        for (index, change) in changes {
            let seen = entries[index].as_ref();
            let expect = seen.map_or(Expect::Absent, |entry| Expect::Version(entry.version));
            kept.push(match change {
                Change::Expire(_) => seen.map(|entry| (entry.kind, Arc::clone(&entry.value))),
                Change::Put { .. } | Change::Delete => None,
            });
            group.push(Mutation { key: keys[index].clone(), expect, change });
        }
        if !self.health.is_up() {
            return Err(KeyspaceError::Store(self.health.refusal().kind()));
        }
        let written = self.committer.submit(group, kept)?;
        match written.await.unwrap_or(Err(KeyspaceError::Busy))? {
            Outcome::Applied(_) => Ok(true),
            Outcome::Conflict => Ok(false),
        }
    }
}
