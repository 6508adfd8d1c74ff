//! How a store operation can fail, by what the caller may conclude. Holds no key and no value.

use std::error::Error;
use std::fmt;

/// A failed store operation.
#[derive(Debug)]
pub struct StoreError {
    kind: StoreErrorKind,
    permanent: bool,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// What a failure means for the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The store cannot be reached or did not answer in time; nothing was applied.
    Unavailable,
    /// The connection was lost while committing: the write may or may not have been applied.
    UnknownOutcome,
    /// The store has no room left; nothing was applied.
    Full,
    /// The store cannot take writes now (a standby, a read-only file); nothing was applied.
    ReadOnly,
    /// The store refused this row for its content; nothing of its group was applied.
    Rejected,
    /// A daemon whose lease is alive has not acknowledged the write; nothing was applied.
    Unacknowledged,
    /// Anything else; nothing was applied.
    Internal,
}

impl StoreError {
    /// A failure of this kind, with its cause.
    pub fn new(kind: StoreErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, permanent: false, source: Some(source.into()) }
    }

    /// A failure of this kind, without a cause of its own (a timeout, a store that was closed).
    #[must_use]
    pub fn bare(kind: StoreErrorKind) -> Self {
        Self { kind, permanent: false, source: None }
    }

    /// A failure to open a store that waiting does not cure: a wrong password, no such database, a newer schema.
    pub fn permanent(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind: StoreErrorKind::Internal, permanent: true, source: Some(source.into()) }
    }

    /// Whether somebody has to change something before another try can succeed. Only told of opening a store.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }

    /// What the failure means.
    #[must_use]
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}

impl StoreErrorKind {
    /// A closed, lower-case word for metric labels and logs.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::UnknownOutcome => "unknown_outcome",
            Self::Full => "full",
            Self::ReadOnly => "read_only",
            Self::Rejected => "rejected",
            Self::Unacknowledged => "unacknowledged",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            StoreErrorKind::Unavailable => "the store is not available",
            StoreErrorKind::UnknownOutcome => "the connection was lost while committing",
            StoreErrorKind::Full => "the store is full",
            StoreErrorKind::ReadOnly => "the store is read-only",
            StoreErrorKind::Rejected => "the store refused a row",
            StoreErrorKind::Unacknowledged => "another daemon has not acknowledged the write",
            StoreErrorKind::Internal => "the store failed",
        })
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

/// Prints an error with its causes, for the log.
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
