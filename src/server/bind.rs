//! Binding listeners, before anything else of the program runs: a port in use is told with the option to change.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::config::Listen;

/// Connections that the kernel keeps for us until we accept them (Redis: `tcp-backlog 511`).
const BACKLOG: i32 = 511;

/// A listener for Redis clients.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket, whose file is removed when the listener is dropped.
    Unix(UnixListener, SocketFile),
}

/// A socket file that is ours to remove.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // If somebody removed it first, there is nothing left to do.
        let _ = fs::remove_file(&self.path);
    }
}

/// A listener that could not be bound.
#[derive(Debug)]
pub struct BindError {
    option: &'static str,
    address: String,
    source: io::Error,
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { option, address, source } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "{address} is already in use by another process; choose another with {option}")
            }
            _ => write!(f, "cannot listen on {address} (set by {option})"),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Listener {
    /// Binds one listener for Redis clients. Must be called inside of a runtime.
    pub fn bind(listen: &Listen) -> Result<Self, BindError> {
        let (address, bound) = match listen {
            Listen::Tcp(address) => (address.to_string(), tcp(*address).map(Self::Tcp)),
            Listen::Unix(path) => (format!("unix:{}", path.display()), unix(path)),
        };
        bound.map_err(|source| BindError { option: "--listen", address, source })
    }

    /// The address as it is bound, for the log.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(|_| "?".to_owned(), |addr| addr.to_string()),
            Self::Unix(_, file) => format!("unix:{}", file.path.display()),
        }
    }

    /// What is really listened on: with the port that the kernel chose for port 0.
    #[must_use]
    pub fn listening(&self) -> Option<Listen> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(Listen::Tcp),
            Self::Unix(_, file) => Some(Listen::Unix(file.path.clone())),
        }
    }
}

/// Binds the side port. Must be called inside of a runtime.
pub fn metrics(address: SocketAddr) -> Result<TcpListener, BindError> {
    tcp(address).map_err(|source| BindError { option: "--metrics-listen", address: address.to_string(), source })
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn unix(path: &Path) -> io::Result<Listener> {
    remove_stale(path)?;
    let listener = UnixListener::bind(path)?;
    Ok(Listener::Unix(listener, SocketFile { path: path.to_owned() }))
}

/// Removes a socket file that nobody listens on any more, as a killed daemon leaves it.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket && StdUnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
        fs::remove_file(path)?;
    }
    Ok(())
}
