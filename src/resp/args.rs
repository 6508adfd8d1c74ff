//! The arguments of one request, as slices of the connection's read buffer.

use std::ops::Range;

/// The arguments of one request. Borrowed: what must outlive the handler is copied out.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    buffer: &'a [u8],
    ranges: &'a [Range<usize>],
}

impl<'a> Args<'a> {
    /// Arguments that lie at `ranges` of `buffer`. There is at least one: the command's name.
    #[must_use]
    pub fn new(buffer: &'a [u8], ranges: &'a [Range<usize>]) -> Self {
        debug_assert!(!ranges.is_empty(), "a request has at least its command's name");
        Self { buffer, ranges }
    }

    /// How many arguments there are, the command's name included.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "never empty: the name is always there")]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The argument at `index`, if there is one.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.ranges.get(index).map(|range| &self.buffer[range.clone()])
    }

    /// The arguments from `index` on, as if they were a request of their own.
    ///
    /// # Panics
    /// If there is none at `index`.
    #[must_use]
    pub fn skip(&self, index: usize) -> Self {
        Self::new(self.buffer, &self.ranges[index..])
    }

    /// The arguments from `index` on.
    pub fn iter_from(&self, index: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let buffer = self.buffer;
        self.ranges[index.min(self.ranges.len())..].iter().map(move |range| &buffer[range.clone()])
    }
}

impl std::ops::Index<usize> for Args<'_> {
    type Output = [u8];

    /// The argument at `index`.
    ///
    /// # Panics
    /// If there is none: the table's arity check guarantees those that a handler indexes.
    fn index(&self, index: usize) -> &[u8] {
        &self.buffer[self.ranges[index].clone()]
    }
}
