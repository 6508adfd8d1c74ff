//! How handlers reach entries: one way to read, one to write, one to update, each with the answer as a function.
//! It knows no command.
//!
//! Behind each are two fronts. A request by itself reaches the keyspace. One of a transaction reaches the transaction's
//! stage, and is answered at once; if the stage lacks a key, the answer means nothing, and the request is run again.

use std::sync::{MutexGuard, PoisonError};

use crate::command::request::{Flow, Handled, Request};
use crate::entry::{Applied, Change, Entry, Expect, Group, Key, Kind, Mutation, Outcome, UnixMs, Value};
use crate::keyspace::Read;
use crate::keyspace::guard::{Guard, revives};
use crate::keyspace::key::KeyRef;
use crate::keyspace::stage::Stage;
use crate::keyspace::touch::{Of, Touch};
use crate::keyspace::update::Decision;
use crate::resp::error::ErrorReply;
use crate::resp::reply::Reply;

/// Answers from the live entry of the key called `name`. A cached entry is answered without allocating.
pub(super) fn read_one<F>(request: &Request<'_>, name: &[u8], answer: F) -> Handled
where
    F: FnOnce(Option<Entry>) -> Result<Reply, ErrorReply> + Send + 'static,
{
    let key = request.keyspace.key(request.client.db, name)?;
    if let Some(mut stage) = staged(request) {
        return Ok(Flow::Done(stage.read(&key).map_or(Ok(LACKING), answer)?));
    }
    match request.keyspace.read(&key, request.moment()) {
        Read::Hit(entry) => Ok(Flow::Done(answer(entry)?)),
        Read::Miss(found) => Ok(later(async move { answer(found.await?) })),
    }
}

/// Answers from the live entries of all keys that the arguments from number 1 on name; they may repeat.
pub(super) fn read_all<F>(request: &Request<'_>, answer: F) -> Handled
where
    F: FnOnce(Vec<Option<Entry>>) -> Reply + Send + 'static,
{
    let db = request.client.db;
    let keys: Result<Vec<KeyRef<'_>>, _> =
        request.args.iter_from(1).map(|name| request.keyspace.key(db, name)).collect();
    let keys = keys?;
    if let Some(mut stage) = staged(request) {
        return Ok(Flow::Done(read_staged(&mut stage, &keys).map_or(LACKING, answer)));
    }
    match request.keyspace.read_all(&keys, request.moment()) {
        Read::Hit(entries) => Ok(Flow::Done(answer(entries))),
        Read::Miss(found) => Ok(later(async move { Ok(answer(found.await?)) })),
    }
}

/// Whether moving the expiry of the entry at `name` to `at` was all that was to be done, and needed no write.
pub(super) fn touched(request: &Request<'_>, name: &[u8], at: UnixMs, of: Of<'_>) -> Result<bool, ErrorReply> {
    if request.behind || request.stage.is_some() {
        return Ok(false);
    }
    let key = request.keyspace.key(request.client.db, name)?;
    Ok(request.keyspace.touch(&key, &Touch { at, of }, request.moment()))
}

/// Submits a group of blind writes, at once. `answer` gets what was applied, or nothing if an expectation did not hold.
pub(super) fn write<F>(request: &Request<'_>, group: Group, answer: F) -> Flow
where
    F: FnOnce(Option<&[Applied]>) -> Reply + Send + 'static,
{
    let guard = request.keyspace.guard();
    if let Some(mut stage) = staged(request) {
        return Flow::Done(match write_staged(&mut stage, group, guard) {
            Ok(applied) => applied.map_or(LACKING, |applied| answer(applied.as_deref())),
            Err(error) => Reply::Error(error),
        });
    }
    if group.iter().any(|mutation| guard.covers(&mutation.key)) {
        return write_seeing(request, group, answer);
    }
    let committed = request.keyspace.write(group);
    later(async move {
        Ok(match committed.await? {
            Outcome::Applied(applied) => answer(Some(&applied)),
            Outcome::Conflict => answer(None),
        })
    })
}

/// As [`write()`], for keys that are guarded: what is there is looked at first.
fn write_seeing<F>(request: &Request<'_>, group: Group, answer: F) -> Flow
where
    F: FnOnce(Option<&[Applied]>) -> Reply + Send + 'static,
{
    let keys = group.iter().map(|mutation| mutation.key.clone()).collect();
    let written = request.keyspace.update(keys, move |entries, _| {
        let mut pairs = group.iter().zip(entries);
        if !pairs.all(|(mutation, entry)| mutation.expect.admits(entry.as_ref().map(|entry| entry.version))) {
            return Decision::Answer(None);
        }
        let applied: Vec<_> = entries.iter().map(|entry| Applied { version: 0, existed: entry.is_some() }).collect();
        let changes = group.iter().map(|mutation| mutation.change.clone()).enumerate().collect();
        if creates(&group) { Decision::Create(changes, Some(applied)) } else { Decision::Write(changes, Some(applied)) }
    });
    later(async move { Ok(answer(written.await?.as_deref())) })
}

/// Whether the group is of a command that only creates: the forms with `NX`.
fn creates(group: &Group) -> bool {
    group.iter().all(|mutation| mutation.expect == Expect::Absent)
}

/// Reads the key called `name`, decides on its live entry and the time, and writes what was decided as key 0.
pub(super) fn update_one<F>(request: &Request<'_>, name: &[u8], mut decide: F) -> Handled
where
    F: FnMut(Option<&Entry>, UnixMs) -> Result<Decision<Reply>, ErrorReply> + Send + 'static,
{
    let key = key(request, request.client.db, name)?;
    Ok(update(request, vec![key], move |entries, now| decide(entries[0].as_ref(), now)))
}

/// As [`update_one`], for several different keys.
pub(super) fn update<F>(request: &Request<'_>, keys: Vec<Key>, mut decide: F) -> Flow
where
    F: FnMut(&[Option<Entry>], UnixMs) -> Result<Decision<Reply>, ErrorReply> + Send + 'static,
{
    let decide = move |entries: &[Option<Entry>], now| {
        decide(entries, now).unwrap_or_else(|error| Decision::Answer(Reply::Error(error)))
    };
    if let Some(mut stage) = staged(request) {
        return Flow::Done(update_staged(&mut stage, &keys, decide));
    }
    let answered = request.keyspace.update(keys, decide);
    later(async move { Ok(answered.await?) })
}

/// The stage of the transaction that the request belongs to.
fn staged<'a>(request: &Request<'a>) -> Option<MutexGuard<'a, Stage>> {
    Some(request.stage?.lock().unwrap_or_else(PoisonError::into_inner))
}

/// What is answered when the stage lacks a key.
pub(super) const LACKING: Reply = Reply::Null;

fn read_staged(stage: &mut Stage, keys: &[KeyRef<'_>]) -> Option<Vec<Option<Entry>>> {
    // All of them are asked for, so that all that are missing are known at once.
    let entries: Vec<_> = keys.iter().map(|key| stage.read(key)).collect();
    entries.into_iter().collect()
}

/// What was applied, or nothing if an expectation did not hold; none if the stage lacks a key.
fn write_staged(stage: &mut Stage, group: Group, guard: &Guard) -> Result<Option<Option<Vec<Applied>>>, ErrorReply> {
    let mut lacks = false;
    let mut holds = true;
    let mut applied = Vec::with_capacity(group.len());
    for Mutation { key, expect, change } in &group {
        let is_blind = *expect == Expect::Any && matches!(change, Change::Put { .. }) && !guard.covers(key);
        let mut existed = false;
        if !is_blind {
            let Some(entry) = stage.read(&KeyRef::of(key)) else {
                lacks = true;
                continue;
            };
            existed = entry.is_some() && matches!(change, Change::Delete);
            holds &= expect.admits(entry.map(|entry| entry.version));
        }
        applied.push(Applied { version: 0, existed });
    }
    if lacks {
        return Ok(None);
    }
    if !holds {
        return Ok(Some(None));
    }
    if !creates(&group) && group.iter().any(|mutation| revives_staged(stage, &mutation.key, &mutation.change)) {
        return Err(ErrorReply::Guarded);
    }
    for Mutation { key, change, .. } in group {
        stage.apply(key, change);
    }
    Ok(Some(Some(applied)))
}

fn update_staged<F>(stage: &mut Stage, keys: &[Key], mut decide: F) -> Reply
where
    F: FnMut(&[Option<Entry>], UnixMs) -> Decision<Reply>,
{
    let refs: Vec<_> = keys.iter().map(KeyRef::of).collect();
    let Some(entries) = read_staged(stage, &refs) else { return LACKING };
    match decide(&entries, stage.now()) {
        Decision::Missed(_) if keys.iter().any(|key| stage.is_marked(key)) => Reply::Error(ErrorReply::Guarded),
        Decision::Answer(reply) | Decision::Missed(reply) => reply,
        Decision::Write(changes, _) if changes.iter().any(|(at, change)| revives_staged(stage, &keys[*at], change)) => {
            Reply::Error(ErrorReply::Guarded)
        }
        Decision::Write(changes, reply) | Decision::Create(changes, reply) => {
            for (index, change) in changes {
                stage.apply(keys[index].clone(), change);
            }
            reply
        }
    }
}

/// Whether the change would bring back a key that somebody else deleted a moment ago.
fn revives_staged(stage: &Stage, key: &Key, change: &Change) -> bool {
    revives(change) && stage.is_marked(key)
}

/// A reply that is waited for. Dropping it forgets the reply; what was submitted is done nevertheless.
pub(super) fn later<F>(answer: F) -> Flow
where
    F: Future<Output = Result<Reply, ErrorReply>> + Send + 'static,
{
    Flow::Wait(Box::pin(async move { answer.await.unwrap_or_else(Reply::Error) }))
}

/// The stored key called `name` in database `db`, copied.
pub(super) fn key(request: &Request<'_>, db: u8, name: &[u8]) -> Result<Key, ErrorReply> {
    Ok(request.keyspace.key(db, name)?.to_key())
}

/// The value in an argument, copied, if it is not too long to be stored.
pub(super) fn value(request: &Request<'_>, bytes: &[u8]) -> Result<Value, ErrorReply> {
    let limit = request.keyspace.max_value();
    if bytes.len() > limit { Err(ErrorReply::ValueTooLong { limit }) } else { Ok(Value::from(bytes)) }
}

/// The mutation that stores a string.
pub(super) fn put(key: Key, expect: Expect, value: Value, expires_at: Option<UnixMs>) -> Mutation {
    Mutation { key, expect, change: Change::Put { kind: Kind::String, value, expires_at } }
}

/// The decision to apply `change` to the only key of an update, and then to answer.
pub(super) fn apply(change: Change, reply: Reply) -> Decision<Reply> {
    Decision::Write(vec![(0, change)], reply)
}

/// The decision to store a string in place of `entry`, with its expiry, and then to answer.
pub(super) fn replace(entry: Option<&Entry>, value: impl Into<Value>, reply: Reply) -> Decision<Reply> {
    let expires_at = entry.and_then(|entry| entry.expires_at);
    apply(Change::Put { kind: Kind::String, value: value.into(), expires_at }, reply)
}

/// The value of an entry that must be a string.
pub(super) fn string_of(entry: &Entry) -> Result<&Value, ErrorReply> {
    if entry.kind == Kind::String { Ok(&entry.value) } else { Err(ErrorReply::WrongType) }
}

/// The string in an entry as a reply, null if there is none.
pub(super) fn string_reply(entry: Option<&Entry>) -> Result<Reply, ErrorReply> {
    entry.map_or(Ok(Reply::Null), |entry| Ok(Reply::Value(Value::clone(string_of(entry)?))))
}

/// The keys, each once with the last of its values, in no particular order.
pub(super) fn last_of_each<T>(mut pairs: Vec<(Key, T)>) -> Vec<(Key, T)> {
    // A stable sort leaves equal keys in their order; they are taken from the back, so that the last comes first.
    pairs.reverse();
    pairs.sort_by(|(a, _), (b, _)| (a.hash(), a.name()).cmp(&(b.hash(), b.name())));
    pairs.dedup_by(|(later, _), (kept, _)| later == kept);
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::KeyHasher;

    #[test]
    fn the_last_value_of_a_key_wins() {
        let hasher = KeyHasher::new(&[7; 16]);
        for (given, expected) in [
            (vec![], vec![]),
            (vec![("a", 1)], vec![("a", 1)]),
            (vec![("a", 1), ("a", 2)], vec![("a", 2)]),
            (vec![("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5)], vec![("a", 3), ("b", 5), ("c", 4)]),
        ] {
            let pairs = given.iter().map(|(name, value)| (Key::new(&hasher, 0, name.as_bytes().into()), *value));
            let mut found: Vec<_> =
                last_of_each(pairs.collect()).into_iter().map(|(key, value)| (key.name().to_vec(), value)).collect();
            found.sort();
            let expected: Vec<_> =
                expected.into_iter().map(|(name, value)| (name.as_bytes().to_vec(), value)).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_replaced_string_keeps_its_expiry() {
        let entry = Entry { kind: Kind::String, value: Value::from(&b"a"[..]), expires_at: Some(5), version: 1 };
        for (entry, expected) in [(Some(&entry), Some(5)), (None, None)] {
            let Decision::Write(changes, Reply::Int(1)) = replace(entry, &b"b"[..], Reply::Int(1)) else {
                panic!("it is a write");
            };
            let [(0, Change::Put { kind: Kind::String, value, expires_at })] = &changes[..] else {
                panic!("it puts one string: {changes:?}");
            };
            assert_eq!((&value[..], *expires_at), (&b"b"[..], expected));
        }
    }
}
