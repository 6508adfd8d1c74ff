//! What a failed conversation with Postgres means. Keeps the server's words only where they cannot hold keys or values.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use tokio_postgres::error::{Severity, SqlState};

use crate::store::error::{StoreError, StoreErrorKind};

/// What `cloakroom.admit` raises.
const UNACKNOWLEDGED: &str = "CR001";

/// What had been sent to the server when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Nothing that could last: reads, or a transaction that was not told to commit.
    Nothing,
    /// Something that commits.
    Commit,
}

/// A failure, in a form that is cheap to hand to many callers and safe to log.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    code: Option<SqlState>,
    fatal: bool,
    permanent: bool,
    text: Arc<str>,
}

impl Fault {
    /// The server, or the way to it, is away.
    pub(super) fn away(text: &str) -> Self {
        Self { code: None, fatal: true, permanent: false, text: text.into() }
    }

    /// The server did not answer within the time it was given, and a little.
    pub(super) fn late() -> Self {
        Self::away("the server did not answer in time")
    }

    /// Somebody has to change something.
    pub(super) fn permanent(text: &str) -> Self {
        Self { code: None, fatal: true, permanent: true, text: text.into() }
    }

    /// The server takes no writes.
    pub(super) fn read_only(text: &str) -> Self {
        Self { code: Some(SqlState::READ_ONLY_SQL_TRANSACTION), fatal: true, permanent: false, text: text.into() }
    }

    /// Whether the server takes no writes.
    pub(super) fn is_read_only(&self) -> bool {
        self.code.as_ref() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
    }

    /// A row holds what it should not; the connection is whole.
    pub(super) fn of_data(text: &str) -> Self {
        Self { code: None, fatal: false, permanent: false, text: text.into() }
    }

    /// Whether another try can only succeed after somebody has changed something.
    pub(super) fn is_permanent(&self) -> bool {
        self.permanent
            || self.code.as_ref().is_some_and(|code| {
                // 28: who are you. 3D, 3F: no such database or schema. 42: syntax or privileges. 0A: not supported.
                ["28", "3D", "3F", "42", "0A"].iter().any(|class| code.code().starts_with(class))
            })
    }

    /// Whether the whole transaction may simply be run again.
    pub(super) fn is_retryable(&self) -> bool {
        // Deadlock, serialization failure, and a lock that was not free in the time we gave.
        self.code.as_ref().is_some_and(|code| matches!(code.code(), "40P01" | "40001" | "55P03"))
    }

    /// Whether the contents of some row are the cause, so that the others may succeed without it.
    pub(super) fn is_of_a_row(&self) -> bool {
        self.code.as_ref().is_some_and(|code| {
            // 21: a key twice. 22: data. 23: constraints. 44: WITH CHECK. 54: a limit. P0001: an administrator's trigger.
            let code = code.code();
            ["21", "22", "23", "44", "54"].iter().any(|class| code.starts_with(class)) || code == "P0001"
        })
    }

    /// Whether the server, or a pooler in between, does not take the options of a connection. Each pooler has its own way
    /// to say so; not meant are: who are you (28), no such database (3D), no room (53), not now (57).
    pub(super) fn is_of_options(&self) -> bool {
        let other = ["28", "3D", "53", "57"];
        self.code.as_ref().is_some_and(|code| !other.iter().any(|class| code.code().starts_with(class)))
    }

    /// Whether this is the echo of an earlier failure in the same transaction.
    pub(super) fn is_echo(&self) -> bool {
        self.code.as_ref() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION)
    }

    /// Whether the connection is of no use any more.
    pub(super) fn ends_connection(&self) -> bool {
        // 0A000: a cached plan outlived a migration. 26000: a pooler in between lost our prepared statement.
        self.fatal || self.code.as_ref().is_some_and(|code| matches!(code.code(), "0A000" | "26000"))
    }

    /// What the failure means to the caller of the store.
    pub(super) fn kind(&self, sent: Sent) -> StoreErrorKind {
        let away = if sent == Sent::Commit { StoreErrorKind::UnknownOutcome } else { StoreErrorKind::Unavailable };
        let Some(code) = &self.code else {
            return if self.permanent || !self.fatal { StoreErrorKind::Internal } else { away };
        };
        if self.is_of_a_row() {
            return StoreErrorKind::Rejected;
        }
        match code.code() {
            UNACKNOWLEDGED => StoreErrorKind::Unacknowledged,
            "53100" => StoreErrorKind::Full,
            "25006" => StoreErrorKind::ReadOnly,
            // Before anything was done: no slot, starting up, shutting down. Rolled back for certain: cancelled or timed
            // out, deadlock, lock or memory not to be had.
            "53300" | "57P03" | "57014" | "40001" | "40P01" | "55P03" | "53200" | "53000" | "53400" => {
                StoreErrorKind::Unavailable
            }
            code if code.starts_with("08") || code.starts_with("57P") || code == "40003" => away,
            _ if self.fatal => away,
            _ => StoreErrorKind::Internal,
        }
    }

    /// The store's error for it.
    pub(super) fn into_store(self, sent: Sent) -> StoreError {
        StoreError::new(self.kind(sent), self)
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            let fatal = !is_of_conversion(&error);
            let permanent = is_of_identity(&error);
            return Self { code: None, fatal, permanent, text: chain(&error).into() };
        };
        let fatal = matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic));
        let code = db.code().clone();
        let mut fault = Self { code: Some(code), fatal, permanent: false, text: "".into() };
        // Messages about rows, and those that an administrator's trigger raises, may quote the data.
        let code = db.code().code();
        let quotable = !fault.is_of_a_row() && !code.starts_with("P0");
        fault.text = if quotable { format!("{} ({code})", db.message()).into() } else { code.into() };
        fault
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Fault {}

/// Whether the error is about turning values into bytes or back, which leaves the connection whole.
fn is_of_conversion(error: &tokio_postgres::Error) -> bool {
    let text = error.to_string();
    ["error serializing", "error deserializing", "error encoding", "invalid column"]
        .iter()
        .any(|start| text.starts_with(start))
}

/// Whether the two sides do not accept each other: a missing password, or a certificate that is not trusted.
fn is_of_identity(error: &tokio_postgres::Error) -> bool {
    let text = error.to_string();
    if text == "authentication error" || text == "invalid configuration" {
        return true;
    }
    let mut cause = error.source();
    while let Some(source) = cause {
        let inner = source.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if source.is::<rustls::Error>() || inner.is_some_and(<dyn Error + Send + Sync>::is::<rustls::Error>) {
            return true;
        }
        cause = source.source();
    }
    text == "error performing TLS handshake" && chain(error).contains("does not support TLS")
}

/// The error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let more = source.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = source.source();
    }
    text
}

/// The store's error for a fault that cannot have changed anything.
pub(super) fn unapplied(fault: Fault) -> StoreError {
    fault.into_store(Sent::Nothing)
}
