//! The auditor: now and then it compares something cached with the store, so that a fault in all the reasoning about
//! coherence would be counted instead of believed. It decides nothing else.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::entry::{Key, Version};
use crate::keyspace::Keyspace;
use crate::keyspace::key::KeyRef;
use crate::keyspace::upkeep::stopped_during;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// What a busy machine may add to the promised bound before what was found counts.
const SLACK: Duration = Duration::from_secs(1);

/// How many of the entries that were used last, or are about to be pushed out, one is drawn from.
const DRAWN_FROM: usize = 32;

/// Audits, for ever.
pub async fn run(keyspace: Arc<Keyspace>, stop: CancellationToken) {
    let random = RandomState::new();
    for turn in 0_u64.. {
        if stopped_during(PAUSE, &stop).await {
            return;
        }
        let drawn = random.hash_one(turn);
        let Some(key) = keyspace.cache.draw(drawn as usize, (drawn >> 32) as usize % DRAWN_FROM) else { continue };
        if !audit(&keyspace, &key, &stop).await {
            return;
        }
    }
}

/// Compares one key; false at the stop.
async fn audit(keyspace: &Keyspace, key: &Key, stop: &CancellationToken) -> bool {
    let begun = Instant::now();
    let Some((cached, stored)) = differing(keyspace, key).await else { return true };
    // It may be on its way here, or just have expired. What is promised is that this does not last.
    if stopped_during(keyspace.config.coherence.max_staleness + SLACK, stop).await {
        return false;
    }
    // Versions never repeat: the store has had this one all the while.
    if differing(keyspace, key).await == Some((cached, stored)) {
        let age = begun.elapsed();
        keyspace.cache.forget(key.hash());
        keyspace.stats.audits_stale.fetch_add(1, Ordering::Relaxed);
        keyspace.stats.audit_stale_age_ms.fetch_max(age.as_millis() as u64, Ordering::Relaxed);
        tracing::error!(age_ms = age.as_millis() as u64, "a cached entry is not what the store has, which must not be");
    }
    true
}

/// The versions (`None`: no entry) that the cache would answer with and that the store has, if they differ.
async fn differing(keyspace: &Keyspace, key: &Key) -> Option<(Option<Version>, Option<Version>)> {
    let cached = servable(keyspace, key)?;
    let loaded = keyspace.health.is_up().then(|| keyspace.store.load(vec![key.clone()]))?.await.ok()?;
    let stored = loaded.first()?.as_ref().map(|entry| entry.version);
    keyspace.stats.audits.fetch_add(1, Ordering::Relaxed);
    // Only what is still so counts: it was loaded in between.
    (cached != stored && servable(keyspace, key)? == cached).then_some((cached, stored))
}

/// What the cache would answer now, if anything.
fn servable(keyspace: &Keyspace, key: &Key) -> Option<Option<Version>> {
    let at = keyspace.moment();
    let known = keyspace.cache.peek(&KeyRef::of(key), at.unix)?;
    keyspace.coherence.proof().covers(at.tick).then(|| known.map(|entry| entry.version))
}
