//! The tables of the file, their migrations, and what is kept beside the entries. Knows no entry.

use std::fmt;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use rustls::crypto::ring;

use crate::entry::Version;

/// All migrations in order; the file's `user_version` says how many it has. One that was released never changes.
///
/// The columns are Postgres's. `value` is last, so that the others are read without its overflow pages.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE entry (
        version    INTEGER NOT NULL,
        expires_at INTEGER,          -- milliseconds since 1970, null: never
        slot       INTEGER NOT NULL, -- 31 bits of the key's hash; the order of SCAN
        db         INTEGER NOT NULL,
        kind       INTEGER NOT NULL,
        key        BLOB    NOT NULL,
        value      BLOB    NOT NULL,
        PRIMARY KEY (db, key)
    ) STRICT;
    CREATE INDEX entry_slot ON entry (db, slot);
    CREATE TABLE meta (
        name  TEXT PRIMARY KEY NOT NULL,
        value ANY NOT NULL
    ) STRICT;
    INSERT INTO meta (name, value) VALUES ('version', 1);
"];

/// How many versions are reserved at a time. What a crash leaves unused is lost.
const VERSION_BLOCK: Version = 1 << 20;

/// Why the schema could not be brought up to date.
#[derive(Debug)]
pub(super) enum SchemaError {
    /// The file was made by a newer program.
    Newer {
        /// Its migrations.
        found: usize,
    },
    /// SQLite failed.
    Sqlite(rusqlite::Error),
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newer { found } => {
                let known = MIGRATIONS.len();
                write!(f, "the file's schema is version {found}, made by a newer cloakroom; this one knows {known}")
            }
            Self::Sqlite(_) => f.write_str("migrating the schema failed"),
        }
    }
}

impl std::error::Error for SchemaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Newer { .. } => None,
            Self::Sqlite(error) => Some(error),
        }
    }
}

impl From<rusqlite::Error> for SchemaError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Applies what is missing, in one transaction.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), SchemaError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let found = found as usize;
    if found > MIGRATIONS.len() {
        return Err(SchemaError::Newer { found });
    }
    for migration in &MIGRATIONS[found..] {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as u32)?;
    Ok(transaction.commit()?)
}

/// The secret that keys hashes, drawn when the file is new.
pub(super) fn hash_secret(connection: &Connection) -> rusqlite::Result<[u8; 16]> {
    let read = || connection.query_row("SELECT value FROM meta WHERE name = 'hash_secret'", [], |row| row.get(0));
    if let Some(secret) = read().optional()? {
        return Ok(secret);
    }
    let mut secret = [0_u8; 16];
    let random = ring::default_provider().secure_random;
    random.fill(&mut secret).map_err(|_| rusqlite::Error::QueryReturnedNoRows)?;
    connection.execute("INSERT INTO meta (name, value) VALUES ('hash_secret', ?1)", params![&secret[..]])?;
    read()
}

/// Reserves versions within the current transaction: the first, and one past the last.
pub(super) fn reserve_versions(connection: &Connection, count: Version) -> rusqlite::Result<(Version, Version)> {
    let block = VERSION_BLOCK.max(count);
    connection
        .prepare_cached("UPDATE meta SET value = value + ?1 WHERE name = 'version' RETURNING value - ?1")?
        .query_row(params![block], |row| row.get(0))
        .map(|first: Version| (first, first + block))
}
