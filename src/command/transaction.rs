//! `MULTI`, `EXEC`, `DISCARD`, `WATCH`, `UNWATCH`: a connection queues commands and watches keys. It runs nothing.

use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;

use crate::command::access::later;
use crate::command::execute::{Context, execute};
use crate::command::request::{About, Flow, Handled, Queue, Request, Step, Transaction, Watch};
use crate::command::spec::{Flag, InMulti, KeySpec, Spec};
use crate::entry::{Key, Version};
use crate::keyspace::Read;
use crate::limits::MAX_WATCHED;
use crate::resp::error::ErrorReply;
use crate::resp::reply::Reply;

/// The rows of this family.
pub const COMMANDS: &[Spec] = &[
    Spec {
        name: "multi",
        arity: 1,
        since: "1.2.0",
        summary: "Mark the start of a transaction block",
        handler: multi,
        ..TRANSACTION
    },
    Spec {
        name: "exec",
        arity: 1,
        flags: &[Flag::NoScript, Flag::Loading, Flag::Stale, Flag::AllowBusy],
        since: "1.2.0",
        summary: "Execute all commands issued after MULTI",
        handler: exec,
        ..TRANSACTION
    },
    Spec {
        name: "discard",
        arity: 1,
        since: "2.0.0",
        summary: "Discard all commands issued after MULTI",
        handler: discard,
        ..TRANSACTION
    },
    Spec {
        name: "watch",
        arity: -2,
        keys: KeySpec::ALL,
        since: "2.2.0",
        summary: "Watch the given keys to determine execution of the MULTI/EXEC block",
        handler: watch,
        ..TRANSACTION
    },
    Spec {
        name: "unwatch",
        arity: 1,
        since: "2.2.0",
        summary: "Forget about all watched keys",
        in_multi: InMulti::Queued,
        handler: unwatch,
        ..TRANSACTION
    },
];

/// What the rows have in common.
const TRANSACTION: Spec = Spec {
    flags: &[Flag::NoScript, Flag::Loading, Flag::Stale, Flag::Fast, Flag::AllowBusy],
    group: "transactions",
    in_multi: InMulti::AtOnce,
    ..Spec::BASE
};

/// Queues a command for the end of the transaction that its connection is in, if it may be part of one.
pub(super) fn queue(spec: &'static Spec, request: &mut Request<'_>) -> Reply {
    let Some(queue) = &mut request.client.transaction.queue else { return Reply::Error(ErrorReply::Internal) };
    let step = Step::of(spec);
    match may_be_part(spec, step, queue).and_then(|()| queue.push(step, request.args)) {
        Ok(()) => Reply::Simple("QUEUED".into()),
        Err(error) => {
            queue.is_broken = true;
            Reply::Error(error)
        }
    }
}

fn may_be_part(spec: &Spec, step: Step, queue: &Queue) -> Result<(), ErrorReply> {
    if spec.in_multi == InMulti::Refused {
        return Err(ErrorReply::Other("ERR this command is not supported inside a transaction"));
    }
    if step.about == About::AllKeys && queue.iter().any(|(step, _)| step.writes) {
        return Err(ErrorReply::Other("ERR a command about all keys cannot follow a write in its transaction"));
    }
    Ok(())
}

fn multi(request: &mut Request<'_>) -> Handled {
    let transaction = &mut request.client.transaction;
    if transaction.is_open() {
        return Err(ErrorReply::Other("ERR MULTI calls can not be nested"));
    }
    transaction.queue = Some(Queue::default());
    Ok(Flow::Done(Reply::OK))
}

fn discard(request: &mut Request<'_>) -> Handled {
    if !request.client.transaction.is_open() {
        return Err(ErrorReply::Other("ERR DISCARD without MULTI"));
    }
    request.client.transaction = Transaction::default();
    Ok(Flow::Done(Reply::OK))
}

fn unwatch(request: &mut Request<'_>) -> Handled {
    request.client.transaction.watched.clear();
    Ok(Flow::Done(Reply::OK))
}

fn exec(request: &mut Request<'_>) -> Handled {
    if !request.client.transaction.is_open() {
        return Err(ErrorReply::Other("ERR EXEC without MULTI"));
    }
    let Transaction { queue, watched } = std::mem::take(&mut request.client.transaction);
    let queue = queue.unwrap_or_default();
    if queue.is_broken {
        return Err(ErrorReply::ExecAbort);
    }
    // A watched key that could not be read may have changed since.
    let watched: Option<Vec<(Key, Option<Version>)>> =
        watched.into_iter().map(|watch| Some((watch.key, *watch.version.get()?))).collect();
    let Some(watched) = watched else { return Ok(Flow::Done(Reply::NullArray)) };
    let context = Context::of(request);
    let run = execute(context, queue, watched).map(|(reply, client)| {
        let reply = match reply {
            Ok(Some(replies)) => Reply::Array(replies),
            Ok(None) => Reply::NullArray,
            Err(error) => Reply::Error(error),
        };
        (reply, client)
    });
    Ok(Flow::Alone(Box::pin(run)))
}

/// Remembers the versions that the keys have. Later changes, of whatever daemon, have another one.
fn watch(request: &mut Request<'_>) -> Handled {
    if request.client.transaction.is_open() {
        return Err(ErrorReply::Other("ERR WATCH inside MULTI is not allowed"));
    }
    let db = request.client.db;
    let mut keys = Vec::new();
    for name in request.args.iter_from(1) {
        let key = request.keyspace.key(db, name)?;
        let watched = &mut request.client.transaction.watched;
        // A key that is watched already stays as it was seen first.
        if watched.iter().any(|watch| key.is(watch.key.db(), watch.key.name())) {
            continue;
        }
        if watched.len() >= MAX_WATCHED {
            return Err(ErrorReply::Other("ERR too many keys are watched"));
        }
        watched.push(Watch { key: key.to_key(), version: Arc::default() });
        keys.push(key);
    }
    let first = request.client.transaction.watched.len() - keys.len();
    let unseen = &request.client.transaction.watched[first..];
    let versions: Vec<_> = unseen.iter().map(|watch| Arc::clone(&watch.version)).collect();
    Ok(match request.keyspace.versions(&keys, request.moment()) {
        Read::Hit(entries) => Flow::Done(remember(&versions, entries)),
        Read::Miss(found) => later(async move { Ok(remember(&versions, found.await?)) }),
    })
}

fn remember(unset: &[Arc<OnceLock<Option<Version>>>], versions: Vec<Option<Version>>) -> Reply {
    for (unset, version) in unset.iter().zip(versions) {
        // Each is set here only, once.
        let _ = unset.set(version);
    }
    Reply::OK
}
