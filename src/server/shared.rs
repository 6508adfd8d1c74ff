//! What all connections share. It does nothing; who makes a connection, and who serves it, both know it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

use crate::command::server::ServerInfo;
use crate::keyspace::Keyspace;
use crate::limits::RequestLimits;
use crate::server::tally::Commands;
use crate::tasks::Tasks;

/// What all connections share.
pub struct Shared {
    /// The entries, as soon as the store has been reached.
    pub keyspace: SetOnce<Arc<Keyspace>>,
    /// What commands may know of the server, with the registry of clients.
    pub info: Arc<ServerInfo>,
    /// Counts of commands.
    pub commands: Commands,
    /// Panics since the start; each ended a connection.
    pub panics: Arc<AtomicU64>,
    /// Bounds on requests.
    pub request_limits: RequestLimits,
    /// Ends connections between requests.
    pub stop: CancellationToken,
    /// Where tasks are started.
    pub tasks: Tasks,
}
