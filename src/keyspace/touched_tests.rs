//! Touches in the cache: which they move, that none is lost beside a write, and that each is handed out to be written.

use proptest::prelude::*;

use super::*;
use crate::entry::{KeyHasher, Kind, UnixMs, Version};
use crate::keyspace::touch::{DUE_MS, Of};

const PLENTY: u64 = 1 << 20;
const NOW: UnixMs = 1_700_000_000_000;
const DAY: i64 = 24 * 3600 * 1000;
const FOR_EVER: UnixMs = UnixMs::MAX;

fn slack() -> Slack {
    Slack::new(std::time::Duration::from_secs(60))
}

fn key(name: &[u8]) -> Key {
    Key::new(&KeyHasher::new(&[3; 16]), 0, name.into())
}

fn entry(version: Version, expires_at: Option<UnixMs>) -> Entry {
    Entry { kind: Kind::String, value: b"value"[..].into(), expires_at, version }
}

fn put(cache: &Cache, name: &[u8], entry: Entry) {
    cache.committed(&key(name), Some(entry), None, cache.epoch());
}

fn touch(cache: &Cache, name: &[u8], at: UnixMs, of: Of<'_>, now: UnixMs) -> bool {
    cache.touch(&KeyRef::of(&key(name)), &Touch { at, of }, now, slack())
}

/// The expiry of a cached entry.
fn shown(cache: &Cache, name: &[u8], now: UnixMs) -> Option<UnixMs> {
    match cache.get_or_fly(&KeyRef::of(&key(name)), now) {
        Cached::Known(entry) => entry?.expires_at,
        Cached::Joined(_) | Cached::Started(..) => None,
    }
}

/// The names of what is to be written, in order.
fn rescued(cache: &Cache, parts: usize, until: UnixMs) -> Vec<Vec<u8>> {
    let rescues = (0..cache.shards()).flat_map(|shard| cache.rescues(shard, parts, until));
    let mut names: Vec<_> = rescues.map(|rescue| rescue.key.name().to_vec()).collect();
    names.sort();
    names
}

#[test]
fn a_touch_moves_the_entry_that_it_means_and_no_other() {
    let (end, later) = (NOW + DAY, NOW + DAY + 1000);
    for (held, of, at, moves) in [
        (entry(1, Some(end)), Of::Any, later, true),
        (entry(1, Some(end)), Of::Version(1), later, true),
        (entry(1, Some(end)), Of::Version(2), later, false),
        (entry(1, Some(end)), Of::Value(Kind::String, b"value"), later, true),
        (entry(1, Some(end)), Of::Value(Kind::String, b"valuE"), later, false),
        (entry(1, Some(end)), Of::Value(Kind::String, b"valu"), later, false),
        (entry(1, Some(end)), Of::Any, end - 1, false),
        (entry(1, Some(end)), Of::Any, NOW, false),
        (entry(1, Some(end)), Of::Any, end + 60_001, false),
        (entry(1, Some(NOW)), Of::Any, later, false),
        (entry(1, None), Of::Any, later, false),
        (entry(1, None), Of::Value(Kind::String, b"value"), later, false),
    ] {
        let cache = Cache::new(PLENTY);
        put(&cache, b"k", held.clone());
        put(&cache, b"other", held.clone());
        assert_eq!(touch(&cache, b"k", at, of, NOW), moves, "{held:?} {of:?} {at}");
        let before = held.expires_at.filter(|end| *end > NOW);
        assert_eq!(shown(&cache, b"k", NOW), if moves { Some(at) } else { before });
        assert_eq!(shown(&cache, b"other", NOW), before);
        assert_eq!(cache.figures().elided, u64::from(moves));
    }
    let cache = Cache::new(PLENTY);
    assert!(!touch(&cache, b"k", later, Of::Any, NOW), "it is not cached");
    cache.committed(&key(b"k"), None, None, cache.epoch());
    assert!(!touch(&cache, b"k", later, Of::Any, NOW), "it is known to be absent");
}

#[test]
fn a_write_beside_touches_does_not_undo_them() {
    let (end, later) = (NOW + DAY, NOW + DAY + 1000);
    for (seen, written, expected) in [
        // An update that kept the expiry.
        (Some(entry(1, Some(end))), entry(2, Some(end)), Some(later)),
        (Some(entry(1, Some(end))), entry(2, None), None),
        (Some(entry(1, Some(end))), entry(2, Some(NOW + 1)), Some(NOW + 1)),
        (Some(entry(1, Some(later))), entry(2, Some(later)), Some(later)),
        // One that replaced another entry, or saw none.
        (Some(entry(9, Some(end))), entry(2, Some(end)), Some(end)),
        (None, entry(2, Some(end)), Some(end)),
    ] {
        let cache = Cache::new(PLENTY);
        put(&cache, b"k", entry(1, Some(end)));
        assert!(touch(&cache, b"k", later, Of::Any, NOW));
        cache.committed(&key(b"k"), Some(written.clone()), seen.as_ref(), cache.epoch());
        assert_eq!(shown(&cache, b"k", NOW), expected, "{seen:?} {written:?}");
        let lags = expected == Some(later) && written.expires_at != Some(later);
        assert_eq!(rescued(&cache, 1, FOR_EVER).len(), usize::from(lags));
    }
}

#[test]
fn a_load_of_the_same_entry_does_not_undo_touches() {
    let (end, later) = (NOW + DAY, NOW + DAY + 1000);
    for (version, expected) in [(1, later), (2, end)] {
        let cache = Cache::new(PLENTY);
        put(&cache, b"k", entry(1, Some(end)));
        assert!(touch(&cache, b"k", later, Of::Any, NOW));
        let Cached::Started(flight, _ticket) = cache.fly(&KeyRef::of(&key(b"k"))) else { panic!("it starts") };
        cache.land(&flight, &Ok(Some(entry(version, Some(end)))));
        assert_eq!(shown(&cache, b"k", NOW), Some(expected));
    }
}

#[test]
fn a_touched_entry_is_served_until_the_store_has_ended_it() {
    let (end, later) = (NOW + DAY, NOW + DAY + 1000);
    let cache = Cache::new(PLENTY);
    put(&cache, b"k", entry(1, Some(end)));
    assert!(touch(&cache, b"k", later, Of::Any, NOW));
    assert_eq!(shown(&cache, b"k", end - 1), Some(later));
    assert!(!touch(&cache, b"k", end + DAY, Of::Any, end), "the store's entry has ended");
    // It is not said to be absent either: the store is asked.
    assert!(matches!(cache.get_or_fly(&KeyRef::of(&key(b"k")), end), Cached::Started(..)));
}

#[test]
fn touches_are_handed_out_when_they_are_due_until_they_are_written() {
    let cache = Cache::new(PLENTY);
    for (name, end) in [(&b"soon"[..], NOW + DAY), (b"later", NOW + 2 * DAY), (b"untouched", NOW + DAY)] {
        put(&cache, name, entry(1, Some(end)));
    }
    assert!(touch(&cache, b"soon", NOW + DAY + 5, Of::Any, NOW));
    assert!(touch(&cache, b"later", NOW + 2 * DAY + 5, Of::Any, NOW));
    let none: [&[u8]; 0] = [];
    assert_eq!(rescued(&cache, 1, NOW + DUE_MS), none);
    for _ in 0..600 {
        assert_eq!(rescued(&cache, 1, NOW + DAY), [b"soon"], "again and again, until it is written");
    }
    assert_eq!(rescued(&cache, 1, FOR_EVER), [&b"later"[..], b"soon"]);

    let rescue = cache.rescues(0, 1, NOW + DAY).pop().expect("it is due");
    assert_eq!((rescue.at, rescue.version), (NOW + DAY + 5, 1));
    let seen = rescue.seen.expect("it is cached");
    cache.committed(&rescue.key, Some(Entry { version: 2, ..seen.clone() }), Some(&seen), cache.epoch());
    assert_eq!(rescued(&cache, 1, NOW + DAY), none);
    // It is touched again, and is handed out again.
    assert!(touch(&cache, b"soon", NOW + DAY + 9, Of::Any, NOW));
    assert_eq!(rescued(&cache, 1, NOW + DAY + 5), [b"soon"]);
    cache.clear();
    assert_eq!(rescued(&cache, 1, FOR_EVER), none);
}

#[test]
fn an_evicted_touch_is_handed_out_once() {
    let cache = Cache::new(4 << 20);
    put(&cache, b"k", entry(1, Some(NOW + DAY)));
    put(&cache, b"untouched", entry(1, Some(NOW + DAY)));
    assert!(touch(&cache, b"k", NOW + DAY + 5, Of::Any, NOW));
    for number in 0..5_u8 {
        put(&cache, &[number], Entry { value: vec![0; 1 << 20].into(), ..entry(1, None) });
    }
    let rescues = cache.rescues(0, 25, NOW);
    let [rescue] = &rescues[..] else { panic!("one was touched: {rescues:?}") };
    assert_eq!(rescue.key, key(b"k"));
    assert_eq!((rescue.at, rescue.version, &rescue.seen), (NOW + DAY + 5, 1, &None), "it is not to be cached again");
    assert!(cache.rescues(0, 25, NOW).is_empty());
}

#[test]
fn the_list_does_not_grow_without_bound() {
    let cache = Cache::new(PLENTY);
    let touch_anew = || {
        cache.forget(key(b"k").hash());
        put(&cache, b"k", entry(1, Some(NOW + DAY)));
        touch(&cache, b"k", NOW + DAY + 5, Of::Any, NOW)
    };
    assert_eq!((0..10).filter(|_| touch_anew()).count(), 10);
    assert_eq!(rescued(&cache, 1, FOR_EVER), [b"k"], "once, however often it is in the list");
    assert_eq!((0..1000).filter(|_| touch_anew()).count(), 66, "without room in the list it must be written");
    rescued(&cache, 1, FOR_EVER);
    assert!(touch_anew(), "there is room again");
}

proptest! {
    /// Whatever happens, two rounds hand out every touched entry, and no other.
    #[test]
    fn rounds_see_everything(
        actions in prop::collection::vec((0..8_u8, 0..4_u8), 0..200),
        parts in 1..30_usize,
    ) {
        let cache = Cache::new(PLENTY);
        let mut model = std::collections::BTreeMap::new();
        let mut version = 0;
        for (name, action) in actions {
            match action {
                0 => {
                    cache.forget(key(&[name]).hash());
                    model.remove(&name);
                }
                1 => {
                    version += 1;
                    put(&cache, &[name], entry(version, Some(NOW + DAY)));
                    model.insert(name, false);
                }
                2 => {
                    let touched = touch(&cache, &[name], NOW + DAY + 5, Of::Any, NOW);
                    prop_assert_eq!(touched, model.contains_key(&name));
                    if touched {
                        model.insert(name, true);
                    }
                }
                // A part of a round.
                _ => drop(cache.rescues(0, parts, NOW)),
            }
        }
        let mut found = std::collections::BTreeSet::new();
        for _ in 0..2 * parts {
            found.extend(cache.rescues(0, parts, FOR_EVER).into_iter().map(|rescue| rescue.key.name()[0]));
        }
        let touched: Vec<_> = model.iter().filter(|(_, touched)| **touched).map(|(name, _)| *name).collect();
        prop_assert_eq!(Vec::from_iter(found), touched);
    }
}
