//! The writes of this node that are on their way to a commit, and which of their keys others have changed meanwhile. Knows
//! neither cache nor store.

use std::collections::HashMap;

use crate::keyspace::key::Carried;

/// See the file's header. A key is in at most one batch in flight.
#[derive(Debug, Default)]
pub struct Writes {
    /// By the key's hash: whether another node changed the key after our batch set out. Then nobody here knows which of
    /// the two came last.
    in_flight: HashMap<u64, bool, Carried>,
}

impl Writes {
    /// A batch sets out.
    pub fn begin(&mut self, hashes: impl Iterator<Item = u64>) {
        self.in_flight.extend(hashes.map(|hash| (hash, false)));
    }

    /// Another node has changed the key; whether a write of ours is now in doubt that was not before.
    pub fn cross(&mut self, hash: u64) -> bool {
        self.in_flight.get_mut(&hash).is_some_and(|crossed| !std::mem::replace(crossed, true))
    }

    /// Another node has changed all keys; how many writes of ours are now in doubt.
    pub fn cross_all(&mut self) -> u64 {
        self.in_flight.values_mut().map(|crossed| u64::from(!std::mem::replace(crossed, true))).sum()
    }

    /// Whether a write of the key is on its way.
    pub fn is_in_flight(&self, hash: u64) -> bool {
        self.in_flight.contains_key(&hash)
    }

    /// The write of the key is over; whether the key is as that write left it.
    pub fn end(&mut self, hash: u64) -> bool {
        self.in_flight.remove(&hash).is_some_and(|crossed| !crossed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_another_node_crossed_is_in_doubt() {
        let mut writes = Writes::default();
        writes.begin([1, 2, 3].into_iter());
        assert!(writes.is_in_flight(3) && !writes.is_in_flight(9));
        assert!(writes.cross(2));
        assert!(!writes.cross(2), "counted once");
        assert!(!writes.cross(9));
        assert_eq!([writes.end(1), writes.end(2), writes.end(2)], [true, false, false]);
        assert_eq!(writes.cross_all(), 1);
        writes.begin([2].into_iter());
        assert_eq!([writes.end(2), writes.end(3)], [true, false]);
    }
}
