//! The embedded store on SQLite: the zero-setup default for one daemon on one machine.
//!
//! One thread writes and one reads, each with a connection of its own; the write-ahead log lets them work side by
//! side, and is synced at each commit. A lock on a file beside the database keeps a second daemon out: it would not
//! hear of this one's writes.

mod error;
mod lock;
mod read;
mod schema;
mod worker;
mod write;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use rusqlite::Connection;

use crate::config::SqliteConfig;
use crate::entry::{Entry, Group, Key, Outcome, UnixMs};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::sqlite::error::failed;
use crate::store::sqlite::lock::DatabaseLock;
use crate::store::sqlite::worker::Worker;
use crate::store::sqlite::write::Writer;
use crate::store::{PoolState, ScanPage, ScanQuery, Store, SweepCursor, Swept};

/// Sessions in one SQLite file.
pub struct SqliteStore {
    writer: Worker<Writer>,
    reader: Worker<Connection>,
    secret: [u8; 16],
    _lock: DatabaseLock,
}

impl SqliteStore {
    /// Opens the file, creating it (readable by its owner only) and its directory if they are missing.
    ///
    /// Every error is permanent: waiting does not cure a path that cannot be opened or a second daemon.
    pub fn open(config: &SqliteConfig) -> Result<Self, StoreError> {
        let lock = prepare(&config.path)?;
        let mut connection = connect(&config.path).map_err(StoreError::permanent)?;
        let secret = schema::migrate(&mut connection)?;
        let reader = connect(&config.path).map_err(StoreError::permanent)?;
        reader.pragma_update(None, "query_only", true).map_err(StoreError::permanent)?;
        let writer = Worker::start("sqlite-writer", Writer::new(connection)).map_err(StoreError::permanent)?;
        let reader = Worker::start("sqlite-reader", reader).map_err(StoreError::permanent)?;
        Ok(Self { writer, reader, secret, _lock: lock })
    }
}

impl Store for SqliteStore {
    fn hash_secret(&self) -> [u8; 16] {
        self.secret
    }

    fn load(&self, keys: Vec<Key>) -> BoxFuture<'_, Result<Vec<Option<Entry>>, StoreError>> {
        Box::pin(self.reader.run(move |connection| read::load(connection, &keys, now()).map_err(failed)))
    }

    fn commit<'a>(&'a self, batch: &'a [Group]) -> BoxFuture<'a, Vec<Result<Outcome, StoreError>>> {
        let groups = batch.to_vec();
        let count = groups.len();
        Box::pin(async move {
            let committed = self.writer.run(move |writer| Ok(writer.commit(&groups, now()))).await;
            committed.unwrap_or_else(|error| {
                // The writer is gone: whether it had begun cannot be known.
                (0..count).map(|_| Err(StoreError::bare(error.kind()))).collect()
            })
        })
    }

    fn scan(&self, query: ScanQuery) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        Box::pin(self.reader.run(move |connection| read::scan(connection, &query, now()).map_err(failed)))
    }

    fn random(&self, db: u8, prefix: Vec<u8>) -> BoxFuture<'_, Result<Option<Box<[u8]>>, StoreError>> {
        Box::pin(self.reader.run(move |connection| read::random(connection, db, prefix, now()).map_err(failed)))
    }

    fn flush(&self, db: Option<u8>, prefix: Vec<u8>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.writer.run(move |writer| writer.flush(db, &prefix).map_err(failed)))
    }

    fn count(&self, prefix: Vec<u8>) -> BoxFuture<'_, Result<Vec<(u8, u64, u64)>, StoreError>> {
        Box::pin(self.reader.run(move |connection| read::count(connection, &prefix, now()).map_err(failed)))
    }

    fn sweep(&self, from: Option<SweepCursor>, limit: u32) -> BoxFuture<'_, Result<Swept, StoreError>> {
        Box::pin(self.writer.run(move |writer| writer.sweep(from, limit, now()).map_err(failed)))
    }

    /// This machine's clock; asked of the reader, so that it also proves that the store works.
    fn now(&self) -> BoxFuture<'_, Result<UnixMs, StoreError>> {
        Box::pin(self.reader.run(|connection| {
            connection.query_row("SELECT count(*) FROM meta", [], |_| Ok(())).map_err(failed)?;
            Ok(now())
        }))
    }

    fn pool(&self) -> PoolState {
        PoolState { open: 2, idle: u32::from(self.writer.is_idle()) + u32::from(self.reader.is_idle()) }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.reader.stop().await;
            self.writer.stop().await;
        })
    }
}

/// The machine's clock: SQLite has no other, and one machine has one.
#[expect(clippy::disallowed_methods, reason = "this store's clock is the machine's")]
fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |elapsed| elapsed.as_millis() as i64)
}

/// Makes directory and file, and locks out others.
fn prepare(path: &Path) -> Result<DatabaseLock, StoreError> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(StoreError::permanent)?;
    }
    let lock = DatabaseLock::take(path)?;
    fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .or_else(|_| fs::OpenOptions::new().read(true).open(path))
        .map_err(StoreError::permanent)?;
    Ok(lock)
}

/// A connection with every option said out loud.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // A commit is on the disk before it is acknowledged, also through a loss of power.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // In KiB, as it is negative: the pages that hold the indexes of a million sessions.
    connection.pragma_update(None, "cache_size", -64 * 1024)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// The kind of error where a worker's thread is gone.
const GONE: StoreErrorKind = StoreErrorKind::Unavailable;
