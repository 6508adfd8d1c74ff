//! Whether the store answers. While it does not, operations fail at once instead of each waiting for its own timeout.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use crate::store::error::{Chain, StoreError, StoreErrorKind};

/// Up until an operation finds the store away; up again when the watcher's probe is answered.
#[derive(Debug)]
pub struct Health {
    up: AtomicBool,
    doubted: Notify,
}

impl Health {
    /// A store that just answered.
    #[must_use]
    pub fn new() -> Self {
        Self { up: AtomicBool::new(true), doubted: Notify::new() }
    }

    /// Whether the store answered last.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// The error of an operation that was not even tried.
    #[must_use]
    pub fn refusal(&self) -> StoreError {
        StoreError::bare(StoreErrorKind::Unavailable)
    }

    /// Takes note of a failed operation, and logs it: here the store's errors stop.
    pub fn note(&self, error: &StoreError) {
        match error.kind() {
            StoreErrorKind::Unavailable | StoreErrorKind::UnknownOutcome => {
                if self.up.swap(false, Ordering::Relaxed) {
                    tracing::error!(error = %Chain(error), "store went away");
                    self.doubted.notify_one();
                }
            }
            StoreErrorKind::Full
            | StoreErrorKind::ReadOnly
            | StoreErrorKind::Unacknowledged
            | StoreErrorKind::Internal => {
                tracing::error!(error = %Chain(error), "store failed an operation");
            }
            StoreErrorKind::Rejected => tracing::warn!(error = %Chain(error), "store refused a row"),
        }
    }

    /// Resolves when an operation has found the store away: time to probe it.
    pub async fn doubted(&self) {
        self.doubted.notified().await;
    }

    /// Takes note of an answer.
    pub fn answered(&self) {
        if !self.up.swap(true, Ordering::Relaxed) {
            tracing::info!("store is back");
        }
    }
}
