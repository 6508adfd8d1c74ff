//! Accepting clients: how many, from where, and with which socket options.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::command::request::{ClientState, ReplyMode, Transaction};
use crate::resp::error::ErrorReply;
use crate::resp::reply::Protocol;
use crate::server::bind::Listener;
use crate::server::connection::Connection;
use crate::server::shared::Shared;

/// The pause after an accept failed, as it does when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Idle time after which the kernel probes a peer, so that connections of vanished hosts end (Redis: `tcp-keepalive`).
const KEEPALIVE: Duration = Duration::from_secs(300);

/// How long a new connection waits for a store that has not been reached yet, before it is told so.
const OPEN_PATIENCE: Duration = Duration::from_secs(1);

/// The two ends of a connection, as commands print them, and whether the peer is this host.
struct Ends {
    addr: String,
    laddr: String,
    local: bool,
}

/// Accepts until the stop.
pub async fn run(listener: Listener, shared: Arc<Shared>) {
    loop {
        let accepted = tokio::select! {
            accepted = accept_one(&listener, &shared) => accepted,
            () = shared.stop.cancelled() => return,
        };
        if let Err(error) = accepted {
            tracing::warn!(%error, "accept failed");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }
}

async fn accept_one(listener: &Listener, shared: &Arc<Shared>) -> std::io::Result<()> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            let ends = Ends {
                addr: peer.to_string(),
                laddr: stream.local_addr().map(|addr| addr.to_string()).unwrap_or_default(),
                local: is_loopback(peer.ip()),
            };
            // A peer that is gone already shows at the first read.
            let _ = set_options(&stream);
            start(stream, ends, shared);
        }
        Listener::Unix(listener, _) => {
            let (stream, _) = listener.accept().await?;
            let path = listener.local_addr()?.as_pathname().map(|path| path.display().to_string()).unwrap_or_default();
            let ends = Ends { addr: format!("{path}:0"), laddr: format!("{path}:0"), local: true };
            start(stream, ends, shared);
        }
    }
    Ok(())
}

/// An IPv4 loopback address may arrive mapped into IPv6.
fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn set_options(stream: &TcpStream) -> std::io::Result<()> {
    // Replies are written in whole batches already: waiting to fill a segment would only delay them.
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3).with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

fn start<S>(stream: S, ends: Ends, shared: &Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let refusal = if !ends.local && !shared.info.needs_auth() {
        Some(ErrorReply::ProtectedMode)
    } else if shared.info.clients.count() >= shared.info.settings.max_clients as usize {
        Some(ErrorReply::MaxClients)
    } else {
        None
    };
    if let Some(refusal) = refusal {
        shared.info.counters.rejected.fetch_add(1, Relaxed);
        shared.tasks.spawn(refuse(stream, refusal));
        return;
    }
    shared.info.counters.connections.fetch_add(1, Relaxed);
    let now = shared.keyspace.get().map_or(0, |keyspace| keyspace.now());
    let closing = shared.stop.child_token();
    let registration = shared.info.register(ends.addr.clone(), ends.laddr.clone(), now, closing.clone());
    let client = ClientState {
        id: registration.id(),
        addr: ends.addr,
        laddr: ends.laddr,
        protocol: Protocol::default(),
        db: 0,
        authenticated: !shared.info.needs_auth(),
        name: String::new(),
        lib_name: String::new(),
        lib_ver: String::new(),
        replies: ReplyMode::default(),
        no_evict: false,
        connected_at: now,
        transaction: Transaction::default(),
    };
    let connection = Connection::new(stream, client, registration, Arc::clone(shared));
    let shared = Arc::clone(shared);
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        // Right after the start the store is a moment away; a client that came so early can wait that long.
        let _ = timeout(OPEN_PATIENCE, shared.keyspace.wait()).await;
        connection.run(closing.cancelled()).await;
    });
}

/// Says why, and closes.
async fn refuse<S: AsyncWrite + Unpin>(mut stream: S, refusal: ErrorReply) {
    let text = format!("-{refusal}\r\n");
    // The peer may be gone, or not listen: it has been told as well as can be.
    let _ = timeout(Duration::from_secs(1), async {
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
}
