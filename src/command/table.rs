//! The one table of what exists: name, arity, flags, keys, handler. Arity checks, `COMMAND`, metric labels and the
//! README's list derive from it.

use crate::command::request::{Handled, Request};

/// A command's handler.
pub type Handler = fn(&mut Request<'_>) -> Handled;

/// One row of the table.
pub struct Spec {
    /// The name in lower case.
    pub name: &'static str,
    /// As Redis counts: the name included; negative means at least that many.
    pub arity: i32,
    /// What kind of command it is.
    pub flags: &'static [Flag],
    /// Which arguments are keys.
    pub keys: KeySpec,
    /// Which section of the documentation it belongs to (Redis's group names).
    pub group: &'static str,
    /// Since which Redis version it exists.
    pub since: &'static str,
    /// One sentence, shown by `COMMAND DOCS`.
    pub summary: &'static str,
    /// Whether it may start while earlier writes of its own connection to the same keys are not committed yet.
    /// True only for writes that read nothing first: the committer keeps their order per key.
    pub queues: Queues,
    /// Its code.
    pub handler: Handler,
}

/// See [`Spec::queues`].
#[derive(Clone, Copy)]
pub enum Queues {
    /// It reads its keys: it waits for the connection's own writes of them.
    Never,
    /// It is a blind write in every form.
    Always,
    /// It depends on the arguments.
    If(fn(crate::command::args::Args<'_>) -> bool),
}

/// Which arguments of a command are keys, as `COMMAND` prints them: first, last (negative counts from the end), step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// Position of the first key; 0 means none.
    pub first: i32,
    /// Position of the last key.
    pub last: i32,
    /// Distance from key to key.
    pub step: i32,
}

/// Redis's command flags, of those that apply here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// May change data.
    Write,
    /// Only reads data.
    ReadOnly,
    /// May use more memory.
    DenyOom,
    /// An administrator's command.
    Admin,
    /// Not allowed in scripts.
    NoScript,
    /// Constant or logarithmic time.
    Fast,
    /// Allowed while the store has not been reached yet.
    Loading,
    /// Allowed on stale replicas.
    Stale,
    /// Allowed before `AUTH`.
    NoAuth,
    /// Not logged by `MONITOR` and the like.
    SkipMonitor,
    /// Does not keep to the memory of the `CLIENT NO-EVICT` rules (Redis's `allow-busy`).
    AllowBusy,
}
