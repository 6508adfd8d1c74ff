//! The options of `SET` and `GETEX`, which share a grammar. It parses; it knows no keys and no time.

use crate::command::expiry::Scale;
use crate::entry::{Expect, UnixMs};
use crate::resp::args::Args;
use crate::resp::error::ErrorReply;

/// Whose options are parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grammar {
    /// `SET`: `NX`, `XX`, `IFEQ`, `IFNE`, `GET`, `KEEPTTL` and times.
    Set,
    /// `GETEX`: `PERSIST` and times.
    GetEx,
}

/// The options, in whatever order they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Options<'a> {
    /// `NX` or `XX`.
    pub(super) expect: Expect,
    /// `IFEQ` or `IFNE`.
    pub(super) compare: Option<Compare<&'a [u8]>>,
    /// `GET`.
    pub(super) get: bool,
    /// What is to become of the expiry.
    pub(super) expiry: Expiry<'a>,
}

/// A condition on the present string, as Redis has it from 8.4 on and Valkey from 8.1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare<T> {
    /// `IFEQ`: there is a string, and it is this one.
    Equal(T),
    /// `IFNE`: there is no string, or it is another one.
    Other(T),
}

impl<T: AsRef<[u8]>> Compare<T> {
    /// Whether the condition holds of the present string.
    pub(super) fn holds(&self, present: Option<&[u8]>) -> bool {
        match self {
            Self::Equal(wanted) => present == Some(wanted.as_ref()),
            Self::Other(unwanted) => present != Some(unwanted.as_ref()),
        }
    }
}

impl Compare<&[u8]> {
    /// The condition, copied.
    pub(super) fn to_owned(self) -> Compare<Vec<u8>> {
        match self {
            Self::Equal(wanted) => Compare::Equal(wanted.to_vec()),
            Self::Other(unwanted) => Compare::Other(unwanted.to_vec()),
        }
    }
}

/// What the options say of the expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry<'a> {
    /// Nothing.
    Unsaid,
    /// `KEEPTTL`.
    Keep,
    /// `PERSIST`.
    Persist,
    /// A time that is not read yet: Redis complains of it after all errors of syntax.
    At(Scale, &'a [u8]),
}

impl<'a> Options<'a> {
    /// Parses the arguments from number `from` on.
    pub(super) fn parse(args: Args<'a>, from: usize, grammar: Grammar) -> Result<Self, ErrorReply> {
        let mut options = Self { expect: Expect::Any, compare: None, get: false, expiry: Expiry::Unsaid };
        let mut rest = args.iter_from(from);
        while let Some(argument) = rest.next() {
            options.take(argument, &mut rest, grammar).ok_or(ErrorReply::Syntax)?;
        }
        Ok(options)
    }

    /// Takes one option; none if it is unknown, or at odds with those before.
    fn take(&mut self, argument: &[u8], rest: &mut impl Iterator<Item = &'a [u8]>, grammar: Grammar) -> Option<()> {
        match (Word::of(argument)?, grammar) {
            (Word::Nx, Grammar::Set) if self.may_be(Expect::Absent) => self.expect = Expect::Absent,
            (Word::Xx, Grammar::Set) if self.may_be(Expect::Present) => self.expect = Expect::Present,
            (Word::IfEq, Grammar::Set) if self.is_free() => self.compare = Some(Compare::Equal(rest.next()?)),
            (Word::IfNe, Grammar::Set) if self.is_free() => self.compare = Some(Compare::Other(rest.next()?)),
            (Word::Get, Grammar::Set) => self.get = true,
            (Word::KeepTtl, Grammar::Set) if matches!(self.expiry, Expiry::Unsaid | Expiry::Keep) => {
                self.expiry = Expiry::Keep;
            }
            (Word::Persist, Grammar::GetEx) if matches!(self.expiry, Expiry::Unsaid | Expiry::Persist) => {
                self.expiry = Expiry::Persist;
            }
            // The same option may come again, and the last one counts.
            (Word::Time(scale), _) if self.expiry.admits(scale) => self.expiry = Expiry::At(scale, rest.next()?),
            _ => return None,
        }
        Some(())
    }

    /// Whether `NX` or `XX` goes with the condition so far: with none, or with itself.
    fn may_be(&self, expect: Expect) -> bool {
        self.compare.is_none() && (self.expect == Expect::Any || self.expect == expect)
    }

    fn is_free(&self) -> bool {
        self.compare.is_none() && self.expect == Expect::Any
    }
}

impl Expiry<'_> {
    /// The time that is asked for, if one is.
    pub(super) fn time(self, now: UnixMs, command: &'static str) -> Result<Option<UnixMs>, ErrorReply> {
        match self {
            Self::At(scale, argument) => scale.positive(argument, now, command).map(Some),
            _ => Ok(None),
        }
    }

    fn admits(self, scale: Scale) -> bool {
        match self {
            Self::Unsaid => true,
            Self::At(before, _) => before == scale,
            Self::Keep | Self::Persist => false,
        }
    }
}

/// Whether a `SET` writes without reading: it has none of `GET`, `KEEPTTL`, `IFEQ` and `IFNE`. Arguments that only look
/// like them are taken for them, which costs a wait at most.
pub(super) fn set_is_blind(args: Args<'_>) -> bool {
    let reads = |word| matches!(word, Word::Get | Word::KeepTtl | Word::IfEq | Word::IfNe);
    args.iter_from(3).all(|argument| !Word::of(argument).is_some_and(reads))
}

/// The words of both grammars.
enum Word {
    Nx,
    Xx,
    IfEq,
    IfNe,
    Get,
    KeepTtl,
    Persist,
    Time(Scale),
}

impl Word {
    fn of(argument: &[u8]) -> Option<Self> {
        const WORDS: [(&[u8], Word); 11] = [
            (b"ex", Word::Time(Scale::EX)),
            (b"px", Word::Time(Scale::PX)),
            (b"nx", Word::Nx),
            (b"xx", Word::Xx),
            (b"get", Word::Get),
            (b"ifeq", Word::IfEq),
            (b"ifne", Word::IfNe),
            (b"exat", Word::Time(Scale::EXAT)),
            (b"pxat", Word::Time(Scale::PXAT)),
            (b"keepttl", Word::KeepTtl),
            (b"persist", Word::Persist),
        ];
        WORDS.into_iter().find_map(|(name, word)| argument.eq_ignore_ascii_case(name).then_some(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_args<T>(line: &str, check: impl FnOnce(Args<'_>) -> T) -> T {
        let mut ranges = Vec::new();
        for word in line.split(' ') {
            let start = ranges.last().map_or(0, |range: &std::ops::Range<usize>| range.end + 1);
            ranges.push(start..start + word.len());
        }
        check(Args::new(line.as_bytes(), &ranges))
    }

    /// Condition, `GET`, and the expiry with its argument; or an error of syntax.
    type Parsed = Option<(Expect, bool, Expiry<'static>)>;

    #[test]
    fn options_combine_as_in_redis() {
        const ANY: Expect = Expect::Any;
        const UNSAID: Expiry<'_> = Expiry::Unsaid;
        let cases: &[(Grammar, &str, Parsed)] = &[
            (Grammar::Set, "set k v", Some((ANY, false, UNSAID))),
            (Grammar::Set, "set k v nx", Some((Expect::Absent, false, UNSAID))),
            (Grammar::Set, "set k v XX Get", Some((Expect::Present, true, UNSAID))),
            (Grammar::Set, "set k v NX GET", Some((Expect::Absent, true, UNSAID))),
            (Grammar::Set, "set k v NX NX", Some((Expect::Absent, false, UNSAID))),
            (Grammar::Set, "set k v NX XX", None),
            (Grammar::Set, "set k v XX NX", None),
            (Grammar::Set, "set k v EX 10 NX", Some((Expect::Absent, false, Expiry::At(Scale::EX, b"10")))),
            (Grammar::Set, "set k v NX PX 10", Some((Expect::Absent, false, Expiry::At(Scale::PX, b"10")))),
            (Grammar::Set, "set k v EXAT 10 XX", Some((Expect::Present, false, Expiry::At(Scale::EXAT, b"10")))),
            (Grammar::Set, "set k v pxat x", Some((ANY, false, Expiry::At(Scale::PXAT, b"x")))),
            (Grammar::Set, "set k v EX 10 EX 20", Some((ANY, false, Expiry::At(Scale::EX, b"20")))),
            (Grammar::Set, "set k v EX 10 PX 20", None),
            (Grammar::Set, "set k v EX 10 EXAT 20", None),
            (Grammar::Set, "set k v EX", None),
            (Grammar::Set, "set k v EX NX", Some((ANY, false, Expiry::At(Scale::EX, b"NX")))),
            (Grammar::Set, "set k v KEEPTTL", Some((ANY, false, Expiry::Keep))),
            (Grammar::Set, "set k v KEEPTTL KEEPTTL", Some((ANY, false, Expiry::Keep))),
            (Grammar::Set, "set k v KEEPTTL EX 1", None),
            (Grammar::Set, "set k v EX 1 KEEPTTL", None),
            (Grammar::Set, "set k v PERSIST", None),
            (Grammar::Set, "set k v FOO", None),
            (Grammar::GetEx, "getex k v", None),
            (Grammar::GetEx, "getex k - PERSIST", Some((ANY, false, Expiry::Persist))),
            (Grammar::GetEx, "getex k - PERSIST PERSIST", Some((ANY, false, Expiry::Persist))),
            (Grammar::GetEx, "getex k - PERSIST EX 1", None),
            (Grammar::GetEx, "getex k - EX 1 PERSIST", None),
            (Grammar::GetEx, "getex k - NX", None),
            (Grammar::GetEx, "getex k - GET", None),
            (Grammar::GetEx, "getex k - KEEPTTL", None),
        ];
        for (grammar, line, expected) in cases {
            let from = if *line == "getex k v" { 2 } else { 3 };
            with_args(line, |args| {
                let expected = expected.map(|(expect, get, expiry)| Options { expect, compare: None, get, expiry });
                assert_eq!(Options::parse(args, from, *grammar), expected.ok_or(ErrorReply::Syntax), "{line}");
            });
        }
    }

    #[test]
    fn a_comparison_excludes_other_conditions() {
        let (equal, other) = (Some(Compare::Equal(&b"a"[..])), Some(Compare::Other(&b"a"[..])));
        for (line, expected) in [
            ("set k v IFEQ a", Some(equal)),
            ("set k v ifne a GET EX 10", Some(other)),
            ("set k v EX 10 IfEq a", Some(equal)),
            ("set k v IFEQ", None),
            ("set k v IFEQ a IFEQ a", None),
            ("set k v IFEQ a NX", None),
            ("set k v XX IFNE a", None),
        ] {
            with_args(line, |args| {
                let found = Options::parse(args, 3, Grammar::Set).map(|options| options.compare);
                assert_eq!(found, expected.ok_or(ErrorReply::Syntax), "{line}");
            });
        }
        for (condition, present, holds) in [
            (Compare::Equal(b"a"), Some(&b"a"[..]), true),
            (Compare::Equal(b"a"), Some(b"b"), false),
            (Compare::Equal(b"a"), None, false),
            (Compare::Other(b"a"), Some(b"a"), false),
            (Compare::Other(b"a"), Some(b"b"), true),
            (Compare::Other(b"a"), None, true),
        ] {
            assert_eq!(condition.holds(present), holds, "{condition:?} of {present:?}");
        }
    }

    #[test]
    fn a_set_that_reads_is_not_blind() {
        for (line, blind) in [
            ("set k v", true),
            ("set get keepttl", true),
            ("set k v EX 10 NX", true),
            ("set k v get", false),
            ("set k v EX 10 XX GET", false),
            ("set k v KeepTTL", false),
            ("set k v EX GET", false),
            ("set k v IFEQ a", false),
            ("set k v IFNE a", false),
        ] {
            assert_eq!(with_args(line, set_is_blind), blind, "{line}");
        }
    }
}
