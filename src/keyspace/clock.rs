//! The store's clock, kept locally: the one clock by which entries expire, whatever this machine's says.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::entry::UnixMs;

/// Milliseconds of the store's clock, from a monotonic clock and a measured offset.
///
/// A measurement does not tell the offset, only two bounds of it: the store read its clock at some time between question and
/// answer. What is held is where all measurements agree, and the offset in use lies in its middle. So one slow answer, as
/// from a link that stalls in one direction, makes nothing worse, and is not lost either.
#[derive(Debug)]
pub struct Clock {
    origin: Instant,
    /// Microseconds.
    offset: AtomicI64,
    held: Mutex<Option<Bounds>>,
}

/// Where the offset lies, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    least: i64,
    most: i64,
    /// When that was known.
    at: Tick,
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
    asked: Tick,
}

impl Bounds {
    /// What a measurement says: the store's clock showed the millisecond `shown`, between `asked` and `answered`.
    fn of(shown: UnixMs, asked: Tick, answered: Tick) -> Self {
        let shown = shown * 1000;
        Self { least: shown - answered as i64, most: shown + 999 - asked as i64, at: answered }
    }

    /// What is left of it at `now`: the two clocks run apart a little.
    fn aged(self, now: Tick) -> Self {
        let drift = (now.saturating_sub(self.at) / TICKS_PER_DRIFT) as i64 + 1;
        Self { least: self.least - drift, most: self.most + drift, at: now }
    }

    /// Where both hold. If nowhere, the store's clock was set: only the newer counts.
    fn and(self, newer: Self) -> Self {
        let older = self.aged(newer.at);
        let both = Self { least: older.least.max(newer.least), most: older.most.min(newer.most), at: newer.at };
        if both.least <= both.most { both } else { newer }
    }

    fn middle(self) -> i64 {
        i64::midpoint(self.least, self.most)
    }

    /// How far the middle may be from the truth.
    fn error(self) -> Duration {
        Duration::from_micros((self.most - self.least) as u64 / 2)
    }
}

impl Clock {
    /// A clock that has not been corrected yet.
    #[must_use]
    pub fn new() -> Self {
        Self { origin: Instant::now(), offset: AtomicI64::new(0), held: Mutex::new(None) }
    }

    /// Now, on the store's clock.
    #[must_use]
    pub fn now(&self) -> UnixMs {
        self.moment().unix
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
        Moment { unix: (self.offset.load(Ordering::Relaxed) + tick as i64) / 1000, tick }
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
        Sounding { asked: self.tick() }
    }

    /// Takes over the store's answer. Returns the correction in ms.
    pub fn correct(&self, sounding: Sounding, store_now: UnixMs) -> i64 {
        let measured = Bounds::of(store_now, sounding.asked, self.tick());
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let bounds = held.map_or(measured, |held| held.and(measured));
        *held = Some(bounds);
        let before = self.offset.swap(bounds.middle(), Ordering::Relaxed);
        (bounds.middle() - before) / 1000
    }

    /// By how much it may be wrong, as of the last correction; `None` before the first.
    #[must_use]
    pub fn error(&self) -> Option<Duration> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).map(Bounds::error)
    }
}

/// Two clocks that are disciplined run apart by at most one part in 2000 (what NTP slews by).
const TICKS_PER_DRIFT: Tick = 2000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_store_is_right() {
        let clock = Clock::new();
        assert_eq!(clock.error(), None);
        let sounding = clock.sound();
        clock.correct(sounding, 3_601_000);
        let error = clock.error().expect("it was corrected").as_millis() as i64 + 1;
        assert!((3_601_000 - error..=3_601_001 + clock.tick() as i64 / 1000).contains(&clock.now()), "{clock:?}");
    }

    /// Asked and answered at these times (µs), with the store's clock read at the third.
    fn check(measurements: &[(Tick, Tick, Tick)], worst: u64) {
        let held = measurements.iter().fold(None::<Bounds>, |held, (asked, answered, read)| {
            let shown = (TRUTH + *read as i64).div_euclid(1000);
            let measured = Bounds::of(shown, *asked, *answered);
            Some(held.map_or(measured, |held| held.and(measured)))
        });
        let held = held.expect("there is a measurement");
        assert!((held.middle() - TRUTH).unsigned_abs() <= worst, "{held:?}");
        assert!((held.middle() - TRUTH).unsigned_abs() <= held.error().as_micros() as u64 + 1, "{held:?}");
    }

    const TRUTH: i64 = 1_700_000_000_000_000;

    #[test]
    fn a_slow_answer_makes_nothing_worse() {
        check(&[(0, 400, 200)], 700);
        // The answer was held back for three seconds.
        check(&[(0, 400, 200), (1_000_000, 4_000_000, 1_000_200)], 2_800);
        // The question was: what a start under such a link knows at first, and what it knows a moment later.
        check(&[(0, 3_000_000, 2_999_800)], 1_500_600);
        check(&[(0, 3_000_000, 2_999_800), (3_000_000, 3_000_400, 3_000_200)], 700);
        // Two vague ones, each held back in another direction, are exact together.
        check(&[(0, 900_000, 100), (1_000_000, 1_900_000, 1_899_900)], 1_100);
    }

    #[test]
    fn a_clock_that_was_set_is_believed() {
        let before = Bounds::of(1_000, 0, 400);
        let after = Bounds::of(3_601_000, 1_000_000, 1_000_400);
        assert_eq!(before.and(after), after);
    }

    proptest! {
        #[test]
        fn the_truth_is_within_the_bounds(measurements in prop::collection::vec((0..5_000_000_u64, 0..3_000_000_u64, 0..=100_u64), 1..20)) {
            let mut begin = 0;
            let mut held = None::<Bounds>;
            for (pause, takes, percent) in measurements {
                let asked = begin + pause;
                let answered = asked + takes;
                let read = asked + takes * percent / 100;
                let measured = Bounds::of((TRUTH + read as i64).div_euclid(1000), asked, answered);
                let both = held.map_or(measured, |held| held.and(measured));
                prop_assert!((both.least..=both.most).contains(&TRUTH), "{both:?}");
                prop_assert!(both.error() <= measured.error());
                held = Some(both);
                begin = answered;
            }
        }
    }
}
