//! Removing rows in number: a step of the sweeper, and the flush. Decides no pace.

use rusqlite::{Connection, TransactionBehavior, params};

use crate::entry::UnixMs;
use crate::store::error::StoreError;
use crate::store::sqlite::failure;
use crate::store::{SweepCursor, Swept};

/// See [`crate::store::Store::sweep`].
pub(super) fn step(
    connection: &mut Connection,
    from: Option<SweepCursor>,
    limit: u32,
    now: UnixMs,
) -> Result<Swept, StoreError> {
    removed(connection, from, limit, now).map_err(|error| failure(error, false))
}

/// One step. Whether it was committed does not matter: expired rows are absent either way.
fn removed(connection: &mut Connection, from: Option<SweepCursor>, limit: u32, now: UnixMs) -> rusqlite::Result<Swept> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (db, key) = from.map_or((-1, Box::default()), |(db, key)| (i64::from(db), key));
    let mut dead = Vec::new();
    let (mut looked, mut last) = (0, None);
    {
        let mut statement = transaction.prepare_cached(
            "SELECT db, key, expires_at IS NOT NULL AND expires_at <= ?3, rowid FROM entry \
             WHERE (db, key) > (?1, ?2) ORDER BY db, key LIMIT ?4",
        )?;
        let mut rows = statement.query(params![db, &*key, now, limit])?;
        while let Some(row) = rows.next()? {
            looked += 1;
            if row.get(2)? {
                dead.push(row.get::<_, i64>(3)?);
            }
            last = Some((row.get(0)?, row.get::<_, Vec<u8>>(1)?.into_boxed_slice()));
        }
        let mut delete = transaction.prepare_cached("DELETE FROM entry WHERE rowid = ?1")?;
        for row in &dead {
            delete.execute(params![row])?;
        }
    }
    transaction.commit()?;
    Ok(Swept { removed: dead.len() as u64, next: if looked < limit { None } else { last } })
}

/// See [`crate::store::Store::flush`].
pub(super) fn flush(connection: &mut Connection, db: Option<u8>, prefix: &[u8]) -> Result<(), StoreError> {
    let flushed = connection
        .prepare_cached(
            "DELETE FROM entry WHERE (?1 IS NULL OR db = ?1) AND (length(?2) = 0 OR substr(key, 1, length(?2)) = ?2)",
        )
        .and_then(|mut statement| statement.execute(params![db, prefix]));
    // A statement alone is its own transaction.
    flushed.map(drop).map_err(|error| failure(error, true))
}
