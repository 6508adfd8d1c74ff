//! Keys whose last write may still happen: the connection was lost while it committed, and the database may finish it
//! after we were told. Until that is over, what a load saw before may be old, so such keys do not stay cached.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::entry::Key;
use crate::keyspace::cache::Cache;

/// How long a write may go on without its client. It waits for locks at most as long as a statement may take, and then
/// for the disk.
const LASTS: Duration = Duration::from_secs(60);

/// Keys that are remembered; with more, nothing stays cached.
const MAX_KEYS: usize = 100_000;

/// See the file's header.
#[derive(Debug, Default)]
pub struct Doubts {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In the order in which the doubt ends.
    keys: VecDeque<(Instant, Key)>,
    /// Until when every key is in doubt.
    all: Option<Instant>,
}

impl Doubts {
    /// Notes at `now` that a write of `key` has an unknown outcome.
    pub fn add(&self, key: Key, now: Instant) {
        let mut state = self.lock();
        if state.keys.len() < MAX_KEYS {
            state.keys.push_back((now + LASTS, key));
        } else {
            state.all = Some(now + LASTS);
        }
    }

    /// Takes what is in doubt at `now` out of the cache. Called every second or so: what a load brought back meanwhile
    /// was served for no longer than that.
    pub fn forget(&self, cache: &Cache, now: Instant) {
        let mut state = self.lock();
        if state.all.take_if(|until| *until < now).is_some() || state.all.is_some() {
            cache.clear();
        }
        for (_, key) in &state.keys {
            cache.forget(key);
        }
        // What ends now has been forgotten once more.
        while state.keys.front().is_some_and(|(until, _)| *until < now) {
            state.keys.pop_front();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, KeyHasher, Kind};
    use crate::keyspace::cache::Cached;
    use crate::keyspace::key::KeyRef;

    fn cached(cache: &Cache, key: &Key) -> bool {
        matches!(cache.get_or_fly(&KeyRef::of(key), 0), Cached::Known(Some(_)))
    }

    fn fill(cache: &Cache, key: &Key) {
        let entry = Entry { kind: Kind::String, value: b"old"[..].into(), expires_at: None, version: 1 };
        cache.committed(key, Some(entry), cache.epoch());
    }

    #[test]
    fn a_doubtful_key_does_not_stay_until_the_doubt_is_over() {
        let hasher = KeyHasher::new(&[5; 16]);
        let (doubtful, other) = (Key::new(&hasher, 0, b"a"[..].into()), Key::new(&hasher, 0, b"b"[..].into()));
        let (cache, doubts, start) = (Cache::new(1 << 20), Doubts::default(), Instant::now());
        doubts.add(doubtful.clone(), start);
        for (after, stays) in [(0, false), (59, false), (61, false), (62, true)] {
            fill(&cache, &doubtful);
            fill(&cache, &other);
            doubts.forget(&cache, start + Duration::from_secs(after));
            assert_eq!(cached(&cache, &doubtful), stays, "after {after} s");
            assert!(cached(&cache, &other));
        }
    }

    #[test]
    fn too_many_doubts_are_a_doubt_about_everything() {
        let hasher = KeyHasher::new(&[5; 16]);
        let other = Key::new(&hasher, 0, b"other"[..].into());
        let (cache, doubts, start) = (Cache::new(1 << 20), Doubts::default(), Instant::now());
        for number in 0..=MAX_KEYS {
            doubts.add(Key::new(&hasher, 0, number.to_string().into_bytes().into()), start);
        }
        for (after, stays) in [(1, false), (61, false), (62, true)] {
            fill(&cache, &other);
            doubts.forget(&cache, start + Duration::from_secs(after));
            assert_eq!(cached(&cache, &other), stays, "after {after} s");
        }
    }
}
