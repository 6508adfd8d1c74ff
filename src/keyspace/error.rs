//! Why the keyspace could not do what was asked. Holds no key and no value.

use std::error::Error;
use std::fmt;

use crate::store::error::StoreErrorKind;

/// A failed keyspace operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyspaceError {
    /// The store failed; it was logged and counted where it happened.
    Store(StoreErrorKind),
    /// Other writers changed the keys before every try of an update.
    Contended,
    /// The key was deleted a moment ago and is guarded.
    Guarded,
    /// The key, prefix included, exceeds [`crate::limits::MAX_KEY`].
    KeyTooLong,
    /// The value exceeds the configured limit.
    ValueTooLong,
    /// The daemon is shutting down, or the queue of writes stayed full.
    Busy,
}

impl fmt::Display for KeyspaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Store(kind) => return write!(f, "store: {}", kind.label()),
            Self::Contended => "too many concurrent changes of the same keys",
            Self::Guarded => "deleted a moment ago",
            Self::KeyTooLong => "key too long",
            Self::ValueTooLong => "value too long",
            Self::Busy => "the queue of writes is full",
        })
    }
}

impl Error for KeyspaceError {}
