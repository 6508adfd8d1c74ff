//! Everything that only reads: entries by key, pages of keys, counts. Is told the time.

use std::ops::ControlFlow;

use rusqlite::{Connection, OptionalExtension, params};

use crate::entry::{Entry, Key, Kind, UnixMs};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::page::{self, Cut, RandomSearch, Rows};
use crate::store::sqlite::failure;
use crate::store::{ScanPage, ScanQuery};

/// See [`crate::store::Store::load`].
pub(super) fn load(connection: &mut Connection, keys: &[Key], now: UnixMs) -> Result<Vec<Option<Entry>>, StoreError> {
    keys.iter().map(|key| load_one(connection, key, now)).collect()
}

fn load_one(connection: &Connection, key: &Key, now: UnixMs) -> Result<Option<Entry>, StoreError> {
    let found = || -> rusqlite::Result<Option<(i16, Entry)>> {
        connection
            .prepare_cached(
                "SELECT kind, expires_at, version, value FROM entry \
                 WHERE db = ?1 AND key = ?2 AND (expires_at IS NULL OR expires_at > ?3)",
            )?
            .query_row(params![key.db(), key.name(), now], |row| {
                let value = row.get_ref(3)?.as_blob()?.into();
                let (kind, expires_at, version) = (row.get(0)?, row.get(1)?, row.get(2)?);
                Ok((kind, Entry { kind: Kind::String, value, expires_at, version }))
            })
            .optional()
    };
    match found().map_err(|error| failure(error, false))? {
        None => Ok(None),
        Some((code, entry)) => match Kind::from_code(code) {
            Some(kind) => Ok(Some(Entry { kind, ..entry })),
            None => Err(StoreError::new(StoreErrorKind::Internal, "a row has a kind that this version does not know")),
        },
    }
}

/// See [`crate::store::Store::scan`].
pub(super) fn scan(connection: &mut Connection, query: &ScanQuery, now: UnixMs) -> Result<ScanPage, StoreError> {
    page_of(connection, query, now).map_err(|error| failure(error, false))
}

/// The page that the query's cursor begins.
fn page_of(connection: &Connection, query: &ScanQuery, now: UnixMs) -> rusqlite::Result<ScanPage> {
    // Marks of deletions (kind 0) are no keys. Without the look at the length, an empty key (whose `substr` is null) would be lost.
    let wanted = "SELECT slot, CASE WHEN (expires_at IS NULL OR expires_at > ?3) AND kind <> 0 AND (?4 IS NULL OR kind = ?4) \
                  AND (length(?5) = 0 OR substr(key, 1, length(?5)) = ?5) THEN key END FROM entry WHERE db = ?1 AND slot ";
    let kind = query.kind.map(Kind::code);
    let read = |condition: &str, slot: i64, limit: i64| -> rusqlite::Result<Rows> {
        let mut statement = connection.prepare_cached(&format!("{wanted}{condition} ?2 ORDER BY slot LIMIT ?6"))?;
        let rows = statement.query_map(params![query.db, slot, now, kind, query.prefix, limit], |row| {
            let name: Option<Vec<u8>> = row.get(1)?;
            Ok((row.get(0)?, name.map(Vec::into_boxed_slice)))
        })?;
        rows.collect()
    };
    let (names, next) = match page::cut(read(">=", query.cursor.into(), page::rows_for(query.limit))?, query.limit) {
        Cut::Page(names, next) => (names, next),
        Cut::WholeSlot(slot) => (page::names(read("=", slot.into(), -1)?), page::after(slot)),
    };
    Ok(ScanPage { names, next })
}

/// See [`crate::store::Store::random`].
pub(super) fn random(
    connection: &mut Connection,
    db: u8,
    prefix: Vec<u8>,
    now: UnixMs,
) -> Result<Option<Box<[u8]>>, StoreError> {
    let mut search = RandomSearch::new(db, prefix);
    loop {
        let page = scan(connection, search.query(), now)?;
        if let ControlFlow::Break(found) = search.next(page) {
            return Ok(found);
        }
    }
}

/// See [`crate::store::Store::count`].
pub(super) fn count(
    connection: &mut Connection,
    prefix: &[u8],
    now: UnixMs,
) -> Result<Vec<(u8, u64, u64)>, StoreError> {
    let counted = || -> rusqlite::Result<Vec<(u8, u64, u64)>> {
        connection
            .prepare_cached(
                "SELECT db, count(*), count(expires_at) FROM entry WHERE kind <> 0 AND (expires_at IS NULL OR expires_at > ?2) \
                 AND (length(?1) = 0 OR substr(key, 1, length(?1)) = ?1) GROUP BY db ORDER BY db",
            )?
            .query_map(params![prefix, now], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)? as u64))
            })?
            .collect()
    };
    counted().map_err(|error| failure(error, false))
}
