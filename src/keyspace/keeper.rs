//! Writes down touches before the store's own expiry of their entries ends, and those of entries that left the cache.
//! When it comes by is here; which entries, the cache knows.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::entry::{Change, Expect, Mutation, UnixMs};
use crate::keyspace::Keyspace;
use crate::keyspace::touch::{DUE_MS, Rescue};

/// The pause between two visits.
const PAUSE: Duration = Duration::from_secs(1);

/// Visits that see every touched entry once: so each is seen several times while it is due.
const PARTS: usize = 25;

/// Rows that are written at once, so that the keeper does not fill the queue of writes.
const ROWS: usize = 512;

/// Visits until `stop`.
pub async fn run(keyspace: Arc<Keyspace>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = stop.cancelled() => return,
        }
        keyspace.write_touches(PARTS, keyspace.now() + DUE_MS).await;
    }
}

impl Keyspace {
    /// Writes down every touch that the store does not know of: for the shutdown. Dropped in the middle, some are not.
    pub async fn settle(&self) {
        self.write_touches(1, UnixMs::MAX).await;
    }

    /// One visit: writes the touches of entries whose durable expiry is not after `until`.
    async fn write_touches(&self, parts: usize, until: UnixMs) {
        for shard in 0..self.cache.shards() {
            if !self.health.is_up() {
                // The next round finds what is cached again.
                return;
            }
            let mut rescues = self.cache.rescues(shard, parts, until).into_iter().peekable();
            while rescues.peek().is_some() {
                self.write_some(rescues.by_ref().take(ROWS)).await;
            }
        }
    }

    async fn write_some(&self, rescues: impl Iterator<Item = Rescue>) {
        let written: Vec<_> = rescues
            .filter_map(|Rescue { key, at, version, seen }| {
                let mutation = Mutation { key, expect: Expect::Version(version), change: Change::Expire(Some(at)) };
                // A full queue is one more reason for the next round.
                self.committer.submit(vec![mutation], vec![seen]).ok()
            })
            .collect();
        for written in written {
            // A failure was logged and counted where it happened. A conflict: the entry is not the one that was touched.
            let _ = written.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::entry::{Key, Kind, Outcome};
    use crate::keyspace::key::KeyRef;
    use crate::keyspace::touch::{Of, Touch};
    use crate::keyspace::{Read, testing};

    const DAY: i64 = 24 * 3600 * 1000;

    async fn durable(keyspace: &Keyspace, key: &Key) -> Option<UnixMs> {
        keyspace
            .store
            .load(vec![key.clone()])
            .await
            .expect("it answers")
            .pop()
            .flatten()
            .expect("it is there")
            .expires_at
    }

    /// Long before the store's entry ends, what was shown is written, and stays so.
    #[tokio::test]
    async fn what_was_shown_becomes_durable_in_time() {
        let stop = CancellationToken::new();
        let (keyspace, work, _dir) = testing::keyspace(&stop).await;
        let check = async {
            let key = keyspace.key(0, b"k").expect("it is short").to_key();
            let (now, end) = (keyspace.moment(), keyspace.now() + DAY);
            let change = Change::Put { kind: Kind::String, value: b"v"[..].into(), expires_at: Some(end) };
            let put = Mutation { key: key.clone(), expect: Expect::Any, change };
            assert!(matches!(keyspace.write(vec![put]).await, Ok(Outcome::Applied(_))));
            let touch = Touch { at: end + 1000, of: Of::Any };
            assert!(keyspace.touch(&KeyRef::of(&key), &touch, now));

            keyspace.write_touches(1, end - 1).await;
            assert_eq!(durable(&keyspace, &key).await, Some(end), "it is not due yet");
            keyspace.write_touches(1, end).await;
            assert_eq!(durable(&keyspace, &key).await, Some(end + 1000));
            let Read::Hit(Some(entry)) = keyspace.read(&KeyRef::of(&key), now) else { panic!("it is still cached") };
            assert_eq!((entry.expires_at, &*entry.value), (Some(end + 1000), &b"v"[..]));

            assert!(keyspace.touch(&KeyRef::of(&key), &Touch { at: end + 2000, of: Of::Any }, now));
            keyspace.settle().await;
            assert_eq!(durable(&keyspace, &key).await, Some(end + 2000));
            stop.cancel();
        };
        tokio::join!(join_all(work.into_iter().map(|work| work.future)), check);
    }
}
