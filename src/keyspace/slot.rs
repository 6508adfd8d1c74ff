//! What the cache holds of one key, packed; and how much memory that takes. It knows neither the list nor its bound.

use crate::entry::{Entry, Key, Kind, UnixMs, Value, Version};
use crate::keyspace::key::KeyRef;
use crate::keyspace::touch::{Expiry, Rescue, Slack, Touch};

/// An entry or a known absence, with the key it is of: slots are found by hash, and two keys may have one hash.
pub struct Slot {
    name: Name,
    /// `None`: no entry; then the fields below mean nothing.
    value: Option<Value>,
    /// [`NEVER`], or when the entry stops existing, as clients are told.
    expires_at: UnixMs,
    version: Version,
    /// By how many ms the store's expiry is earlier.
    lag: u32,
    kind: Kind,
    db: u8,
    /// How many moves to the front of the list there had been when it was last moved there itself.
    pub moved: u32,
    /// For the list of touched slots: the round in which it was last seen; 0 if it is not in the list.
    pub round: u8,
}

/// A key's name. A short one lies in the slot itself, where comparing it touches no other memory.
enum Name {
    Short(u8, [u8; SHORT_NAME]),
    Long(Box<[u8]>),
}

/// As many bytes as there is room for in a list node of 128 bytes; most session keys have some 40.
const SHORT_NAME: usize = 54;

/// What a slot says of its key.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// The live entry, or that there is none.
    Known(Option<Entry>),
    /// Nothing: the store's entry has ended while its touches could not be written.
    Lapsed,
}

/// Stands for no expiry. As an expiry it would be long over, and such an entry is an absence.
const NEVER: UnixMs = UnixMs::MIN;

/// Bytes that a slot takes beside its key and value: the list's node (a hash, the slot, two links), and the table's
/// bucket with its control byte, at the mean of the loads between two growths (7/16 and 7/8).
const OVERHEAD: usize = class(size_of::<u64>() + size_of::<Slot>() + 2 * size_of::<usize>()) + 17 * 3 / 2;

/// Bytes of the two counters in front of a shared value.
const COUNTERS: usize = 2 * size_of::<usize>();

impl Slot {
    /// The slot of a key that has this entry, or none.
    #[must_use]
    pub fn new(key: &Key, entry: Option<Entry>) -> Self {
        let mut slot = Self {
            name: Name::new(key.name()),
            value: None,
            expires_at: NEVER,
            version: 0,
            lag: 0,
            kind: Kind::String,
            db: key.db(),
            moved: 0,
            round: 0,
        };
        slot.assign(key, entry, None);
        slot
    }

    /// Puts another entry in place of what is known, perhaps of another key of the same hash. `seen` is the entry whose
    /// version the write of this one expected: touches since then are not lost.
    pub fn assign(&mut self, key: &Key, entry: Option<Entry>, seen: Option<&Entry>) {
        let before = seen.filter(|seen| self.has(key, seen.version)).and_then(|seen| {
            // Nothing could touch what had no expiry.
            Some((self.expiry()?, seen.expires_at?))
        });
        if self.name.bytes() != key.name() {
            self.name = Name::new(key.name());
        }
        self.db = key.db();
        self.value = None;
        self.lag = 0;
        if let Some(Entry { kind, value, expires_at, version }) = entry
            && expires_at != Some(NEVER)
        {
            self.value = Some(value);
            self.expires_at = expires_at.unwrap_or(NEVER);
            self.version = version;
            self.kind = kind;
            if let (Some((held, seen)), Some(written)) = (before, expires_at) {
                self.set_expiry(held.after_write(seen, written));
            }
        }
    }

    /// Whether it is of this key.
    #[must_use]
    pub fn is_of(&self, key: &KeyRef<'_>) -> bool {
        key.is(self.db, self.name.bytes())
    }

    /// Whether it is this very entry of this key.
    #[must_use]
    pub fn has(&self, key: &Key, version: Version) -> bool {
        self.value.is_some() && self.version == version && self.is_of(&KeyRef::of(key))
    }

    /// The entry, if it is live at `now`. An expired one is a known absence: whoever sets the key again passes through
    /// the cache, or invalidates it.
    #[must_use]
    pub fn entry(&self, now: UnixMs) -> Said {
        let Some(value) = self.value.as_ref() else { return Said::Known(None) };
        let expiry = self.expiry();
        if let Some(expiry) = expiry
            && expiry.durable() <= now
        {
            return if expiry.has_lapsed(now) { Said::Lapsed } else { Said::Known(None) };
        }
        let expires_at = expiry.map(|expiry| expiry.shown);
        Said::Known(Some(Entry { kind: self.kind, value: Value::clone(value), expires_at, version: self.version }))
    }

    /// Moves the expiry, if it is the entry that is meant and nothing needs to be written for that. Whether it did.
    pub fn touch(&mut self, touch: &Touch<'_>, now: UnixMs, slack: Slack) -> bool {
        let Some(value) = self.value.as_ref() else { return false };
        if self.kind == Kind::Deleted || !touch.means(self.kind, value, self.version) {
            return false;
        }
        let after = self.expiry().and_then(|held| slack.touch(held, touch.at, now));
        if let Some(after) = after {
            self.set_expiry(after);
        }
        after.is_some()
    }

    /// Whether the store has an earlier expiry than it shows.
    #[must_use]
    pub fn is_touched(&self) -> bool {
        self.value.is_some() && self.lag > 0
    }

    /// The key, whose hash this is.
    #[must_use]
    pub fn key(&self, hash: u64) -> Key {
        Key::with_hash(hash, self.db, self.name.bytes().into())
    }

    /// What has to be written, lest the touches of this entry are lost; `hash` is its key's.
    #[must_use]
    pub fn rescue(&self, hash: u64) -> Option<Rescue> {
        let value = self.value.as_ref()?;
        let expiry = self.expiry().filter(|expiry| expiry.lag > 0)?;
        let key = self.key(hash);
        let seen = Entry {
            kind: self.kind,
            value: Value::clone(value),
            expires_at: Some(expiry.shown),
            version: self.version,
        };
        Some(Rescue { key, at: expiry.shown, version: self.version, seen: Some(seen) })
    }

    /// The expiry of an entry; `None` is never.
    #[must_use]
    pub fn expiry(&self) -> Option<Expiry> {
        (self.expires_at != NEVER).then_some(Expiry { shown: self.expires_at, lag: self.lag })
    }

    fn set_expiry(&mut self, expiry: Expiry) {
        self.expires_at = expiry.shown;
        self.lag = expiry.lag;
    }

    /// Bytes that it is counted for.
    #[must_use]
    pub fn cost(&self) -> usize {
        cost(self.name.bytes().len(), self.value.as_ref().map(|value| value.len()))
    }
}

impl Name {
    fn new(name: &[u8]) -> Self {
        if name.len() > SHORT_NAME {
            return Self::Long(name.into());
        }
        let mut bytes = [0; SHORT_NAME];
        bytes[..name.len()].copy_from_slice(name);
        Self::Short(name.len() as u8, bytes)
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(length, bytes) => &bytes[..usize::from(*length)],
            Self::Long(bytes) => bytes,
        }
    }
}

/// Bytes that a key of this size, with a value of this size or without one, is counted for.
#[must_use]
pub fn cost(key_bytes: usize, value_bytes: Option<usize>) -> usize {
    let name = if key_bytes > SHORT_NAME { class(key_bytes) } else { 0 };
    name + value_bytes.map_or(0, |bytes| class(bytes + COUNTERS)) + OVERHEAD
}

/// What the allocator takes for `bytes`: its classes are the words up to 8, and from there on 4 for each doubling.
const fn class(bytes: usize) -> usize {
    if bytes <= 64 {
        return bytes.next_multiple_of(8);
    }
    let step = (bytes - 1).ilog2() - 2;
    bytes.next_multiple_of(1 << step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::KeyHasher;

    #[test]
    fn an_entry_comes_back_as_it_was_put_until_it_expires() {
        for length in [0, 1, SHORT_NAME, SHORT_NAME + 1] {
            check_entry(&Key::new(&KeyHasher::new(&[1; 16]), 7, vec![b'n'; length].into()));
        }
    }

    fn check_entry(key: &Key) {
        for expires_at in [None, Some(5), Some(UnixMs::MAX), Some(NEVER)] {
            let entry = Entry { kind: Kind::String, value: b"v"[..].into(), expires_at, version: 3 };
            let slot = Slot::new(key, Some(entry.clone()));
            assert!(slot.is_of(&KeyRef::of(key)));
            for now in [UnixMs::MIN, 4, 5, UnixMs::MAX - 1] {
                let expected = Said::Known(entry.is_live(now).then(|| entry.clone()));
                assert_eq!(slot.entry(now), expected, "at {now}, expires at {expires_at:?}");
            }
        }
        assert_eq!(Slot::new(key, None).entry(0), Said::Known(None));
    }

    #[test]
    fn sizes_are_the_allocators() {
        for (asked, got) in [
            (0, 0),
            (1, 8),
            (40, 40),
            (64, 64),
            (65, 80),
            (80, 80),
            (81, 96),
            (128, 128),
            (129, 160),
            (528, 640),
            (640, 640),
            (641, 768),
            (1024, 1024),
            (1040, 1280),
        ] {
            assert_eq!(class(asked), got, "{asked} bytes");
        }
        assert_eq!(size_of::<Slot>(), 104, "what a million sessions pay for");
        assert_eq!(OVERHEAD - 17 * 3 / 2, 128, "it fills its class");
    }
}
