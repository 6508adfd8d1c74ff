//! A key on its way from the store, and those who wait for it.

use std::sync::{Mutex, MutexGuard, PoisonError};

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
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    waiting: Vec<oneshot::Sender<Landing>>,
    /// The store has been asked.
    departed: bool,
}

/// Whom a flight takes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boarding {
    /// Everybody: while the cache is current, whatever the store is about to answer is.
    UntilLanding,
    /// Those who come before the store is asked. What it answers later may be from before they came.
    UntilDeparture,
}

impl Flight {
    /// A flight for `key`, nobody aboard.
    #[must_use]
    pub fn new(key: Key) -> Self {
        Self { key, state: Mutex::new(State { waiting: Vec::with_capacity(1), departed: false }) }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Waits for the landing, with others; `None` if it is too late for that. Dropping the ticket is leaving.
    pub fn join(&self, boarding: Boarding) -> Option<Ticket> {
        let mut state = self.lock();
        if state.departed && boarding == Boarding::UntilDeparture {
            return None;
        }
        let (sender, ticket) = oneshot::channel();
        state.waiting.push(sender);
        Some(ticket)
    }

    /// To be called before the store is asked.
    pub fn depart(&self) {
        self.lock().departed = true;
    }

    /// Answers everybody who joined.
    pub fn answer(&self, landing: &Landing) {
        let waiting = std::mem::take(&mut self.lock().waiting);
        for sender in waiting {
            // Whoever left does not need the answer.
            let _ = sender.send(landing.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
