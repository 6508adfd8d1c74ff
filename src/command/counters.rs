//! The string commands that count: `INCR` and its kin. The sum keeps the key's expiry.

use crate::command::access::{replace, string_of, update_one};
use crate::command::long_double::LongDouble;
use crate::command::number::{canonical_i64, integer};
use crate::command::request::{Handled, Request};
use crate::command::spec::{Flag, KeySpec, Spec};
use crate::resp::error::ErrorReply;
use crate::resp::reply::Reply;

/// The rows of this family.
pub const COMMANDS: &[Spec] = &[
    Spec {
        name: "incr",
        arity: 2,
        since: "1.0.0",
        summary: "Increment the integer value of a key by one",
        handler: incr,
        ..COUNTER
    },
    Spec {
        name: "decr",
        arity: 2,
        since: "1.0.0",
        summary: "Decrement the integer value of a key by one",
        handler: decr,
        ..COUNTER
    },
    Spec {
        name: "incrby",
        arity: 3,
        since: "1.0.0",
        summary: "Increment the integer value of a key by the given amount",
        handler: incrby,
        ..COUNTER
    },
    Spec {
        name: "decrby",
        arity: 3,
        since: "1.0.0",
        summary: "Decrement the integer value of a key by the given number",
        handler: decrby,
        ..COUNTER
    },
    Spec {
        name: "incrbyfloat",
        arity: 3,
        since: "2.6.0",
        summary: "Increment the float value of a key by the given amount",
        handler: incrbyfloat,
        ..COUNTER
    },
];

/// What the rows have in common.
const COUNTER: Spec =
    Spec { flags: &[Flag::Write, Flag::DenyOom, Flag::Fast], keys: KeySpec::ONE, group: "string", ..Spec::BASE };

fn incr(request: &mut Request<'_>) -> Handled {
    add(request, 1)
}

fn decr(request: &mut Request<'_>) -> Handled {
    add(request, -1)
}

fn incrby(request: &mut Request<'_>) -> Handled {
    add(request, integer(&request.args[2])?)
}

fn decrby(request: &mut Request<'_>) -> Handled {
    add(request, integer(&request.args[2])?.checked_neg().ok_or(ErrorReply::DecrementOverflow)?)
}

fn add(request: &Request<'_>, amount: i64) -> Handled {
    update_one(request, &request.args[1], move |entry, _| {
        let held = match entry {
            Some(entry) => canonical_i64(string_of(entry)?).ok_or(ErrorReply::NotInteger)?,
            None => 0,
        };
        let sum = held.checked_add(amount).ok_or(ErrorReply::Overflow)?;
        Ok(replace(entry, sum.to_string().into_bytes(), Reply::Int(sum)))
    })
}

fn incrbyfloat(request: &mut Request<'_>) -> Handled {
    // Redis looks at the key before the argument; without a key of another type, both complaints are the same.
    let amount = LongDouble::parse(&request.args[2]);
    update_one(request, &request.args[1], move |entry, _| {
        let held = match entry {
            Some(entry) => LongDouble::parse(string_of(entry)?).ok_or(ErrorReply::NotFloat)?,
            None => LongDouble::ZERO,
        };
        let sum = held.plus(amount.ok_or(ErrorReply::NotFloat)?).ok_or(ErrorReply::NotFinite)?;
        let text = sum.to_text().into_bytes();
        Ok(replace(entry, text.clone(), Reply::Bulk(text)))
    })
}
