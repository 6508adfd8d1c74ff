//! The threads that scripts run on: few, so that scripts cannot take the machine from the connections; started when the
//! first script comes; fed by a bounded queue.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{Builder, available_parallelism};

use crate::script::machine::Machine;
use crate::script::watch::Limits;

/// Scripts that wait for a thread; more are refused.
const MAX_WAITING: usize = 1024;

/// Threads at most.
const MAX_THREADS: usize = 8;

/// A thread's stack: nested data is walked by recursion, which is bounded.
const STACK: usize = 8 * 1024 * 1024;

/// Something to do with a machine.
type Job = Box<dyn FnOnce(&mut Machine) + Send>;

/// See the file's header. Dropping it ends the threads, after the scripts that wait.
pub struct Pool {
    limits: Limits,
    queue: OnceLock<Option<SyncSender<Job>>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool without threads yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, queue: OnceLock::new() }
    }

    /// Queues `job`. False if too many wait, or no thread could be started.
    pub fn submit(&self, job: impl FnOnce(&mut Machine) + Send + 'static) -> bool {
        let queue = self.queue.get_or_init(|| start(self.limits));
        queue.as_ref().is_some_and(|queue| queue.try_send(Box::new(job)).is_ok())
    }
}

fn start(limits: Limits) -> Option<SyncSender<Job>> {
    // Half of the processors, so that the connections keep theirs.
    let count = available_parallelism().map_or(1, |count| count.get() / 2).clamp(1, MAX_THREADS);
    let (sender, receiver) = sync_channel(MAX_WAITING);
    let receiver = Arc::new(Mutex::new(receiver));
    let mut started = 0;
    for _ in 0..count {
        let receiver = Arc::clone(&receiver);
        let thread = Builder::new().name("script".into()).stack_size(STACK);
        match thread.spawn(move || work(&receiver, limits)) {
            Ok(_) => started += 1,
            Err(error) => tracing::error!(%error, "a thread for scripts cannot be started"),
        }
    }
    (started > 0).then_some(sender)
}

fn work(jobs: &Mutex<Receiver<Job>>, limits: Limits) {
    let mut machine = None;
    loop {
        // The lock is held while it waits: the others wait for the lock instead.
        let Ok(job) = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv() else { return };
        let ready = machine.take().map_or_else(|| Machine::new(limits), Ok);
        let mut ready = match ready {
            Ok(ready) => ready,
            Err(error) => {
                // The job is dropped, and whoever waits for it is told so.
                tracing::error!(%error, "a machine for scripts cannot be made");
                continue;
            }
        };
        // A panic is a fault of ours; the hook has logged it. The machine may be in the middle of something.
        let survived = catch_unwind(AssertUnwindSafe(|| job(&mut ready))).is_ok();
        if survived && ready.is_reusable() {
            machine = Some(ready);
        }
    }
}
