//! The commit on SQLite: one transaction for a batch, each group checked before it is applied. The only writer of entries.

use rusqlite::{Connection, OptionalExtension, params};

use crate::entry::{Applied, Change, Expect, Group, Mutation, Outcome, UnixMs, Version};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::slot;
use crate::store::sqlite::{failure, schema};

/// The connection that writes, and the versions reserved by it.
pub(super) struct Writer {
    connection: Connection,
    next: Version,
    end: Version,
}

impl Writer {
    /// A writer that has reserved nothing yet.
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, next: 0, end: 0 }
    }

    /// The connection, for work of other kinds.
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Applies `batch`; see [`crate::store::Store::commit`].
    pub(super) fn commit(&mut self, batch: &[Group], now: UnixMs) -> Vec<Result<Outcome, StoreError>> {
        let error = match self.transaction(batch, now) {
            Ok(results) => return results,
            Err(error) => error,
        };
        self.roll_back();
        if error.kind() == StoreErrorKind::Full && batch.len() > 1 {
            // What frees room, or needs little, may still get through.
            let (first, second) = batch.split_at(batch.len() / 2);
            let mut results = self.commit(first, now);
            results.append(&mut self.commit(second, now));
            return results;
        }
        let text = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        batch.iter().map(|_| Err(StoreError::new(error.kind(), text.clone()))).collect()
    }

    /// One transaction. An error means that all of it failed.
    fn transaction(&mut self, batch: &[Group], now: UnixMs) -> Result<Vec<Result<Outcome, StoreError>>, StoreError> {
        let before = |error| failure(error, false);
        self.execute("BEGIN IMMEDIATE").map_err(before)?;
        let count = batch.iter().map(Vec::len).sum::<usize>() as Version;
        if self.end - self.next < count {
            (self.next, self.end) = schema::reserve_versions(&self.connection, count).map_err(before)?;
        }
        let mut results = Vec::with_capacity(batch.len());
        for group in batch {
            let first = self.next;
            self.next += group.len() as Version;
            // A statement undoes itself if it fails; several need the mark.
            let marked = group.len() > 1;
            if marked {
                self.execute("SAVEPOINT one_group").map_err(before)?;
            }
            let result = self.group(group, first, now).map_err(before);
            if let Err(error) = &result {
                if error.kind() != StoreErrorKind::Rejected || self.connection.is_autocommit() {
                    return result.map(|_| Vec::new());
                }
                if marked {
                    self.execute("ROLLBACK TO one_group").map_err(before)?;
                }
            }
            if marked {
                self.execute("RELEASE one_group").map_err(before)?;
            }
            results.push(result);
        }
        self.execute("COMMIT").map_err(|error| failure(error, true))?;
        Ok(results)
    }

    /// Checks all of a group, then applies it. Nobody else writes in between.
    fn group(&self, group: &Group, first: Version, now: UnixMs) -> rusqlite::Result<Outcome> {
        let mut found = Vec::with_capacity(group.len());
        for mutation in group {
            let (expect, live) = match (&mutation.change, mutation.expect) {
                (Change::Put { .. }, Expect::Any) => (Expect::Any, None),
                // There is nothing to set an expiry on.
                (Change::Expire(_), Expect::Any) => (Expect::Present, self.live(mutation, now)?),
                (_, expect) => (expect, self.live(mutation, now)?),
            };
            if !expect.admits(live) {
                return Ok(Outcome::Conflict);
            }
            found.push(live.is_some());
        }
        let mut applied = Vec::with_capacity(group.len());
        for ((mutation, version), existed) in group.iter().zip(first..).zip(found) {
            self.apply(mutation, version)?;
            let existed = existed && matches!(mutation.change, Change::Delete);
            applied.push(Applied { version, existed });
        }
        Ok(Outcome::Applied(applied))
    }

    /// The version of the live entry at the mutation's key.
    fn live(&self, mutation: &Mutation, now: UnixMs) -> rusqlite::Result<Option<Version>> {
        self.connection
            .prepare_cached(
                "SELECT version FROM entry WHERE db = ?1 AND key = ?2 AND (expires_at IS NULL OR expires_at > ?3)",
            )?
            .query_row(params![mutation.key.db(), mutation.key.name(), now], |row| row.get(0))
            .optional()
    }

    fn apply(&self, mutation: &Mutation, version: Version) -> rusqlite::Result<()> {
        let (db, key) = (mutation.key.db(), mutation.key.name());
        let changed = match &mutation.change {
            Change::Put { kind, value, expires_at } => self
                .connection
                .prepare_cached(
                    "INSERT INTO entry (version, expires_at, slot, db, kind, key, value) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (db, key) DO UPDATE SET \
                     version = excluded.version, expires_at = excluded.expires_at, kind = excluded.kind, \
                     value = excluded.value",
                )?
                .execute(params![version, expires_at, slot(&mutation.key), db, kind.code(), key, &**value]),
            Change::Expire(expires_at) => self
                .connection
                .prepare_cached("UPDATE entry SET version = ?1, expires_at = ?2 WHERE db = ?3 AND key = ?4")?
                .execute(params![version, expires_at, db, key]),
            Change::Delete => self
                .connection
                .prepare_cached("DELETE FROM entry WHERE db = ?1 AND key = ?2")?
                .execute(params![db, key]),
            // It was checked, and nobody else writes.
            Change::Keep => Ok(0),
        };
        changed.map(drop)
    }

    /// Ends a transaction that failed, if SQLite has not done so.
    fn roll_back(&mut self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.execute("ROLLBACK")
        {
            tracing::error!(%error, "rolling back failed");
        }
        // A block that was reserved by the transaction is reserved no more.
        (self.next, self.end) = (0, 0);
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }
}
