//! The commands on keys of whatever type: whether they exist, and deleting, renaming, copying and moving them.

use crate::command::access::{key, last_of_each, later, read_all, read_one, update, write};
use crate::command::number::database;
use crate::command::request::{Flow, Handled, Request};
use crate::command::spec::{Flag, KeySpec, Queues, Spec};
use crate::entry::{Change, Entry, Expect, Key, Mutation, Value};
use crate::keyspace::update::Decision;
use crate::resp::args::Args;
use crate::resp::error::ErrorReply;
use crate::resp::reply::Reply;

/// The rows of this family.
pub const COMMANDS: &[Spec] = &[
    Spec {
        name: "del",
        arity: -2,
        flags: &[Flag::Write],
        keys: KeySpec::ALL,
        since: "1.0.0",
        summary: "Delete a key",
        queues: Queues::Always,
        handler: del,
        ..GENERIC
    },
    Spec {
        name: "unlink",
        arity: -2,
        flags: &[Flag::Write, Flag::Fast],
        keys: KeySpec::ALL,
        since: "4.0.0",
        summary: "Delete a key asynchronously in another thread. Otherwise it is just as DEL, but non blocking.",
        queues: Queues::Always,
        handler: del,
        ..GENERIC
    },
    Spec {
        name: "exists",
        arity: -2,
        flags: &[Flag::ReadOnly, Flag::Fast],
        keys: KeySpec::ALL,
        since: "1.0.0",
        summary: "Determine if a key exists",
        handler: exists,
        ..GENERIC
    },
    Spec {
        name: "touch",
        arity: -2,
        flags: &[Flag::ReadOnly, Flag::Fast],
        keys: KeySpec::ALL,
        since: "3.2.1",
        summary: "Alters the last access time of a key(s). Returns the number of existing keys specified.",
        handler: exists,
        ..GENERIC
    },
    Spec {
        name: "type",
        arity: 2,
        flags: &[Flag::ReadOnly, Flag::Fast],
        keys: KeySpec::ONE,
        since: "1.0.0",
        summary: "Determine the type stored at key",
        handler: type_of,
        ..GENERIC
    },
    Spec {
        name: "rename",
        arity: 3,
        flags: &[Flag::Write],
        keys: KeySpec::TWO,
        since: "1.0.0",
        summary: "Rename a key",
        handler: rename,
        ..GENERIC
    },
    Spec {
        name: "renamenx",
        arity: 3,
        flags: &[Flag::Write, Flag::Fast],
        keys: KeySpec::TWO,
        since: "1.0.0",
        summary: "Rename a key, only if the new key does not exist",
        handler: renamenx,
        ..GENERIC
    },
    Spec {
        name: "copy",
        arity: -3,
        flags: &[Flag::Write, Flag::DenyOom],
        keys: KeySpec::TWO,
        since: "6.2.0",
        summary: "Copy a key",
        handler: copy,
        ..GENERIC
    },
    Spec {
        name: "move",
        arity: 3,
        flags: &[Flag::Write, Flag::Fast],
        keys: KeySpec::ONE,
        since: "1.0.0",
        summary: "Move a key to another database",
        handler: move_to,
        ..GENERIC
    },
    Spec {
        name: "randomkey",
        arity: 1,
        flags: &[Flag::ReadOnly],
        since: "1.0.0",
        summary: "Return a random key from the keyspace",
        handler: |request| Ok(randomkey(request)),
        ..GENERIC
    },
];

/// What the rows have in common.
const GENERIC: Spec = Spec { group: "generic", ..Spec::BASE };

fn del(request: &mut Request<'_>) -> Handled {
    let db = request.client.db;
    let keys: Result<Vec<_>, ErrorReply> =
        request.args.iter_from(1).map(|name| Ok((key(request, db, name)?, ()))).collect();
    let delete = |(key, ())| Mutation { key, expect: Expect::Any, change: Change::Delete };
    let group = last_of_each(keys?).into_iter().map(delete).collect();
    Ok(write(request, group, |applied| {
        let Some(applied) = applied else { return Reply::Error(ErrorReply::Internal) };
        Reply::Int(applied.iter().filter(|one| one.existed).count() as i64)
    }))
}

/// `EXISTS` and `TOUCH`: reading an entry is what makes it recent.
fn exists(request: &mut Request<'_>) -> Handled {
    if request.args.len() == 2 {
        return read_one(request, &request.args[1], |entry| Ok(Reply::Int(i64::from(entry.is_some()))));
    }
    read_all(request, |entries| Reply::Int(entries.iter().flatten().count() as i64))
}

fn type_of(request: &mut Request<'_>) -> Handled {
    read_one(request, &request.args[1], |entry| {
        Ok(Reply::Simple(entry.map_or("none", |entry| entry.kind.name()).into()))
    })
}

fn rename(request: &mut Request<'_>) -> Handled {
    rename_to(request, true, Reply::OK, Reply::OK)
}

fn renamenx(request: &mut Request<'_>) -> Handled {
    rename_to(request, false, Reply::Int(1), Reply::Int(0))
}

/// Answers `done`, or `refused` if the new name is the old one, or is taken and may not be replaced.
fn rename_to(request: &Request<'_>, replace: bool, done: Reply, refused: Reply) -> Handled {
    let db = request.client.db;
    let (source, target) = (&request.args[1], &request.args[2]);
    if source == target {
        return read_one(request, source, |entry| entry.map(|_| refused).ok_or(ErrorReply::NoSuchKey));
    }
    let keys = [key(request, db, source)?, key(request, db, target)?];
    let how = Transfer { replace, remove: true };
    Ok(transfer(request, keys, how, Err(ErrorReply::NoSuchKey), done, refused))
}

fn copy(request: &mut Request<'_>) -> Handled {
    let source_db = request.client.db;
    let (target_db, replace) = copy_options(request.args, source_db)?;
    let keys = different_keys(request, source_db, target_db, &request.args[2])?;
    let how = Transfer { replace, remove: false };
    Ok(transfer(request, keys, how, Ok(Reply::Int(0)), Reply::Int(1), Reply::Int(0)))
}

/// The target's database, and whether an entry there is replaced.
fn copy_options(args: Args<'_>, source_db: u8) -> Result<(u8, bool), ErrorReply> {
    let (mut db, mut replace) = (source_db, false);
    let mut rest = args.iter_from(3);
    while let Some(option) = rest.next() {
        if option.eq_ignore_ascii_case(b"replace") {
            replace = true;
        } else if option.eq_ignore_ascii_case(b"db") {
            db = database(rest.next().ok_or(ErrorReply::Syntax)?)?;
        } else {
            return Err(ErrorReply::Syntax);
        }
    }
    Ok((db, replace))
}

fn move_to(request: &mut Request<'_>) -> Handled {
    let target_db = database(&request.args[2])?;
    let keys = different_keys(request, request.client.db, target_db, &request.args[1])?;
    let how = Transfer { replace: false, remove: true };
    Ok(transfer(request, keys, how, Ok(Reply::Int(0)), Reply::Int(1), Reply::Int(0)))
}

/// The key that the first argument names, and the key called `target` in another database or under another name.
fn different_keys(request: &Request<'_>, source_db: u8, target_db: u8, target: &[u8]) -> Result<[Key; 2], ErrorReply> {
    let source = &request.args[1];
    if source_db == target_db && source == target {
        return Err(ErrorReply::SameObject);
    }
    Ok([key(request, source_db, source)?, key(request, target_db, target)?])
}

/// How an entry gets to another key.
#[derive(Clone, Copy)]
struct Transfer {
    /// Whether an entry at the target is replaced.
    replace: bool,
    /// Whether the source is deleted.
    remove: bool,
}

/// Puts the entry of the first key, with its expiry, at the second. Answers `missing` if there is none.
fn transfer(
    request: &Request<'_>,
    keys: [Key; 2],
    how: Transfer,
    missing: Result<Reply, ErrorReply>,
    done: Reply,
    refused: Reply,
) -> Flow {
    update(request, keys.into(), move |entries, _| {
        let [source, target] = entries else { return Err(ErrorReply::Internal) };
        let Some(Entry { kind, value, expires_at, .. }) = source else {
            return missing.clone().map(Decision::Answer);
        };
        if target.is_some() && !how.replace {
            return Ok(Decision::Answer(refused.clone()));
        }
        let put = Change::Put { kind: *kind, value: Value::clone(value), expires_at: *expires_at };
        let mut changes = vec![(1, put)];
        if how.remove {
            changes.push((0, Change::Delete));
        }
        Ok(Decision::Write(changes, done.clone()))
    })
}

fn randomkey(request: &Request<'_>) -> Flow {
    let found = request.keyspace.random(request.client.db);
    later(async move { Ok(found.await?.map_or(Reply::Null, Reply::Bulk)) })
}
