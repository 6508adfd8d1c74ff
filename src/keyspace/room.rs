//! How many bytes the cache may account for, so that by its resident memory, too, the process keeps to the cache's bound. An
//! allocator holds more than is in use, most of all while the sizes of values change: memory that one size has left is not
//! at once fit for another. Pure.

/// See the file's header.
///
/// Whatever else has grown since the cache was empty (buffers of very many clients) is held against it, too, but leaves it at
/// least half of its bound.
#[derive(Debug)]
pub struct Room {
    /// The bound.
    max: u64,
    /// Resident bytes of the process with an empty cache.
    empty: u64,
    allowed: u64,
}

/// What the process may grow by beside its cache before that has to give way, in bytes.
const BESIDE: u64 = 2 << 20;

/// The share of an excess that the cache gives way by at each look: memory follows within some looks.
const GIVES: u64 = 4;

/// The share of what is free that it takes back at each look: slowly, lest it swings.
const TAKES: u64 = 64;

impl Room {
    /// All of the bound, of a process that has `empty` bytes resident.
    #[must_use]
    pub fn new(max: u64, empty: u64) -> Self {
        Self { max, empty, allowed: max }
    }

    /// The process has `resident` bytes now: what the cache may account for until the next look.
    pub fn look(&mut self, resident: u64) -> u64 {
        let taken = resident.saturating_sub(self.empty);
        let bound = self.max + BESIDE;
        self.allowed = if taken > bound {
            self.allowed.saturating_sub((taken - bound) / GIVES).max(self.max / 2)
        } else {
            (self.allowed + (bound - taken) / TAKES).min(self.max)
        };
        self.allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u64 = 256 << 20;
    const EMPTY: u64 = 20 << 20;

    /// Resident memory of a full cache under an allocator that keeps a share more than is in use, which moves towards it by a
    /// thirty-second part at each look: within some seconds.
    fn settles(room: &mut Room, resident: &mut u64, more: f64) -> (u64, u64) {
        let mut most = 0;
        let mut accounted = room.allowed;
        for _ in 0..600 {
            let aim = EMPTY + (accounted as f64 * (1.0 + more)) as u64;
            *resident = *resident - *resident / 32 + aim / 32;
            accounted = room.look(*resident);
            most = most.max(*resident - EMPTY);
        }
        (accounted, most)
    }

    #[test]
    fn it_gives_way_to_what_the_allocator_keeps_and_comes_back() {
        let mut room = Room::new(MAX, EMPTY);
        let mut resident = EMPTY;
        assert_eq!(settles(&mut room, &mut resident, 0.0).0, MAX, "it has all while nothing is kept");
        let (accounted, most) = settles(&mut room, &mut resident, 0.3);
        assert!(most < MAX / 100 * 110, "{most}");
        let wanted = ((MAX + BESIDE) as f64 / 1.3) as u64;
        assert!(accounted.abs_diff(wanted) < MAX / 50, "{accounted}, not {wanted}");
        assert!(settles(&mut room, &mut resident, 0.0).0 > MAX / 100 * 99, "it takes back what is free");
    }

    #[test]
    fn what_is_not_the_caches_leaves_it_half() {
        let mut room = Room::new(MAX, EMPTY);
        let last = (0..1_000).map(|_| room.look(EMPTY + 10 * MAX)).last();
        assert_eq!(last, Some(MAX / 2));
        assert_eq!(Room::new(MAX, EMPTY).look(0), MAX, "less than it began with");
    }
}
