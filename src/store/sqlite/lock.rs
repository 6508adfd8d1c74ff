//! Keeps a second daemon away from a database file. The lock goes with the process, however it ends.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::store::error::StoreError;

/// A lock on the file beside the database, held until it is dropped.
pub(super) struct DatabaseLock {
    _file: File,
}

impl DatabaseLock {
    /// Locks, or says who is in the way.
    pub(super) fn take(database: &Path) -> Result<Self, StoreError> {
        let mut path = database.as_os_str().to_owned();
        path.push(".lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| StoreError::permanent(format!("{}: {error}", Path::new(&path).display())))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::permanent(format!(
                "{} is in use by another daemon; several daemons can share a Postgres store",
                database.display()
            ))),
            Err(TryLockError::Error(error)) => Err(StoreError::permanent(error)),
        }
    }
}
