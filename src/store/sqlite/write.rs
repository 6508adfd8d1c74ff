//! What the writing thread does: the only writer, so what it checks still holds when it writes.

use std::ops::Range;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::entry::{Applied, Change, Expect, Group, Key, Mutation, Outcome, UnixMs, Version};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::sqlite::error::{failed, kind};
use crate::store::{SweepCursor, Swept, slot};

/// How many versions are reserved at once.
const BLOCK: i64 = 1 << 20;

/// The connection that writes, with the versions it may still give out.
pub(super) struct Writer {
    connection: Connection,
    versions: Range<Version>,
}

impl Writer {
    /// A writer without versions: the first commit reserves some.
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, versions: 0..0 }
    }

    /// See [`crate::store::Store::commit`].
    pub(super) fn commit(&mut self, groups: &[Group], now: UnixMs) -> Vec<Result<Outcome, StoreError>> {
        match self.try_commit(groups, now) {
            Ok(results) => results,
            Err(error) => {
                let kind = kind(&error);
                let mut cause = Some(error);
                // One of them carries the cause, for the log.
                groups.iter().map(|_| Err(cause.take().map_or_else(|| StoreError::bare(kind), failed))).collect()
            }
        }
    }

    fn try_commit(&mut self, groups: &[Group], now: UnixMs) -> rusqlite::Result<Vec<Result<Outcome, StoreError>>> {
        let rows: usize = groups.iter().map(Vec::len).sum();
        let mut versions = self.take_versions(rows as i64)?;
        let mut transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut results = Vec::with_capacity(groups.len());
        for group in groups {
            let savepoint = transaction.savepoint()?;
            match apply_group(&savepoint, group, now, &mut versions) {
                Ok(outcome) => {
                    savepoint.commit()?;
                    results.push(Ok(outcome));
                }
                Err(error) if kind(&error) == StoreErrorKind::Rejected => {
                    savepoint.finish()?;
                    results.push(Err(failed(error)));
                }
                Err(error) => return Err(error),
            }
        }
        transaction.commit()?;
        Ok(results)
    }

    /// Reserved in a commit of its own, before: a version is lost with a failed commit, but never given out twice.
    fn take_versions(&mut self, count: i64) -> rusqlite::Result<Range<Version>> {
        if self.versions.end - self.versions.start < count {
            let size = BLOCK.max(count);
            let end: i64 = self.connection.query_row(
                "UPDATE meta SET value = value + ?1 WHERE name = 'next_version' RETURNING value",
                [size],
                |row| row.get(0),
            )?;
            self.versions = end - size..end;
        }
        let taken = self.versions.start..self.versions.start + count;
        self.versions.start = taken.end;
        Ok(taken)
    }

    /// See [`crate::store::Store::flush`].
    pub(super) fn flush(&mut self, db: Option<u8>, prefix: &[u8]) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("DELETE FROM entry WHERE (?1 IS NULL OR db = ?1) AND (length(?2) = 0 OR substr(key, 1, length(?2)) = ?2)")?
            .execute(params![db, prefix])
            .map(|_| ())
    }

    /// See [`crate::store::Store::sweep`].
    pub(super) fn sweep(&mut self, from: Option<SweepCursor>, limit: u32, now: UnixMs) -> rusqlite::Result<Swept> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let seen = rows_after(&transaction, from, limit)?;
        let mut removed = 0;
        {
            let mut delete = transaction.prepare_cached("DELETE FROM entry WHERE db = ?1 AND key = ?2")?;
            for ((db, name), expires_at) in &seen {
                if expires_at.is_some_and(|at| at <= now) {
                    removed += delete.execute(params![db, name])? as u64;
                }
            }
        }
        transaction.commit()?;
        let full = seen.len() >= limit as usize;
        let next = if full { seen.into_iter().last().map(|(cursor, _)| cursor) } else { None };
        Ok(Swept { removed, next })
    }
}

type Row = (SweepCursor, Option<UnixMs>);

fn rows_after(transaction: &Transaction<'_>, from: Option<SweepCursor>, limit: u32) -> rusqlite::Result<Vec<Row>> {
    // Before every key: an empty one of database 0 is skipped by no cursor, as it is compared with database -1.
    let (db, name) = from.map_or((-1, Box::default()), |(db, name)| (i64::from(db), name));
    let mut statement = transaction
        .prepare_cached("SELECT db, key, expires_at FROM entry WHERE (db, key) > (?1, ?2) ORDER BY db, key LIMIT ?3")?;
    let rows = statement.query_map(params![db, name, limit], |row| {
        Ok(((row.get(0)?, row.get::<_, Vec<u8>>(1)?.into_boxed_slice()), row.get(2)?))
    })?;
    rows.collect()
}

fn apply_group(
    connection: &Connection,
    group: &[Mutation],
    now: UnixMs,
    versions: &mut Range<Version>,
) -> rusqlite::Result<Outcome> {
    let mut existed = Vec::with_capacity(group.len());
    for mutation in group {
        let version = live_version(connection, &mutation.key, mutation, now)?;
        if !mutation.expect.admits(version) {
            return Ok(Outcome::Conflict);
        }
        existed.push(version.is_some());
    }
    let mut applied = Vec::with_capacity(group.len());
    for (mutation, existed) in group.iter().zip(existed) {
        // As many were taken as there are mutations.
        let version = versions.next().unwrap_or_default();
        apply(connection, mutation, version)?;
        let existed = existed && matches!(mutation.change, Change::Delete);
        applied.push(Applied { version, existed });
    }
    Ok(Outcome::Applied(applied))
}

/// The version of the live entry; not looked up where it does not matter.
fn live_version(
    connection: &Connection,
    key: &Key,
    mutation: &Mutation,
    now: UnixMs,
) -> rusqlite::Result<Option<Version>> {
    if mutation.expect == Expect::Any && !matches!(mutation.change, Change::Delete) {
        return Ok(None);
    }
    connection
        .prepare_cached(
            "SELECT version FROM entry WHERE db = ?1 AND key = ?2 AND (expires_at IS NULL OR expires_at > ?3)",
        )?
        .query_row(params![key.db(), key.name(), now], |row| row.get(0))
        .optional()
}

fn apply(connection: &Connection, mutation: &Mutation, version: Version) -> rusqlite::Result<()> {
    let key = &mutation.key;
    match &mutation.change {
        Change::Put { kind, value, expires_at } => connection
            .prepare_cached(
                "INSERT INTO entry (db, key, kind, slot, expires_at, version, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (db, key) DO UPDATE SET kind = excluded.kind, expires_at = excluded.expires_at,
                     version = excluded.version, value = excluded.value",
            )?
            .execute(params![key.db(), key.name(), kind.code(), slot(key), expires_at, version, &**value]),
        Change::Expire(expires_at) => connection
            .prepare_cached("UPDATE entry SET expires_at = ?3, version = ?4 WHERE db = ?1 AND key = ?2")?
            .execute(params![key.db(), key.name(), expires_at, version]),
        Change::Delete => connection
            .prepare_cached("DELETE FROM entry WHERE db = ?1 AND key = ?2")?
            .execute(params![key.db(), key.name()]),
    }
    .map(|_| ())
}
