//! The store's clock, kept locally: the one clock by which entries expire, whatever this machine's says.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use crate::entry::UnixMs;

/// Milliseconds of the store's clock, from a monotonic clock and a measured offset.
#[derive(Debug)]
pub struct Clock {
    origin: Instant,
    offset: AtomicI64,
}

/// Microseconds since the clock was made, on this machine's monotonic clock; never 0.
pub type Tick = u64;

/// One reading of the clock.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// On the store's clock.
    pub unix: UnixMs,
    /// On this machine's, which only goes forward.
    pub tick: Tick,
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

    /// Now, on both clocks.
    #[must_use]
    pub fn moment(&self) -> Moment {
        self.moment_at(Instant::now())
    }

    /// What [`Clock::moment`] was at `instant`, for who has looked at this machine's clock already.
    #[must_use]
    pub fn moment_at(&self, instant: Instant) -> Moment {
        let tick = instant.saturating_duration_since(self.origin).as_micros() as Tick + 1;
        Moment { unix: self.offset.load(Ordering::Relaxed) + (tick / 1000) as i64, tick }
    }

    /// Now, on this machine's monotonic clock.
    #[must_use]
    pub fn tick(&self) -> Tick {
        self.origin.elapsed().as_micros() as Tick + 1
    }

    /// When the monotonic clock shows `tick`.
    #[must_use]
    pub fn instant(&self, tick: Tick) -> tokio::time::Instant {
        (self.origin + Duration::from_micros(tick)).into()
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
