//! The database file: made with the right permissions, locked against a second daemon, opened with stated settings.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use crate::store::sqlite::schema::SchemaError;

/// How long to wait for another process that has the file, such as a backup.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a file could not be opened.
#[derive(Debug)]
pub(super) struct OpenError {
    path: PathBuf,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    InUse,
    Io(io::Error),
    Sqlite(rusqlite::Error),
    Schema(SchemaError),
}

impl OpenError {
    /// A failure of SQLite.
    pub(super) fn sqlite(path: &Path, error: rusqlite::Error) -> Self {
        Self { path: path.to_owned(), cause: Cause::Sqlite(error) }
    }

    /// A failure to bring the schema up to date.
    pub(super) fn schema(path: &Path, error: SchemaError) -> Self {
        Self { path: path.to_owned(), cause: Cause::Schema(error) }
    }

    fn io(path: &Path, error: io::Error) -> Self {
        Self { path: path.to_owned(), cause: Cause::Io(error) }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::InUse => write!(f, "{} is in use by another cloakroom", self.path.display()),
            _ => write!(f, "cannot open {}", self.path.display()),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::InUse => None,
            Cause::Io(error) => Some(error),
            Cause::Sqlite(error) => Some(error),
            Cause::Schema(error) => Some(error),
        }
    }
}

/// Makes directory and file if they are missing; the result holds the lock of the file.
pub(super) fn prepare(path: &Path) -> Result<File, OpenError> {
    let failed = |error| OpenError::io(path, error);
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let create = |path: &Path| OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock = create(Path::new(&lock_path)).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError { path: path.to_owned(), cause: Cause::InUse }),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    // SQLite gives its log files the permissions of the file.
    create(path).map_err(failed)?;
    // The names survive a power cut.
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
    Ok(lock)
}

/// A connection that writes.
pub(super) fn connect(path: &Path) -> Result<Connection, OpenError> {
    open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

/// A connection that only reads, while the writer writes.
pub(super) fn connect_reader(path: &Path) -> Result<Connection, OpenError> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "query_only", true).map_err(|error| OpenError::sqlite(path, error))?;
    Ok(connection)
}

fn open(path: &Path, access: OpenFlags) -> Result<Connection, OpenError> {
    // Each connection stays on one thread at a time.
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| OpenError::sqlite(path, error))?;
    configure(&connection).map_err(|error| OpenError::sqlite(path, error))?;
    Ok(connection)
}

/// The settings that the store rests on, all of them said.
fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(32);
    // Readers do not wait for the writer, and a commit is one write and one sync.
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    // The sync is in the commit: what is answered with OK survives a power cut.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "wal_autocheckpoint", 1000)?;
    connection.pragma_update_and_check(None, "journal_size_limit", 64 * 1024 * 1024, |_| Ok(()))?;
    // In KiB. Our own cache is above; this one is for inner pages of the tree.
    connection.pragma_update(None, "cache_size", -16 * 1024)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update_and_check(None, "mmap_size", 0, |_| Ok(()))?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "trusted_schema", false)
}
