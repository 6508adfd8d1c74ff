//! The signals that the daemon listens to, as values. What they mean is decided by `main`.

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What somebody asks by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: to stop. When it comes again: at once.
    Stop,
    /// SIGHUP: to read again what can be read again.
    Reload,
}

/// Receives signals. From its making on, none of them ends the process by itself.
#[derive(Debug)]
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hangup: Stream,
}

impl Signals {
    /// Starts to receive; on a runtime.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal. Cancelling loses none; those that come together may count as one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}
