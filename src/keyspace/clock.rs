//! The store's clock, kept locally: the one clock by which entries expire, whatever this machine's says.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use crate::entry::UnixMs;

/// Milliseconds of the store's clock, from a monotonic clock and a measured offset.
#[derive(Debug)]
pub struct Clock {
    origin: Instant,
    offset: AtomicI64,
}

/// The start of one measurement of the offset.
#[derive(Clone, Copy, Debug)]
pub struct Sounding {
    asked: Instant,
}

impl Clock {
    /// A clock that stands at `now` of the store's clock.
    #[must_use]
    pub fn new(now: UnixMs) -> Self {
        Self { origin: Instant::now(), offset: AtomicI64::new(now) }
    }

    /// Now, on the store's clock.
    #[must_use]
    pub fn now(&self) -> UnixMs {
        self.offset.load(Ordering::Relaxed) + self.origin.elapsed().as_millis() as i64
    }

    /// Call before the store is asked for its time.
    #[must_use]
    pub fn sound(&self) -> Sounding {
        Sounding { asked: Instant::now() }
    }

    /// Takes over the store's answer, assumed to be from the middle of the round trip. Answers slower than
    /// `MAX_ROUND_TRIP_MS` are too vague and ignored. Returns the correction in ms.
    pub fn correct(&self, sounding: Sounding, store_now: UnixMs) -> i64 {
        let round_trip = sounding.asked.elapsed().as_millis() as i64;
        let correction = store_now + round_trip / 2 - self.now();
        if round_trip <= MAX_ROUND_TRIP_MS || correction.abs() > round_trip {
            self.offset.fetch_add(correction, Ordering::Relaxed);
            return correction;
        }
        0
    }
}

/// Half of this is the error that a correction may bring in.
const MAX_ROUND_TRIP_MS: i64 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_right() {
        let clock = Clock::new(1_000);
        let correction = clock.correct(clock.sound(), 3_601_000);
        assert!((3_599_000..=3_600_010).contains(&correction), "corrected by {correction} ms");
        assert!(clock.now() >= 3_600_990);
    }
}
