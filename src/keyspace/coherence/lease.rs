//! The lease of a strict node: until when the others wait for it before they change what it may have cached. A state
//! machine that is told the time.

use crate::keyspace::clock::Tick;

/// How long a lease is, in milliseconds; the same on every node, whatever is configured.
pub const LEASE_MS: i64 = 3000;

/// What this node takes it for: a little less, as clocks do not run alike.
const HELD: Tick = LEASE_MS as Tick * 990;

/// See the file's header.
///
/// The store counts a lease from when it grants it; the node counts from before it asked.
#[derive(Debug)]
pub struct Lease {
    until: Tick,
    asked: Option<Tick>,
}

impl Lease {
    /// One that was asked for at `asked`, and has been granted.
    #[must_use]
    pub fn granted(asked: Tick) -> Self {
        Self { until: asked + HELD, asked: None }
    }

    /// Until when the node may rely on it.
    #[must_use]
    pub fn until(&self) -> Tick {
        self.until
    }

    /// When to ask for the next.
    #[must_use]
    pub fn due(&self) -> Tick {
        if self.asked.is_some() { self.until } else { self.until - HELD / 3 * 2 }
    }

    /// Whether to ask for the next now.
    pub fn asks(&mut self, now: Tick) -> bool {
        let asks = self.asked.is_none() && now >= self.due();
        if asks {
            self.asked = Some(now);
        }
        asks
    }

    /// The answer, heard at `now`. False if the node was without a lease for a moment: others may have gone on without it.
    #[must_use]
    pub fn renew(&mut self, granted: bool, now: Tick) -> bool {
        let Some(asked) = self.asked.take() else { return true };
        if !granted || now >= self.until {
            return false;
        }
        self.until = asked + HELD;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_renewed_while_it_lasts() {
        let mut lease = Lease::granted(1_000_000);
        assert_eq!(lease.until(), 1_000_000 + HELD);
        assert!(!lease.asks(1_500_000));
        assert!(lease.asks(2_000_000));
        assert!(!lease.asks(2_000_001), "once");
        assert_eq!(lease.due(), lease.until());
        assert!(lease.renew(true, 2_100_000));
        assert_eq!(lease.until(), 2_000_000 + HELD, "from before it was asked for");
    }

    #[test]
    fn a_late_or_refused_renewal_is_none() {
        for (granted, at, held) in [(true, HELD - 1, true), (true, HELD, false), (false, HELD - 1, false)] {
            let mut lease = Lease::granted(0);
            assert!(lease.asks(HELD / 2));
            assert_eq!(lease.renew(granted, at), held, "{granted} at {at}");
        }
    }
}
