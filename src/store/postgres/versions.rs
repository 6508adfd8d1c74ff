//! Versions, taken from the database in blocks and given out here. Knows no SQL.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::entry::Version;

/// How many versions one `nextval` reserves: the sequence's increment, which never changes.
pub(super) const BLOCK: i64 = 1 << 20;

/// What is left of the reserved block.
pub(super) struct Versions {
    left: Mutex<Range<Version>>,
}

impl Versions {
    /// Nothing is reserved yet.
    pub(super) fn none() -> Self {
        Self { left: Mutex::new(0..0) }
    }

    /// `count` versions in a row, if as many are left. Others begin a new block, of which at most [`BLOCK`] can be taken.
    pub(super) fn take(&self, count: i64) -> Option<Range<Version>> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let end = left.start.checked_add(count).filter(|end| *end <= left.end)?;
        let taken = left.start..end;
        left.start = end;
        Some(taken)
    }

    /// Goes on with the block that begins at `start`; what was left of another is lost.
    pub(super) fn reserve(&self, start: Version) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = start..start + BLOCK;
    }

    /// Gives up the block. After a fail-over to a standby that lagged, another daemon may be given the same.
    pub(super) fn forget(&self) {
        *self.left.lock().unwrap_or_else(PoisonError::into_inner) = 0..0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_given_out_once() {
        let versions = Versions::none();
        assert_eq!(versions.take(1), None);
        versions.reserve(BLOCK);
        assert_eq!(versions.take(3), Some(BLOCK..BLOCK + 3));
        assert_eq!(versions.take(BLOCK), None);
        assert_eq!(versions.take(BLOCK - 3), Some(BLOCK + 3..2 * BLOCK));
        assert_eq!(versions.take(1), None);
        versions.reserve(4 * BLOCK);
        versions.forget();
        assert_eq!(versions.take(1), None);
    }
}
