//! What the keyspace counts. The metrics page and `INFO` read it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::metrics::histogram::{COUNTS, Histogram, SECONDS};
use crate::store::error::StoreErrorKind;

/// Counts of one kind of store operation.
#[derive(Debug)]
pub struct OperationStats {
    /// Time from asking to the answer, in ns.
    pub duration: Histogram,
    /// Keys or rows of one operation.
    pub rows: Histogram,
    /// Operations that failed, by [`StoreErrorKind`].
    errors: [AtomicU64; KINDS.len()],
}

/// All kinds of errors, in the order of the counters.
pub const KINDS: [StoreErrorKind; 7] = [
    StoreErrorKind::Unavailable,
    StoreErrorKind::UnknownOutcome,
    StoreErrorKind::Full,
    StoreErrorKind::ReadOnly,
    StoreErrorKind::Rejected,
    StoreErrorKind::Unacknowledged,
    StoreErrorKind::Internal,
];

impl OperationStats {
    fn new() -> Self {
        Self {
            duration: Histogram::new(&SECONDS),
            rows: Histogram::new(&COUNTS),
            errors: [const { AtomicU64::new(0) }; KINDS.len()],
        }
    }

    /// Counts one operation over `rows` rows.
    pub fn observe(&self, rows: u64, took: Duration, error: Option<StoreErrorKind>) {
        self.rows.record(rows, 1);
        self.duration.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), 1);
        if let Some(kind) = error {
            self.count_error(kind);
        }
    }

    /// Counts a failure of a part of an operation.
    pub fn count_error(&self, kind: StoreErrorKind) {
        if let Some(index) = KINDS.iter().position(|known| *known == kind) {
            self.errors[index].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Failures by kind.
    pub fn errors(&self) -> impl Iterator<Item = (StoreErrorKind, u64)> + '_ {
        KINDS.iter().zip(&self.errors).map(|(kind, count)| (*kind, count.load(Ordering::Relaxed)))
    }
}

/// See the file's header.
#[derive(Debug)]
pub struct Stats {
    /// Batches of reads.
    pub loads: OperationStats,
    /// Batches of writes.
    pub commits: OperationStats,
    /// Steps of the sweeper.
    pub sweeps: OperationStats,
    /// Everything else: scans, counts, flushes.
    pub others: OperationStats,
    /// Blind writes that rode in another write's row, because that one came later in the same batch.
    pub absorbed: AtomicU64,
    /// Tries of updates that met a conflict.
    pub conflicts: AtomicU64,
    /// Expired entries removed from the store.
    pub swept: AtomicU64,
    /// Full passes of the sweeper over the table.
    pub sweeper_passes: AtomicU64,
    /// Cached entries compared with the store.
    pub audits: AtomicU64,
    /// Of them, those that were not what the store had, for longer than they may be.
    pub audits_stale: AtomicU64,
    /// For how long at most, in ms.
    pub audit_stale_age_ms: AtomicU64,
    /// Writes refused because the queue was full.
    pub refused: AtomicU64,
}

impl Stats {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            loads: OperationStats::new(),
            commits: OperationStats::new(),
            sweeps: OperationStats::new(),
            others: OperationStats::new(),
            absorbed: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            swept: AtomicU64::new(0),
            sweeper_passes: AtomicU64::new(0),
            audits: AtomicU64::new(0),
            audits_stale: AtomicU64::new(0),
            audit_stale_age_ms: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }
}
