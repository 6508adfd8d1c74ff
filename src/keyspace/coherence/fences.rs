//! Keys that must not be cached for now, as a write of them is under way that this node cannot order: one of its own whose
//! outcome is not known, or one that another node announced before it commits. Pure.
//!
//! A fenced key has no entry in the cache and no flight that anybody may join after its departure, so reads need not look
//! here. What would put one of the two in place looks.

use std::collections::HashMap;

use crate::keyspace::clock::Tick;
use crate::keyspace::coherence::payload::{Keys, NodeId};
use crate::keyspace::key::Carried;

/// How long a write may go on without its client. It waits for locks at most as long as a statement may take, and then
/// for the disk.
const LASTS: Tick = 60_000_000;

/// The same for a flush, which may go through the whole table.
const LASTS_AROUND_ALL: Tick = 240_000_000;

/// Keys that are fenced one by one; a fence beyond is one around all.
const MAX_KEYS: usize = 100_000;

/// The write that a fence is for: a batch of a node.
pub type Owner = (NodeId, u64);

/// See the file's header.
#[derive(Debug, Default)]
pub struct Fences {
    owners: HashMap<Owner, Fence>,
    /// How many fences are around the key of a hash.
    around: HashMap<u64, u32, Carried>,
    /// How many are around all keys.
    around_all: u32,
}

#[derive(Debug)]
struct Fence {
    keys: Keys,
    until: Tick,
}

impl Fences {
    /// Puts a fence around keys. What is there of them must be forgotten after this.
    pub fn raise(&mut self, owner: Owner, keys: &Keys, now: Tick) {
        let mut more = match keys {
            Keys::Some(hashes) if self.around.len() + hashes.len() <= MAX_KEYS => Keys::Some(hashes.clone()),
            _ => Keys::All,
        };
        match (self.remove(owner).map(|held| held.keys), &mut more) {
            (Some(Keys::Some(hashes)), Keys::Some(more)) => more.extend(hashes),
            (Some(Keys::All), more) => *more = Keys::All,
            _ => {}
        }
        if let Keys::Some(hashes) = &mut more {
            hashes.sort_unstable();
            hashes.dedup();
        }
        match &more {
            Keys::Some(hashes) => {
                for hash in hashes {
                    *self.around.entry(*hash).or_default() += 1;
                }
            }
            Keys::All => self.around_all += 1,
        }
        let lasts = if matches!(more, Keys::All) { LASTS_AROUND_ALL } else { LASTS };
        self.owners.insert(owner, Fence { keys: more, until: now + lasts });
    }

    /// The write is over for these keys; a fence around all falls as a whole.
    pub fn lower(&mut self, owner: Owner, keys: &Keys) {
        let Some(fence) = self.remove(owner) else { return };
        let (Keys::Some(held), Keys::Some(over)) = (fence.keys, keys) else { return };
        let left: Vec<u64> = held.into_iter().filter(|hash| !over.contains(hash)).collect();
        if !left.is_empty() {
            for hash in &left {
                *self.around.entry(*hash).or_default() += 1;
            }
            self.owners.insert(owner, Fence { keys: Keys::Some(left), until: fence.until });
        }
    }

    /// Lowers what has stood so long that its write cannot happen any more.
    pub fn expire(&mut self, now: Tick) {
        let over: Vec<Owner> =
            self.owners.iter().filter(|(_, fence)| fence.until <= now).map(|(owner, _)| *owner).collect();
        for owner in over {
            self.remove(owner);
        }
    }

    /// Whether a key is fenced.
    #[must_use]
    pub fn has(&self, hash: u64) -> bool {
        self.around_all > 0 || self.around.contains_key(&hash)
    }

    /// How many writes have a fence.
    #[must_use]
    pub fn count(&self) -> usize {
        self.owners.len()
    }

    fn remove(&mut self, owner: Owner) -> Option<Fence> {
        let fence = self.owners.remove(&owner)?;
        match &fence.keys {
            Keys::All => self.around_all -= 1,
            Keys::Some(hashes) => {
                for hash in hashes {
                    if let Some(count) = self.around.get_mut(hash) {
                        *count -= 1;
                        if *count == 0 {
                            self.around.remove(hash);
                        }
                    }
                }
            }
        }
        Some(fence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Owner = (NodeId(1), 7);
    const B: Owner = (NodeId(2), 7);

    fn some(hashes: &[u64]) -> Keys {
        Keys::Some(hashes.to_vec())
    }

    fn check(fences: &Fences, fenced: &[u64], free: &[u64]) {
        assert!(
            fenced.iter().all(|hash| fences.has(*hash)) && !free.iter().any(|hash| fences.has(*hash)),
            "{fences:?}"
        );
    }

    #[test]
    fn a_key_is_free_when_every_fence_around_it_is_lowered() {
        let mut fences = Fences::default();
        fences.raise(A, &some(&[1, 2]), 0);
        fences.raise(A, &some(&[2, 3]), 0);
        fences.raise(B, &some(&[2]), 0);
        check(&fences, &[1, 2, 3], &[4]);
        fences.lower(A, &some(&[2, 3, 9]));
        check(&fences, &[1, 2], &[3]);
        fences.lower(B, &Keys::All);
        check(&fences, &[1], &[2, 3]);
        fences.lower(A, &some(&[1]));
        check(&fences, &[], &[1, 2, 3]);
        assert_eq!(fences.count(), 0);
    }

    #[test]
    fn a_fence_around_all_is_around_each() {
        let mut fences = Fences::default();
        fences.raise(A, &Keys::All, 0);
        fences.raise(A, &some(&[1]), 0);
        fences.raise(B, &some(&(0..=MAX_KEYS as u64).collect::<Vec<_>>()), 0);
        fences.lower(A, &Keys::All);
        check(&fences, &[1, u64::MAX], &[]);
        fences.lower(B, &some(&[1]));
        check(&fences, &[], &[1, u64::MAX]);
    }

    #[test]
    fn a_fence_falls_by_itself_when_its_write_cannot_happen_any_more() {
        let mut fences = Fences::default();
        fences.raise(A, &some(&[1]), 1_000);
        fences.raise(B, &some(&[1, 2]), 5_000);
        fences.expire(999 + LASTS);
        check(&fences, &[1, 2], &[]);
        fences.expire(1_000 + LASTS);
        fences.expire(5_000 + LASTS);
        check(&fences, &[], &[1, 2]);
    }
}
