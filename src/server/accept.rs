//! Accepting clients: how many, from where, and with which socket options.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::command::server::ServerInfo;
use crate::keyspace::Keyspace;
use crate::limits::RequestLimits;
use crate::resp::error::ErrorReply;
use crate::server::bind::Listener;
use crate::server::connection::Connection;
use crate::server::tally::Commands;
use crate::tasks::Tasks;

/// The pause after an accept failed, as it does when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Idle time after which the kernel probes a peer, so that connections of vanished hosts end (Redis: `tcp-keepalive`).
const KEEPALIVE: Duration = Duration::from_secs(300);

/// What all connections share.
pub struct Shared {
    /// The entries, as soon as the store has been reached.
    pub keyspace: OnceLock<Arc<Keyspace>>,
    /// What commands may know of the server, with the registry of clients.
    pub info: Arc<ServerInfo>,
    /// Counts of commands.
    pub commands: Commands,
    /// Bounds on requests.
    pub request_limits: RequestLimits,
    /// Ends connections between requests.
    pub stop: CancellationToken,
    /// Where tasks are started.
    pub tasks: Tasks,
}

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
    let refusal = if !ends.local && shared.info.is_protected() {
        Some(ErrorReply::ProtectedMode)
    } else if shared.info.connected() >= shared.info.max_clients() {
        Some(ErrorReply::MaxClients)
    } else {
        None
    };
    if let Some(refusal) = refusal {
        shared.info.count_refused();
        shared.tasks.spawn(refuse(stream, refusal));
        return;
    }
    let shared = Arc::clone(shared);
    let now = shared.keyspace.get().map_or(0, |keyspace| keyspace.now());
    let (client, registration) = shared.info.admit(ends.addr, ends.laddr, now);
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        let stop = shared.stop.clone();
        let ended = async {
            tokio::select! {
                () = registration.killed() => {}
                () = stop.cancelled() => {}
            }
        };
        Connection::new(stream, client, shared).run(ended).await;
    });
}

/// Says why, and closes.
async fn refuse<S: AsyncWrite + Unpin>(mut stream: S, refusal: ErrorReply) {
    let text = format!("-{refusal}\r\n");
    // The peer may be gone, or not listen: it has been told as well as can be.
    let _ = tokio::time::timeout(Duration::from_secs(1), async {
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
}
