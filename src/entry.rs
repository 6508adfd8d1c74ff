//! What a stored session is: keys, entries, and the mutations that a store applies to them.
//!
//! This file knows nothing of RESP, SQL or the cache; every layer above speaks in these types.

use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

/// An absolute time in milliseconds since the Unix epoch, on the database's clock.
pub type UnixMs = i64;

/// A number that never repeats for a key; taken from the store's one sequence.
pub type Version = i64;

/// Value bytes, shared between the cache and replies that are being written.
pub type Value = Arc<[u8]>;

/// How many numbered databases `SELECT` reaches (as Redis has by default).
pub const DATABASES: u8 = 16;

/// Keys up to about this size are hashed without a detour; session keys have some 40 bytes.
const SHORT_KEY: usize = 128;

/// Hashes stored keys with a secret that all daemons on one database share.
///
/// The 64-bit result is the key's identity in the cache and (between daemons) in invalidations.
/// SipHash-1-3 with a secret key, so that a client cannot choose keys that collide.
#[derive(Clone)]
pub struct KeyHasher {
    base: SipHasher13,
}

impl KeyHasher {
    /// A hasher keyed by `secret`, which the store keeps beside the data.
    #[must_use]
    pub fn new(secret: &[u8; 16]) -> Self {
        Self { base: SipHasher13::new_with_key(secret) }
    }

    /// The hash of the stored key made of `prefix` followed by `name` in database `db`.
    #[must_use]
    pub fn hash(&self, db: u8, prefix: &[u8], name: &[u8]) -> u64 {
        let length = 1 + prefix.len() + name.len();
        if length <= SHORT_KEY {
            // In one piece, which is much quicker than piece by piece, and the same.
            let mut whole = [0; SHORT_KEY];
            whole[0] = db;
            whole[1..=prefix.len()].copy_from_slice(prefix);
            whole[1 + prefix.len()..length].copy_from_slice(name);
            return self.base.hash(&whole[..length]);
        }
        let mut hasher = self.base;
        hasher.write_u8(db);
        hasher.write(prefix);
        hasher.write(name);
        hasher.finish()
    }
}

/// A stored key: the configured prefix followed by the name the client sent, in a database.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    hash: u64,
    db: u8,
    name: Box<[u8]>,
}

impl Key {
    /// The stored key `name` (prefix included) of database `db`.
    #[must_use]
    pub fn new(hasher: &KeyHasher, db: u8, name: Box<[u8]>) -> Self {
        let hash = hasher.hash(db, &[], &name);
        Self { hash, db, name }
    }

    /// As [`Key::new`], for a caller that has the hash of exactly this key already.
    #[must_use]
    pub fn with_hash(hash: u64, db: u8, name: Box<[u8]>) -> Self {
        Self { hash, db, name }
    }

    /// The fleet-wide hash of this key.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The numbered database, below [`DATABASES`].
    #[must_use]
    pub fn db(&self) -> u8 {
        self.db
    }

    /// The key's bytes as stored: prefix and wire key.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }
}

/// A session id is a credential: `Debug` shows the database and the size only.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key(db {}, {} bytes)", self.db, self.name.len())
    }
}

/// The data type of an entry. The numbers are stored: they never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No entry for clients: the mark that a deletion leaves where the logout guard is on. It has no value.
    Deleted = 0,
    /// A Redis string.
    String = 1,
    /// A Redis hash; the value is encoded as `command/hash_value.rs` says.
    Hash = 2,
}

impl Kind {
    /// All kinds that clients see.
    pub const ALL: [Self; 2] = [Self::String, Self::Hash];

    /// The number stored in the `kind` column.
    #[must_use]
    pub fn code(self) -> i16 {
        self as i16
    }

    /// The kind with this number, if this version knows it.
    #[must_use]
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.into_iter().chain([Self::Deleted]).find(|kind| kind.code() == code)
    }

    /// The name that `TYPE` answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deleted => "none",
            Self::String => "string",
            Self::Hash => "hash",
        }
    }
}

/// One stored session.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The data type.
    pub kind: Kind,
    /// The encoded value.
    pub value: Value,
    /// When it stops existing; `None` is never.
    pub expires_at: Option<UnixMs>,
    /// Which write made it.
    pub version: Version,
}

impl Entry {
    /// Whether the entry still exists at `now`. Redis: a key is gone once now is past its time.
    #[must_use]
    pub fn is_live(&self, now: UnixMs) -> bool {
        self.expires_at.is_none_or(|at| at > now)
    }
}

/// Values are session data: `Debug` shows their size only.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("kind", &self.kind)
            .field("bytes", &self.value.len())
            .field("expires_at", &self.expires_at)
            .field("version", &self.version)
            .finish()
    }
}

/// What must hold of a key, at the moment of the commit, for a mutation to apply.
///
/// An expired entry counts as absent, by the database's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// No live entry.
    Absent,
    /// Some live entry.
    Present,
    /// A live entry with exactly this version.
    Version(Version),
}

impl Expect {
    /// Whether a key whose live entry has `version` (`None`: no live entry) meets the expectation.
    #[must_use]
    pub fn admits(self, version: Option<Version>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => version.is_none(),
            Self::Present => version.is_some(),
            Self::Version(expected) => version == Some(expected),
        }
    }
}

/// What a mutation does to its key.
#[derive(Clone, Debug)]
pub enum Change {
    /// Replaces the entry, or creates it.
    Put {
        /// The data type.
        kind: Kind,
        /// The encoded value.
        value: Value,
        /// When it stops existing; `None` is never.
        expires_at: Option<UnixMs>,
    },
    /// Sets the expiry alone and leaves the value. Never with [`Expect::Any`] or [`Expect::Absent`].
    Expire(Option<UnixMs>),
    /// Removes the entry.
    Delete,
    /// Changes nothing: the expectation is all there is to it, and holds until the commit. Never with [`Expect::Any`].
    Keep,
}

/// One conditional change of one key.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// The key.
    pub key: Key,
    /// What must hold.
    pub expect: Expect,
    /// What to do then.
    pub change: Change,
}

/// Mutations that happen all together or not at all. Their keys are pairwise different.
pub type Group = Vec<Mutation>;

/// What a commit did with a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every mutation was applied and is durable; one element per mutation, in order.
    Applied(Vec<Applied>),
    /// An expectation did not hold; nothing of the group was applied.
    Conflict,
}

/// What a commit did with one mutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The version given to the entry (for a delete: of no meaning).
    pub version: Version,
    /// For [`Change::Delete`]: whether a live entry was there. Not filled for other changes.
    pub existed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_does_not_depend_on_how_it_is_computed() {
        let hasher = KeyHasher::new(&[9; 16]);
        for length in [0, 1, 6, 7, 40, SHORT_KEY - 2, SHORT_KEY - 1, SHORT_KEY, 1000] {
            let name: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let mut pieces = SipHasher13::new_with_key(&[9; 16]);
            pieces.write(&[3]);
            pieces.write(&name);
            for cut in [0, length / 3, length] {
                assert_eq!(hasher.hash(3, &name[..cut], &name[cut..]), pieces.finish(), "{length} bytes, cut at {cut}");
            }
        }
        assert_eq!(hasher.hash(0, b"", b"k"), 3_951_185_977_290_289_246, "stored in slots, so it never changes");
    }
}
