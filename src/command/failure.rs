//! What a client is told when the keyspace could not do what was asked: the only way from an internal error to the
//! wire. It logs nothing, as the keyspace has done so.

use crate::keyspace::error::KeyspaceError;
use crate::limits;
use crate::resp::error::ErrorReply;
use crate::store::error::StoreErrorKind;

impl From<KeyspaceError> for ErrorReply {
    fn from(error: KeyspaceError) -> Self {
        match error {
            KeyspaceError::Store(StoreErrorKind::Unavailable) | KeyspaceError::Busy => Self::Unavailable,
            KeyspaceError::Store(StoreErrorKind::UnknownOutcome) => Self::UnknownOutcome,
            KeyspaceError::Store(StoreErrorKind::Full) => Self::StoreFull,
            KeyspaceError::Store(StoreErrorKind::ReadOnly) => Self::ReadOnly,
            KeyspaceError::Store(StoreErrorKind::Rejected) => Self::Rejected,
            KeyspaceError::Store(StoreErrorKind::Unacknowledged) => Self::Unacknowledged,
            KeyspaceError::Store(StoreErrorKind::Internal) => Self::Internal,
            KeyspaceError::Contended => Self::Contended,
            KeyspaceError::Guarded => Self::Guarded,
            KeyspaceError::KeyTooLong => Self::KeyTooLong { limit: limits::MAX_KEY },
            // Handlers check the length before, and name the configured limit, which is not known here.
            KeyspaceError::ValueTooLong => Self::StringTooLong,
        }
    }
}
