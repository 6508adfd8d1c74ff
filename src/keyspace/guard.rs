//! The logout guard: a deleted session leaves a mark for a while, and no plain write brings it back meanwhile. So a slow
//! request that began before a logout cannot undo it, on whatever node: the mark is in the store, in the session's place.
//!
//! Here is which keys are guarded and what a mark is. Who looks at them is in `update.rs` and `stage.rs`; to everybody
//! above the keyspace a marked key is absent.

use std::time::Duration;

use crate::entry::{Change, Entry, Key, Kind, UnixMs, Value};
use crate::glob;
use crate::keyspace::key::KeyRef;

/// Which keys are guarded, and for how long.
#[derive(Clone, Debug)]
pub struct Guard {
    patterns: Vec<Vec<u8>>,
    window_ms: i64,
    /// Bytes of the configured prefix, which patterns do not cover.
    prefix: usize,
}

impl Guard {
    /// Guards the names (without a prefix of `prefix` bytes) that match one of the patterns, for `window` after a deletion.
    #[must_use]
    pub fn new(patterns: Vec<Vec<u8>>, window: Duration, prefix: usize) -> Self {
        Self { patterns, window_ms: i64::try_from(window.as_millis()).unwrap_or(i64::MAX), prefix }
    }

    /// Whether deletions of this key leave a mark.
    #[must_use]
    pub fn covers(&self, key: &Key) -> bool {
        // Most daemons have no patterns.
        !self.patterns.is_empty() && self.covers_name(&key.name()[self.prefix.min(key.name().len())..])
    }

    /// As [`Guard::covers`].
    #[must_use]
    pub fn covers_ref(&self, key: &KeyRef<'_>) -> bool {
        !self.patterns.is_empty() && self.covers_name(key.name())
    }

    fn covers_name(&self, name: &[u8]) -> bool {
        self.patterns.iter().any(|pattern| glob::matches(pattern, name, false))
    }

    /// What is to be done in place of `change`: a deletion of a guarded key at `now`, also by a time in the past, leaves a
    /// mark.
    #[must_use]
    pub fn in_place_of(&self, key: &Key, change: Change, now: UnixMs) -> Change {
        let deletes = match &change {
            Change::Delete => true,
            Change::Put { expires_at: Some(at), .. } => *at <= now,
            Change::Put { expires_at: None, .. } | Change::Expire(_) | Change::Keep => false,
        };
        if !deletes || !self.covers(key) {
            return change;
        }
        let expires_at = Some(now.saturating_add(self.window_ms));
        Change::Put { kind: Kind::Deleted, value: Value::from(&[][..]), expires_at }
    }
}

/// Whether it is the mark of a deletion.
#[must_use]
pub fn is_mark(entry: &Entry) -> bool {
    entry.kind == Kind::Deleted
}

/// Whether applying this change at a mark would bring the key back. A new mark does not.
#[must_use]
pub fn revives(change: &Change) -> bool {
    matches!(change, Change::Put { kind, .. } if *kind != Kind::Deleted)
}

/// The entry, unless it is a mark.
#[must_use]
pub fn session(entry: Option<Entry>) -> Option<Entry> {
    entry.filter(|entry| !is_mark(entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::KeyHasher;

    fn key(name: &[u8]) -> Key {
        Key::new(&KeyHasher::new(&[7; 16]), 0, name.into())
    }

    #[test]
    fn patterns_are_of_names_without_the_prefix() {
        let patterns = vec![b"session:*".to_vec(), b"s?".to_vec()];
        let (guard, off) = (Guard::new(patterns, Duration::from_secs(30), 4), Guard::new(vec![], Duration::ZERO, 4));
        for (name, covered) in [
            (&b"app:session:1"[..], true),
            (b"app:s1", true),
            (b"app:s", false),
            (b"app:other", false),
            (b"session:1", false),
            (b"app:", false),
        ] {
            assert_eq!(guard.covers(&key(name)), covered, "{}", name.escape_ascii());
            assert_eq!(guard.covers_ref(&KeyRef::new(&KeyHasher::new(&[7; 16]), 0, &name[..4], &name[4..])), covered);
            assert!(!off.covers(&key(name)));
        }
    }

    #[test]
    fn deletions_of_guarded_keys_become_marks() {
        let guard = Guard::new(vec![b"s*".to_vec()], Duration::from_secs(30), 0);
        let put = |expires_at| Change::Put { kind: Kind::String, value: Value::from(&b"v"[..]), expires_at };
        for (name, change, marks) in [
            (b"s1", Change::Delete, true),
            (b"s1", put(Some(1_000)), true),
            (b"s1", put(Some(1_001)), false),
            (b"s1", put(None), false),
            (b"s1", Change::Expire(None), false),
            (b"x1", Change::Delete, false),
            (b"x1", put(Some(1_000)), false),
        ] {
            let shown = format!("{change:?}");
            let instead = guard.in_place_of(&key(name), change, 1_000);
            let is_mark = matches!(instead, Change::Put { kind: Kind::Deleted, expires_at: Some(31_000), ref value } if value.is_empty());
            assert_eq!(is_mark, marks, "{shown} of {}", name.escape_ascii());
            assert!(is_mark || format!("{instead:?}") == shown);
            assert!(!is_mark || !revives(&instead));
        }
        assert!(revives(&put(None)) && !revives(&Change::Delete));
    }
}
