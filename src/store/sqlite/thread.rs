//! Threads that own connections and run closures on them, fed by a bounded queue. Knows nothing of what they do.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use tokio::sync::{mpsc, oneshot};

use crate::store::error::{StoreError, StoreErrorKind};

/// Requests that wait for a thread; more wait before the queue.
const QUEUE: usize = 256;

/// Something to do with a connection.
type Job<C> = Box<dyn FnOnce(&mut C) + Send>;

/// Threads with a connection each that take jobs from one queue.
pub(super) struct Worker<C> {
    /// `None` once closed.
    queue: Mutex<Option<mpsc::Sender<Job<C>>>>,
    threads: Mutex<Vec<(JoinHandle<()>, oneshot::Receiver<()>)>>,
    count: u32,
    busy: Arc<AtomicU32>,
}

impl<C: Send + 'static> Worker<C> {
    /// Starts a thread for each connection.
    pub(super) fn start(name: &str, connections: Vec<C>) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel::<Job<C>>(QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        let busy = Arc::new(AtomicU32::new(0));
        let mut threads = Vec::new();
        let count = connections.len() as u32;
        for mut connection in connections {
            let (jobs, busy) = (Arc::clone(&jobs), Arc::clone(&busy));
            let (done, ended) = oneshot::channel();
            let thread = Builder::new().name(name.to_owned()).spawn(move || {
                while let Some(job) = next(&jobs) {
                    busy.fetch_add(1, Ordering::Relaxed);
                    job(&mut connection);
                    busy.fetch_sub(1, Ordering::Relaxed);
                }
                drop(connection);
                // Nobody waits for a store that was dropped without being closed.
                let _ = done.send(());
            })?;
            threads.push((thread, ended));
        }
        Ok(Self { queue: Mutex::new(Some(queue)), threads: Mutex::new(threads), count, busy })
    }

    /// Runs `job` on one of the threads. If the future is dropped, a job that was queued still runs.
    pub(super) fn run<T, F>(&self, job: F) -> impl Future<Output = Result<T, StoreError>> + Send + use<C, T, F>
    where
        T: Send + 'static,
        F: FnOnce(&mut C) -> Result<T, StoreError> + Send + 'static,
    {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        async move {
            let queue = queue.ok_or_else(|| StoreError::new(StoreErrorKind::Unavailable, "the store was closed"))?;
            let (reply, result) = oneshot::channel();
            let job: Job<C> = Box::new(move |connection| {
                // The caller may be gone.
                let _ = reply.send(job(connection));
            });
            if queue.send(job).await.is_err() {
                return Err(StoreError::new(StoreErrorKind::Unavailable, "the store's thread has ended"));
            }
            // Only a panic drops the reply; what it had done by then is not known.
            result.await.unwrap_or_else(|_| Err(StoreError::bare(StoreErrorKind::UnknownOutcome)))
        }
    }

    /// How many threads there are.
    pub(super) fn threads(&self) -> u32 {
        self.count
    }

    /// How many of them are at work.
    pub(super) fn busy(&self) -> u32 {
        self.busy.load(Ordering::Relaxed)
    }

    /// Takes no more jobs, and waits until those that were queued are done and the connections are closed.
    pub(super) async fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for (thread, ended) in threads {
            // An error means that it panicked, which was reported when it did. Either way it takes no time to join.
            let _ = ended.await;
            let _ = thread.join();
        }
    }
}

/// The next job; `None` when the queue was closed and is empty.
fn next<C>(jobs: &Mutex<mpsc::Receiver<Job<C>>>) -> Option<Job<C>> {
    // One idle thread waits in the queue, the others wait for the lock.
    jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv()
}
