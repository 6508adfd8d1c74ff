//! Turns mutations into the columns of four statements, and their answers back into outcomes. Talks to nobody.
//!
//! Each mutation has a version, by which the answers name it. Those that expect no live entry have the highest, so that
//! one statement can tell them from blind puts. Rows are sorted by key, the same in every statement, so that concurrent
//! statements lock them in one order.

use crate::entry::{Applied, Change, Expect, Key, Kind, Mutation, UnixMs, Version};
use crate::store::slot;

/// Puts, blind or expecting no live entry.
#[derive(Default)]
pub(super) struct Puts<'a> {
    pub(super) version: Vec<Version>,
    pub(super) expires_at: Vec<Option<UnixMs>>,
    pub(super) slot: Vec<i32>,
    pub(super) db: Vec<i16>,
    pub(super) kind: Vec<i16>,
    pub(super) key: Vec<&'a [u8]>,
    pub(super) value: Vec<&'a [u8]>,
}

/// Changes of entries that must be there.
#[derive(Default)]
pub(super) struct Updates<'a> {
    pub(super) version: Vec<Version>,
    pub(super) expires_at: Vec<Option<UnixMs>>,
    pub(super) db: Vec<i16>,
    pub(super) kind: Vec<Option<i16>>,
    pub(super) key: Vec<&'a [u8]>,
    pub(super) value: Vec<Option<&'a [u8]>>,
    pub(super) expected: Vec<Option<Version>>,
}

/// Deletes.
#[derive(Default)]
pub(super) struct Deletes<'a> {
    pub(super) version: Vec<Version>,
    pub(super) db: Vec<i16>,
    pub(super) key: Vec<&'a [u8]>,
    pub(super) must_exist: Vec<bool>,
    pub(super) expected: Vec<Option<Version>>,
}

/// Entries that must stay as they are.
#[derive(Default)]
pub(super) struct Checks<'a> {
    pub(super) version: Vec<Version>,
    pub(super) db: Vec<i16>,
    pub(super) key: Vec<&'a [u8]>,
    pub(super) expected: Vec<Option<Version>>,
}

/// The rows of one transaction.
pub(super) struct Batch<'a> {
    pub(super) puts: Puts<'a>,
    pub(super) updates: Updates<'a>,
    pub(super) deletes: Deletes<'a>,
    pub(super) checks: Checks<'a>,
    /// The keys of all of them.
    pub(super) keys: Keys<'a>,
    first: Version,
    /// Puts with this version or a higher one expect no live entry.
    first_absent: Version,
    /// Which mutation has the version `first + n`.
    numbers: Vec<usize>,
    /// What is known to have been applied, by mutation; blind changes from the start.
    applied: Vec<Option<Applied>>,
}

/// Keys in columns.
#[derive(Default)]
pub(super) struct Keys<'a> {
    pub(super) db: Vec<i16>,
    pub(super) key: Vec<&'a [u8]>,
}

impl<'a> Batch<'a> {
    /// The rows of `mutations`, whose keys are pairwise different, with versions from `first` on.
    pub(super) fn new(mutations: &[&'a Mutation], first: Version) -> Self {
        let expects_absent = |number: &usize| mutations[*number].expect == Expect::Absent;
        let mut numbers: Vec<usize> = (0..mutations.len()).collect();
        numbers.sort_by_key(expects_absent);
        let blind = numbers.partition_point(|number| !expects_absent(number));
        let mut versions = vec![0; mutations.len()];
        for (version, &number) in (first..).zip(&numbers) {
            versions[number] = version;
        }
        let mut batch = Self {
            puts: Puts::default(),
            updates: Updates::default(),
            deletes: Deletes::default(),
            checks: Checks::default(),
            keys: Keys::default(),
            first,
            first_absent: first + blind as Version,
            numbers,
            applied: vec![None; mutations.len()],
        };
        let mut order: Vec<usize> = (0..mutations.len()).collect();
        order.sort_unstable_by_key(|&number| (mutations[number].key.db(), mutations[number].key.name()));
        for number in order {
            batch.add(number, mutations[number], versions[number]);
        }
        batch
    }

    /// From which version on puts expect no live entry; `None` if none of them does.
    pub(super) fn first_absent(&self) -> Option<Version> {
        let some = self.first_absent < self.first + self.numbers.len() as Version;
        some.then_some(self.first_absent)
    }

    /// Notes that the mutation with this version was applied; `existed`: a delete removed a live entry.
    pub(super) fn note(&mut self, version: Version, existed: bool) {
        let number = usize::try_from(version - self.first).ok().and_then(|index| self.numbers.get(index));
        if let Some(&number) = number {
            self.applied[number] = Some(Applied { version, existed });
        }
    }

    /// What was applied, by mutation.
    pub(super) fn applied(self) -> Vec<Option<Applied>> {
        self.applied
    }

    /// Whether everything was applied so far.
    pub(super) fn is_complete(&self) -> bool {
        self.applied.iter().all(Option::is_some)
    }

    fn add(&mut self, number: usize, mutation: &'a Mutation, version: Version) {
        self.keys.db.push(mutation.key.db().into());
        self.keys.key.push(mutation.key.name());
        let blind = Some(Applied { version, existed: false });
        match (&mutation.change, mutation.expect) {
            (Change::Put { kind, value, expires_at }, expect @ (Expect::Any | Expect::Absent)) => {
                if expect == Expect::Any {
                    self.applied[number] = blind;
                }
                self.puts.add(version, &mutation.key, *kind, value, *expires_at);
            }
            (Change::Put { kind, value, expires_at }, expect) => {
                self.updates.add(version, mutation, Some((*kind, value)), *expires_at, expect);
            }
            (Change::Expire(expires_at), expect) => self.updates.add(version, mutation, None, *expires_at, expect),
            // Nothing is there, but the key must be locked as absent until the commit: an expired row does that, and
            // the sweeper takes it away.
            (Change::Delete | Change::Keep, Expect::Absent) => {
                self.puts.add(version, &mutation.key, Kind::String, &[], Some(0));
            }
            (Change::Delete, expect) => {
                if expect == Expect::Any {
                    self.applied[number] = blind;
                }
                self.deletes.add(version, mutation, expect);
            }
            (Change::Keep, Expect::Any) => self.applied[number] = blind,
            (Change::Keep, expect) => self.checks.add(version, mutation, expect),
        }
    }
}

impl<'a> Puts<'a> {
    fn add(&mut self, version: Version, key: &'a Key, kind: Kind, value: &'a [u8], expires_at: Option<UnixMs>) {
        self.version.push(version);
        self.expires_at.push(expires_at);
        self.slot.push(slot(key));
        self.db.push(key.db().into());
        self.kind.push(kind.code());
        self.key.push(key.name());
        self.value.push(value);
    }
}

impl<'a> Updates<'a> {
    fn add(
        &mut self,
        version: Version,
        mutation: &'a Mutation,
        put: Option<(Kind, &'a [u8])>,
        expires_at: Option<UnixMs>,
        expect: Expect,
    ) {
        self.version.push(version);
        self.expires_at.push(expires_at);
        self.db.push(mutation.key.db().into());
        self.kind.push(put.map(|(kind, _)| kind.code()));
        self.key.push(mutation.key.name());
        self.value.push(put.map(|(_, value)| value));
        self.expected.push(expected(expect));
    }
}

impl<'a> Deletes<'a> {
    fn add(&mut self, version: Version, mutation: &'a Mutation, expect: Expect) {
        self.version.push(version);
        self.db.push(mutation.key.db().into());
        self.key.push(mutation.key.name());
        self.must_exist.push(expect != Expect::Any);
        self.expected.push(expected(expect));
    }
}

impl<'a> Checks<'a> {
    fn add(&mut self, version: Version, mutation: &'a Mutation, expect: Expect) {
        self.version.push(version);
        self.db.push(mutation.key.db().into());
        self.key.push(mutation.key.name());
        self.expected.push(expected(expect));
    }
}

/// The version a row must have, if it matters which.
fn expected(expect: Expect) -> Option<Version> {
    match expect {
        Expect::Version(version) => Some(version),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::KeyHasher;

    #[test]
    fn rows_are_sorted_and_answers_find_their_mutation() {
        let hasher = KeyHasher::new(&[0; 16]);
        let mutation = |name: &str, expect| {
            let change = Change::Put { kind: Kind::String, value: (*b"v").into(), expires_at: None };
            Mutation { key: Key::new(&hasher, 0, name.as_bytes().into()), expect, change }
        };
        let given = [
            mutation("d", Expect::Absent),
            mutation("b", Expect::Any),
            mutation("c", Expect::Present),
            mutation("a", Expect::Absent),
        ];
        let mut batch = Batch::new(&given.iter().collect::<Vec<_>>(), 100);
        assert_eq!(batch.keys.key, [b"a", b"b", b"c", b"d"]);
        assert_eq!((&batch.puts.key, &batch.updates.key), (&vec![&b"a"[..], b"b", b"d"], &vec![&b"c"[..]]));
        assert_eq!((batch.puts.version.clone(), batch.first_absent()), (vec![103, 100, 102], Some(102)));
        assert!(!batch.is_complete());
        for version in [101, 103, 99, 104] {
            batch.note(version, false);
        }
        let versions: Vec<Option<Version>> = batch.applied().iter().map(|one| one.map(|one| one.version)).collect();
        assert_eq!(versions, [None, Some(100), Some(101), Some(103)]);
    }
}
