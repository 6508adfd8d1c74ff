//! The server that the clients are pointed at: Cloakroom, or Redis to see that a client is used as it should be.

use crate::support::client::Client;
use crate::support::daemon::{Daemon, StoreKind};
use crate::support::redis::RedisServer;

/// A running server, empty at first.
pub enum Server {
    /// The one under test.
    Cloakroom(Daemon),
    /// The one to compare with.
    Redis(RedisServer),
}

impl Server {
    /// Starts Cloakroom, or Redis where there is no store. With a password, both ask for it.
    pub fn start(store: Option<StoreKind<'_>>, password: Option<&str>) -> Self {
        match (store, password) {
            (Some(store), None) => Self::Cloakroom(Daemon::start(store, &[])),
            (Some(store), Some(password)) => Self::Cloakroom(Daemon::start(store, &[("password", password)])),
            (None, None) => Self::Redis(RedisServer::start()),
            (None, Some(password)) => Self::Redis(RedisServer::start_with(&["--requirepass", password])),
        }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        match self {
            Self::Cloakroom(daemon) => daemon.port(),
            Self::Redis(redis) => redis.port(),
        }
    }

    /// A connection of our own.
    pub fn client(&self) -> Client {
        Client::connect(self.port())
    }

    /// Stops and starts it on the same port; false if what it holds would be lost.
    pub fn restart(&mut self) -> bool {
        match self {
            Self::Cloakroom(daemon) => daemon.restart(),
            Self::Redis(_) => return false,
        }
        true
    }
}
