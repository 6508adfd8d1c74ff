//! A thread that owns a connection and does what it is sent, in order. SQLite blocks; the runtime's threads must not.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use tokio::sync::{mpsc, oneshot};

use crate::store::error::StoreError;
use crate::store::sqlite::GONE;

/// Work that may wait for the thread; whoever sends more waits.
const QUEUE: usize = 64;

type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// See the file's header.
pub(super) struct Worker<T> {
    jobs: Mutex<Option<mpsc::Sender<Job<T>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    open: Arc<AtomicUsize>,
}

impl<T: Send + 'static> Worker<T> {
    /// Starts the thread.
    pub(super) fn start(name: &str, mut owned: T) -> io::Result<Self> {
        let (jobs, mut sent) = mpsc::channel::<Job<T>>(QUEUE);
        let thread = Builder::new().name(name.to_owned()).spawn(move || {
            while let Some(job) = sent.blocking_recv() {
                job(&mut owned);
            }
        })?;
        Ok(Self { jobs: Mutex::new(Some(jobs)), thread: Mutex::new(Some(thread)), open: Arc::new(AtomicUsize::new(0)) })
    }

    /// Whether the thread has nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    /// Does `work` on the thread. Dropping the future does not stop work that was sent.
    pub(super) async fn run<R, F>(&self, work: F) -> Result<R, StoreError>
    where
        R: Send + 'static,
        F: FnOnce(&mut T) -> Result<R, StoreError> + Send + 'static,
    {
        let jobs = lock(&self.jobs).clone().ok_or_else(|| StoreError::bare(GONE))?;
        let (done, result) = oneshot::channel();
        let open = Arc::clone(&self.open);
        open.fetch_add(1, Ordering::Relaxed);
        let job = move |owned: &mut T| {
            let answer = work(owned);
            open.fetch_sub(1, Ordering::Relaxed);
            // Whoever asked may have left.
            let _ = done.send(answer);
        };
        jobs.send(Box::new(job)).await.map_err(|_| StoreError::bare(GONE))?;
        result.await.unwrap_or_else(|_| Err(StoreError::bare(GONE)))
    }

    /// Lets the thread finish what it was sent, and waits for its end.
    pub(super) async fn stop(&self) {
        drop(lock(&self.jobs).take());
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // A panic of the thread was logged by the hook.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
