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
fn a_smaller_room_drops_what_was_used_least() {
    let cache = Cache::new(64 * PLENTY);
    for number in 0..1_000_i64 {
        let name = number.to_le_bytes();
        cache.committed(&key(&name), Some(entry(&[7; 1_000], number)), None, cache.epoch());
    }
    let before = cache.figures();
    assert_eq!(before.entries, 1_000);
    cache.set_room(before.bytes / 2);
    let after = cache.figures();
    assert!(after.bytes <= before.bytes / 2 && after.entries < 600, "{after:?}");
    assert_eq!(after.evictions, 1_000 - after.entries);
    assert_eq!(known(&cache, &999_i64.to_le_bytes(), 0), Some(Some(vec![7; 1_000])), "the newest stays");
    cache.set_room(u64::MAX);
    assert_eq!(cache.room(), cache.max_bytes());
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
        (|cache| cache.committed(&key(b"k"), Some(entry(b"new", 2)), None, cache.epoch()), Some(Some(b"new".to_vec()))),
        (|cache| cache.committed(&key(b"k"), None, None, cache.epoch()), Some(None)),
        (|cache| assert!(cache.forget(key(b"k").hash()), "it was on its way"), None),
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
    cache.committed(&key(b"k"), Some(entry(b"v", 1)), None, before);
    assert_eq!(known(&cache, b"k", 0), None);
}

#[test]
fn entries_expire_by_the_time_that_is_told() {
    let cache = Cache::new(PLENTY);
    let mortal = Entry { expires_at: Some(1000), ..entry(b"v", 1) };
    cache.committed(&key(b"k"), Some(mortal), None, cache.epoch());
    assert_eq!(known(&cache, b"k", 999), Some(Some(b"v".to_vec())));
    assert_eq!(known(&cache, b"k", 1000), Some(None));
}

#[test]
fn the_least_recently_used_leave_first() {
    let share = MIN_SHARE;
    let cache = Cache::new(share);
    let value = vec![0; 1 << 20];
    for name in [b"a", b"b", b"c"] {
        cache.committed(&key(name), Some(entry(&value, 1)), None, cache.epoch());
    }
    assert!(known(&cache, b"a", 0).is_some(), "read just now");
    cache.committed(&key(b"d"), Some(entry(&value, 1)), None, cache.epoch());
    assert!(cache.figures().bytes <= share);
    assert_eq!(cache.figures().evictions, 1);
    assert!(known(&cache, b"b", 0).is_none(), "the one that was not read for longest");
    assert!(known(&cache, b"a", 0).is_some());
    cache.committed(&key(b"huge"), Some(entry(&vec![0; 5 << 20], 1)), None, cache.epoch());
    assert!(known(&cache, b"huge", 0).is_none(), "larger than the whole share");
    assert!(known(&cache, b"a", 0).is_some(), "and it pushed nothing out");
}

#[test]
fn what_was_used_outlives_half_as_many_others_as_there_are() {
    let cache = Cache::new(MIN_SHARE);
    let put = |number: u64| {
        let key = Key::with_hash(number, 0, number.to_string().into_bytes().into());
        cache.committed(&key, Some(entry(&[0; 2000], 1)), None, cache.epoch());
    };
    let look = |number: u64| {
        let key = Key::with_hash(number, 0, number.to_string().into_bytes().into());
        matches!(cache.get_or_fly(&KeyRef::of(&key), 0), Cached::Known(_))
    };
    let mut next = 0;
    while cache.figures().evictions == 0 {
        put(next);
        next += 1;
    }
    let held = cache.figures().entries;
    for place in [0, 1, held / 4, held / 2, held / 2 + 1, held * 3 / 4, held - 1] {
        let used = next - held + place;
        assert!(look(used), "place {place} of {held}");
        (0..held / 2 - 1).for_each(|more| put(next + more));
        assert!(look(used), "place {place} of {held}");
        (0..2 * held).for_each(|more| put(next + held + more));
        assert!(!look(used), "it leaves when it is not used");
        next += 3 * held;
    }
}

#[test]
fn keys_of_one_hash_take_each_others_place() {
    let cache = Cache::new(PLENTY);
    let [first, second] = [b"first", b"other"].map(|name| Key::with_hash(7, 0, name[..].into()));
    let look = |key: &Key| cache.get_or_fly(&KeyRef::of(key), 0);
    cache.committed(&first, Some(entry(b"1", 1)), None, cache.epoch());
    let Cached::Started(flight, mut ticket) = look(&second) else { panic!("another key is a miss") };
    assert!(matches!(look(&second), Cached::Joined(_)));
    assert!(matches!(look(&first), Cached::Known(Some(_))), "until the other has landed");
    cache.land(&flight, &Ok(Some(entry(b"22", 2))));
    assert_eq!(ticket.try_recv().expect("landed"), Ok(Some(entry(b"22", 2))));
    assert_eq!(cache.figures().entries, 1);
    let Cached::Started(overtaken, mut ticket) = look(&first) else { panic!("its place was taken") };
    cache.forget(7);
    let Cached::Started(..) = look(&second) else { panic!("it was forgotten, and does not join another key's flight") };
    cache.land(&overtaken, &Ok(None));
    assert_eq!(ticket.try_recv().expect("landed"), Ok(None), "who waits is answered");
    assert_eq!(cache.figures().entries, 0, "but it fills nothing");
}

#[test]
fn whoever_cannot_trust_the_cache_joins_only_what_has_not_been_asked_yet() {
    let cache = Cache::new(PLENTY);
    cache.committed(&key(b"k"), Some(entry(b"v", 1)), None, cache.epoch());
    let (key, stored) = (key(b"k"), key(b"k"));
    let key = KeyRef::of(&key);
    let Cached::Started(first, _) = cache.fly(&key) else { panic!("what is cached does not count") };
    assert!(matches!(cache.fly(&key), Cached::Joined(_)), "the question has not been asked");
    first.depart();
    let Cached::Started(second, _) = cache.fly(&key) else { panic!("the answer may be from before") };
    second.depart();
    cache.forget(stored.hash());
    let Cached::Started(third, _) = cache.get_or_fly(&key, 0) else { panic!("all was forgotten") };
    third.depart();
    assert!(matches!(cache.get_or_fly(&key, 0), Cached::Joined(_)), "a current cache lets join until the landing");
    for (flight, version) in [(first, 1), (second, 2), (third, 3)] {
        cache.land(&flight, &Ok(Some(entry(b"v", version))));
        let found = matches!(cache.get_or_fly(&key, 0), Cached::Known(Some(found)) if found.version == version);
        assert_eq!(found, version == 3, "only the last one fills");
    }
}

/// A cache that never evicts, with its open flights: what is known by hash, and which flight may fill.
#[derive(Default)]
struct Naive {
    known: Model<u64, (u8, Option<Vec<u8>>)>,
    flying: Model<u64, usize>,
}

impl Naive {
    fn put(&mut self, hash: u64, name: u8, value: Option<Vec<u8>>) {
        self.known.insert(hash, (name, value));
        self.flying.remove(&hash);
    }

    fn forget(&mut self, hash: u64) {
        self.known.remove(&hash);
        self.flying.remove(&hash);
    }

    fn bytes(&self) -> u64 {
        self.known.values().map(|(_, value)| slot::cost(1, value.as_ref().map(Vec::len)) as u64).sum()
    }
}

/// Eight keys of five hashes, so that some have to share.
fn crowded(name: u8) -> Key {
    let hash = u64::from(name % 5);
    Key::with_hash(hash << 32 | hash, 0, Box::new([name]))
}

proptest! {
    /// The cache equals the naive one, as long as there is room; and its account of bytes equals what it holds.
    #[test]
    fn a_cache_with_room_is_a_map(steps in proptest::collection::vec((0..6_u8, 0..8_u8, 0..700_usize), 0..200)) {
        let cache = Cache::new(PLENTY);
        let mut naive = Naive::default();
        let mut flights = Vec::new();
        for (step, name, size) in steps {
            let key = crowded(name);
            let hash = key.hash();
            match step {
                0 => {
                    cache.committed(&key, Some(entry(&vec![name; size], 1)), None, cache.epoch());
                    naive.put(hash, name, Some(vec![name; size]));
                }
                1 => {
                    cache.committed(&key, None, None, cache.epoch());
                    naive.put(hash, name, None);
                }
                2 => {
                    cache.forget(hash);
                    naive.forget(hash);
                }
                3 if !flights.is_empty() => {
                    let number = size % flights.len();
                    let (flight, name): &(Arc<Flight>, u8) = &flights[number];
                    let hash = flight.key().hash();
                    cache.land(flight, &Ok(Some(entry(&vec![*name; size], 1))));
                    if naive.flying.get(&hash) == Some(&number) {
                        naive.put(hash, *name, Some(vec![*name; size]));
                    }
                }
                _ => match cache.get_or_fly(&KeyRef::of(&key), 0) {
                    Cached::Known(found) => {
                        let found = found.map(|found| found.value.to_vec());
                        prop_assert_eq!(Some(&(name, found)), naive.known.get(&hash));
                    }
                    other => {
                        prop_assert!(naive.known.get(&hash).is_none_or(|(held, _)| *held != name));
                        let flying = naive.flying.get(&hash).filter(|number| flights[**number].1 == name);
                        prop_assert_eq!(matches!(other, Cached::Joined(_)), flying.is_some());
                        if let Cached::Started(flight, _) = other {
                            naive.flying.insert(hash, flights.len());
                            flights.push((flight, name));
                        }
                    }
                },
            }
            prop_assert_eq!(cache.figures().bytes, naive.bytes());
            prop_assert_eq!(cache.figures().entries, naive.known.len() as u64);
        }
    }
}
