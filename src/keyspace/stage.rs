//! An overlay on a few entries: commands of a transaction read and change it, and then all of it is committed at once.
//! It holds what was read of the keyspace, what the transaction made of it, and so what the commit must expect.
//! It knows no command and asks nobody: a key that it has not been given is reported as missing.

use std::collections::HashMap;
use std::sync::Arc;

use crate::entry::{Change, Entry, Expect, Group, Key, Kind, Mutation, UnixMs, Version};
use crate::keyspace::guard::{Guard, is_mark, session};
use crate::keyspace::key::{Carried, KeyRef};

/// See the file's header.
#[derive(Clone)]
pub struct Stage {
    slots: Vec<Slot>,
    /// By the key's hash, the first slot that has it.
    index: HashMap<u64, usize, Carried>,
    missing: Vec<Key>,
    changed: bool,
    /// Bytes of all values that were put, the replaced ones included.
    bytes: usize,
    now: UnixMs,
}

#[derive(Clone)]
struct Slot {
    key: Key,
    /// What the keyspace had, if it was asked; none after a write that needed no answer.
    given: Option<Option<Entry>>,
    /// Whether the transaction looked at it, so that the commit must expect it.
    was_read: bool,
    /// What is there now. Versions of entries made here mean nothing.
    current: Option<Entry>,
    change: Option<Change>,
}

/// What a transaction has to commit.
#[derive(Debug, Default)]
pub struct Staged {
    /// All mutations and checks; their keys are pairwise different.
    pub group: Group,
    /// For each mutation that expects a version: the entry that has it, if it was read.
    pub seen: Vec<Option<Entry>>,
    /// Whether nothing would be changed: the group only checks.
    pub is_read_only: bool,
    /// Whether what it checks was promised to hold at the commit, or must hold of several keys at one moment.
    pub must_hold: bool,
}

impl Stage {
    /// An empty overlay; `now` is the time of the whole transaction.
    #[must_use]
    pub fn new(now: UnixMs) -> Self {
        Self { slots: Vec::new(), index: HashMap::default(), missing: Vec::new(), changed: false, bytes: 0, now }
    }

    /// The time of the transaction.
    #[must_use]
    pub fn now(&self) -> UnixMs {
        self.now
    }

    /// Gives it what the keyspace has at `key`.
    pub fn give(&mut self, key: &Key, entry: Option<Entry>) {
        match self.find(&KeyRef::of(key)) {
            // The transaction has written it blindly, and reads its own write.
            Some(at) => self.slots[at].given = Some(entry),
            None => {
                let current = session(entry.clone());
                self.add(Slot { key: key.clone(), given: Some(entry), was_read: false, current, change: None });
            }
        }
    }

    /// The live entry of a key as the transaction sees it; none if it is missing here, which is noted.
    pub fn read(&mut self, key: &KeyRef<'_>) -> Option<Option<Entry>> {
        let Some(at) = self.find(key) else {
            self.missing.push(key.to_key());
            return None;
        };
        let slot = &mut self.slots[at];
        // What the transaction has written itself depends on nobody.
        slot.was_read |= !matches!(slot.change, Some(Change::Put { .. } | Change::Delete));
        Some(slot.current.clone().filter(|entry| entry.is_live(self.now)))
    }

    /// Notes a key as missing, if it is, without looking at it.
    pub fn want(&mut self, key: &KeyRef<'_>) {
        if self.find(key).is_none() {
            self.missing.push(key.to_key());
        }
    }

    /// Changes a key. Only puts may be of a key that has not been read.
    pub fn apply(&mut self, key: Key, change: Change) {
        let at = self.find(&KeyRef::of(&key)).unwrap_or_else(|| {
            debug_assert!(matches!(change, Change::Put { .. }), "nothing is known of the key");
            self.add(Slot { key, given: None, was_read: false, current: None, change: None })
        });
        let slot = &mut self.slots[at];
        self.changed = true;
        match change {
            Change::Put { kind, value, expires_at } => {
                self.bytes += value.len();
                slot.current = Some(Entry { kind, value: Arc::clone(&value), expires_at, version: 0 });
                slot.change = Some(Change::Put { kind, value, expires_at });
            }
            Change::Expire(at) => {
                let Some(entry) = &mut slot.current else { return };
                entry.expires_at = at;
                slot.change = Some(match &slot.change {
                    // The value is the transaction's own.
                    Some(Change::Put { .. }) => {
                        Change::Put { kind: entry.kind, value: Arc::clone(&entry.value), expires_at: at }
                    }
                    _ => Change::Expire(at),
                });
            }
            Change::Delete => {
                slot.current = None;
                slot.change = Some(Change::Delete);
            }
            Change::Keep => {}
        }
    }

    /// Whether the key was deleted a moment ago, by somebody else, and not been created since.
    #[must_use]
    pub fn is_marked(&self, key: &Key) -> bool {
        let slot = self.find(&KeyRef::of(key)).map(|at| &self.slots[at]);
        slot.is_some_and(|slot| {
            slot.given.iter().flatten().any(is_mark) && !matches!(slot.change, Some(Change::Put { .. }))
        })
    }

    /// The keys that were asked for and are missing, each once; then none is.
    pub fn take_missing(&mut self) -> Vec<Key> {
        let mut missing = std::mem::take(&mut self.missing);
        missing.sort_unstable_by(|a, b| (a.hash(), a.name()).cmp(&(b.hash(), b.name())));
        missing.dedup();
        missing
    }

    /// Whether a key was asked for and is missing.
    #[must_use]
    pub fn is_missing_keys(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Bytes of all values that the transaction has put.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The keys whose entries it was given.
    #[must_use]
    pub fn given(&self) -> Vec<Key> {
        self.slots.iter().filter(|slot| slot.given.is_some()).map(|slot| slot.key.clone()).collect()
    }

    /// What the transaction has made of a key: whether it is live now. None if it has not changed it.
    #[must_use]
    pub fn made(&self, key: &KeyRef<'_>) -> Option<bool> {
        let slot = &self.slots[self.find(key)?];
        slot.change.as_ref()?;
        Some(slot.current.as_ref().is_some_and(|entry| entry.is_live(self.now)))
    }

    /// The live entries that the transaction has changed, of a database.
    pub fn changed(&self, db: u8) -> impl Iterator<Item = (&Key, Kind)> {
        let changed = self.slots.iter().filter(move |slot| slot.key.db() == db && slot.change.is_some());
        changed.filter_map(|slot| {
            let entry = slot.current.as_ref().filter(|entry| entry.is_live(self.now))?;
            Some((&slot.key, entry.kind))
        })
    }

    /// Whether the transaction has changed anything.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.changed
    }

    /// Whether what was given for a key has this version (none: is absent). True of a key that was not given.
    #[must_use]
    pub fn agrees(&self, key: &Key, version: Option<Version>) -> bool {
        let given = self.find(&KeyRef::of(key)).and_then(|at| self.slots[at].given.as_ref());
        given.is_none_or(|entry| entry.as_ref().map(|entry| entry.version) == version)
    }

    /// What to commit, with what it expects; `watched` are further keys that must have these versions. Deletions of keys
    /// that `guard` covers leave marks.
    #[must_use]
    pub fn staged(&self, watched: &[(Key, Option<Version>)], guard: &Guard) -> Staged {
        let mut staged = Staged { is_read_only: true, ..Staged::default() };
        for slot in &self.slots {
            let watch = watched.iter().find(|(key, _)| *key == slot.key);
            let expect = match (watch, slot.was_read, &slot.given) {
                (Some((_, version)), ..) => expect_version(*version),
                (None, true, Some(entry)) => expect_version(entry.as_ref().map(|entry| entry.version)),
                _ => Expect::Any,
            };
            let change = slot.change.clone().map(|change| guard.in_place_of(&slot.key, change, self.now));
            let change = match (change, expect) {
                // It was made and deleted again.
                (Some(Change::Delete), Expect::Absent) => Change::Keep,
                (Some(change), _) => change,
                (None, Expect::Any) => continue,
                (None, _) => Change::Keep,
            };
            staged.is_read_only &= matches!(change, Change::Keep);
            let given = slot.given.iter().flatten().next();
            staged.seen.push(given.filter(|entry| expect == Expect::Version(entry.version)).cloned());
            staged.group.push(Mutation { key: slot.key.clone(), expect, change });
        }
        for (key, version) in watched.iter().filter(|(key, _)| self.find(&KeyRef::of(key)).is_none()) {
            staged.seen.push(None);
            staged.group.push(Mutation { key: key.clone(), expect: expect_version(*version), change: Change::Keep });
        }
        staged.must_hold = !watched.is_empty() || staged.group.len() > 1;
        staged
    }

    fn add(&mut self, slot: Slot) -> usize {
        let at = self.slots.len();
        self.index.entry(slot.key.hash()).or_insert(at);
        self.slots.push(slot);
        at
    }

    fn find(&self, key: &KeyRef<'_>) -> Option<usize> {
        let first = *self.index.get(&key.hash())?;
        // Another key with the same hash would be further on.
        (first..self.slots.len()).find(|at| key.is(self.slots[*at].key.db(), self.slots[*at].key.name()))
    }
}

fn expect_version(version: Option<Version>) -> Expect {
    version.map_or(Expect::Absent, Expect::Version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{KeyHasher, Kind};

    fn unguarded() -> Guard {
        Guard::new(Vec::new(), std::time::Duration::ZERO, 0)
    }

    fn key(name: &str) -> Key {
        Key::new(&KeyHasher::new(&[7; 16]), 0, name.as_bytes().into())
    }

    fn entry(value: &str, expires_at: Option<UnixMs>, version: Version) -> Entry {
        Entry { kind: Kind::String, value: value.as_bytes().into(), expires_at, version }
    }

    fn put(value: &str, expires_at: Option<UnixMs>) -> Change {
        Change::Put { kind: Kind::String, value: value.as_bytes().into(), expires_at }
    }

    fn read(stage: &mut Stage, name: &str) -> Option<Option<String>> {
        let entry = stage.read(&KeyRef::of(&key(name)))?;
        Some(entry.map(|entry| String::from_utf8_lossy(&entry.value).into_owned()))
    }

    /// Each mutation as text, in order of the keys.
    fn shown(staged: &Staged) -> Vec<String> {
        let one = |mutation: &Mutation| {
            let change = match &mutation.change {
                Change::Put { value, expires_at, .. } => format!("put {} {expires_at:?}", value.escape_ascii()),
                other => format!("{other:?}"),
            };
            format!("{} {:?} {change}", mutation.key.name().escape_ascii(), mutation.expect)
        };
        let mut lines: Vec<String> = staged.group.iter().map(one).collect();
        lines.sort();
        lines
    }

    #[test]
    fn what_was_not_given_is_missing_once() {
        let mut stage = Stage::new(1000);
        for name in ["b", "a", "b"] {
            assert_eq!(read(&mut stage, name), None);
        }
        let mut missing = stage.take_missing();
        missing.sort_by(|one, other| one.name().cmp(other.name()));
        assert_eq!(missing, [key("a"), key("b")]);
        assert!(!stage.is_missing_keys());
    }

    #[test]
    fn the_commit_expects_what_was_read_and_only_that() {
        let mut stage = Stage::new(1000);
        stage.give(&key("looked at"), Some(entry("v", None, 5)));
        stage.give(&key("not looked at"), Some(entry("v", None, 6)));
        stage.give(&key("absent"), None);
        stage.give(&key("changed"), Some(entry("v", Some(9000), 7)));
        stage.give(&key("touched"), Some(entry("kept", None, 8)));
        stage.give(&key("deleted"), Some(entry("v", None, 9)));
        for name in ["looked at", "absent", "changed", "touched", "deleted"] {
            assert!(read(&mut stage, name).is_some());
        }
        stage.apply(key("changed"), put("new", None));
        stage.apply(key("touched"), Change::Expire(Some(2000)));
        stage.apply(key("deleted"), Change::Delete);
        stage.apply(key("blind"), put("new", Some(3000)));
        let staged = stage.staged(&[], &unguarded());
        assert_eq!(
            shown(&staged),
            [
                "absent Absent Keep",
                "blind Any put new Some(3000)",
                "changed Version(7) put new None",
                "deleted Version(9) Delete",
                "looked at Version(5) Keep",
                "touched Version(8) Expire(Some(2000))",
            ]
        );
        for (Mutation { expect, .. }, seen) in staged.group.iter().zip(&staged.seen) {
            let version = if let Expect::Version(version) = expect { Some(*version) } else { None };
            assert_eq!(seen.as_ref().map(|entry| entry.version), version);
        }
        assert!(!staged.is_read_only);
    }

    #[test]
    fn later_changes_build_on_earlier_ones() {
        let mut stage = Stage::new(1000);
        stage.apply(key("a"), put("1", Some(5000)));
        assert_eq!(read(&mut stage, "a"), Some(Some("1".to_owned())));
        stage.apply(key("a"), Change::Expire(None));
        stage.apply(key("b"), put("dead", Some(1000)));
        assert_eq!(read(&mut stage, "b"), Some(None));
        stage.apply(key("c"), put("1", None));
        stage.apply(key("c"), Change::Delete);
        assert_eq!(read(&mut stage, "c"), Some(None));
        stage.give(&key("d"), None);
        assert_eq!(read(&mut stage, "d"), Some(None));
        stage.apply(key("d"), put("1", None));
        stage.apply(key("d"), Change::Delete);
        let expected = ["a Any put 1 None", "b Any put dead Some(1000)", "c Any Delete", "d Absent Keep"];
        assert_eq!(shown(&stage.staged(&[], &unguarded())), expected);
    }

    #[test]
    fn watched_keys_are_expected_as_they_were() {
        let watched = [(key("a"), Some(3)), (key("b"), None), (key("c"), Some(4))];
        let mut stage = Stage::new(1000);
        stage.give(&key("a"), Some(entry("v", None, 3)));
        stage.give(&key("b"), None);
        assert!(stage.agrees(&key("a"), Some(3)) && stage.agrees(&key("b"), None));
        assert!(!stage.agrees(&key("a"), Some(2)) && !stage.agrees(&key("a"), None));
        stage.apply(key("a"), put("blind", None));
        let staged = stage.staged(&watched, &unguarded());
        assert_eq!(shown(&staged), ["a Version(3) put blind None", "b Absent Keep", "c Version(4) Keep"]);
        assert!(!staged.is_read_only && staged.must_hold);
    }

    #[test]
    fn reads_alone_must_hold_if_there_are_several_or_some_are_watched() {
        let mut stage = Stage::new(1000);
        assert!(!stage.staged(&[], &unguarded()).must_hold);
        stage.give(&key("a"), Some(entry("v", None, 3)));
        assert!(read(&mut stage, "a").is_some());
        let staged = stage.staged(&[], &unguarded());
        assert!(staged.is_read_only && !staged.must_hold);
        assert!(stage.staged(&[(key("a"), Some(3))], &unguarded()).must_hold);
        stage.give(&key("b"), None);
        assert!(read(&mut stage, "b").is_some());
        assert!(stage.staged(&[], &unguarded()).must_hold);
    }

    #[test]
    fn keys_with_one_hash_stay_apart() {
        let [one, other] = ["one", "other"].map(|name| Key::with_hash(1, 0, name.as_bytes().into()));
        let mut stage = Stage::new(1000);
        stage.apply(one.clone(), put("1", None));
        assert!(stage.read(&KeyRef::of(&other)).is_none());
        stage.give(&other, None);
        assert_eq!(stage.read(&KeyRef::of(&other)), Some(None));
        stage.apply(other, put("2", None));
        assert_eq!(stage.read(&KeyRef::of(&one)).flatten().map(|entry| entry.value.to_vec()), Some(b"1".to_vec()));
        assert_eq!(stage.staged(&[], &unguarded()).group.len(), 2);
    }
}
