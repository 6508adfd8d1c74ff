//! What the reading thread does.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::entry::{Entry, Key, Kind, UnixMs};
use crate::store::page::{self, Cut, RandomSearch, Rows};
use crate::store::{ScanPage, ScanQuery};

/// Rows in order of their slot; the key only if it is live, of the kind, and begins with the prefix.
const PAGE: &str = "
    SELECT slot, CASE WHEN (expires_at IS NULL OR expires_at > ?4) AND (?5 IS NULL OR kind = ?5)
                       AND (length(?6) = 0 OR substr(key, 1, length(?6)) = ?6) THEN key END
    FROM entry WHERE db = ?1 AND slot BETWEEN ?2 AND ?3 ORDER BY slot LIMIT ?7";

/// See [`crate::store::Store::load`].
pub(super) fn load(connection: &Connection, keys: &[Key], now: UnixMs) -> rusqlite::Result<Vec<Option<Entry>>> {
    let mut statement = connection.prepare_cached(
        "SELECT kind, expires_at, version, value FROM entry
         WHERE db = ?1 AND key = ?2 AND (expires_at IS NULL OR expires_at > ?3)",
    )?;
    let mut entries = Vec::with_capacity(keys.len());
    for key in keys {
        entries.push(statement.query_row(params![key.db(), key.name(), now], entry_of).optional()?);
    }
    Ok(entries)
}

fn entry_of(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let code: i16 = row.get(0)?;
    let kind = Kind::from_code(code).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, i64::from(code)))?;
    let value = row.get_ref(3)?.as_blob()?.into();
    Ok(Entry { kind, value, expires_at: row.get(1)?, version: row.get(2)? })
}

/// See [`crate::store::Store::scan`].
pub(super) fn scan(connection: &Connection, query: &ScanQuery, now: UnixMs) -> rusqlite::Result<ScanPage> {
    let Ok(from) = i32::try_from(query.cursor) else {
        // Beyond the last slot: nothing is there.
        return Ok(ScanPage::default());
    };
    let found = rows(connection, query, (from, i32::MAX), page::rows_for(query.limit), now)?;
    let (names, next) = match page::cut(found, query.limit) {
        Cut::Page(names, next) => (names, next),
        Cut::WholeSlot(slot) => {
            // SQLite takes a negative limit for none.
            (page::names(rows(connection, query, (slot, slot), -1, now)?), page::after(slot))
        }
    };
    Ok(ScanPage { names, next })
}

fn rows(
    connection: &Connection,
    query: &ScanQuery,
    slots: (i32, i32),
    limit: i64,
    now: UnixMs,
) -> rusqlite::Result<Rows> {
    let mut statement = connection.prepare_cached(PAGE)?;
    let kind = query.kind.map(Kind::code);
    let found = statement.query_map(params![query.db, slots.0, slots.1, now, kind, query.prefix, limit], |row| {
        Ok((row.get(0)?, row.get::<_, Option<Vec<u8>>>(1)?.map(Vec::into_boxed_slice)))
    })?;
    found.collect()
}

/// See [`crate::store::Store::random`].
pub(super) fn random(
    connection: &Connection,
    db: u8,
    prefix: Vec<u8>,
    now: UnixMs,
) -> rusqlite::Result<Option<Box<[u8]>>> {
    let mut search = RandomSearch::new(db, prefix);
    loop {
        let page = scan(connection, search.query(), now)?;
        if let Some(found) = search.next(page) {
            return Ok(found);
        }
    }
}

/// See [`crate::store::Store::count`].
pub(super) fn count(connection: &Connection, prefix: &[u8], now: UnixMs) -> rusqlite::Result<Vec<(u8, u64, u64)>> {
    let mut statement = connection.prepare_cached(
        "SELECT db, count(*), count(expires_at) FROM entry
         WHERE (expires_at IS NULL OR expires_at > ?1) AND (length(?2) = 0 OR substr(key, 1, length(?2)) = ?2)
         GROUP BY db ORDER BY db",
    )?;
    let counted = statement.query_map(params![now, prefix], |row| {
        let (keys, expires): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok((row.get(0)?, keys as u64, expires as u64))
    })?;
    counted.collect()
}
