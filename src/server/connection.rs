//! One client: read what has arrived, run all of it in order, write all replies with one flush.
//!
//! Commands whose replies must wait (for a commit, for a miss) do not hold up the ones behind them, unless those touch
//! the same keys; replies keep their order. So a pipeline of writes rides in one commit.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, BytesMut};
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::io::poll_read_buf;

use crate::command::dispatch::{self, Resolved};
use crate::command::request::{ClientState, Flow, ReplyMode, Request};
use crate::command::server::Registration;
use crate::command::spec::Spec;
use crate::command::table::CommandId;
use crate::keyspace::Keyspace;
use crate::keyspace::clock::Moment;
use crate::limits;
use crate::resp::args::Args;
use crate::resp::encode::encode;
use crate::resp::error::ErrorReply;
use crate::resp::parse::{Parsed, Parser};
use crate::resp::reply::Reply;
use crate::server::buffers::{self, CHUNK};
use crate::server::pending::{Pending, Touches};
use crate::server::shared::Shared;
use crate::server::tally::Tally;

/// The least room to read into: less is not worth a call of the kernel.
const LEAST_ROOM: usize = CHUNK / 4;

/// Replies that are written before the batch is done, so that a large pipeline does not pile them up.
const FLUSH_BYTES: usize = 256 * 1024;

/// Replies owed at once; then the connection waits for them.
const MAX_PENDING: usize = 1024;

/// See the file's header.
pub struct Connection<S> {
    stream: S,
    shared: Arc<Shared>,
    client: ClientState,
    registration: Registration,
    parser: Parser,
    input: BytesMut,
    output: Output,
    pending: Pending,
    /// The place in the table of the last command, for `CLIENT LIST`.
    last_command: usize,
}

/// Replies on their way out.
struct Output {
    bytes: BytesMut,
    tally: Tally,
}

/// How a batch of input ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Read,
    Close,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A connection that has not read anything yet.
    pub fn new(stream: S, client: ClientState, registration: Registration, shared: Arc<Shared>) -> Self {
        Self {
            stream,
            client,
            registration,
            parser: Parser::new(shared.request_limits),
            shared,
            input: BytesMut::new(),
            output: Output { bytes: BytesMut::new(), tally: Tally::default() },
            pending: Pending::default(),
            last_command: usize::MAX,
        }
    }

    /// Serves until the client leaves, breaks the protocol, or `ended` resolves (between batches: what was begun is
    /// answered first). I/O errors end it quietly, as they are the client's doing.
    pub async fn run(mut self, ended: impl Future<Output = ()>) {
        let mut ended = std::pin::pin!(ended);
        // Held here, so that no batch touches a counter that all connections share.
        let shared = Arc::clone(&self.shared);
        loop {
            tokio::select! {
                // Reading comes first, and the other is polled only when there is nothing to read.
                biased;
                read = poll_fn(|context| self.poll_read(context)) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                },
                () = &mut ended => {
                    let _ = self.stream.shutdown().await;
                    return;
                }
            }
            let begun = Instant::now();
            let next = match shared.keyspace.get() {
                Some(keyspace) => self.run_batch(keyspace, keyspace.moment_at(begun)).await,
                None => self.refuse_while_loading(),
            };
            let answered = self.answer_all().await;
            let commands = self.output.tally.book(&shared.commands, begun.elapsed());
            shared.info.counters.commands.fetch_add(commands, Relaxed);
            if answered.is_err() || next == Next::Close {
                let _ = self.stream.shutdown().await;
                return;
            }
        }
    }

    /// Reads what is there. While nothing is, and nothing is begun, no memory is held.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        if self.input.capacity() == 0 {
            self.input = buffers::take();
        }
        let wanted = self.parser.wanted(self.input.len()).max(LEAST_ROOM);
        self.input.reserve(wanted.min(limits::READ_AHEAD));
        let read = poll_read_buf(Pin::new(&mut self.stream), context, &mut self.input);
        if read.is_pending() && self.input.is_empty() {
            buffers::give_back(&mut self.input);
        }
        read
    }

    /// Runs every request that has arrived in full.
    async fn run_batch(&mut self, keyspace: &Arc<Keyspace>, mut now: Moment) -> Next {
        let mut at = 0;
        let next = loop {
            match self.parser.parse(&self.input[at..]) {
                Ok(Parsed::Incomplete) => break Next::Read,
                Ok(Parsed::Empty { consumed }) => at += consumed,
                Ok(Parsed::Request { consumed }) => {
                    if self.run_command(at, keyspace, &mut now).await == Next::Close {
                        break Next::Close;
                    }
                    at += consumed;
                    if self.output.bytes.len() >= FLUSH_BYTES || self.pending.len() >= MAX_PENDING {
                        if self.answer_all().await.is_err() {
                            break Next::Close;
                        }
                        now = keyspace.moment();
                    }
                }
                Err(fault) => {
                    self.give(None, ErrorReply::Protocol(fault).into());
                    break Next::Close;
                }
            }
        };
        self.consume(at);
        self.registration.seen(now.unix, self.last_command);
        next
    }

    /// Drops the first bytes of the input. When nothing is left, the next is read to the buffer's beginning again.
    fn consume(&mut self, bytes: usize) {
        if bytes == self.input.len() {
            self.input.clear();
        } else {
            self.input.advance(bytes);
        }
    }

    /// Answers what has arrived while the store has not been reached since the start: `PING`, so that the daemon can
    /// be seen to live, and that it is loading to all else.
    fn refuse_while_loading(&mut self) -> Next {
        loop {
            match self.parser.parse(&self.input) {
                Ok(Parsed::Incomplete) => return Next::Read,
                Ok(Parsed::Empty { consumed }) => self.consume(consumed),
                Ok(Parsed::Request { consumed }) => {
                    let args = self.parser.args(&self.input);
                    let is_ping = args.len() == 1 && args[0].eq_ignore_ascii_case(b"ping");
                    let reply = if is_ping { Reply::Simple("PONG".into()) } else { ErrorReply::Loading.into() };
                    self.give(None, reply);
                    self.consume(consumed);
                }
                Err(fault) => {
                    self.give(None, ErrorReply::Protocol(fault).into());
                    return Next::Close;
                }
            }
        }
    }

    /// Runs the request that the parser just found at `at` of the input.
    async fn run_command(&mut self, at: usize, keyspace: &Arc<Keyspace>, now: &mut Moment) -> Next {
        let args = self.parser.args(&self.input[at..]);
        let resolved = dispatch::resolve(args, self.client.authenticated);
        let spec = resolved.as_ref().ok().map(|resolved| resolved.spec);
        let db = self.client.db;
        let mut touched = None;
        let mut behind = false;
        if !self.pending.is_empty() {
            let touches = touched.insert(touches(spec, args, keyspace, db));
            if !self.pending.conflicts(touches) {
                behind = self.pending.holds(touches);
            } else if self.answer_all().await.is_err() {
                return Next::Close;
            } else {
                *now = keyspace.moment();
            }
        }
        let skip = self.client.replies == ReplyMode::SkipNext;
        if skip {
            self.client.replies = ReplyMode::On;
        }
        let args = self.parser.args(&self.input[at..]);
        let (id, flow) = match resolved {
            Ok(Resolved { id, spec }) => {
                let server = &self.shared.info;
                let Moment { unix: now, tick } = *now;
                let client = &mut self.client;
                let lookup = dispatch::for_script;
                let mut request = Request { args, now, tick, behind, client, keyspace, server, stage: None, lookup };
                self.last_command = id.index();
                (Some(id), dispatch::run(spec, &mut request))
            }
            // Not a Redis client: it is told nothing, as in Redis.
            Err(refused) if refused.close => return Next::Close,
            Err(refused) => (refused.id, dispatch::refuse(refused, &mut self.client)),
        };
        match flow {
            flow if skip || self.client.replies != ReplyMode::On => self.run_silently(id, flow).await,
            Flow::Done(reply) => {
                self.give(id, reply);
                Next::Read
            }
            Flow::Wait(reply) => {
                let touches =
                    touched.unwrap_or_else(|| touches(spec, self.parser.args(&self.input[at..]), keyspace, db));
                self.pending.owe(id, reply, touches);
                Next::Read
            }
            Flow::Close(reply) => {
                self.give(id, reply);
                Next::Close
            }
            Flow::Alone(run) => {
                let reply = self.run_alone(run).await;
                self.give(id, reply);
                Next::Read
            }
        }
    }

    /// Runs what has the connection for itself. All earlier replies have been given, since it touches everything.
    async fn run_alone(&mut self, run: BoxFuture<'static, (Reply, ClientState)>) -> Reply {
        debug_assert!(self.pending.is_empty(), "nothing runs beside it");
        let (reply, client) = run.await;
        self.client = client;
        reply
    }

    /// Runs a command whose reply the client does not want (`CLIENT REPLY`).
    async fn run_silently(&mut self, id: Option<CommandId>, flow: Flow) -> Next {
        let (reply, next) = match flow {
            Flow::Done(reply) => (reply, Next::Read),
            Flow::Wait(reply) => (reply.await, Next::Read),
            Flow::Close(reply) => (reply, Next::Close),
            Flow::Alone(run) => (self.run_alone(run).await, Next::Read),
        };
        self.output.tally.add(id, matches!(reply, Reply::Error(_)));
        next
    }

    /// Gives a reply that is there, when its turn comes.
    fn give(&mut self, id: Option<CommandId>, reply: Reply) {
        if self.pending.is_empty() {
            self.output.push(id, &reply, &self.client);
        } else {
            self.pending.queue(id, reply);
        }
    }

    /// Waits for all replies that are owed and writes everything out.
    ///
    /// Dropped in the middle, the client has part of the replies: the caller only does so with the connection.
    async fn answer_all(&mut self) -> std::io::Result<()> {
        while !self.pending.is_empty() {
            if let Some((id, reply)) = self.pending.next().await {
                self.output.push(id, &reply, &self.client);
                if self.output.bytes.len() >= FLUSH_BYTES {
                    self.write_out().await?;
                }
            }
        }
        self.pending.settle();
        self.write_out().await
    }

    async fn write_out(&mut self) -> std::io::Result<()> {
        if self.output.bytes.is_empty() {
            return Ok(());
        }
        self.stream.write_all(&self.output.bytes).await?;
        buffers::give_back(&mut self.output.bytes);
        Ok(())
    }
}

impl Output {
    fn push(&mut self, id: Option<CommandId>, reply: &Reply, client: &ClientState) {
        self.tally.add(id, matches!(reply, Reply::Error(_)));
        if self.bytes.capacity() == 0 {
            self.bytes = buffers::take();
        }
        encode(reply, client.protocol, &mut self.bytes);
    }
}

/// What a request touches, for the order of the connection's commands.
fn touches(spec: Option<&Spec>, args: Args<'_>, keyspace: &Keyspace, db: u8) -> Touches {
    let Some(spec) = spec else { return Touches::All };
    let (mut hashes, mut guarded) = (Vec::new(), false);
    for name in spec.keys_of(args) {
        // A key that is too long is refused by the handler and so touches nothing.
        if let Ok(key) = keyspace.key(db, name) {
            hashes.push(key.hash());
            // Writes of guarded keys look at them first.
            guarded |= keyspace.guard().covers_ref(&key);
        }
    }
    if hashes.is_empty() { Touches::All } else { Touches::Keys { hashes, blind: !guarded && spec.may_queue(args) } }
}
