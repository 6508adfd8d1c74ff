//! The string commands that look at a part of a value, or change one.

use std::ops::Range;

use crate::command::access::{read_one, replace, string_of, update_one};
use crate::command::number::integer;
use crate::command::request::{Handled, Request};
use crate::command::spec::{Flag, KeySpec, Spec};
use crate::entry::Value;
use crate::keyspace::update::Decision;
use crate::resp::error::ErrorReply;
use crate::resp::reply::Reply;

/// The rows of this family.
pub const COMMANDS: &[Spec] = &[
    Spec {
        name: "append",
        arity: 3,
        flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
        since: "2.0.0",
        summary: "Append a value to a key",
        handler: append,
        ..STRING
    },
    Spec {
        name: "strlen",
        arity: 2,
        flags: &[Flag::ReadOnly, Flag::Fast],
        since: "2.2.0",
        summary: "Get the length of the value stored in a key",
        handler: strlen,
        ..STRING
    },
    Spec {
        name: "getrange",
        arity: 4,
        flags: &[Flag::ReadOnly],
        since: "2.4.0",
        summary: "Get a substring of the string stored at a key",
        handler: getrange,
        ..STRING
    },
    Spec {
        name: "substr",
        arity: 4,
        flags: &[Flag::ReadOnly],
        since: "1.0.0",
        summary: "Get a substring of the string stored at a key",
        handler: getrange,
        ..STRING
    },
    Spec {
        name: "setrange",
        arity: 4,
        flags: &[Flag::Write, Flag::DenyOom],
        since: "2.2.0",
        summary: "Overwrite part of a string at key starting at the specified offset",
        handler: setrange,
        ..STRING
    },
];

/// What the rows have in common.
const STRING: Spec = Spec { keys: KeySpec::ONE, group: "string", ..Spec::BASE };

fn append(request: &mut Request<'_>) -> Handled {
    let limit = request.keyspace.max_value();
    let suffix = request.args[2].to_vec();
    update_one(request, &request.args[1], move |entry, _| {
        let held = entry.map_or(Ok(&[][..]), |entry| string_of(entry).map(|value| &value[..]))?;
        let length = checked_length(held.len(), suffix.len(), limit)?;
        let reply = Reply::Int(length as i64);
        // Nothing is written for nothing; but appending nothing to no key creates an empty string.
        let unchanged = suffix.is_empty() && entry.is_some();
        Ok(if unchanged { Decision::Answer(reply) } else { replace(entry, [held, &suffix].concat(), reply) })
    })
}

fn strlen(request: &mut Request<'_>) -> Handled {
    read_one(request, &request.args[1], |entry| {
        entry.map_or(Ok(Reply::Int(0)), |entry| Ok(Reply::Int(string_of(&entry)?.len() as i64)))
    })
}

fn getrange(request: &mut Request<'_>) -> Handled {
    let (start, end) = (integer(&request.args[2])?, integer(&request.args[3])?);
    read_one(request, &request.args[1], move |entry| {
        let Some(entry) = entry else { return Ok(Reply::bulk([])) };
        let value = string_of(&entry)?;
        let range = resolve(value.len(), start, end);
        // The whole is shared, not copied.
        Ok(if range == (0..value.len()) { Reply::Value(Value::clone(value)) } else { Reply::bulk(&value[range]) })
    })
}

fn setrange(request: &mut Request<'_>) -> Handled {
    let limit = request.keyspace.max_value();
    let offset = usize::try_from(integer(&request.args[2])?).map_err(|_| ErrorReply::OffsetRange)?;
    let patch = request.args[3].to_vec();
    update_one(request, &request.args[1], move |entry, _| {
        let held = entry.map_or(Ok(&[][..]), |entry| string_of(entry).map(|value| &value[..]))?;
        if patch.is_empty() {
            return Ok(Decision::Answer(Reply::Int(held.len() as i64)));
        }
        let end = checked_length(offset, patch.len(), limit)?;
        let mut bytes = held.to_vec();
        bytes.resize(held.len().max(end), 0);
        bytes[offset..end].copy_from_slice(&patch);
        let reply = Reply::Int(bytes.len() as i64);
        Ok(replace(entry, bytes, reply))
    })
}

/// The length of a string of `length` bytes and `more` after it, if it may be stored.
fn checked_length(length: usize, more: usize, limit: usize) -> Result<usize, ErrorReply> {
    length.checked_add(more).filter(|total| *total <= limit).ok_or(ErrorReply::StringTooLong)
}

/// The bytes from `start` to `end` inclusive of a string of `length` bytes; negative ones count from the end.
fn resolve(length: usize, start: i64, end: i64) -> Range<usize> {
    let length = length as i64;
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let from_front = |index: i64| if index < 0 { (length + index).max(0) } else { index };
    let (start, end) = (from_front(start), from_front(end).min(length - 1));
    if start > end { 0..0 } else { start as usize..end as usize + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Taken from Redis 7.0.15.
    #[test]
    fn ranges_are_inclusive_and_count_from_both_ends() {
        let cases: &[(&str, i64, i64, &str)] = &[
            ("hello", 0, -1, "hello"),
            ("hello", 0, 4, "hello"),
            ("hello", 0, 5, "hello"),
            ("hello", 1, 3, "ell"),
            ("hello", -3, -2, "ll"),
            ("hello", -2, -3, ""),
            ("hello", 3, 1, ""),
            ("hello", 4, 100, "o"),
            ("hello", 5, 5, ""),
            ("hello", -100, 1, "he"),
            ("hello", -100, -50, "h"),
            ("hello", -50, -100, ""),
            ("hello", 0, 0, "h"),
            ("hello", -1, -1, "o"),
            ("hello", -5, -5, "h"),
            ("hello", -6, -6, "h"),
            ("hello", -6, 0, "h"),
            ("hello", 2, -100, ""),
            ("hello", i64::MAX, i64::MAX, ""),
            ("hello", i64::MIN, i64::MAX, "hello"),
            ("hello", i64::MIN, i64::MIN, "h"),
            ("", 0, -1, ""),
            ("", 0, 0, ""),
            ("", -1, -1, ""),
            ("x", 0, -1, "x"),
            ("x", -1, 0, "x"),
        ];
        for (text, start, end, expected) in cases {
            assert_eq!(&text[resolve(text.len(), *start, *end)], *expected, "{text:?} from {start} to {end}");
        }
    }

    #[test]
    fn lengths_stay_within_the_limit() {
        for (length, more, expected) in
            [(0, 0, Ok(0)), (5, 5, Ok(10)), (5, 6, Err(())), (11, 0, Err(())), (usize::MAX, 1, Err(()))]
        {
            assert_eq!(checked_length(length, more, 10).map_err(|_| ()), expected, "{length} + {more}");
        }
    }
}
