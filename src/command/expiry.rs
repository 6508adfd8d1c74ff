//! Points in time as commands write them: in seconds or milliseconds, from now or from the epoch. It knows no keys.

use crate::command::number::integer;
use crate::entry::UnixMs;
use crate::resp::error::ErrorReply;

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scale {
    seconds: bool,
    absolute: bool,
}

impl Scale {
    /// Seconds from now: `EX`, `EXPIRE`.
    pub(super) const EX: Self = Self { seconds: true, absolute: false };
    /// Milliseconds from now: `PX`, `PEXPIRE`.
    pub(super) const PX: Self = Self { seconds: false, absolute: false };
    /// Seconds of the Unix epoch: `EXAT`, `EXPIREAT`.
    pub(super) const EXAT: Self = Self { seconds: true, absolute: true };
    /// Milliseconds of the Unix epoch: `PXAT`, `PEXPIREAT`.
    pub(super) const PXAT: Self = Self { seconds: false, absolute: true };

    /// The time in an argument that must be positive, as `SET` and `GETEX` take it. Times before now are fine.
    pub(super) fn positive(self, argument: &[u8], now: UnixMs, command: &'static str) -> Result<UnixMs, ErrorReply> {
        let number = integer(argument)?;
        let time = if number > 0 { self.resolve(number, now) } else { None };
        time.ok_or(ErrorReply::InvalidExpire(command))
    }

    /// The time in an argument that may be zero or negative, as `EXPIRE` takes it.
    pub(super) fn any(self, argument: &[u8], now: UnixMs, command: &'static str) -> Result<UnixMs, ErrorReply> {
        self.resolve(integer(argument)?, now).ok_or(ErrorReply::InvalidExpire(command))
    }

    fn resolve(self, number: i64, now: UnixMs) -> Option<UnixMs> {
        let milliseconds = if self.seconds { number.checked_mul(1000)? } else { number };
        if self.absolute { Some(milliseconds) } else { milliseconds.checked_add(now) }
    }
}

/// How `TTL` and its kin print an expiry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown(Scale);

impl Shown {
    /// `TTL`.
    pub(super) const TTL: Self = Self(Scale::EX);
    /// `PTTL`.
    pub(super) const PTTL: Self = Self(Scale::PX);
    /// `EXPIRETIME`.
    pub(super) const EXPIRETIME: Self = Self(Scale::EXAT);
    /// `PEXPIRETIME`.
    pub(super) const PEXPIRETIME: Self = Self(Scale::PXAT);

    /// The number for an entry that expires at `expires_at`. Seconds are rounded to the nearest, as clients expect.
    pub(super) fn number(self, expires_at: Option<UnixMs>, now: UnixMs) -> i64 {
        let Some(at) = expires_at else { return -1 };
        let milliseconds = if self.0.absolute { at } else { at.saturating_sub(now).max(0) };
        // Written so that it cannot overflow.
        if self.0.seconds { milliseconds / 1000 + i64::from(milliseconds % 1000 >= 500) } else { milliseconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = 1_700_000_000_000;

    type Expected = Result<UnixMs, &'static str>;

    #[test]
    fn times_are_checked_as_by_redis() {
        let invalid = "ERR invalid expire time in 'set' command";
        let not_integer = "ERR value is not an integer or out of range";
        let cases: &[(Scale, &str, Expected, Expected)] = &[
            (Scale::EX, "10", Ok(NOW + 10_000), Ok(NOW + 10_000)),
            (Scale::PX, "10", Ok(NOW + 10), Ok(NOW + 10)),
            (Scale::EXAT, "10", Ok(10_000), Ok(10_000)),
            (Scale::PXAT, "10", Ok(10), Ok(10)),
            (Scale::EX, "0", Err(invalid), Ok(NOW)),
            (Scale::PXAT, "-1", Err(invalid), Ok(-1)),
            (Scale::EX, "abc", Err(not_integer), Err(not_integer)),
            (Scale::EX, "9223372036854775808", Err(not_integer), Err(not_integer)),
            (Scale::EX, "9223372036854775807", Err(invalid), Err(invalid)),
            (Scale::EX, "9223372036854775", Err(invalid), Err(invalid)),
            (Scale::PX, "9223372036854775807", Err(invalid), Err(invalid)),
            (Scale::EXAT, "9223372036854775", Ok(9_223_372_036_854_775_000), Ok(9_223_372_036_854_775_000)),
            (Scale::EXAT, "9223372036854776", Err(invalid), Err(invalid)),
            (Scale::PXAT, "9223372036854775807", Ok(i64::MAX), Ok(i64::MAX)),
            (Scale::EX, "-9223372036854775808", Err(invalid), Err(invalid)),
            (Scale::EX, "-9223372036854775", Err(invalid), Ok(NOW - 9_223_372_036_854_775_000)),
            (Scale::PX, "-9223372036854775808", Err(invalid), Ok(NOW + i64::MIN)),
        ];
        for (scale, text, positive, any) in cases {
            let shown = |result: Result<i64, ErrorReply>| result.map_err(|error| error.to_string());
            let found = (scale.positive(text.as_bytes(), NOW, "set"), scale.any(text.as_bytes(), NOW, "set"));
            assert_eq!(shown(found.0), positive.map_err(str::to_owned), "positive {scale:?} {text}");
            assert_eq!(shown(found.1), any.map_err(str::to_owned), "any {scale:?} {text}");
        }
    }

    #[test]
    fn seconds_are_rounded_to_the_nearest() {
        let at = Some(NOW + 1499);
        for (shown, expires_at, now, expected) in [
            (Shown::TTL, None, NOW, -1),
            (Shown::PEXPIRETIME, None, NOW, -1),
            (Shown::TTL, at, NOW, 1),
            (Shown::TTL, at, NOW - 1, 2),
            (Shown::TTL, at, NOW + 1000, 0),
            (Shown::TTL, at, NOW + 2000, 0),
            (Shown::PTTL, at, NOW, 1499),
            (Shown::PTTL, at, NOW + 2000, 0),
            (Shown::EXPIRETIME, at, NOW, NOW / 1000 + 1),
            (Shown::EXPIRETIME, Some(NOW + 500), NOW, NOW / 1000 + 1),
            (Shown::EXPIRETIME, Some(i64::MAX), NOW, 9_223_372_036_854_776),
            (Shown::PEXPIRETIME, at, NOW, NOW + 1499),
        ] {
            assert_eq!(shown.number(expires_at, now), expected, "{shown:?} {expires_at:?} at {now}");
        }
    }
}
