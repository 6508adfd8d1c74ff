//! When a later expiry may be kept in memory alone for a while. Pure: it knows no cache, store or clock.
//!
//! An entry's *shown* expiry is what clients were told; the *durable* one, which the store has, lags behind it by at most
//! the slack. A touch moves the shown one only if the durable one stays within the slack of it, at most 5 % of the time
//! to live: so after any touch the durable entry still has 95 % of its life before it, and that is when the keeper, long
//! before its end, writes the shown expiry down. Hence only a crash, or whatever else makes this daemon forget what it
//! keeps, ends a session early, by at most the slack, and only one that is idle for the last of its life.

use std::time::Duration;

use crate::entry::{Change, Entry, Key, Kind, UnixMs, Version};

/// Below this time to live every change of the expiry is written: locks are exact.
const SHORTEST_TTL_MS: i64 = 5 * 60 * 1000;

/// The slack is at most the time to live divided by this.
const SHARE: i64 = 20;

/// How long before its durable end a touched entry is due to be written, in ms. A touch leaves it 95 % of at least
/// five minutes, which is more: so every touched entry is first not due, and then due for this long.
pub const DUE_MS: i64 = 150 * 1000;

/// What an entry's expiry is and what of it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// What clients see.
    pub shown: UnixMs,
    /// By how many ms the store's is earlier.
    pub lag: u32,
}

/// A wish for a later expiry.
#[derive(Clone, Copy, Debug)]
pub struct Touch<'a> {
    /// The expiry.
    pub at: UnixMs,
    /// Of which entry.
    pub of: Of<'a>,
}

/// Which entry a touch means: another one that is there must be written to.
#[derive(Clone, Copy, Debug)]
pub enum Of<'a> {
    /// Whatever is there.
    Any,
    /// One with this version.
    Version(Version),
    /// One of this kind with this value: the whole of it is written again.
    Value(Kind, &'a [u8]),
}

/// A touched entry whose shown expiry has to be written.
#[derive(Debug)]
pub struct Rescue {
    /// The key.
    pub key: Key,
    /// The expiry.
    pub at: UnixMs,
    /// Of which entry.
    pub version: Version,
    /// That entry, unless it is not cached any more.
    pub seen: Option<Entry>,
}

/// By how much the durable expiry may lag, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slack {
    max_ms: u32,
}

impl Slack {
    /// Every touch is written.
    pub const OFF: Self = Self { max_ms: 0 };

    /// At most so much; none if it is zero.
    #[must_use]
    pub fn new(max: Duration) -> Self {
        Self { max_ms: u32::try_from(max.as_millis()).unwrap_or(u32::MAX) }
    }

    /// The expiry after a touch that asks at `now` for `wanted`, if nothing needs to be written for it.
    #[must_use]
    pub fn touch(self, held: Expiry, wanted: UnixMs, now: UnixMs) -> Option<Expiry> {
        let ttl = wanted.saturating_sub(now);
        let allowed = i64::from(self.max_ms).min(ttl / SHARE);
        let lag = wanted.saturating_sub(held.durable());
        let admitted = self != Self::OFF
            && ttl >= SHORTEST_TTL_MS
            && wanted >= held.shown
            && held.durable() > now
            && lag <= allowed;
        admitted.then(|| Expiry { shown: wanted, lag: u32::try_from(lag).unwrap_or(u32::MAX) })
    }
}

impl Touch<'_> {
    /// What a change of `seen` wishes, if it does nothing but move its expiry.
    #[must_use]
    pub fn of(change: &Change, seen: &Entry) -> Option<Self> {
        match change {
            Change::Expire(Some(at)) => Some(*at),
            Change::Put { kind, value, expires_at } if *kind == seen.kind && *value == seen.value => *expires_at,
            Change::Put { .. } | Change::Expire(None) | Change::Delete | Change::Keep => None,
        }
        .map(|at| Self { at, of: Of::Version(seen.version) })
    }

    /// Whether it is this entry that it means.
    #[must_use]
    pub fn means(&self, kind: Kind, value: &[u8], version: Version) -> bool {
        match self.of {
            Of::Any => true,
            Of::Version(meant) => meant == version,
            Of::Value(meant, bytes) => meant == kind && bytes == value,
        }
    }
}

impl Expiry {
    /// An expiry that the store has.
    #[must_use]
    pub fn written(at: UnixMs) -> Self {
        Self { shown: at, lag: 0 }
    }

    /// What the store has.
    #[must_use]
    pub fn durable(self) -> UnixMs {
        self.shown.saturating_sub(i64::from(self.lag))
    }

    /// Whether the store's entry has ended while the shown one has not: then the store must be asked. Never, as long as
    /// the keeper can write.
    #[must_use]
    pub fn has_lapsed(self, now: UnixMs) -> bool {
        self.lag > 0 && self.durable() <= now
    }

    /// Whether the shown expiry is to be written now, lest the durable one ends.
    #[must_use]
    pub fn is_due(self, now: UnixMs) -> bool {
        self.lag > 0 && self.durable().saturating_sub(now) <= DUE_MS
    }

    /// The expiry after a write to `written`, which was decided upon when `seen` was shown, has become durable.
    ///
    /// Touches that came in between count as made after the write, if they extend what it wrote; otherwise as made
    /// before it, and are over. Both are times at which they may have happened, since nobody had been answered yet.
    #[must_use]
    pub fn after_write(self, seen: UnixMs, written: UnixMs) -> Self {
        if self.shown > seen && (seen..self.shown).contains(&written) {
            // As the durable expiry was not later than `seen`, this lag is not greater than the one before.
            let lag = u32::try_from(self.shown - written).unwrap_or(u32::MAX);
            return Self { shown: self.shown, lag };
        }
        Self::written(written)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMs = 1_700_000_000_000;
    const MINUTE: i64 = 60 * 1000;
    const DAY: i64 = 24 * 60 * MINUTE;

    fn slack() -> Slack {
        Slack::new(Duration::from_secs(60))
    }

    #[test]
    fn touches_are_kept_in_memory_within_the_slack_only() {
        // Time to live when it was written, time since then, time to live that is asked for, the lag if it is kept.
        for (was, after, wanted, lag) in [
            (DAY, 1_000, DAY, Some(1_000)),
            (DAY, 0, DAY, Some(0)),
            (DAY, 60_000, DAY, Some(60_000)),
            (DAY, 60_001, DAY, None),
            (DAY, 0, DAY + 60_000, Some(60_000)),
            (DAY, 0, DAY + 60_001, None),
            // 5 % of ten minutes.
            (10 * MINUTE, 30_000, 10 * MINUTE, Some(30_000)),
            (10 * MINUTE, 30_001, 10 * MINUTE, None),
            (5 * MINUTE, 15_000, 5 * MINUTE, Some(15_000)),
            (5 * MINUTE, 15_001, 5 * MINUTE, None),
            // Locks are exact.
            (5 * MINUTE - 1, 1, 5 * MINUTE - 1, None),
            (MINUTE, 1_000, 6 * MINUTE, None),
            // Never shorter.
            (DAY, 1_000, DAY - 1_001, None),
            (DAY, 0, DAY - 1, None),
            (DAY, 1_000, DAY - 1_000, Some(0)),
            // Never of what is over.
            (10 * MINUTE, 10 * MINUTE, 10 * MINUTE, None),
        ] {
            let (held, now) = (Expiry::written(NOW + was), NOW + after);
            let expected = lag.map(|lag| Expiry { shown: now + wanted, lag });
            assert_eq!(slack().touch(held, now + wanted, now), expected, "{was} {after} {wanted}");
            assert_eq!(Slack::OFF.touch(held, now + wanted, now), None);
            assert_eq!(Slack::new(Duration::ZERO).touch(held, now + wanted, now), None);
        }
        assert_eq!(slack().touch(Expiry::written(UnixMs::MAX), UnixMs::MAX, NOW), Some(Expiry::written(UnixMs::MAX)));
        assert_eq!(slack().touch(Expiry::written(UnixMs::MIN), UnixMs::MAX, NOW), None);
        assert_eq!(slack().touch(Expiry::written(NOW + DAY), UnixMs::MIN, NOW), None);
    }

    #[test]
    fn touches_beside_a_write_hold_after_it_or_are_over() {
        let touched = Expiry { shown: 1_000, lag: 100 };
        for (seen, written, expected) in [
            // Nobody touched it since the write was decided upon.
            (1_000, 1_000, Expiry::written(1_000)),
            (1_000, 900, Expiry::written(900)),
            // A write that kept the expiry that it saw, or extended it by less than the touch.
            (950, 950, Expiry { shown: 1_000, lag: 50 }),
            (900, 970, Expiry { shown: 1_000, lag: 30 }),
            // One that extended it by more, or shortened it.
            (950, 1_000, Expiry::written(1_000)),
            (950, 2_000, Expiry::written(2_000)),
            (950, 949, Expiry::written(949)),
        ] {
            assert_eq!(touched.after_write(seen, written), expected, "{seen} {written}");
        }
    }

    /// What happens to an entry, each after some ms.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        /// A touch that asks for a time to live.
        Touch(i64),
        /// The daemon is killed and started again.
        Crash,
    }

    fn events() -> impl Strategy<Value = Vec<(i64, Event)>> {
        let ttl = prop_oneof![Just(30 * MINUTE), Just(DAY), 1_000..20 * MINUTE];
        let event = prop_oneof![8 => ttl.prop_map(Event::Touch), 1 => Just(Event::Crash)];
        let pause = prop_oneof![3 => 0..2 * MINUTE, 1 => 0..DAY];
        prop::collection::vec((pause, event), 1..60)
    }

    proptest! {
        /// Against a store that does what it is told: nothing shown is ever more than the slack before what is durable,
        /// nothing is shown shorter than asked for, and without a crash nothing ends before its time.
        #[test]
        fn the_store_is_never_far_behind(events in events(), slack_ms in 0..120_000_u32) {
            let slack = Slack { max_ms: slack_ms };
            let mut now = NOW;
            let mut held = Expiry::written(NOW + DAY);
            for (pause, event) in events {
                // The keeper comes by at least once while an entry is due.
                let end = now + pause;
                while now < end {
                    now = end.min(now + DUE_MS / 2);
                    if held.is_due(now) {
                        prop_assert!(held.durable() > now, "written too late");
                        held = Expiry::written(held.shown);
                    }
                }
                prop_assert!(!held.has_lapsed(now));
                if held.shown <= now {
                    held = Expiry::written(now + DAY);
                }
                let before = held;
                match event {
                    Event::Touch(ttl) => {
                        held = slack.touch(held, now + ttl, now).unwrap_or(Expiry::written(now + ttl));
                        prop_assert_eq!(held.shown, now + ttl);
                        if held.lag > 0 {
                            prop_assert_eq!(held.durable(), before.durable());
                            prop_assert!(held.lag <= slack_ms && i64::from(held.lag) * 20 <= ttl);
                            prop_assert!(ttl >= 5 * MINUTE && held.shown >= before.shown);
                            prop_assert!(!held.is_due(now), "a touched entry is not due at once");
                        }
                    }
                    Event::Crash => {
                        held = Expiry::written(held.durable());
                        prop_assert!(before.shown - held.shown <= i64::from(slack_ms));
                    }
                }
            }
        }

        /// A write beside touches leaves at most the lag that the touches had.
        #[test]
        fn a_write_never_adds_to_the_lag(durable in 0..1_000_i64, first in 0..100_u32, more in 0..100_u32, written in 0..2_000_i64) {
            let seen = durable + i64::from(first);
            let touched = Expiry { shown: seen + i64::from(more), lag: first + more };
            let after = touched.after_write(seen, written);
            prop_assert_eq!(after.durable(), written);
            prop_assert!(after.lag <= touched.lag);
            prop_assert!(after.shown == written || after.shown == touched.shown);
        }
    }
}
