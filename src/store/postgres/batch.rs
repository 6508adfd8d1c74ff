//! Turns mutations into the columns of four statements, and their answers back into outcomes. Talks to nobody.
//!
//! Mutations are numbered in the order they were given; mutation `n` gets the version `first + n`, by which answers name
//! it. Rows are sorted by key, the same in every statement, so that concurrent batches lock them in one order.

use crate::entry::{Applied, Change, Expect, Kind, Mutation, UnixMs, Version};
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
    pub(super) number: Vec<i32>,
    pub(super) db: Vec<i16>,
    pub(super) key: Vec<&'a [u8]>,
    pub(super) must_exist: Vec<bool>,
    pub(super) expected: Vec<Option<Version>>,
}

/// The rows of one transaction.
pub(super) struct Batch<'a> {
    pub(super) puts: Puts<'a>,
    pub(super) absent: Puts<'a>,
    pub(super) updates: Updates<'a>,
    pub(super) deletes: Deletes<'a>,
    first: Version,
    /// What is known to have been applied, by number; blind changes from the start.
    applied: Vec<Option<Applied>>,
}

impl<'a> Batch<'a> {
    /// The rows of `mutations`, whose keys are pairwise different, with versions from `first` on.
    pub(super) fn new(mutations: &[&'a Mutation], first: Version) -> Self {
        let mut batch = Self {
            puts: Puts::default(),
            absent: Puts::default(),
            updates: Updates::default(),
            deletes: Deletes::default(),
            first,
            applied: vec![None; mutations.len()],
        };
        let mut order: Vec<usize> = (0..mutations.len()).collect();
        order.sort_unstable_by_key(|&number| (mutations[number].key.db(), mutations[number].key.name()));
        for number in order {
            batch.add(number, mutations[number]);
        }
        batch
    }

    /// Notes that the mutation with this version was applied.
    pub(super) fn note_version(&mut self, version: Version) {
        if let Some(applied) = self.applied.get_mut((version - self.first) as usize) {
            *applied = Some(Applied { version, existed: false });
        }
    }

    /// Notes that the delete with this number was applied, to a row that was live or had expired.
    pub(super) fn note_deleted(&mut self, number: i32, existed: bool) {
        if let Some(applied) = self.applied.get_mut(number as usize) {
            *applied = Some(Applied { version: self.first + Version::from(number), existed });
        }
    }

    /// What was applied, by number.
    pub(super) fn applied(self) -> Vec<Option<Applied>> {
        self.applied
    }

    /// Whether everything was applied so far.
    pub(super) fn is_complete(&self) -> bool {
        self.applied.iter().all(Option::is_some)
    }

    fn add(&mut self, number: usize, mutation: &'a Mutation) {
        let version = self.first + number as Version;
        let blind = Some(Applied { version, existed: false });
        match (&mutation.change, mutation.expect) {
            (Change::Put { kind, value, expires_at }, Expect::Any) => {
                self.applied[number] = blind;
                self.puts.add(version, mutation, *kind, value, *expires_at);
            }
            (Change::Put { kind, value, expires_at }, Expect::Absent) => {
                self.absent.add(version, mutation, *kind, value, *expires_at);
            }
            (Change::Put { kind, value, expires_at }, expect) => {
                self.updates.add(version, mutation, Some((*kind, value)), *expires_at, expect);
            }
            (Change::Expire(expires_at), expect) => self.updates.add(version, mutation, None, *expires_at, expect),
            // Nothing is deleted, but the key must be locked as absent until the commit: an expired row does that, and
            // the sweeper takes it away.
            (Change::Delete, Expect::Absent) => self.absent.add(version, mutation, Kind::String, &[], Some(0)),
            (Change::Delete, expect) => {
                if expect == Expect::Any {
                    self.applied[number] = blind;
                }
                self.deletes.add(number as i32, mutation, expect);
            }
        }
    }
}

impl<'a> Puts<'a> {
    fn add(
        &mut self,
        version: Version,
        mutation: &'a Mutation,
        kind: Kind,
        value: &'a [u8],
        expires_at: Option<UnixMs>,
    ) {
        self.version.push(version);
        self.expires_at.push(expires_at);
        self.slot.push(slot(&mutation.key));
        self.db.push(mutation.key.db().into());
        self.kind.push(kind.code());
        self.key.push(mutation.key.name());
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
    fn add(&mut self, number: i32, mutation: &'a Mutation, expect: Expect) {
        self.number.push(number);
        self.db.push(mutation.key.db().into());
        self.key.push(mutation.key.name());
        self.must_exist.push(expect != Expect::Any);
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
