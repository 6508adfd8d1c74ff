//! A key as a command holds it: borrowed, with its hash computed once.

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

    /// The fleet-wide hash.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Whether this is the stored key.
    #[must_use]
    pub fn is(&self, key: &Key) -> bool {
        let stored = key.name();
        self.hash == key.hash()
            && self.db == key.db()
            && stored.len() == self.prefix.len() + self.name.len()
            && stored.starts_with(self.prefix)
            && stored.ends_with(self.name)
    }

    /// The stored key, copied.
    #[must_use]
    pub fn to_key(&self) -> Key {
        Key::with_hash(self.hash, self.db, [self.prefix, self.name].concat().into_boxed_slice())
    }
}
