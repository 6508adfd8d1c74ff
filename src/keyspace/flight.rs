//! A key on its way from the store, and those who wait for it.

use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::entry::{Entry, Key};
use crate::keyspace::error::KeyspaceError;

/// How a load ended.
pub type Landing = Result<Option<Entry>, KeyspaceError>;

/// Resolves when the flight lands. An error of the channel itself means that the loader is gone (shutdown).
pub type Ticket = oneshot::Receiver<Landing>;

/// One load of one key. It is *alive* while the cache holds it: killing it is taking it out of the cache's map.
#[derive(Debug)]
pub struct Flight {
    key: Key,
    waiting: Mutex<Vec<oneshot::Sender<Landing>>>,
}

impl Flight {
    /// A flight for `key`, nobody aboard.
    #[must_use]
    pub fn new(key: Key) -> Self {
        Self { key, waiting: Mutex::new(Vec::with_capacity(1)) }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Waits for the landing, with others. Dropping the ticket is leaving.
    pub fn join(&self) -> Ticket {
        let (sender, ticket) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        ticket
    }

    /// Answers everybody who joined.
    pub fn answer(&self, landing: &Landing) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for sender in waiting {
            // Whoever left does not need the answer.
            let _ = sender.send(landing.clone());
        }
    }
}
