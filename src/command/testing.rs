//! A client for tests of commands that need no store: it parses, dispatches and encodes as a connection does.

use std::sync::Arc;

use bytes::BytesMut;
use tokio_util::sync::CancellationToken;

use crate::command::dispatch::{dispatch, for_script};
use crate::command::request::{ClientState, Flow, ReplyMode, Request, Transaction};
use crate::command::server::{Registration, ServerInfo};
use crate::keyspace::{Keyspace, testing};
use crate::limits::REQUEST;
use crate::resp::encode::encode;
use crate::resp::parse::{Parsed, Parser};
use crate::resp::reply::Protocol;

/// A connected client.
pub(crate) struct TestClient {
    pub(crate) state: ClientState,
    pub(crate) closing: CancellationToken,
    server: Arc<ServerInfo>,
    keyspace: Arc<Keyspace>,
    registration: Registration,
}

impl TestClient {
    /// Connects at 10 seconds past the epoch.
    pub(crate) fn connect(server: &Arc<ServerInfo>) -> Self {
        let closing = CancellationToken::new();
        let (addr, laddr) = ("127.0.0.1:5000".to_owned(), "127.0.0.1:7000".to_owned());
        let registration = server.register(addr.clone(), laddr.clone(), 10_000, closing.clone());
        let state = ClientState {
            id: registration.id(),
            addr,
            laddr,
            protocol: Protocol::Resp2,
            db: 0,
            authenticated: !server.needs_auth(),
            name: String::new(),
            lib_name: String::new(),
            lib_ver: String::new(),
            replies: ReplyMode::On,
            no_evict: false,
            connected_at: 10_000,
            transaction: Transaction::default(),
        };
        Self { state, closing, server: Arc::clone(server), keyspace: keyspace(), registration }
    }

    /// Sends one line as one types it, at 15 seconds past the epoch; gives the reply's bytes, and `<EOF>` if the
    /// connection is to be closed.
    pub(crate) fn send(&mut self, line: &str) -> String {
        let line = format!("{line}\n");
        let mut parser = Parser::new(REQUEST);
        assert!(matches!(parser.parse(line.as_bytes()), Ok(Parsed::Request { .. })), "a request: {line}");
        let request = Request {
            args: parser.args(line.as_bytes()),
            now: 15_000,
            tick: 15_000_000,
            behind: false,
            client: &mut self.state,
            keyspace: &self.keyspace,
            server: &self.server,
            stage: None,
            lookup: for_script,
        };
        let (id, flow) = dispatch(request);
        if let Some(id) = id {
            self.registration.seen(15_000, id.index());
        }
        let (reply, end) = match flow {
            Flow::Done(reply) => (reply, ""),
            Flow::Close(reply) => (reply, "<EOF>"),
            Flow::Wait(_) | Flow::Alone(_) => panic!("no store to wait for: {line}"),
        };
        let mut out = BytesMut::new();
        encode(&reply, self.state.protocol, &mut out);
        String::from_utf8_lossy(&out).into_owned() + end
    }

    /// Sends lines in order and compares each reply.
    pub(crate) fn check(&mut self, exchange: &[(&str, &str)]) {
        for (line, reply) in exchange {
            assert_eq!(self.send(line), *reply, "reply to {line}");
        }
    }
}

/// A keyspace over an embedded store of its own; nothing runs behind it, so what needs the store never resolves.
fn keyspace() -> Arc<Keyspace> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let (keyspace, _, _) = runtime.block_on(testing::keyspace(&CancellationToken::new()));
    keyspace
}
