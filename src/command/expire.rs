//! The commands that set and tell when a key stops existing.

use crate::command::access::{apply, read_one, touched, update_one};
use crate::command::expiry::{Scale, Shown};
use crate::command::request::{Flow, Handled, Request};
use crate::command::spec::{Flag, KeySpec, Spec};
use crate::entry::{Change, UnixMs};
use crate::keyspace::touch::Of;
use crate::keyspace::update::Decision;
use crate::resp::args::Args;
use crate::resp::error::ErrorReply;
use crate::resp::reply::Reply;

/// The rows of this family.
pub const COMMANDS: &[Spec] = &[
    Spec {
        name: "expire",
        arity: -3,
        since: "1.0.0",
        summary: "Set a key's time to live in seconds",
        handler: expire,
        ..SETTER
    },
    Spec {
        name: "pexpire",
        arity: -3,
        since: "2.6.0",
        summary: "Set a key's time to live in milliseconds",
        handler: pexpire,
        ..SETTER
    },
    Spec {
        name: "expireat",
        arity: -3,
        since: "1.2.0",
        summary: "Set the expiration for a key as a UNIX timestamp",
        handler: expireat,
        ..SETTER
    },
    Spec {
        name: "pexpireat",
        arity: -3,
        since: "2.6.0",
        summary: "Set the expiration for a key as a UNIX timestamp specified in milliseconds",
        handler: pexpireat,
        ..SETTER
    },
    Spec {
        name: "persist",
        arity: 2,
        since: "2.2.0",
        summary: "Remove the expiration from a key",
        handler: persist,
        ..SETTER
    },
    Spec {
        name: "ttl",
        since: "1.0.0",
        summary: "Get the time to live for a key in seconds",
        handler: |request| tell(request, Shown::TTL),
        ..GETTER
    },
    Spec {
        name: "pttl",
        since: "2.6.0",
        summary: "Get the time to live for a key in milliseconds",
        handler: |request| tell(request, Shown::PTTL),
        ..GETTER
    },
    Spec {
        name: "expiretime",
        since: "7.0.0",
        summary: "Get the expiration Unix timestamp for a key",
        handler: |request| tell(request, Shown::EXPIRETIME),
        ..GETTER
    },
    Spec {
        name: "pexpiretime",
        since: "7.0.0",
        summary: "Get the expiration Unix timestamp for a key in milliseconds",
        handler: |request| tell(request, Shown::PEXPIRETIME),
        ..GETTER
    },
];

/// What the rows that change an expiry have in common.
const SETTER: Spec = Spec { flags: &[Flag::Write, Flag::Fast], keys: KeySpec::ONE, group: "generic", ..Spec::BASE };

/// What the rows that tell an expiry have in common.
const GETTER: Spec =
    Spec { arity: 2, flags: &[Flag::ReadOnly, Flag::Fast], keys: KeySpec::ONE, group: "generic", ..Spec::BASE };

/// The longest option that is quoted to the client.
const MAX_QUOTED: usize = 128;

fn expire(request: &mut Request<'_>) -> Handled {
    set(request, Scale::EX, "expire")
}

fn pexpire(request: &mut Request<'_>) -> Handled {
    set(request, Scale::PX, "pexpire")
}

fn expireat(request: &mut Request<'_>) -> Handled {
    set(request, Scale::EXAT, "expireat")
}

fn pexpireat(request: &mut Request<'_>) -> Handled {
    set(request, Scale::PXAT, "pexpireat")
}

fn set(request: &Request<'_>, scale: Scale, command: &'static str) -> Handled {
    let condition = Condition::parse(request.args)?;
    let at = scale.any(&request.args[2], request.now, command)?;
    if condition == Condition::default() && touched(request, &request.args[1], at, Of::Any)? {
        return Ok(Flow::Done(Reply::Int(1)));
    }
    update_one(request, &request.args[1], move |entry, now| {
        Ok(match entry {
            Some(entry) if condition.admits(entry.expires_at, at) => {
                apply(if at <= now { Change::Delete } else { Change::Expire(Some(at)) }, Reply::Int(1))
            }
            Some(_) => Decision::Answer(Reply::Int(0)),
            None => Decision::Missed(Reply::Int(0)),
        })
    })
}

fn persist(request: &mut Request<'_>) -> Handled {
    update_one(request, &request.args[1], |entry, _| {
        Ok(match entry {
            Some(entry) if entry.expires_at.is_some() => apply(Change::Expire(None), Reply::Int(1)),
            _ => Decision::Answer(Reply::Int(0)),
        })
    })
}

fn tell(request: &Request<'_>, shown: Shown) -> Handled {
    let now = request.now;
    read_one(request, &request.args[1], move |entry| {
        Ok(Reply::Int(entry.map_or(-2, |entry| shown.number(entry.expires_at, now))))
    })
}

/// The options of `EXPIRE`: which present expiries may be changed. A key that never expires counts as infinitely late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one for each word, and they combine")]
struct Condition {
    none: bool,
    some: bool,
    later: bool,
    earlier: bool,
}

impl Condition {
    fn parse(args: Args<'_>) -> Result<Self, ErrorReply> {
        let mut condition = Self::default();
        for option in args.iter_from(3) {
            *match option.to_ascii_lowercase().as_slice() {
                b"nx" => &mut condition.none,
                b"xx" => &mut condition.some,
                b"gt" => &mut condition.later,
                b"lt" => &mut condition.earlier,
                _ => return Err(ErrorReply::UnsupportedOption(quoted(option))),
            } = true;
        }
        let Self { none, some, later, earlier } = condition;
        if none && (some || later || earlier) {
            return Err(ErrorReply::ExpireNxXxGtLt);
        }
        if later && earlier {
            return Err(ErrorReply::ExpireGtLt);
        }
        Ok(condition)
    }

    /// Whether an expiry at `at` may replace the `present` one.
    fn admits(self, present: Option<UnixMs>, at: UnixMs) -> bool {
        !(self.none && present.is_some()
            || self.some && present.is_none()
            || self.later && present.is_none_or(|present| at <= present)
            || self.earlier && present.is_some_and(|present| at >= present))
    }
}

/// An option as it may stand in an error: in one line, and not long.
fn quoted(option: &[u8]) -> Vec<u8> {
    option[..option.len().min(MAX_QUOTED)].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<Condition, String> {
        let words = [&["expire", "k", "1"], options].concat();
        let line = words.concat();
        let mut end = 0;
        let ranges: Vec<_> = words
            .iter()
            .map(|word| {
                end += word.len();
                end - word.len()..end
            })
            .collect();
        Condition::parse(Args::new(line.as_bytes(), &ranges)).map_err(|error| error.to_string())
    }

    #[test]
    fn options_exclude_each_other_as_in_redis() {
        let nx = "ERR NX and XX, GT or LT options at the same time are not compatible";
        let gt = "ERR GT and LT options at the same time are not compatible";
        for (options, complaint) in [
            (&[][..], None),
            (&["nx"], None),
            (&["NX", "nx"], None),
            (&["XX", "Gt"], None),
            (&["LT", "XX"], None),
            (&["NX", "XX"], Some(nx)),
            (&["GT", "NX"], Some(nx)),
            (&["NX", "LT"], Some(nx)),
            (&["GT", "LT"], Some(gt)),
            (&["XX", "LT", "GT"], Some(gt)),
            (&["NX", "GT", "foo"], Some("ERR Unsupported option foo")),
            (&["a\r\nb"], Some("ERR Unsupported option a\r\nb")),
        ] {
            assert_eq!(parse(options).err().as_deref(), complaint, "{options:?}");
        }
    }

    #[test]
    fn conditions_compare_with_the_present_expiry() {
        let cases: &[(&[&str], Option<UnixMs>, bool)] = &[
            (&[], None, true),
            (&[], Some(100), true),
            (&["NX"], None, true),
            (&["NX"], Some(99), false),
            (&["XX"], None, false),
            (&["XX"], Some(99), true),
            (&["GT"], None, false),
            (&["GT"], Some(99), true),
            (&["GT"], Some(100), false),
            (&["GT"], Some(101), false),
            (&["LT"], None, true),
            (&["LT"], Some(99), false),
            (&["LT"], Some(100), false),
            (&["LT"], Some(101), true),
            (&["XX", "LT"], None, false),
            (&["XX", "GT"], Some(99), true),
        ];
        for (options, present, expected) in cases {
            let condition = parse(options).expect("the options are compatible");
            assert_eq!(condition.admits(*present, 100), *expected, "{options:?} over {present:?}");
        }
    }
}
