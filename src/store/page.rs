//! Cuts rows in order of their slot into pages that end between slots. Shared by both stores; knows no SQL.

use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;

use crate::store::{ScanPage, ScanQuery};

/// How many pages a search for a random key reads at most; they grow, so that it passes over 170,000 dead rows.
const RANDOM_PAGES: u32 = 12;

/// One past the highest slot.
const SLOTS: u32 = 1 << 31;

/// The rows of an index from some slot on: the slot, and the key if it is wanted.
pub(super) type Rows = Vec<(i32, Option<Box<[u8]>>)>;

/// What to make of rows that were read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// A page with these names; the next begins at the slot, 0 if there is none.
    Page(Vec<Box<[u8]>>, u32),
    /// All rows are of this slot: read the whole of it, and go on behind it ([`after`]).
    WholeSlot(i32),
}

/// How many rows to ask for.
pub(super) fn rows_for(limit: u32) -> i64 {
    i64::from(limit.max(1)) + 1
}

/// Cuts the rows that were read with a limit of [`rows_for`]`(limit)`.
pub(super) fn cut(mut rows: Rows, limit: u32) -> Cut {
    if (rows.len() as i64) < rows_for(limit) {
        return Cut::Page(names(rows), 0);
    }
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        return Cut::Page(Vec::new(), 0);
    };
    let (first, last) = (first.0, last.0);
    if first == last {
        return Cut::WholeSlot(last);
    }
    // The last slot may have more rows than were read: it belongs to the next page.
    rows.truncate(rows.partition_point(|(slot, _)| *slot < last));
    Cut::Page(names(rows), last as u32)
}

/// The cursor behind a slot.
pub(super) fn after(slot: i32) -> u32 {
    (slot as u32 + 1) % SLOTS
}

/// The wanted keys.
pub(super) fn names(rows: Rows) -> Vec<Box<[u8]>> {
    rows.into_iter().filter_map(|(_, name)| name).collect()
}

/// The search for a random key: from a random slot on to the first page with a live key, of which one is chosen.
pub(super) struct RandomSearch {
    query: ScanQuery,
    start: u32,
    wrapped: bool,
    pages: u32,
}

impl RandomSearch {
    /// A search among the keys of `db` that begin with `prefix`.
    pub(super) fn new(db: u8, prefix: Vec<u8>) -> Self {
        let start = (random() % u64::from(SLOTS)) as u32;
        let query = ScanQuery { db, prefix, cursor: start, limit: 16, kind: None };
        Self { query, start, wrapped: start == 0, pages: 0 }
    }

    /// The page to read next.
    pub(super) fn query(&self) -> &ScanQuery {
        &self.query
    }

    /// Takes the page that was read; breaks with the result if the search is over.
    pub(super) fn next(&mut self, mut page: ScanPage) -> ControlFlow<Option<Box<[u8]>>> {
        if !page.names.is_empty() {
            let index = (random() % page.names.len() as u64) as usize;
            return ControlFlow::Break(Some(page.names.swap_remove(index)));
        }
        self.pages += 1;
        let ended = page.next == 0;
        let around = self.wrapped && (ended || page.next > self.start);
        if around || self.pages >= RANDOM_PAGES {
            return ControlFlow::Break(None);
        }
        self.wrapped |= ended;
        self.query.cursor = page.next;
        self.query.limit = (self.query.limit * 4).min(1 << 14);
        ControlFlow::Continue(())
    }
}

/// A number that differs from call to call; not of cryptographic quality.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(slots: &[i32]) -> Rows {
        slots.iter().map(|slot| (*slot, Some(Box::from(slot.to_string().as_bytes())))).collect()
    }

    #[test]
    fn pages_end_between_slots() {
        let cases: &[(&[i32], u32, &[i32], u32)] = &[
            (&[], 2, &[], 0),
            (&[5], 2, &[5], 0),
            (&[5, 6], 2, &[5, 6], 0),
            (&[5, 6, 7], 2, &[5, 6], 7),
            (&[5, 7, 7], 2, &[5], 7),
            (&[0, 0, i32::MAX], 2, &[0, 0], i32::MAX as u32),
            (&[5, 6], 0, &[5], 6),
        ];
        for (read, limit, page, next) in cases {
            assert_eq!(cut(rows(read), *limit), Cut::Page(names(rows(page)), *next), "{read:?}");
        }
        assert_eq!(cut(rows(&[7, 7, 7]), 2), Cut::WholeSlot(7));
        assert_eq!((after(7), after(i32::MAX)), (8, 0));
    }
}
