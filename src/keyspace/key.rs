//! A key as a command holds it: borrowed, with its hash computed once; and maps that take such hashes as they are.

use std::hash::{BuildHasher, Hasher};

use crate::entry::{Key, KeyHasher};

/// A stored key in two borrowed parts (the configured prefix, the name on the wire) with its hash.
#[derive(Clone, Copy)]
pub struct KeyRef<'a> {
    hash: u64,
    db: u8,
    prefix: &'a [u8],
    name: &'a [u8],
}

impl<'a> KeyRef<'a> {
    /// Hashes the stored key `prefix` + `name`.
    #[must_use]
    pub fn new(hasher: &KeyHasher, db: u8, prefix: &'a [u8], name: &'a [u8]) -> Self {
        Self { hash: hasher.hash(db, prefix, name), db, prefix, name }
    }

    /// A borrowed form of a stored key.
    #[must_use]
    pub fn of(key: &'a Key) -> Self {
        Self { hash: key.hash(), db: key.db(), prefix: &[], name: key.name() }
    }

    /// The fleet-wide hash.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The name on the wire.
    #[must_use]
    pub fn name(&self) -> &'a [u8] {
        self.name
    }

    /// Bytes of the stored key.
    #[must_use]
    pub fn stored_len(&self) -> usize {
        self.prefix.len() + self.name.len()
    }

    /// Whether this is the stored key `name` of database `db`.
    #[must_use]
    pub fn is(&self, db: u8, name: &[u8]) -> bool {
        self.db == db && self.stored_len() == name.len() && name.starts_with(self.prefix) && name.ends_with(self.name)
    }

    /// The stored key, copied.
    #[must_use]
    pub fn to_key(&self) -> Key {
        Key::with_hash(self.hash, self.db, [self.prefix, self.name].concat().into_boxed_slice())
    }
}

/// Takes the hash that a key carries as it is: keys are hashed once, with a secret ([`KeyHasher`]).
#[derive(Clone, Copy, Debug, Default)]
pub struct Carried {
    hash: u64,
}

impl BuildHasher for Carried {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self::default()
    }
}

impl Hasher for Carried {
    fn finish(&self) -> u64 {
        self.hash
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes are hashed, each one u64");
    }

    fn write_u64(&mut self, hash: u64) {
        self.hash = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(prefix: &[u8], name: &[u8], stored: &[u8], same: bool) {
        let hasher = KeyHasher::new(&[7; 16]);
        let asked = KeyRef::new(&hasher, 3, prefix, name);
        let key = Key::new(&hasher, 3, stored.into());
        assert_eq!(asked.is(3, stored), same);
        assert_eq!(asked.hash() == key.hash(), same);
        assert_eq!(asked.to_key() == key, same);
        assert!(!asked.is(4, stored), "databases are apart");
    }

    #[test]
    fn a_split_key_equals_the_stored_one() {
        check(b"", b"session", b"session", true);
        check(b"app:", b"session", b"app:session", true);
        check(b"app:", b"session", b"app:sessioN", false);
        check(b"app:", b"session", b"app:session1", false);
        check(b"app:", b"", b"app:", true);
        check(b"aa", b"aa", b"aaa", false);
        check(b"", b"", b"", true);
    }

    #[test]
    fn databases_are_apart() {
        let hasher = KeyHasher::new(&[7; 16]);
        let (a, b) = (Key::new(&hasher, 0, b"k"[..].into()), Key::new(&hasher, 1, b"k"[..].into()));
        assert_ne!(a.hash(), b.hash());
        assert_ne!(a, b);
    }
}
