//! The embedded store on SQLite: one thread writes, others read, and the `Store` trait in front of them.
//!
//! One process has a file to itself: a second is refused by a lock on the file `….lock` beside it, as each would cache
//! what the other changes. (Looking into the file with the `sqlite3` shell is fine.)

mod commit;
mod file;
mod read;
mod schema;
mod sweep;
mod thread;

use std::fs::File;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use rusqlite::Connection;
use rusqlite::ffi::ErrorCode;

use crate::config::SqliteConfig;
use crate::entry::{Entry, Group, Key, Outcome, UnixMs};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::link::{Announce, Link};
use crate::store::sqlite::commit::Writer;
use crate::store::sqlite::thread::Worker;
use crate::store::{PoolState, ScanPage, ScanQuery, Store, SweepCursor, Swept};

/// How many threads read.
const READERS: u32 = 2;

/// Sessions in a SQLite file.
pub struct SqliteStore {
    writer: Worker<Writer>,
    readers: Worker<Connection>,
    secret: [u8; 16],
    /// Locked while the store is open.
    lock: std::sync::Mutex<Option<File>>,
}

impl SqliteStore {
    /// Opens the file, or makes it (mode 0600) and its directory (mode 0700), and starts the threads.
    ///
    /// Every error is permanent: there is no server to wait for. Blocks the thread for the time of a few file accesses.
    pub fn open(config: &SqliteConfig) -> Result<Self, StoreError> {
        let failed = |error: file::OpenError| StoreError::permanent(error);
        let path = &config.path;
        let lock = file::prepare(path).map_err(failed)?;
        let mut writer = file::connect(path).map_err(failed)?;
        schema::migrate(&mut writer).map_err(|error| failed(file::OpenError::schema(path, error)))?;
        let secret = schema::hash_secret(&writer).map_err(|error| failed(file::OpenError::sqlite(path, error)))?;
        let mut readers = Vec::new();
        for _ in 0..READERS {
            readers.push(file::connect_reader(path).map_err(failed)?);
        }
        let started = |error: std::io::Error| StoreError::permanent(error);
        Ok(Self {
            writer: Worker::start("sqlite-writer", vec![Writer::new(writer)]).map_err(started)?,
            readers: Worker::start("sqlite-reader", readers).map_err(started)?,
            secret,
            lock: std::sync::Mutex::new(Some(lock)),
        })
    }
}

impl Store for SqliteStore {
    fn hash_secret(&self) -> [u8; 16] {
        self.secret
    }

    fn load(&self, keys: Vec<Key>) -> BoxFuture<'_, Result<Vec<Option<Entry>>, StoreError>> {
        Box::pin(self.readers.run(move |connection| read::load(connection, &keys, now_ms())))
    }

    /// Announces nothing, as nobody else is there.
    fn commit<'a>(
        &'a self,
        batch: &'a [Group],
        _announce: Announce<'a>,
    ) -> BoxFuture<'a, Vec<Result<Outcome, StoreError>>> {
        let (batch, count) = (batch.to_vec(), batch.len());
        let work = self.writer.run(move |writer| Ok(writer.commit(&batch, now_ms())));
        Box::pin(async move {
            match work.await {
                Ok(results) => results,
                // The writer has ended, before or while it had this batch.
                Err(error) => (0..count).map(|_| Err(StoreError::bare(error.kind()))).collect(),
            }
        })
    }

    fn scan(&self, query: ScanQuery) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        Box::pin(self.readers.run(move |connection| read::scan(connection, &query, now_ms())))
    }

    fn random(&self, db: u8, prefix: Vec<u8>) -> BoxFuture<'_, Result<Option<Box<[u8]>>, StoreError>> {
        Box::pin(self.readers.run(move |connection| read::random(connection, db, prefix, now_ms())))
    }

    fn flush<'a>(
        &'a self,
        db: Option<u8>,
        prefix: Vec<u8>,
        _announce: Announce<'a>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.writer.run(move |writer| sweep::flush(writer.connection(), db, &prefix)))
    }

    fn count(&self, prefix: Vec<u8>) -> BoxFuture<'_, Result<Vec<(u8, u64, u64)>, StoreError>> {
        Box::pin(self.readers.run(move |connection| read::count(connection, &prefix, now_ms())))
    }

    fn sweep(&self, from: Option<SweepCursor>, limit: u32) -> BoxFuture<'_, Result<Swept, StoreError>> {
        Box::pin(self.writer.run(move |writer| sweep::step(writer.connection(), from, limit, now_ms())))
    }

    fn now(&self) -> BoxFuture<'_, Result<UnixMs, StoreError>> {
        // Asks the file as well, since this is the probe.
        Box::pin(self.readers.run(|connection| {
            connection
                .query_row("SELECT 1 FROM meta LIMIT 1", [], |_| Ok(()))
                .map_err(|error| failure(error, false))?;
            Ok(now_ms())
        }))
    }

    /// The lock keeps other daemons out.
    fn link(&self, _for_commits: bool) -> BoxFuture<'_, Result<Option<Link>, StoreError>> {
        Box::pin(std::future::ready(Ok(None)))
    }

    fn pool(&self) -> PoolState {
        let (open, busy) = (self.readers.threads() + self.writer.threads(), self.readers.busy() + self.writer.busy());
        PoolState { open, idle: open.saturating_sub(busy) }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // The writer last: the last connection to close copies the log into the file.
            self.readers.close().await;
            self.writer.close().await;
            drop(self.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take());
        })
    }
}

/// The machine's clock, which is this store's.
#[expect(clippy::disallowed_methods, reason = "this store's clock is the machine's")]
fn now_ms() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs::try_from(since.as_millis()).unwrap_or(UnixMs::MAX)
}

/// The store's error for one of SQLite. `committing`: whether it came from a COMMIT.
fn failure(error: rusqlite::Error, committing: bool) -> StoreError {
    let kind = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreErrorKind::Full,
        Some(ErrorCode::ReadOnly) => StoreErrorKind::ReadOnly,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OutOfMemory) => {
            StoreErrorKind::Unavailable
        }
        Some(ErrorCode::TooBig | ErrorCode::ConstraintViolation) => StoreErrorKind::Rejected,
        // Part of the log may have reached the disk.
        Some(ErrorCode::SystemIoFailure) if committing => StoreErrorKind::UnknownOutcome,
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => StoreErrorKind::Unavailable,
        _ => StoreErrorKind::Internal,
    };
    match error {
        // The text may be an administrator's trigger's and quote the data; the code says enough.
        rusqlite::Error::SqliteFailure(code, _) if kind == StoreErrorKind::Rejected => StoreError::new(kind, code),
        error => StoreError::new(kind, error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;
    use crate::entry::{Change, Expect, KeyHasher, Kind, Mutation};

    fn open(path: &Path) -> Result<SqliteStore, StoreError> {
        SqliteStore::open(&SqliteConfig { path: path.to_owned() })
    }

    fn put(name: &str, size: usize) -> Group {
        let key = Key::new(&KeyHasher::new(&[0; 16]), 0, name.as_bytes().into());
        let change = Change::Put { kind: Kind::String, value: vec![1; size].into(), expires_at: None };
        vec![Mutation { key, expect: Expect::Any, change }]
    }

    async fn pragma(store: &SqliteStore, name: &'static str, value: i64) {
        let set = move |writer: &mut Writer| {
            let set = writer.connection().pragma_update_and_check(None, name, value, |_| Ok(()));
            // Some answer with their new value, some do not answer.
            assert!(matches!(set, Ok(()) | Err(rusqlite::Error::QueryReturnedNoRows)));
            Ok(())
        };
        store.writer.run(set).await.unwrap();
    }

    #[tokio::test]
    async fn files_are_private_and_used_by_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").join("sessions.db");
        let store = open(&path).unwrap();
        store.commit(&[put("a", 10)], None).await.pop().unwrap().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for (name, expected) in
            [("", 0o700), ("sessions.db", 0o600), ("sessions.db-wal", 0o600), ("sessions.db.lock", 0o600)]
        {
            assert_eq!(mode(&path.with_file_name(name)), expected, "{name}");
        }
        let error = open(&path).err().unwrap();
        assert!(error.is_permanent());
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("in use by another"), "{cause}");
        store.close().await;
        open(&path).unwrap().close().await;
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_a_permanent_error() {
        let dir = tempfile::tempdir().unwrap();
        let newer = dir.path().join("newer.db");
        Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let garbage = dir.path().join("garbage.db");
        std::fs::write(&garbage, vec![b'x'; 10_000]).unwrap();
        for (path, reason) in [
            (newer, "newer cloakroom"),
            (garbage, "not a database"),
            (dir.path().to_owned(), "directory"),
            ("/proc/sessions.db".into(), "cannot open"),
        ] {
            let error = open(&path).err().unwrap();
            assert!(error.is_permanent());
            let mut text = String::new();
            let mut cause = std::error::Error::source(&error);
            while let Some(source) = cause {
                text.push_str(&source.to_string());
                cause = source.source();
            }
            assert!(text.contains(reason), "{text}");
        }
    }

    #[tokio::test]
    async fn a_full_disk_refuses_writes_and_serves_reads() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("sessions.db")).unwrap();
        store
            .commit(&[put("a", 10), put("b", 100_000)], None)
            .await
            .into_iter()
            .for_each(|result| drop(result.unwrap()));
        pragma(&store, "max_page_count", 1).await;
        // One that does not fit fails alone; what frees room, or needs none, is applied.
        let mut delete = put("b", 0);
        delete[0].change = Change::Delete;
        let results = store.commit(&[put("c", 500_000), put("a", 11), delete, put("d", 500_000)], None).await;
        let kinds: Vec<_> = results.iter().map(|result| result.as_ref().map_err(StoreError::kind).err()).collect();
        assert_eq!(kinds, [Some(StoreErrorKind::Full), None, None, Some(StoreErrorKind::Full)]);
        let keys = ["a", "b", "c", "d"].map(|name| put(name, 0).remove(0).key).to_vec();
        let sizes: Vec<_> =
            store.load(keys).await.unwrap().iter().map(|one| one.as_ref().map(|one| one.value.len())).collect();
        assert_eq!(sizes, [Some(11), None, None, None]);
        pragma(&store, "max_page_count", 1_000_000).await;
        store.commit(&[put("c", 500_000)], None).await.pop().unwrap().unwrap();
        pragma(&store, "query_only", 1).await;
        let error = store.commit(&[put("c", 1)], None).await.pop().unwrap().unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::ReadOnly);
    }

    #[tokio::test]
    async fn versions_are_not_repeated_after_a_rollback() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir.path().join("sessions.db")).unwrap();
        let reserved = |store: &SqliteStore| {
            store.readers.run(|connection| {
                let next = "SELECT value FROM meta WHERE name = 'version'";
                connection.query_row(next, [], |row| row.get::<_, i64>(0)).map_err(|error| failure(error, false))
            })
        };
        // The first transaction reserves a block, and takes that back with it.
        pragma(&store, "max_page_count", 1).await;
        store.commit(&[put("a", 500_000)], None).await.pop().unwrap().unwrap_err();
        assert_eq!(reserved(&store).await.unwrap(), 1);
        pragma(&store, "max_page_count", 1_000_000).await;
        let Outcome::Applied(applied) = store.commit(&[put("a", 1)], None).await.pop().unwrap().unwrap() else {
            panic!("conflict")
        };
        assert!(applied[0].version < reserved(&store).await.unwrap());
    }

    #[tokio::test]
    async fn another_process_that_writes_is_waited_for_only_so_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions.db");
        let store = open(&path).unwrap();
        store.commit(&[put("a", 1)], None).await.pop().unwrap().unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let error = store.commit(&[put("a", 2)], None).await.pop().unwrap().unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        assert!(store.load(vec![put("a", 0).remove(0).key]).await.unwrap()[0].is_some());
        other.execute_batch("COMMIT").unwrap();
        store.commit(&[put("a", 2)], None).await.pop().unwrap().unwrap();
    }
}
