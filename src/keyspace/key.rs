//! A key as a command holds it: borrowed, with its hash computed once; and how maps are searched with it.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash, Hasher};

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

    /// Bytes of the stored key.
    #[must_use]
    pub fn stored_len(&self) -> usize {
        self.prefix.len() + self.name.len()
    }

    /// The stored key, copied.
    #[must_use]
    pub fn to_key(&self) -> Key {
        Key::with_hash(self.hash, self.db, [self.prefix, self.name].concat().into_boxed_slice())
    }
}

/// What a map of [`Key`]s can be searched by without building a [`Key`].
pub trait Lookup {
    /// The hash of the stored key.
    fn hash(&self) -> u64;
    /// The numbered database.
    fn db(&self) -> u8;
    /// The stored key's bytes, in two pieces; the second is empty for a [`Key`].
    fn parts(&self) -> (&[u8], &[u8]);
}

impl Lookup for Key {
    fn hash(&self) -> u64 {
        Key::hash(self)
    }

    fn db(&self) -> u8 {
        Key::db(self)
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        (self.name(), &[])
    }
}

impl Lookup for KeyRef<'_> {
    fn hash(&self) -> u64 {
        self.hash
    }

    fn db(&self) -> u8 {
        self.db
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        (self.prefix, self.name)
    }
}

impl Hash for dyn Lookup + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(Lookup::hash(self));
    }
}

impl PartialEq for dyn Lookup + '_ {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.parts(), other.parts());
        // Maps compare what they hold (one piece) with what they are asked for (one or two pieces).
        let (whole, split) = if a.1.is_empty() { (a.0, b) } else { (b.0, a) };
        debug_assert!(a.1.is_empty() || b.1.is_empty(), "one side is a stored key");
        Lookup::hash(self) == Lookup::hash(other)
            && self.db() == other.db()
            && whole.len() == split.0.len() + split.1.len()
            && whole.starts_with(split.0)
            && whole.ends_with(split.1)
    }
}

impl Eq for dyn Lookup + '_ {}

impl<'a> Borrow<dyn Lookup + 'a> for Key {
    fn borrow(&self) -> &(dyn Lookup + 'a) {
        self
    }
}

/// Must agree with the hash of `dyn Lookup`, since maps are searched with that.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(Key::hash(self));
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
        unreachable!("keys write their hash as one u64");
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
        let (asked, held): (&dyn Lookup, &dyn Lookup) = (&asked, &key);
        assert_eq!(asked == held, same);
        assert_eq!(held == asked, same);
    }

    #[test]
    fn a_split_key_equals_the_stored_one() {
        check(b"", b"session", b"session", true);
        check(b"app:", b"session", b"app:session", true);
        check(b"app:", b"session", b"app:sessioN", false);
        check(b"app:", b"", b"app:", true);
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
