//! What one row of the command table says. It knows the shape of a handler, but no command.

use crate::command::request::{About, Handled, Handler, Request, Step};
use crate::resp::args::Args;
use crate::resp::error::{Cow, ErrorReply};

/// One row of the table.
///
/// Rows are written as `Spec { name: …, ..Spec::BASE }`; every row names at least its name, arity, flags, group, since,
/// summary and handler (a test checks it), and its keys if it has any.
pub struct Spec {
    /// The name in lower case; of a subcommand, without its container.
    pub name: &'static str,
    /// As Redis counts: the name included (for a subcommand: both names); negative means at least that many.
    pub arity: i32,
    /// What kind of command it is.
    pub flags: &'static [Flag],
    /// Which arguments are keys.
    pub keys: KeySpec,
    /// Which section of the documentation it belongs to (Redis's group names).
    pub group: &'static str,
    /// Since which Redis version it exists.
    pub since: &'static str,
    /// One sentence, shown by `COMMAND DOCS`.
    pub summary: &'static str,
    /// Whether it may start while earlier writes of its own connection to the same keys are not committed yet.
    /// True only for writes that read nothing first: the committer keeps their order per key.
    pub queues: Queues,
    /// What becomes of it between `MULTI` and `EXEC`.
    pub in_multi: InMulti,
    /// Its code. A container (arity -2, with subcommands) leaves [`Spec::BASE`]'s, which is never reached.
    pub handler: Handler,
    /// The subcommands of a container, each with its own handler and arity.
    pub subcommands: &'static [Spec],
}

/// See [`Spec::queues`].
#[derive(Clone, Copy)]
pub enum Queues {
    /// It reads its keys: it waits for the connection's own writes of them.
    Never,
    /// It is a blind write in every form.
    Always,
    /// It depends on the arguments.
    If(fn(Args<'_>) -> bool),
}

/// See [`Spec::in_multi`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InMulti {
    /// It is queued, and runs when the transaction is executed.
    Queued,
    /// It runs at once: it is about the transaction itself, or ends the connection.
    AtOnce,
    /// It cannot be part of a transaction here.
    Refused,
}

/// Which arguments of a command are keys, as `COMMAND` prints them: first, last (negative counts from the end), step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// Position of the first key; 0 means none.
    pub first: i32,
    /// Position of the last key.
    pub last: i32,
    /// Distance from key to key.
    pub step: i32,
}

impl KeySpec {
    /// No argument is a key.
    pub const NONE: Self = Self { first: 0, last: 0, step: 0 };
    /// The first argument is the only key.
    pub const ONE: Self = Self { first: 1, last: 1, step: 1 };
    /// The first two arguments are keys.
    pub const TWO: Self = Self { first: 1, last: 2, step: 1 };
    /// Every argument is a key.
    pub const ALL: Self = Self { first: 1, last: -1, step: 1 };
    /// Keys alternate with values.
    pub const PAIRS: Self = Self { first: 1, last: -1, step: 2 };
    /// The argument after the subcommand is the only key.
    pub const AFTER_SUBCOMMAND: Self = Self { first: 2, last: 2, step: 1 };
}

/// Redis's command flags, of those that apply here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// May change data.
    Write,
    /// Only reads data.
    ReadOnly,
    /// May use more memory.
    DenyOom,
    /// An administrator's command.
    Admin,
    /// Not allowed in scripts.
    NoScript,
    /// Constant or logarithmic time.
    Fast,
    /// Allowed while the store has not been reached yet.
    Loading,
    /// Allowed on stale replicas.
    Stale,
    /// Allowed before `AUTH`.
    NoAuth,
    /// Not logged by `MONITOR` and the like.
    SkipMonitor,
    /// Allowed while another command keeps the server busy (Redis's `allow-busy`).
    AllowBusy,
}

impl Flag {
    /// Redis's name of the flag, as `COMMAND INFO` prints it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::ReadOnly => "readonly",
            Self::DenyOom => "denyoom",
            Self::Admin => "admin",
            Self::NoScript => "noscript",
            Self::Fast => "fast",
            Self::Loading => "loading",
            Self::Stale => "stale",
            Self::NoAuth => "no_auth",
            Self::SkipMonitor => "skip_monitor",
            Self::AllowBusy => "allow_busy",
        }
    }
}

impl Spec {
    /// What a row leaves out: no keys, no subcommands, waits for earlier writes, no handler.
    pub const BASE: Self = Self {
        name: "",
        arity: 0,
        flags: &[],
        keys: KeySpec::NONE,
        group: "",
        since: "",
        summary: "",
        queues: Queues::Never,
        in_multi: InMulti::Queued,
        handler: no_handler,
        subcommands: &[],
    };

    /// Whether a request of `arguments` arguments (names included) fits the arity.
    #[must_use]
    pub fn takes(&self, arguments: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        if self.arity < 0 { arguments >= wanted } else { arguments == wanted }
    }

    /// Whether the command has `flag`.
    #[must_use]
    pub fn has(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }

    /// The subcommand called `name`, in any case of letters.
    #[must_use]
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Self> {
        self.subcommands.iter().find(|spec| spec.name.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The arguments of a request that are keys of this command.
    pub fn keys_of<'a>(&self, args: Args<'a>) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let KeySpec { first, last, step } = self.keys;
        let last = if last < 0 { args.len() as i32 + last } else { last };
        let end = if first == 0 { 0 } else { last + 1 };
        (first..end).step_by(step.max(1) as usize).filter_map(move |at| args.get(at as usize))
    }

    /// Whether the command reads or changes entries that no argument names (`FLUSHDB`, `SCAN`): it must see all earlier
    /// writes of its connection.
    #[must_use]
    pub fn touches_everything(&self) -> bool {
        self.keys == KeySpec::NONE && (self.has(Flag::Write) || self.has(Flag::ReadOnly))
    }

    /// Whether this request may start while earlier writes of its connection are not committed; see [`Spec::queues`].
    #[must_use]
    pub fn may_queue(&self, args: Args<'_>) -> bool {
        match self.queues {
            Queues::Never => false,
            Queues::Always => true,
            Queues::If(decide) => decide(args),
        }
    }
}

impl Step {
    /// What a transaction must know of this command.
    #[must_use]
    pub fn of(spec: &Spec) -> Self {
        let about = match spec.name {
            "select" => About::Database,
            "scan" | "keys" => About::Listing,
            "eval" | "evalsha" | "eval_ro" | "evalsha_ro" => About::Entries,
            _ if spec.touches_everything() => About::AllKeys,
            _ if spec.has(Flag::Write) || spec.has(Flag::ReadOnly) => About::Entries,
            _ => About::Other,
        };
        let writes = spec.has(Flag::Write) || matches!(spec.name, "eval" | "evalsha");
        let is_for_scripts = !spec.has(Flag::NoScript) && spec.in_multi != InMulti::Refused;
        Self { handler: spec.handler, about, writes, is_for_scripts }
    }
}

/// Redis's complaint about the number of arguments; `container` is set for a subcommand.
#[must_use]
pub fn wrong_arity(spec: &Spec, container: Option<&Spec>) -> ErrorReply {
    ErrorReply::WrongArity(match container {
        None => Cow::Borrowed(spec.name),
        Some(container) => Cow::Owned(format!("{}|{}", container.name, spec.name)),
    })
}

/// Stands in rows of containers, which the arity check and the lookup of the subcommand never reach.
fn no_handler(_: &mut Request<'_>) -> Handled {
    debug_assert!(false, "a container has no code of its own");
    Err(ErrorReply::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arity_counts_as_redis_does() {
        for (arity, arguments, fits) in
            [(2, 1, false), (2, 2, true), (2, 3, false), (-2, 1, false), (-2, 2, true), (-2, 9, true), (-1, 1, true)]
        {
            assert_eq!(Spec { arity, ..Spec::BASE }.takes(arguments), fits, "arity {arity} with {arguments}");
        }
    }

    #[test]
    fn keys_are_found_by_position() {
        let line = b"cmd a b c d";
        let ranges = [0..3, 4..5, 6..7, 8..9, 10..11];
        for (keys, count, expected) in [
            (KeySpec::NONE, 5, vec![]),
            (KeySpec::ONE, 5, vec!["a"]),
            (KeySpec::ONE, 1, vec![]),
            (KeySpec::TWO, 5, vec!["a", "b"]),
            (KeySpec::ALL, 5, vec!["a", "b", "c", "d"]),
            (KeySpec::ALL, 1, vec![]),
            (KeySpec::PAIRS, 5, vec!["a", "c"]),
            (KeySpec::AFTER_SUBCOMMAND, 3, vec!["b"]),
        ] {
            let args = Args::new(line, &ranges[..count]);
            let found: Vec<_> = Spec { keys, ..Spec::BASE }.keys_of(args).collect();
            let expected: Vec<_> = expected.into_iter().map(str::as_bytes).collect();
            assert_eq!(found, expected, "{keys:?} of {count} arguments");
        }
    }
}
