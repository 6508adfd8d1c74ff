//! What SQLite's errors mean for the caller.

use rusqlite::{Error, ErrorCode};

use crate::store::error::{StoreError, StoreErrorKind};

/// The store's error for SQLite's. Whatever it is, the transaction was rolled back.
pub(super) fn failed(error: Error) -> StoreError {
    StoreError::new(kind(&error), error)
}

/// The kind of an error.
pub(super) fn kind(error: &Error) -> StoreErrorKind {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreErrorKind::Full,
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => StoreErrorKind::ReadOnly,
        Some(ErrorCode::TooBig | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => StoreErrorKind::Rejected,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::CannotOpen) => {
            StoreErrorKind::Unavailable
        }
        _ => StoreErrorKind::Internal,
    }
}
