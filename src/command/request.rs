//! What a handler is given and what it gives back.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock};

use futures_util::future::BoxFuture;

use crate::entry::{Key, UnixMs, Version};
use crate::keyspace::Keyspace;
use crate::keyspace::clock::{Moment, Tick};
use crate::keyspace::stage::Stage;
use crate::limits::{MAX_QUEUED, MAX_QUEUED_BYTES};
use crate::resp::args::Args;
use crate::resp::error::ErrorReply;
use crate::resp::reply::{Protocol, Reply};

/// What a handler answers.
pub enum Flow {
    /// The reply, at once.
    Done(Reply),
    /// The reply, later. What the future waits for was begun before the handler returned, so a connection may
    /// hold several of these at once; dropping one forgets the reply, not the write.
    Wait(BoxFuture<'static, Reply>),
    /// The reply, after which the connection is closed (`QUIT`).
    Close(Reply),
    /// The reply and the connection's new state, later; nothing else of the connection runs meanwhile (`EXEC`).
    Alone(BoxFuture<'static, (Reply, ClientState)>),
}

/// A handler's result: an early error is the reply, too.
pub type Handled = Result<Flow, ErrorReply>;

/// A command's handler.
pub type Handler = fn(&mut Request<'_>) -> Handled;

/// Finds what a script calls.
pub type Lookup = fn(Args<'_>) -> Result<Step, ErrorReply>;

/// One command of one client.
pub struct Request<'a> {
    /// The arguments; number 0 is the command's name as sent.
    pub args: Args<'a>,
    /// Now, on the store's clock; the same for all commands of one batch of input.
    pub now: UnixMs,
    /// The same on this machine's monotonic clock: the cache answers if it is proven current until later.
    pub tick: Tick,
    /// Earlier writes of this connection to some of the request's keys are not committed yet: what is cached is from
    /// before them. Only commands that queue ([`crate::command::spec::Spec::queues`]) ever meet this.
    pub behind: bool,
    /// The state of the connection.
    pub client: &'a mut ClientState,
    /// The entries.
    pub keyspace: &'a Arc<Keyspace>,
    /// What the server knows of itself.
    pub server: &'a Arc<crate::command::server::ServerInfo>,
    /// Where the entries of the transaction are that the command belongs to, if it belongs to one.
    pub stage: Option<&'a Arc<Mutex<Stage>>>,
    /// Finds the commands that a script calls.
    pub lookup: Lookup,
}

impl Request<'_> {
    /// Now, on both clocks.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment { unix: self.now, tick: self.tick }
    }
}

/// The state that commands read and change on their connection.
#[derive(Clone, Debug)]
pub struct ClientState {
    /// The connection's number, unique in this process.
    pub id: u64,
    /// The peer, as `CLIENT LIST` prints it.
    pub addr: String,
    /// The local end, as `CLIENT LIST` prints it.
    pub laddr: String,
    /// The protocol version.
    pub protocol: Protocol,
    /// The selected database.
    pub db: u8,
    /// Whether commands may run: no password is configured, or it was given.
    pub authenticated: bool,
    /// `CLIENT SETNAME`.
    pub name: String,
    /// `CLIENT SETINFO LIB-NAME`.
    pub lib_name: String,
    /// `CLIENT SETINFO LIB-VER`.
    pub lib_ver: String,
    /// `CLIENT REPLY OFF|SKIP`.
    pub replies: ReplyMode,
    /// `CLIENT NO-EVICT ON`, shown in `CLIENT LIST`.
    pub no_evict: bool,
    /// When the connection was made, on the store's clock.
    pub connected_at: UnixMs,
    /// `MULTI` and `WATCH`.
    pub transaction: Transaction,
}

/// Which replies a client wants (`CLIENT REPLY`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyMode {
    /// All.
    #[default]
    On,
    /// None.
    Off,
    /// Not that of the next command.
    SkipNext,
}

/// The transaction that a connection is in, or prepares by watching keys.
#[derive(Clone, Default)]
pub struct Transaction {
    /// What was queued since `MULTI`; none outside of one.
    pub queue: Option<Queue>,
    /// What is watched.
    pub watched: Vec<Watch>,
}

/// A watched key with the version that it had (none: it was absent), once that has been read.
#[derive(Clone)]
pub struct Watch {
    /// The key.
    pub key: Key,
    /// Its version, when it is known.
    pub version: Arc<OnceLock<Option<Version>>>,
}

/// Commands with their arguments, copied, in order.
#[derive(Clone, Default)]
pub struct Queue {
    /// Whether a command was refused, so that none may run.
    pub is_broken: bool,
    /// Each with the part of `ranges` that are its arguments.
    steps: Vec<(Step, Range<usize>)>,
    /// All arguments, one behind the other.
    bytes: Vec<u8>,
    /// Where each argument is.
    ranges: Vec<Range<usize>>,
}

/// What a transaction must know of one of its commands.
#[derive(Clone, Copy)]
pub struct Step {
    /// Its code.
    pub handler: Handler,
    /// What it is about.
    pub about: About,
    /// Whether it may change entries.
    pub writes: bool,
    /// Whether scripts may call it.
    pub is_for_scripts: bool,
}

/// What a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The entries that its arguments name.
    Entries,
    /// The names of all keys, as a list.
    Listing,
    /// All keys in some other way.
    AllKeys,
    /// The selected database.
    Database,
    /// Something that is no entry: the connection, the server.
    Other,
}

/// A queued request is a client's data: `Debug` shows numbers only.
impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queued = self.queue.as_ref().map(|queue| queue.steps.len());
        f.debug_struct("Transaction").field("queued", &queued).field("watched", &self.watched.len()).finish()
    }
}

impl Transaction {
    /// Whether commands are queued now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.queue.is_some()
    }

    /// A command was refused before it could be queued.
    pub fn fail(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.is_broken = true;
        }
    }
}

impl Queue {
    /// Appends a command with its arguments, if there is room.
    pub fn push(&mut self, step: Step, args: Args<'_>) -> Result<(), ErrorReply> {
        let size = args.iter_from(0).map(|arg| arg.len() + size_of::<Range<usize>>()).sum::<usize>();
        let taken = self.bytes.len() + self.ranges.len() * size_of::<Range<usize>>();
        if self.steps.len() >= MAX_QUEUED || taken + size > MAX_QUEUED_BYTES {
            return Err(ErrorReply::Other("ERR the transaction is too large"));
        }
        let first = self.ranges.len();
        for arg in args.iter_from(0) {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(arg);
            self.ranges.push(start..self.bytes.len());
        }
        self.steps.push((step, first..self.ranges.len()));
        Ok(())
    }

    /// The commands in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Step, Args<'_>)> {
        self.steps.iter().map(|(step, args)| (*step, Args::new(&self.bytes, &self.ranges[args.clone()])))
    }
}
