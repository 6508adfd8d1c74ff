//! The cache against a map, and each way in which a late fill could win.

use std::collections::HashMap as Model;

use proptest::prelude::*;

use super::*;
use crate::entry::{KeyHasher, Kind};
use crate::keyspace::error::KeyspaceError;
use crate::store::error::StoreErrorKind;

const PLENTY: u64 = 1 << 20;

fn hasher() -> KeyHasher {
    KeyHasher::new(&[3; 16])
}

fn key(name: &[u8]) -> Key {
    Key::new(&hasher(), 0, name.into())
}

fn entry(value: &[u8], version: i64) -> Entry {
    Entry { kind: Kind::String, value: value.into(), expires_at: None, version }
}

fn look(cache: &Cache, name: &[u8], now: UnixMs) -> Cached {
    cache.get_or_fly(&KeyRef::new(&hasher(), 0, b"", name), now)
}

fn start(cache: &Cache, name: &[u8]) -> (Arc<Flight>, Ticket) {
    match look(cache, name, 0) {
        Cached::Started(flight, ticket) => (flight, ticket),
        Cached::Known(_) | Cached::Joined(_) => panic!("not cached, nor being loaded"),
    }
}

fn known(cache: &Cache, name: &[u8], now: UnixMs) -> Option<Option<Vec<u8>>> {
    match look(cache, name, now) {
        Cached::Known(entry) => Some(entry.map(|entry| entry.value.to_vec())),
        Cached::Joined(_) | Cached::Started(..) => None,
    }
}

#[test]
fn one_flight_per_key_fills_the_cache_and_answers_all() {
    let cache = Cache::new(PLENTY);
    let (flight, mut first) = start(&cache, b"k");
    let Cached::Joined(mut second) = look(&cache, b"k", 0) else { panic!("a second reader joins") };
    cache.land(&flight, &Ok(Some(entry(b"v", 1))));
    for ticket in [&mut first, &mut second] {
        assert_eq!(ticket.try_recv().expect("landed"), Ok(Some(entry(b"v", 1))));
    }
    assert_eq!(known(&cache, b"k", 0), Some(Some(b"v".to_vec())));
}

#[test]
fn absence_is_known_too_and_a_failed_load_is_not() {
    let cache = Cache::new(PLENTY);
    let (flight, _ticket) = start(&cache, b"absent");
    cache.land(&flight, &Ok(None));
    assert_eq!(known(&cache, b"absent", 0), Some(None));
    let (flight, mut ticket) = start(&cache, b"failed");
    let away = Err(KeyspaceError::Store(StoreErrorKind::Unavailable));
    cache.land(&flight, &away);
    assert_eq!(ticket.try_recv().expect("landed"), away);
    assert_eq!(known(&cache, b"failed", 0), None);
}

#[test]
fn no_late_fill_wins() {
    type Meanwhile = fn(&Cache);
    let cases: [(Meanwhile, Option<Option<Vec<u8>>>); 4] = [
        (|cache| cache.committed(&key(b"k"), Some(entry(b"new", 2)), cache.epoch()), Some(Some(b"new".to_vec()))),
        (|cache| cache.committed(&key(b"k"), None, cache.epoch()), Some(None)),
        (|cache| cache.forget(&key(b"k")), None),
        (Cache::clear, None),
    ];
    for (meanwhile, expected) in cases {
        let cache = Cache::new(PLENTY);
        let (flight, mut ticket) = start(&cache, b"k");
        meanwhile(&cache);
        cache.land(&flight, &Ok(Some(entry(b"old", 1))));
        assert_eq!(known(&cache, b"k", 0), expected);
        assert!(ticket.try_recv().is_ok(), "whoever asked before the change is answered all the same");
    }
}

#[test]
fn a_commit_of_an_earlier_epoch_does_not_fill() {
    let cache = Cache::new(PLENTY);
    let before = cache.epoch();
    cache.clear();
    cache.committed(&key(b"k"), Some(entry(b"v", 1)), before);
    assert_eq!(known(&cache, b"k", 0), None);
}

#[test]
fn entries_expire_by_the_time_that_is_told() {
    let cache = Cache::new(PLENTY);
    let mortal = Entry { expires_at: Some(1000), ..entry(b"v", 1) };
    cache.committed(&key(b"k"), Some(mortal), cache.epoch());
    assert_eq!(known(&cache, b"k", 999), Some(Some(b"v".to_vec())));
    assert_eq!(known(&cache, b"k", 1000), Some(None));
}

#[test]
fn the_least_recently_used_leave_first() {
    let share = MIN_SHARE;
    let cache = Cache::new(share);
    let value = vec![0; 1 << 20];
    for name in [b"a", b"b", b"c"] {
        cache.committed(&key(name), Some(entry(&value, 1)), cache.epoch());
    }
    assert!(known(&cache, b"a", 0).is_some(), "read just now");
    cache.committed(&key(b"d"), Some(entry(&value, 1)), cache.epoch());
    assert!(cache.figures().bytes <= share);
    assert_eq!(cache.figures().evictions, 1);
    assert!(known(&cache, b"b", 0).is_none(), "the one that was not read for longest");
    assert!(known(&cache, b"a", 0).is_some());
    cache.committed(&key(b"huge"), Some(entry(&vec![0; 5 << 20], 1)), cache.epoch());
    assert!(known(&cache, b"huge", 0).is_none(), "larger than the whole share");
    assert!(known(&cache, b"a", 0).is_some(), "and it pushed nothing out");
}

proptest! {
    /// The cache equals a map, as long as there is room; and its account of bytes equals what it holds.
    #[test]
    fn a_cache_with_room_is_a_map(steps in proptest::collection::vec((0..4_u8, 0..8_u8, 0..40_usize), 0..200)) {
        let cache = Cache::new(PLENTY);
        let mut model: Model<u8, Option<Vec<u8>>> = Model::new();
        for (step, name, size) in steps {
            let stored = key(&[name]);
            match step {
                0 => {
                    cache.committed(&stored, Some(entry(&vec![name; size], 1)), cache.epoch());
                    model.insert(name, Some(vec![name; size]));
                }
                1 => {
                    cache.committed(&stored, None, cache.epoch());
                    model.insert(name, None);
                }
                2 => {
                    cache.forget(&stored);
                    model.remove(&name);
                }
                _ => match look(&cache, &[name], 0) {
                    Cached::Known(found) => {
                        prop_assert_eq!(Some(&found.map(|found| found.value.to_vec())), model.get(&name));
                    }
                    Cached::Started(flight, _) => {
                        prop_assert!(!model.contains_key(&name));
                        cache.land(&flight, &Ok(None));
                        model.insert(name, None);
                    }
                    Cached::Joined(_) => prop_assert!(false, "no flight is left open"),
                },
            }
            let bytes: usize = model.values().map(|value| cost(1, value.as_ref().map_or(0, Vec::len))).sum();
            prop_assert_eq!(cache.figures().bytes, bytes as u64);
            prop_assert_eq!(cache.figures().entries, model.len() as u64);
        }
    }
}
