//! Whether the store answers. While it does not, operations fail at once instead of each waiting for its own timeout.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::Notify;

use crate::store::error::{Chain, StoreError, StoreErrorKind};

/// Up until an operation finds the store away; up again when the watcher's probe is answered.
#[derive(Debug)]
pub struct Health {
    up: AtomicBool,
    made: Instant,
    /// When the last probe that was answered had begun, in nanoseconds after `made`.
    proven: AtomicU64,
    doubted: Notify,
}

impl Health {
    /// A store that just answered.
    #[must_use]
    pub fn new() -> Self {
        Self { up: AtomicBool::new(true), made: Instant::now(), proven: AtomicU64::new(0), doubted: Notify::new() }
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

    /// Takes note of the failure of an operation that began then, and logs it: here the store's errors stop.
    ///
    /// A probe that began later and was answered says more: a server that was left takes its time to fail what it was asked.
    pub fn note(&self, error: &StoreError, begun: Instant) {
        match error.kind() {
            StoreErrorKind::Unavailable | StoreErrorKind::UnknownOutcome
                if self.since_made(begun) < self.proven.load(Ordering::Relaxed) =>
            {
                tracing::warn!(error = %Chain(error), "store failed an operation, and answers others");
            }
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

    /// Takes note of an answer to a probe that began then.
    pub fn answered(&self, begun: Instant) {
        self.proven.fetch_max(self.since_made(begun), Ordering::Relaxed);
        if !self.up.swap(true, Ordering::Relaxed) {
            tracing::info!("store is back");
        }
    }

    fn since_made(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.made).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_asked_before_the_last_answer_proves_nothing_when_it_fails() {
        let health = Health::new();
        let [before, probe, after] = [1, 2, 3].map(|seconds| health.made + Duration::from_secs(seconds));
        let lost = StoreError::bare(StoreErrorKind::UnknownOutcome);
        health.answered(probe);
        health.note(&lost, before);
        assert!(health.is_up());
        health.note(&lost, after);
        assert!(!health.is_up());
        health.answered(after);
        assert!(health.is_up());
        health.answered(before);
        health.note(&lost, probe);
        assert!(health.is_up(), "an answer that comes late takes no proof away");
    }
}
