//! `OBJECT` and `MEMORY`: how an entry is kept. What is not kept here (access times, frequencies) is an error, not a guess.

use std::sync::Arc;

use crate::command::access::read_one;
use crate::command::hash_value::Pairs;
use crate::command::number::{canonical_i64, integer};
use crate::command::request::{Flow, Handled, Request};
use crate::command::spec::{Flag, KeySpec, Spec};
use crate::entry::{Entry, Kind};
use crate::keyspace::Keyspace;
use crate::resp::error::ErrorReply;
use crate::resp::reply::Reply;

/// The rows of this family.
pub const COMMANDS: &[Spec] = &[
    Spec {
        name: "object",
        arity: -2,
        group: "generic",
        since: "2.2.3",
        summary: "A container for object introspection commands",
        subcommands: OBJECT,
        ..Spec::BASE
    },
    Spec {
        name: "memory",
        arity: -2,
        group: "server",
        since: "4.0.0",
        summary: "A container for memory diagnostics commands",
        subcommands: MEMORY,
        ..Spec::BASE
    },
];

const OBJECT: &[Spec] = &[
    Spec {
        name: "encoding",
        since: "2.2.3",
        summary: "Inspect the internal encoding of a Redis object",
        handler: object_encoding,
        ..OBJECT_KEY
    },
    Spec {
        name: "freq",
        since: "4.0.0",
        summary: "Get the logarithmic access frequency counter of a Redis object",
        handler: object_freq,
        ..OBJECT_KEY
    },
    Spec {
        name: "help",
        arity: 2,
        flags: &[Flag::Loading, Flag::Stale],
        group: "generic",
        since: "6.2.0",
        summary: "Show helpful text about the different subcommands",
        handler: |_| Ok(help(OBJECT_HELP)),
        ..Spec::BASE
    },
    Spec {
        name: "idletime",
        since: "2.2.3",
        summary: "Get the time since a Redis object was last accessed",
        handler: object_idletime,
        ..OBJECT_KEY
    },
    Spec {
        name: "refcount",
        since: "2.2.3",
        summary: "Get the number of references to the value of the key",
        handler: object_refcount,
        ..OBJECT_KEY
    },
];

const MEMORY: &[Spec] = &[
    Spec {
        name: "help",
        arity: 2,
        flags: &[Flag::Loading, Flag::Stale],
        group: "server",
        since: "4.0.0",
        summary: "Show helpful text about the different subcommands",
        handler: |_| Ok(help(MEMORY_HELP)),
        ..Spec::BASE
    },
    Spec {
        name: "usage",
        arity: -3,
        flags: &[Flag::ReadOnly],
        keys: KeySpec::AFTER_SUBCOMMAND,
        group: "server",
        since: "4.0.0",
        summary: "Estimate the memory usage of a key",
        handler: memory_usage,
        ..Spec::BASE
    },
];

/// What the subcommands of `OBJECT` on a key have in common.
const OBJECT_KEY: Spec =
    Spec { arity: 3, flags: &[Flag::ReadOnly], keys: KeySpec::AFTER_SUBCOMMAND, group: "generic", ..Spec::BASE };

const OBJECT_HELP: &[&str] = &[
    "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ENCODING <key>",
    "    Return the kind of internal representation used in order to store the value",
    "    associated with a <key>.",
    "FREQ <key>",
    "    Return the access frequency index of the <key>. The returned integer is",
    "    proportional to the logarithm of the recent access frequency of the key.",
    "IDLETIME <key>",
    "    Return the idle time of the <key>, that is the approximated number of",
    "    seconds elapsed since the last access to the key.",
    "REFCOUNT <key>",
    "    Return the number of references of the value associated with the specified",
    "    <key>.",
    "HELP",
    "    Prints this help.",
];

const MEMORY_HELP: &[&str] = &[
    "MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "USAGE <key> [SAMPLES <count>]",
    "    Return memory in bytes used by <key> and its value. Nested values are",
    "    sampled up to <count> times (default: 5, 0 means sample all).",
    "HELP",
    "    Prints this help.",
];

/// The longest string that Redis keeps in one piece with its header.
const MAX_EMBSTR: usize = 44;

/// Redis's `hash-max-listpack-entries`.
const MAX_LISTPACK_FIELDS: usize = 128;

/// Redis's `hash-max-listpack-value`.
const MAX_LISTPACK_BYTES: usize = 64;

fn object_encoding(request: &mut Request<'_>) -> Handled {
    about_entry(request, |entry| Ok(Reply::bulk(encoding(entry.kind, &entry.value)?)))
}

fn object_freq(request: &mut Request<'_>) -> Handled {
    about_entry(request, |_| {
        Err(ErrorReply::Other(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
             switching between policies at runtime LRU and LFU data will take some time to adjust.",
        ))
    })
}

fn object_idletime(request: &mut Request<'_>) -> Handled {
    about_entry(request, |_| Err(ErrorReply::Other("ERR idle time not tracked")))
}

/// Every key has a value of its own.
fn object_refcount(request: &mut Request<'_>) -> Handled {
    about_entry(request, |_| Ok(Reply::Int(1)))
}

fn memory_usage(request: &mut Request<'_>) -> Handled {
    check_usage_options(request.args.iter_from(3))?;
    let (keyspace, db) = (Arc::clone(request.keyspace), request.client.db);
    let name: Box<[u8]> = request.args[2].into();
    read_one(request, &request.args[2], move |entry| {
        let Some(entry) = entry else { return Ok(Reply::Null) };
        Ok(Reply::Int(Keyspace::memory_usage(&keyspace.key(db, &name)?, &entry) as i64))
    })
}

/// Checks `SAMPLES n`, which says how much of a nested value to look at; strings have nothing nested.
fn check_usage_options<'a>(mut options: impl Iterator<Item = &'a [u8]>) -> Result<(), ErrorReply> {
    while let Some(option) = options.next() {
        let argument = options.next().filter(|_| option.eq_ignore_ascii_case(b"samples")).ok_or(ErrorReply::Syntax)?;
        if integer(argument)? < 0 {
            return Err(ErrorReply::Syntax);
        }
    }
    Ok(())
}

/// Answers from the entry of the key behind the subcommand; null if there is none.
fn about_entry(
    request: &Request<'_>,
    answer: impl FnOnce(Entry) -> Result<Reply, ErrorReply> + Send + 'static,
) -> Handled {
    read_one(request, &request.args[2], |entry| entry.map_or(Ok(Reply::Null), answer))
}

fn help(lines: &'static [&'static str]) -> Flow {
    Flow::Done(Reply::Array(lines.iter().map(|line| Reply::Simple((*line).into())).collect()))
}

/// How Redis would keep this value if it had just been made.
fn encoding(kind: Kind, value: &[u8]) -> Result<&'static str, ErrorReply> {
    match kind {
        Kind::String => Ok(string_encoding(value)),
        Kind::Hash => hash_encoding(value),
        // No entry that a command is given is one.
        Kind::Deleted => Ok("none"),
    }
}

fn hash_encoding(value: &[u8]) -> Result<&'static str, ErrorReply> {
    let (mut fields, mut longest) = (0, 0);
    for pair in Pairs::of(value)? {
        let (field, value) = pair?;
        fields += 1;
        longest = longest.max(field.len()).max(value.len());
    }
    Ok(if fields <= MAX_LISTPACK_FIELDS && longest <= MAX_LISTPACK_BYTES { "listpack" } else { "hashtable" })
}

fn string_encoding(value: &[u8]) -> &'static str {
    if canonical_i64(value).is_some() {
        "int"
    } else if value.len() <= MAX_EMBSTR {
        "embstr"
    } else {
        "raw"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_those_of_redis() {
        for (value, expected) in [
            ("", "embstr"),
            ("0", "int"),
            ("-0", "embstr"),
            ("01", "embstr"),
            ("-42", "int"),
            ("9223372036854775807", "int"),
            ("9223372036854775808", "embstr"),
            ("3.5", "embstr"),
            (&"x".repeat(44), "embstr"),
            (&"x".repeat(45), "raw"),
            (&"1".repeat(45), "raw"),
        ] {
            assert_eq!(string_encoding(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn usage_takes_samples() {
        for (options, expected) in [
            (&[][..], Ok(())),
            (&["samples", "0"], Ok(())),
            (&["SAMPLES", "5", "samples", "6"], Ok(())),
            (&["SAMPLES"], Err("ERR syntax error")),
            (&["SAMPLES", "-1"], Err("ERR syntax error")),
            (&["SAMPLES", "a"], Err("ERR value is not an integer or out of range")),
            (&["FOO", "1"], Err("ERR syntax error")),
        ] {
            let found = check_usage_options(options.iter().map(|option| option.as_bytes()));
            assert_eq!(found.map_err(|error| error.to_string()), expected.map_err(str::to_owned), "{options:?}");
        }
    }
}
