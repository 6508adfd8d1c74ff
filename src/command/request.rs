//! What a handler is given and what it gives back.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::entry::UnixMs;
use crate::keyspace::Keyspace;
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
}

/// A handler's result: an early error is the reply, too.
pub type Handled = Result<Flow, ErrorReply>;

/// One command of one client.
pub struct Request<'a> {
    /// The arguments; number 0 is the command's name as sent.
    pub args: Args<'a>,
    /// Now, on the store's clock; the same for all commands of one batch of input.
    pub now: UnixMs,
    /// The state of the connection.
    pub client: &'a mut ClientState,
    /// The entries.
    pub keyspace: &'a Arc<Keyspace>,
    /// What the server knows of itself.
    pub server: &'a Arc<crate::command::server::ServerInfo>,
}

/// The state that commands read and change on their connection.
#[derive(Debug)]
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
