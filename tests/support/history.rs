//! What clients did to one key and what they were told, and what a key does: the specification that a history is judged by.
//! It knows no daemon; times are microseconds of one monotonic clock that all clients share.

use std::fmt;

/// Microseconds since the start of a test.
pub type Micros = u64;

/// An operation that never ends, as nobody knows when it does.
pub const NEVER: Micros = u64::MAX / 4;

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `GET`.
    Get,
    /// `SET`; a time to live in µs, or none.
    Set(i64, Option<Micros>),
    /// `SET … NX`.
    SetNx(i64, Option<Micros>),
    /// `SET … IFEQ`: the value that must be there, and the new one.
    Cas(i64, i64),
    /// `DEL`.
    Del,
    /// `GETDEL`.
    GetDel,
    /// `PEXPIRE`, with a time to live that ends within the test, or (none) one that is as good as for ever.
    Expire(Option<Micros>),
    /// `INCRBY`.
    IncrBy(i64),
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The value; none if the key does not exist.
    Value(Option<i64>),
    /// Whether it was done: `OK` or null, 1 or 0.
    Done(bool),
    /// Nothing, or that nobody knows: it takes effect at some time after the call, or never.
    Nothing,
}

/// One operation on one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// Which key.
    pub key: u32,
    /// The daemon that was asked.
    pub node: u8,
    /// Just before the request was sent.
    pub call: Micros,
    /// Just after the reply was read; [`NEVER`] if the outcome is unknown.
    pub ret: Micros,
    /// How much older than the call the state may be from which this was answered, if it changed nothing.
    pub stale: Micros,
    /// The request.
    pub action: Action,
    /// The reply.
    pub told: Told,
}

impl Op {
    /// Whether its reply says for certain that it changed the key, now and in the store.
    pub fn changed(&self) -> bool {
        match (self.action, self.told) {
            (_, Told::Nothing) | (Action::Get, _) => false,
            (Action::Set(..) | Action::Del | Action::IncrBy(_), _) => true,
            (Action::GetDel, told) => told != Told::Value(None),
            // A long expiry of a key that has one already may be answered from memory.
            (Action::Expire(ttl), told) => ttl.is_some() && told == Told::Done(true),
            (Action::SetNx(..) | Action::Cas(..), told) => told == Told::Done(true),
        }
    }

    /// Whether its reply says for certain that it would have left any state as it was.
    pub fn only_looked(&self) -> bool {
        match (self.action, self.told) {
            (Action::Get, _) => self.told != Told::Nothing,
            (Action::SetNx(..) | Action::Cas(..) | Action::Expire(_), told) => told == Told::Done(false),
            (Action::GetDel, told) => told == Told::Value(None),
            (Action::Set(..) | Action::Del | Action::IncrBy(_), _) => false,
        }
    }

    /// Whether its answer may come from a cache, and so be stale. `SET … NX`, `DEL` and everything that changed the key was
    /// decided by the store.
    pub fn reads(&self) -> bool {
        !self.changed() && !matches!(self.action, Action::SetNx(..)) && self.told != Told::Nothing
    }

    /// The earliest time of the state that it was answered from.
    pub fn start(&self) -> Micros {
        if self.reads() { self.call.saturating_sub(self.stale) } else { self.call }
    }
}

/// The state of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The value, unless the key was never written or was deleted.
    pub value: Option<i64>,
    /// When it expires, as far as is known: between these two times. None: not within the test.
    pub expiry: Option<(Micros, Micros)>,
}

impl State {
    /// No such key.
    pub const ABSENT: Self = Self { value: None, expiry: None };

    fn of(value: i64, expiry: Option<(Micros, Micros)>) -> Self {
        Self { value: Some(value), expiry }
    }
}

/// The states that may follow `state` if `op` takes effect in it: none if its reply is wrong there. Clocks of daemons may be
/// `vague` apart: for so long around its expiry a key may look alive to one and dead to another. Outside of this window expiry is exact,
/// also for an answer from a stale state: the expiry is part of what a cache knows.
pub fn step(state: State, op: &Op, vague: Micros) -> [Option<State>; 2] {
    let may_live = state.value.is_some() && state.expiry.is_none_or(|(_, last)| op.call <= last.saturating_add(vague));
    let may_lack =
        state.value.is_none() || state.expiry.is_some_and(|(first, _)| op.ret.saturating_add(vague) >= first);
    let until = |ttl: Option<Micros>| ttl.map(|ttl| (op.call + ttl, op.ret.saturating_add(ttl)));
    let live = state.value.filter(|_| may_live);
    let told_done = |done: bool| op.told == Told::Done(done) || (done && op.told == Told::Nothing);
    let told_value = |value: i64| op.told == Told::Value(Some(value)) || op.told == Told::Nothing;
    let when = |holds: bool, next: State| holds.then_some(next);
    match op.action {
        Action::Get => [
            when(live.is_some_and(|value| op.told == Told::Value(Some(value))), state),
            when(may_lack && op.told == Told::Value(None), state),
        ],
        Action::Set(value, ttl) => [Some(State::of(value, until(ttl))), None],
        Action::SetNx(value, ttl) => [
            when(may_lack && told_done(true), State::of(value, until(ttl))),
            when(live.is_some() && told_done(false), state),
        ],
        Action::Cas(old, new) => [
            when(live == Some(old) && told_done(true), State::of(new, None)),
            when((may_lack || live.is_some_and(|value| value != old)) && told_done(false), state),
        ],
        Action::Del => {
            let fits = (live.is_some() && told_done(true)) || (may_lack && told_done(false));
            [when(fits, State::ABSENT), None]
        }
        Action::GetDel => {
            [when(live.is_some_and(told_value), State::ABSENT), when(may_lack && op.told == Told::Value(None), state)]
        }
        Action::Expire(ttl) => [
            live.filter(|_| told_done(true)).map(|value| State::of(value, until(ttl))),
            when(may_lack && told_done(false), state),
        ],
        Action::IncrBy(by) => [
            live.filter(|value| told_value(value + by)).map(|value| State::of(value + by, state.expiry)),
            when(may_lack && told_value(by), State::of(by, None)),
        ],
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Micros| time as f64 / 1000.0;
        let ret = if self.ret == NEVER { "?".to_owned() } else { format!("{:.3}", ms(self.ret)) };
        write!(f, "{:>12.3} .. {ret:>12} ms  node {}  key {}  ", ms(self.call), self.node, self.key)?;
        match self.action {
            Action::Get => f.write_str("GET")?,
            Action::Set(value, ttl) => write!(f, "SET {value}{}", shown(ttl))?,
            Action::SetNx(value, ttl) => write!(f, "SET {value} NX{}", shown(ttl))?,
            Action::Cas(old, new) => write!(f, "SET {new} IFEQ {old}")?,
            Action::Del => f.write_str("DEL")?,
            Action::GetDel => f.write_str("GETDEL")?,
            Action::Expire(ttl) => write!(f, "EXPIRE{}", shown(ttl))?,
            Action::IncrBy(by) => write!(f, "INCRBY {by}")?,
        }
        match self.told {
            Told::Value(Some(value)) => write!(f, " → {value}"),
            Told::Value(None) => f.write_str(" → nil"),
            Told::Done(done) => write!(f, " → {}", if done { "done" } else { "not done" }),
            Told::Nothing => f.write_str(" → unknown"),
        }
    }
}

fn shown(ttl: Option<Micros>) -> String {
    ttl.map_or(String::new(), |ttl| format!(" PX {}", ttl / 1000))
}
