//! What a script may take, and the clock that stops it. Knows no script.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mlua::Lua;

/// What a script may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From its start to its end.
    pub time: Duration,
    /// The memory of its machine, in bytes.
    pub memory: usize,
}

/// The clock of the running script, looked at by the machine.
pub(super) struct Watch {
    origin: Instant,
    /// Nanoseconds after the origin.
    deadline: AtomicU64,
    is_over: AtomicBool,
    looks: AtomicU32,
}

/// The clock is read at every so many steps of a script.
const STEPS: u32 = 64;

impl Watch {
    /// No script runs.
    pub(super) fn new() -> Self {
        Self {
            origin: Instant::now(),
            deadline: AtomicU64::new(u64::MAX),
            is_over: AtomicBool::new(false),
            looks: AtomicU32::new(0),
        }
    }

    /// A script starts.
    pub(super) fn start(&self, time: Duration) {
        let deadline = (self.origin.elapsed() + time).as_nanos();
        self.deadline.store(u64::try_from(deadline).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.is_over.store(false, Ordering::Relaxed);
    }

    /// Whether the script was stopped.
    pub(super) fn has_stopped(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Whether the script must stop. Once it is so it stays so, whatever the script catches.
    pub(super) fn is_over(&self) -> bool {
        if self.is_over.load(Ordering::Relaxed) {
            return true;
        }
        if !self.looks.fetch_add(1, Ordering::Relaxed).is_multiple_of(STEPS) {
            return false;
        }
        let is_over = self.origin.elapsed().as_nanos() > u128::from(self.deadline.load(Ordering::Relaxed));
        self.is_over.store(is_over, Ordering::Relaxed);
        is_over
    }
}

/// Whether the script must stop; for work that the machine itself does not interrupt.
pub(super) fn is_over(lua: &Lua) -> bool {
    lua.app_data_ref::<Arc<Watch>>().is_some_and(|watch| watch.is_over())
}
