//! Transactions: entries are taken onto a stage, commands work on it, and what they made of it commits at once or not
//! at all. Who runs the commands, and how often, is decided above.

use std::sync::atomic::Ordering;

use tokio::sync::MutexGuard;

use crate::entry::{Group, Key, Mutation};
use crate::keyspace::Keyspace;
use crate::keyspace::error::KeyspaceError;
use crate::keyspace::stage::{Stage, Staged};

/// Whoever holds it is alone, on this daemon, in updating its keys.
pub struct Turn<'a> {
    _guards: Vec<MutexGuard<'a, ()>>,
}

impl Keyspace {
    /// Waits for the turn to update `keys`. Nobody who holds one may wait for another.
    pub async fn turn(&self, keys: &[Key]) -> Turn<'_> {
        Turn { _guards: self.stripes.lock(keys).await }
    }

    /// A stage on which the entries of `keys` are.
    pub async fn stage(&self, keys: &[Key]) -> Result<Stage, KeyspaceError> {
        let entries = self.entries(keys).await?;
        let mut stage = Stage::new(self.now());
        for (key, entry) in keys.iter().zip(entries) {
            stage.give(key, entry);
        }
        Ok(stage)
    }

    /// Commits what was made on a stage, all or nothing. False: a key was not as expected, and what the cache had of it
    /// is forgotten, so that the next stage has the truth.
    ///
    /// Dropping the future before it resolves may leave the changes done or not.
    pub async fn commit(&self, staged: Staged) -> Result<bool, KeyspaceError> {
        let Staged { group, seen, is_read_only, must_hold } = staged;
        let done = match is_read_only {
            true if must_hold => self.holds(&group).await?,
            true => true,
            false if !must_hold && self.is_touch(&group, &seen) => true,
            false => self.submit(group, seen).await?,
        };
        if !done {
            self.stats.conflicts.fetch_add(1, Ordering::Relaxed);
        }
        Ok(done)
    }

    /// Whether there was a moment, since the call, at which all expectations held.
    async fn holds(&self, group: &Group) -> Result<bool, KeyspaceError> {
        let keys: Vec<Key> = group.iter().map(|mutation| mutation.key.clone()).collect();
        // A store sees the keys of one database at one moment. Versions do not repeat, so what was the same before and
        // after was so in between.
        let passes = if keys.iter().any(|key| key.db() != keys[0].db()) { 2 } else { 1 };
        let mut all = true;
        for _ in 0..passes {
            let wanted = keys.clone();
            let entries = self.ask(|store| store.load(wanted)).await?;
            for (Mutation { key, expect, .. }, entry) in group.iter().zip(entries) {
                if !expect.admits(entry.map(|entry| entry.version)) {
                    self.cache.forget(key.hash());
                    all = false;
                }
            }
        }
        Ok(all)
    }
}
