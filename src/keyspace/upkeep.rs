//! What runs beside requests: watching the store and its clock, sweeping out expired entries, counting.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::keyspace::Keyspace;
use crate::keyspace::clock::Clock;
use crate::keyspace::room::Room;
use crate::metrics::process;
use crate::store::Store;
use crate::store::error::StoreError;

/// The pause between two probes of a store that answers.
const WATCH_UP: Duration = Duration::from_secs(1);

/// The pause between two probes of a store that is away.
const WATCH_DOWN: Duration = Duration::from_millis(250);

/// Rows that one step of the sweeper looks at.
const SWEEP_ROWS: u32 = 2_000;

/// The pause between two steps of the sweeper, so that it takes a small share of the store.
const SWEEP_PAUSE: Duration = Duration::from_millis(20);

/// The pause between two counts, as a multiple of what the last one took: counting takes at most 1 % of the time.
const COUNT_SHARE: u32 = 100;

/// The shortest pause between two counts.
const COUNT_PAUSE: Duration = Duration::from_secs(10);

/// The pause between two looks at the process's memory, which can grow by some 10 MB in that time.
const LOOK_AT_MEMORY: Duration = Duration::from_millis(100);

/// A correction of the clock from which on it is worth a line in the log, in ms.
const NOTABLE_CORRECTION: i64 = 100;

/// An error of the clock that a start does not try to make smaller.
const CLOCK_ERROR: Duration = Duration::from_millis(2);

/// How often a start asks the store for its time at most.
const CLOCK_TRIES: u32 = 5;

/// Sets the clock by the store's, more than once if answers are slow: the first comes over a connection that may have to be
/// made for it, and so tells little.
pub async fn set_clock(clock: &Clock, store: &dyn Store) -> Result<(), StoreError> {
    for _ in 0..CLOCK_TRIES {
        let sounding = clock.sound();
        clock.correct(sounding, store.now().await?);
        if clock.error().is_some_and(|error| error <= CLOCK_ERROR) {
            break;
        }
    }
    Ok(())
}

/// Probes the store: keeps the clock right and says when the store is back.
pub async fn watch(keyspace: Arc<Keyspace>, stop: CancellationToken) {
    loop {
        let pause = if keyspace.health.is_up() { WATCH_UP } else { WATCH_DOWN };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = keyspace.health.doubted() => {}
            () = stop.cancelled() => return,
        }
        keyspace.coherence.expire_fences(keyspace.clock.tick());
        let begun = Instant::now();
        let sounding = keyspace.clock.sound();
        match keyspace.store.now().await {
            Ok(now) => {
                let correction = keyspace.clock.correct(sounding, now);
                if correction.abs() >= NOTABLE_CORRECTION {
                    tracing::warn!(correction_ms = correction, "clock of the store moved");
                }
                keyspace.health.answered(begun);
            }
            Err(error) => keyspace.health.note(&error, begun),
        }
    }
}

/// Removes expired entries from the store, a little at a time, for ever.
pub async fn sweep(keyspace: Arc<Keyspace>, stop: CancellationToken) {
    loop {
        let pause = jittered(keyspace.config.sweeper_interval);
        if stopped_during(pause, &stop).await {
            return;
        }
        let mut from = None;
        loop {
            if !keyspace.health.is_up() {
                break;
            }
            let begun = Instant::now();
            let step = keyspace.store.sweep(from.take(), SWEEP_ROWS).await;
            let removed = step.as_ref().map_or(0, |swept| swept.removed);
            keyspace.stats.sweeps.observe(removed, begun.elapsed(), step.as_ref().err().map(StoreError::kind));
            keyspace.stats.swept.fetch_add(removed, Ordering::Relaxed);
            match step {
                Ok(swept) => from = swept.next,
                Err(error) => {
                    keyspace.health.note(&error, begun);
                    break;
                }
            }
            if from.is_none() {
                keyspace.stats.sweeper_passes.fetch_add(1, Ordering::Relaxed);
                break;
            }
            if stopped_during(SWEEP_PAUSE, &stop).await {
                return;
            }
        }
    }
}

/// Keeps [`Keyspace::last_count`] fresh, so that `INFO` need not read the whole table.
pub async fn count(keyspace: Arc<Keyspace>, stop: CancellationToken) {
    loop {
        let begun = Instant::now();
        if keyspace.health.is_up() {
            // A failure was logged and counted where it happened; the last count stays.
            let _ = keyspace.count().await;
        }
        let pause = (begun.elapsed() * COUNT_SHARE).max(COUNT_PAUSE);
        if stopped_during(jittered(pause), &stop).await {
            return;
        }
    }
}

/// Keeps the cache's bound by the process's resident memory.
pub async fn keep_room(keyspace: Arc<Keyspace>, stop: CancellationToken) {
    let Some(empty) = process::resident_bytes() else { return stop.cancelled().await };
    let mut room = Room::new(keyspace.cache.max_bytes(), empty);
    while !stopped_during(LOOK_AT_MEMORY, &stop).await {
        if let Some(resident) = process::resident_bytes() {
            keyspace.cache.set_room(room.look(resident));
        }
    }
}

/// Between half and one and a half of `interval`, so that daemons started together drift apart.
fn jittered(interval: Duration) -> Duration {
    use std::hash::BuildHasher;
    // The standard library's hasher is seeded at random: all the randomness that jitter needs.
    let random = std::hash::RandomState::new().hash_one(interval);
    interval.mul_f64(0.5 + (random % 1000) as f64 / 1000.0)
}

/// Waits; true if the stop came first.
pub(super) async fn stopped_during(pause: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(pause) => false,
        () = stop.cancelled() => true,
    }
}
