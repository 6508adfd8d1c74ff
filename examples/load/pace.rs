//! When the next request is due, and with which key. Knows no connections.

use std::time::{Duration, Instant};

use crate::connection::Request;
use crate::options::RunOptions;
use crate::template::next;

/// Hands out requests until enough have been.
pub(crate) struct Pace {
    start: Instant,
    /// Between two requests of a fixed rate.
    distance: Option<Duration>,
    end: Option<Instant>,
    left: u64,
    given: u64,
    keys: u64,
    in_order: bool,
    state: u64,
    stamp: u64,
}

impl Pace {
    /// `stamp` is where the values of this run begin, so that no earlier run has written one of them.
    pub(crate) fn new(options: &RunOptions, start: Instant, stamp: u64) -> Self {
        Self {
            start,
            distance: options.rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
            end: options.seconds.map(|seconds| start + Duration::from_secs_f64(seconds + options.warm_up)),
            left: options.requests.unwrap_or(u64::MAX),
            given: 0,
            keys: options.keys,
            in_order: options.in_order,
            state: options.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            stamp,
        }
    }

    /// When the next request should be sent; `None` if there is no more.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let due = match self.distance {
            // Multiplied rather than added up, so that rounding does not change the rate.
            Some(distance) => self.start + distance.mul_f64(self.given as f64),
            None => now,
        };
        let is_over = self.left == 0 || self.end.is_some_and(|end| due >= end);
        (!is_over).then_some(due)
    }

    /// The next request.
    pub(crate) fn take(&mut self) -> Request {
        let key = if self.in_order { self.given % self.keys } else { (next(&mut self.state) >> 11) % self.keys };
        self.given += 1;
        self.left = self.left.saturating_sub(1);
        Request { key, stamp: self.stamp + self.given }
    }
}
