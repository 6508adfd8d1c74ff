//! The hash commands that change a hash. Reading one is in `hash_reads.rs`, the encoding in `hash_value.rs`.

use crate::command::access::{apply, update_one};
use crate::command::hash_value::Hash;
use crate::command::long_double::LongDouble;
use crate::command::number::{canonical_i64, integer};
use crate::command::request::{Handled, Request};
use crate::command::spec::{Flag, KeySpec, Spec};
use crate::entry::{Change, Entry, Kind, Value};
use crate::keyspace::update::Decision;
use crate::resp::error::{Cow, ErrorReply};
use crate::resp::reply::Reply;

/// The rows of this file.
pub const COMMANDS: &[Spec] = &[
    Spec {
        name: "hset",
        arity: -4,
        since: "2.0.0",
        summary: "Set the string value of a hash field",
        handler: hset,
        ..SETTER
    },
    Spec {
        name: "hmset",
        arity: -4,
        since: "2.0.0",
        summary: "Set multiple hash fields to multiple values",
        handler: hmset,
        ..SETTER
    },
    Spec {
        name: "hsetnx",
        arity: 4,
        since: "2.0.0",
        summary: "Set the value of a hash field, only if the field does not exist",
        handler: hsetnx,
        ..SETTER
    },
    Spec {
        name: "hincrby",
        arity: 4,
        since: "2.0.0",
        summary: "Increment the integer value of a hash field by the given number",
        handler: hincrby,
        ..SETTER
    },
    Spec {
        name: "hincrbyfloat",
        arity: 4,
        since: "2.6.0",
        summary: "Increment the float value of a hash field by the given amount",
        handler: hincrbyfloat,
        ..SETTER
    },
    Spec {
        name: "hdel",
        arity: -3,
        flags: &[Flag::Write, Flag::Fast],
        since: "2.0.0",
        summary: "Delete one or more hash fields",
        handler: hdel,
        ..SETTER
    },
];

/// What the rows have in common.
const SETTER: Spec =
    Spec { flags: &[Flag::Write, Flag::DenyOom, Flag::Fast], keys: KeySpec::ONE, group: "hash", ..Spec::BASE };

fn hset(request: &mut Request<'_>) -> Handled {
    set_fields(request, "hset", |added| Reply::Int(added as i64))
}

fn hmset(request: &mut Request<'_>) -> Handled {
    set_fields(request, "hmset", |_| Reply::OK)
}

/// Sets all fields that the arguments name; answers by how many are new.
fn set_fields(request: &Request<'_>, command: &'static str, answer: fn(usize) -> Reply) -> Handled {
    if !request.args.len().is_multiple_of(2) {
        return Err(ErrorReply::WrongArity(Cow::Borrowed(command)));
    }
    let parts: Vec<Vec<u8>> = request.args.iter_from(2).map(<[u8]>::to_vec).collect();
    change(request, move |hash| {
        Ok(answer(parts.chunks_exact(2).filter(|pair| hash.set(pair[0].clone(), pair[1].clone())).count()))
    })
}

fn hsetnx(request: &mut Request<'_>) -> Handled {
    let (field, value) = (request.args[2].to_vec(), request.args[3].to_vec());
    change(request, move |hash| {
        let is_new = hash.get(&field).is_none() && hash.set(field.clone(), value.clone());
        Ok(Reply::Int(is_new.into()))
    })
}

fn hincrby(request: &mut Request<'_>) -> Handled {
    let amount = integer(&request.args[3])?;
    let field = request.args[2].to_vec();
    change(request, move |hash| {
        let held = match hash.get(&field) {
            Some(value) => canonical_i64(value).ok_or(ErrorReply::Other("ERR hash value is not an integer"))?,
            None => 0,
        };
        let sum = held.checked_add(amount).ok_or(ErrorReply::Overflow)?;
        hash.set(field.clone(), sum.to_string().into_bytes());
        Ok(Reply::Int(sum))
    })
}

fn hincrbyfloat(request: &mut Request<'_>) -> Handled {
    let amount = LongDouble::parse(&request.args[3]).ok_or(ErrorReply::NotFloat)?;
    if amount == LongDouble::Infinite {
        return Err(ErrorReply::Other("ERR value is NaN or Infinity"));
    }
    let field = request.args[2].to_vec();
    change(request, move |hash| {
        let held = match hash.get(&field) {
            Some(value) => LongDouble::parse(value).ok_or(ErrorReply::Other("ERR hash value is not a float"))?,
            None => LongDouble::ZERO,
        };
        let text = held.plus(amount).ok_or(ErrorReply::NotFinite)?.to_text().into_bytes();
        hash.set(field.clone(), text.clone());
        Ok(Reply::Bulk(text))
    })
}

fn hdel(request: &mut Request<'_>) -> Handled {
    let fields: Vec<Vec<u8>> = request.args.iter_from(2).map(<[u8]>::to_vec).collect();
    change(request, move |hash| Ok(Reply::Int(fields.iter().filter(|field| hash.remove(field)).count() as i64)))
}

/// Changes the hash at the first argument, an empty one if there is none, and answers. The key keeps its expiry; it goes
/// with its last field. Nothing is written if nothing has changed.
fn change<F>(request: &Request<'_>, mut edit: F) -> Handled
where
    F: FnMut(&mut Hash<'_>) -> Result<Reply, ErrorReply> + Send + 'static,
{
    let limit = request.keyspace.max_value();
    update_one(request, &request.args[1], move |entry, _| {
        let mut hash = entry.map_or_else(|| Ok(Hash::default()), hash_of)?;
        let reply = edit(&mut hash)?;
        if !hash.is_changed() {
            return Ok(Decision::Answer(reply));
        }
        if hash.is_empty() {
            return Ok(apply(Change::Delete, reply));
        }
        if hash.encoded_len() > limit {
            return Err(ErrorReply::ValueTooLong { limit });
        }
        let expires_at = entry.and_then(|entry| entry.expires_at);
        Ok(apply(Change::Put { kind: Kind::Hash, value: Value::from(hash.encode()), expires_at }, reply))
    })
}

/// The hash in an entry that must be one.
pub(super) fn hash_of(entry: &Entry) -> Result<Hash<'_>, ErrorReply> {
    Hash::decode(encoded_of(entry)?)
}

/// The encoded hash of an entry that must be one.
pub(super) fn encoded_of(entry: &Entry) -> Result<&[u8], ErrorReply> {
    if entry.kind == Kind::Hash { Ok(&entry.value) } else { Err(ErrorReply::WrongType) }
}
