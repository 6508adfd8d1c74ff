//! The hash commands that only read. Changing a hash is in `hashes.rs`, the encoding in `hash_value.rs`.

use crate::command::access::read_one;
use crate::command::hash_value::{Hash, Pair, Pairs, find};
use crate::command::hashes::{encoded_of, hash_of};
use crate::command::number::{cursor, integer};
use crate::command::request::{Handled, Request};
use crate::command::scan::{ScanOptions, Scanned};
use crate::command::spec::{Flag, KeySpec, Spec};
use crate::entry::Entry;
use crate::resp::args::Args;
use crate::resp::error::ErrorReply;
use crate::resp::reply::{Protocol, Reply};

/// The rows of this file.
pub const COMMANDS: &[Spec] = &[
    Spec { name: "hget", arity: 3, since: "2.0.0", summary: "Get the value of a hash field", handler: hget, ..FAST },
    Spec {
        name: "hmget",
        arity: -3,
        since: "2.0.0",
        summary: "Get the values of all the given hash fields",
        handler: hmget,
        ..FAST
    },
    Spec {
        name: "hlen",
        arity: 2,
        since: "2.0.0",
        summary: "Get the number of fields in a hash",
        handler: hlen,
        ..FAST
    },
    Spec {
        name: "hexists",
        arity: 3,
        since: "2.0.0",
        summary: "Determine if a hash field exists",
        handler: hexists,
        ..FAST
    },
    Spec {
        name: "hstrlen",
        arity: 3,
        since: "3.2.0",
        summary: "Get the length of the value of a hash field",
        handler: hstrlen,
        ..FAST
    },
    Spec {
        name: "hgetall",
        since: "2.0.0",
        summary: "Get all the fields and values in a hash",
        handler: hgetall,
        ..WHOLE
    },
    Spec { name: "hkeys", since: "2.0.0", summary: "Get all the fields in a hash", handler: hkeys, ..WHOLE },
    Spec { name: "hvals", since: "2.0.0", summary: "Get all the values in a hash", handler: hvals, ..WHOLE },
    Spec {
        name: "hscan",
        arity: -3,
        since: "2.8.0",
        summary: "Incrementally iterate hash fields and associated values",
        handler: hscan,
        ..WHOLE
    },
    Spec {
        name: "hrandfield",
        arity: -2,
        since: "6.2.0",
        summary: "Get one or multiple random fields from a hash",
        handler: hrandfield,
        ..WHOLE
    },
];

/// What the rows that look at some fields have in common.
const FAST: Spec = Spec { flags: &[Flag::ReadOnly, Flag::Fast], ..WHOLE };

/// What the rows that look at all fields have in common.
const WHOLE: Spec = Spec { arity: 2, flags: &[Flag::ReadOnly], keys: KeySpec::ONE, group: "hash", ..Spec::BASE };

/// Elements of one reply of `HRANDFIELD` with repetitions, at most: what is asked for need not be there.
const MAX_RANDOM: i64 = 1024 * 1024;

fn hget(request: &mut Request<'_>) -> Handled {
    about_field(request, Reply::Null, |value| Reply::bulk(value))
}

fn hexists(request: &mut Request<'_>) -> Handled {
    about_field(request, Reply::Int(0), |_| Reply::Int(1))
}

fn hstrlen(request: &mut Request<'_>) -> Handled {
    about_field(request, Reply::Int(0), |value| Reply::Int(value.len() as i64))
}

/// Answers from the value of the field that the second argument names, or `missing`.
fn about_field(request: &Request<'_>, missing: Reply, answer: fn(&[u8]) -> Reply) -> Handled {
    let field = request.args[2].to_vec();
    read_one(request, &request.args[1], move |entry| {
        let Some(entry) = entry else { return Ok(missing) };
        Ok(find(encoded_of(&entry)?, &field)?.map_or(missing, answer))
    })
}

fn hmget(request: &mut Request<'_>) -> Handled {
    let fields: Vec<Vec<u8>> = request.args.iter_from(2).map(<[u8]>::to_vec).collect();
    read_one(request, &request.args[1], move |entry| {
        let hash = entry.as_ref().map_or_else(|| Ok(Hash::default()), hash_of)?;
        Ok(Reply::Array(fields.iter().map(|field| hash.get(field).map_or(Reply::Null, Reply::bulk)).collect()))
    })
}

fn hlen(request: &mut Request<'_>) -> Handled {
    about_pairs(request, |pairs| Reply::Int(pairs.len() as i64))
}

fn hgetall(request: &mut Request<'_>) -> Handled {
    about_pairs(request, |pairs| {
        Reply::Map(pairs.into_iter().map(|(field, value)| (Reply::bulk(field), Reply::bulk(value))).collect())
    })
}

fn hkeys(request: &mut Request<'_>) -> Handled {
    about_pairs(request, |pairs| Reply::Array(pairs.into_iter().map(|(field, _)| Reply::bulk(field)).collect()))
}

fn hvals(request: &mut Request<'_>) -> Handled {
    about_pairs(request, |pairs| Reply::Array(pairs.into_iter().map(|(_, value)| Reply::bulk(value)).collect()))
}

/// Answers from all fields with their values, in order; there are none if there is no key.
fn about_pairs<F>(request: &Request<'_>, answer: F) -> Handled
where
    F: FnOnce(Vec<Pair<'_>>) -> Reply + Send + 'static,
{
    read_one(request, &request.args[1], move |entry| Ok(answer(pairs_of(entry.as_ref())?)))
}

fn pairs_of(entry: Option<&Entry>) -> Result<Vec<Pair<'_>>, ErrorReply> {
    entry.map_or(Ok(Vec::new()), |entry| Pairs::of(encoded_of(entry)?)?.collect())
}

/// The whole hash is one page: so no field is missed, however the hash changes between pages.
fn hscan(request: &mut Request<'_>) -> Handled {
    cursor(&request.args[2])?;
    // Bad options are complained of only if there is a hash, so the complaint is carried along.
    let options = ScanOptions::parse(request.args, Scanned::Fields);
    read_one(request, &request.args[1], move |entry| {
        let pairs = pairs_of(entry.as_ref())?;
        let elements = match options {
            _ if pairs.is_empty() => Vec::new(),
            Err(error) => return Err(error),
            Ok(ScanOptions { pattern, .. }) => {
                let wanted = pairs.into_iter().filter(|(field, _)| pattern.matches(field));
                wanted.flat_map(|(field, value)| [Reply::bulk(field), Reply::bulk(value)]).collect()
            }
        };
        Ok(Reply::Array(vec![Reply::bulk("0"), Reply::Array(elements)]))
    })
}

fn hrandfield(request: &mut Request<'_>) -> Handled {
    if request.args.len() == 2 {
        return read_one(request, &request.args[1], |entry| {
            let pairs = pairs_of(entry.as_ref())?;
            Ok(pairs.get(fastrand::usize(..pairs.len().max(1))).map_or(Reply::Null, |(field, _)| Reply::bulk(*field)))
        });
    }
    let Sample { count, with_values } = Sample::parse(request.args)?;
    let in_pairs = request.client.protocol == Protocol::Resp3;
    about_pairs(request, move |pairs| {
        let chosen = choose(pairs.len(), count).into_iter().map(|index| pairs[index]);
        Reply::Array(if !with_values {
            chosen.map(|(field, _)| Reply::bulk(field)).collect()
        } else if in_pairs {
            chosen.map(|(field, value)| Reply::Array(vec![Reply::bulk(field), Reply::bulk(value)])).collect()
        } else {
            chosen.flat_map(|(field, value)| [Reply::bulk(field), Reply::bulk(value)]).collect()
        })
    })
}

/// What `HRANDFIELD` with a count asks for.
#[derive(Debug, PartialEq, Eq)]
struct Sample {
    /// Negative: that many, with repetitions.
    count: i64,
    with_values: bool,
}

impl Sample {
    fn parse(args: Args<'_>) -> Result<Self, ErrorReply> {
        let count = integer(&args[2])?;
        if count == i64::MIN {
            return Err(ErrorReply::Other(
                "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
            ));
        }
        let with_values = match args.get(3) {
            None => false,
            Some(word) if args.len() == 4 && word.eq_ignore_ascii_case(b"withvalues") => true,
            Some(_) => return Err(ErrorReply::Syntax),
        };
        if count < -MAX_RANDOM || (with_values && count > i64::MAX / 2) {
            return Err(ErrorReply::Other("ERR value is out of range"));
        }
        Ok(Self { count, with_values })
    }
}

/// Places in `0..length`: `count` different ones, or all; negative: so many, with repetitions.
fn choose(length: usize, count: i64) -> Vec<usize> {
    if length == 0 {
        return Vec::new();
    }
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if count < 0 {
        return (0..wanted).map(|_| fastrand::usize(..length)).collect();
    }
    if wanted >= length {
        return (0..length).collect();
    }
    fastrand::choose_multiple(0..length, wanted)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn samples_are_within_the_hash() {
        for (length, count, expected, distinct) in [
            (0, 5, 0, true),
            (0, -5, 0, true),
            (5, 0, 0, true),
            (5, 3, 3, true),
            (5, 5, 5, true),
            (5, 9, 5, true),
            (5, i64::MAX, 5, true),
            (1, -4, 4, false),
        ] {
            let chosen = choose(length, count);
            assert_eq!(chosen.len(), expected, "{count} of {length}");
            assert!(chosen.iter().all(|index| *index < length));
            assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len() == chosen.len(), distinct, "{count} of {length}");
        }
    }

    #[test]
    fn every_field_can_be_chosen() {
        let seen: BTreeSet<usize> = (0..2_000).flat_map(|_| choose(5, 1)).collect();
        assert_eq!(seen.len(), 5);
    }
}
