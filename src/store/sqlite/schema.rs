//! The tables, and bringing an older file up to date.

use rusqlite::{Connection, OptionalExtension, Transaction};

use crate::store::error::StoreError;

/// Migrations in order; the file's `user_version` says how many it has seen. Once released, one never changes.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE entry (
        db         INTEGER NOT NULL,
        key        BLOB    NOT NULL,
        kind       INTEGER NOT NULL,
        slot       INTEGER NOT NULL, -- 31 bits of the key's hash; the order of SCAN
        expires_at INTEGER,          -- milliseconds since 1970, null: never
        version    INTEGER NOT NULL,
        value      BLOB    NOT NULL,
        PRIMARY KEY (db, key)
    ) STRICT;
    CREATE INDEX entry_slot ON entry (db, slot);
    CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT;
    INSERT INTO meta (name, value) VALUES ('hash_secret', randomblob(16)), ('next_version', 1);
"];

/// Brings the file up to date and returns its hash secret.
pub(super) fn migrate(connection: &mut Connection) -> Result<[u8; 16], StoreError> {
    let transaction = connection.transaction().map_err(StoreError::permanent)?;
    let seen: u32 =
        transaction.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(StoreError::permanent)?;
    let Some(missing) = MIGRATIONS.get(seen as usize..) else {
        return Err(StoreError::permanent(format!(
            "the database has schema {seen}, this version of the daemon knows {} at most",
            MIGRATIONS.len()
        )));
    };
    if !missing.is_empty() {
        apply(&transaction, missing).map_err(StoreError::permanent)?;
    }
    let secret = transaction
        .query_row("SELECT value FROM meta WHERE name = 'hash_secret'", [], |row| row.get(0))
        .optional()
        .map_err(StoreError::permanent)?
        .ok_or_else(|| StoreError::permanent("the database has no hash secret"))?;
    transaction.commit().map_err(StoreError::permanent)?;
    Ok(secret)
}

fn apply(transaction: &Transaction<'_>, missing: &[&str]) -> rusqlite::Result<()> {
    for migration in missing {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)
}
