//! The string commands that move whole values: `GET`, `SET` and their older and plural forms.

use crate::command::access::{
    apply, key, last_of_each, put, read_all, read_one, string_of, string_reply, touched, update_one, value, write,
};
use crate::command::expiry::Scale;
use crate::command::request::{Flow, Handled, Request};
use crate::command::set_options::{Compare, Expiry, Grammar, Options, set_is_blind};
use crate::command::spec::{Flag, KeySpec, Queues, Spec};
use crate::entry::{Change, Entry, Expect, Kind, UnixMs, Value};
use crate::keyspace::Read;
use crate::keyspace::touch::Of;
use crate::keyspace::update::Decision;
use crate::resp::error::{Cow, ErrorReply};
use crate::resp::reply::Reply;

/// The rows of this family.
pub const COMMANDS: &[Spec] = &[
    Spec {
        name: "get",
        arity: 2,
        flags: &[Flag::ReadOnly, Flag::Fast],
        since: "1.0.0",
        summary: "Get the value of a key",
        handler: get,
        ..STRING
    },
    Spec {
        name: "set",
        arity: -3,
        flags: &[Flag::Write, Flag::DenyOom],
        since: "1.0.0",
        summary: "Set the string value of a key",
        queues: Queues::If(set_is_blind),
        handler: set,
        ..STRING
    },
    Spec {
        name: "setex",
        arity: 4,
        flags: &[Flag::Write, Flag::DenyOom],
        since: "2.0.0",
        summary: "Set the value and expiration of a key",
        queues: Queues::Always,
        handler: setex,
        ..STRING
    },
    Spec {
        name: "psetex",
        arity: 4,
        flags: &[Flag::Write, Flag::DenyOom],
        since: "2.6.0",
        summary: "Set the value and expiration in milliseconds of a key",
        queues: Queues::Always,
        handler: psetex,
        ..STRING
    },
    Spec {
        name: "setnx",
        arity: 3,
        flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
        since: "1.0.0",
        summary: "Set the value of a key, only if the key does not exist",
        queues: Queues::Always,
        handler: setnx,
        ..STRING
    },
    Spec {
        name: "getset",
        arity: 3,
        flags: &[Flag::Write, Flag::DenyOom, Flag::Fast],
        since: "1.0.0",
        summary: "Set the string value of a key and return its old value",
        handler: getset,
        ..STRING
    },
    Spec {
        name: "getdel",
        arity: 2,
        flags: &[Flag::Write, Flag::Fast],
        since: "6.2.0",
        summary: "Get the value of a key and delete the key",
        handler: getdel,
        ..STRING
    },
    Spec {
        name: "delifeq",
        arity: 3,
        flags: &[Flag::Write, Flag::Fast],
        since: "9.0.0",
        summary: "Delete a key if its value is the given string (as in Valkey)",
        handler: delifeq,
        ..STRING
    },
    Spec {
        name: "delex",
        arity: -2,
        flags: &[Flag::Write, Flag::Fast],
        since: "8.4.0",
        summary: "Delete a key if its value compares as told",
        handler: delex,
        ..STRING
    },
    Spec {
        name: "getex",
        arity: -2,
        flags: &[Flag::Write, Flag::Fast],
        since: "6.2.0",
        summary: "Get the value of a key and optionally set its expiration",
        handler: getex,
        ..STRING
    },
    Spec {
        name: "mget",
        arity: -2,
        flags: &[Flag::ReadOnly, Flag::Fast],
        keys: KeySpec::ALL,
        since: "1.0.0",
        summary: "Get the values of all the given keys",
        handler: mget,
        ..STRING
    },
    Spec {
        name: "mset",
        arity: -3,
        flags: &[Flag::Write, Flag::DenyOom],
        keys: KeySpec::PAIRS,
        since: "1.0.1",
        summary: "Set multiple keys to multiple values",
        queues: Queues::Always,
        handler: mset,
        ..STRING
    },
    Spec {
        name: "msetnx",
        arity: -3,
        flags: &[Flag::Write, Flag::DenyOom],
        keys: KeySpec::PAIRS,
        since: "1.0.1",
        summary: "Set multiple keys to multiple values, only if none of the keys exist",
        queues: Queues::Always,
        handler: msetnx,
        ..STRING
    },
];

/// What the rows have in common.
const STRING: Spec = Spec { keys: KeySpec::ONE, group: "string", ..Spec::BASE };

fn get(request: &mut Request<'_>) -> Handled {
    read_one(request, &request.args[1], |entry| {
        let Some(entry) = entry else { return Ok(Reply::Null) };
        string_of(&entry)?;
        Ok(Reply::Value(entry.value))
    })
}

fn set(request: &mut Request<'_>) -> Handled {
    let Options { expect, compare, get, expiry } = Options::parse(request.args, 3, Grammar::Set)?;
    let expires_at = expiry.time(request.now, "set")?;
    let keep = expiry == Expiry::Keep;
    if !get && !keep && compare.is_none() {
        return set_blindly(request, &request.args[2], expires_at, expect, Reply::OK, Reply::Null);
    }
    let value = value(request, &request.args[2])?;
    let compare = compare.map(Compare::to_owned);
    update_one(request, &request.args[1], move |entry, _| {
        let old = if get { Some(string_reply(entry)?) } else { None };
        let met = match (expect, &compare) {
            (_, Some(condition)) => condition.holds(entry.map(string_of).transpose()?.map(|value| &**value)),
            (Expect::Absent, _) => entry.is_none(),
            (Expect::Present, _) => entry.is_some(),
            (Expect::Any | Expect::Version(_), _) => true,
        };
        if !met {
            return Ok(Decision::Answer(old.unwrap_or(Reply::Null)));
        }
        let expires_at = if keep { entry.and_then(|entry| entry.expires_at) } else { expires_at };
        let (changes, reply) = (vec![(0, put_string(&value, expires_at))], old.unwrap_or(Reply::OK));
        Ok(if expect == Expect::Absent { Decision::Create(changes, reply) } else { Decision::Write(changes, reply) })
    })
}

fn setex(request: &mut Request<'_>) -> Handled {
    set_expiring(request, Scale::EX, "setex")
}

fn psetex(request: &mut Request<'_>) -> Handled {
    set_expiring(request, Scale::PX, "psetex")
}

fn set_expiring(request: &Request<'_>, scale: Scale, command: &'static str) -> Handled {
    let expires_at = scale.positive(&request.args[2], request.now, command)?;
    set_blindly(request, &request.args[3], Some(expires_at), Expect::Any, Reply::OK, Reply::Null)
}

fn setnx(request: &mut Request<'_>) -> Handled {
    set_blindly(request, &request.args[2], None, Expect::Absent, Reply::Int(1), Reply::Int(0))
}

/// Stores a string at the first argument without reading it; answers `done`, or `refused` if the expectation is not met.
///
/// A time in the past is stored like any other, which leaves a key that does not exist, as in Redis.
fn set_blindly(
    request: &Request<'_>,
    bytes: &[u8],
    expires_at: Option<UnixMs>,
    expect: Expect,
    done: Reply,
    refused: Reply,
) -> Handled {
    if let (Some(at), Expect::Any | Expect::Present) = (expires_at, expect)
        && touched(request, &request.args[1], at, Of::Value(Kind::String, bytes))?
    {
        return Ok(Flow::Done(done));
    }
    let value = value(request, bytes)?;
    let key = key(request, request.client.db, &request.args[1])?;
    let group = vec![put(key, expect, value, expires_at)];
    Ok(write(request, group, |applied| if applied.is_some() { done } else { refused }))
}

fn getset(request: &mut Request<'_>) -> Handled {
    let value = value(request, &request.args[2])?;
    update_one(request, &request.args[1], move |entry, _| Ok(apply(put_string(&value, None), string_reply(entry)?)))
}

fn put_string(value: &Value, expires_at: Option<UnixMs>) -> Change {
    Change::Put { kind: Kind::String, value: Value::clone(value), expires_at }
}

fn getdel(request: &mut Request<'_>) -> Handled {
    update_one(request, &request.args[1], |entry, _| {
        let old = string_reply(entry)?;
        Ok(if entry.is_some() { apply(Change::Delete, old) } else { Decision::Answer(old) })
    })
}

fn delifeq(request: &mut Request<'_>) -> Handled {
    delete_if(request, Some(Compare::Equal(request.args[2].to_vec())))
}

fn delex(request: &mut Request<'_>) -> Handled {
    let args = request.args;
    let condition = match (args.len(), args.get(2), args.get(3)) {
        (2, ..) => None,
        (4, Some(word), Some(value)) if word.eq_ignore_ascii_case(b"ifeq") => Some(Compare::Equal(value.to_vec())),
        (4, Some(word), Some(value)) if word.eq_ignore_ascii_case(b"ifne") => Some(Compare::Other(value.to_vec())),
        _ => return Err(ErrorReply::Syntax),
    };
    delete_if(request, condition)
}

/// Deletes the key if there is an entry of which the condition holds; a condition wants a string.
fn delete_if(request: &Request<'_>, condition: Option<Compare<Vec<u8>>>) -> Handled {
    update_one(request, &request.args[1], move |entry, _| {
        let Some(entry) = entry else { return Ok(Decision::Answer(Reply::Int(0))) };
        let met = match &condition {
            Some(condition) => condition.holds(Some(string_of(entry)?)),
            None => true,
        };
        Ok(if met { apply(Change::Delete, Reply::Int(1)) } else { Decision::Answer(Reply::Int(0)) })
    })
}

fn getex(request: &mut Request<'_>) -> Handled {
    let options = Options::parse(request.args, 2, Grammar::GetEx)?;
    if options.expiry == Expiry::Unsaid {
        return get(request);
    }
    // A bad time is complained of only if there is a string, so it is carried along.
    let time = options.expiry.time(request.now, "getex");
    if let (Ok(Some(at)), None) = (&time, request.stage)
        && let Some(value) = get_touched(request, *at)?
    {
        return Ok(Flow::Done(value));
    }
    update_one(request, &request.args[1], move |entry, now| {
        let value = string_reply(entry)?;
        let Some(entry) = entry else { return Ok(Decision::Answer(value)) };
        Ok(match time.clone()? {
            Some(at) if at <= now => apply(Change::Delete, value),
            expires_at if expires_at == entry.expires_at => Decision::Answer(value),
            expires_at => apply(Change::Expire(expires_at), value),
        })
    })
}

/// The cached string at the first argument, if moving its expiry to `at` needed no write.
fn get_touched(request: &Request<'_>, at: UnixMs) -> Result<Option<Reply>, ErrorReply> {
    let name = &request.args[1];
    let key = request.keyspace.key(request.client.db, name)?;
    let Read::Hit(Some(entry)) = request.keyspace.read(&key, request.moment()) else { return Ok(None) };
    let value = string_reply(Some(&entry))?;
    Ok(touched(request, name, at, Of::Version(entry.version))?.then_some(value))
}

fn mget(request: &mut Request<'_>) -> Handled {
    // Redis answers null for a key that holds no string.
    let reply = |entry: Option<Entry>| string_reply(entry.as_ref()).unwrap_or(Reply::Null);
    read_all(request, move |entries| Reply::Array(entries.into_iter().map(reply).collect()))
}

fn mset(request: &mut Request<'_>) -> Handled {
    set_many(request, "mset", Expect::Any, Reply::OK, Reply::Null)
}

fn msetnx(request: &mut Request<'_>) -> Handled {
    set_many(request, "msetnx", Expect::Absent, Reply::Int(1), Reply::Int(0))
}

fn set_many(request: &Request<'_>, name: &'static str, expect: Expect, done: Reply, refused: Reply) -> Handled {
    let args = request.args;
    if args.len().is_multiple_of(2) {
        return Err(ErrorReply::WrongArity(Cow::Borrowed(name)));
    }
    let pairs: Result<Vec<_>, ErrorReply> = (1..args.len())
        .step_by(2)
        .map(|at| Ok((key(request, request.client.db, &args[at])?, value(request, &args[at + 1])?)))
        .collect();
    let group = last_of_each(pairs?).into_iter().map(|(key, value)| put(key, expect, value, None)).collect();
    Ok(write(request, group, |applied| if applied.is_some() { done } else { refused }))
}
