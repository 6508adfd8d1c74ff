//! Random numbers that can be replayed: a seed, printed by the tests, decides everything.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::process::show;

/// The environment variable that replays a seed.
pub const SEED_VARIABLE: &str = "CLOAKROOM_TEST_SEED";

/// `SplitMix64`: small, seedable, and good enough to choose test inputs.
#[derive(Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator that repeats itself for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A fresh seed, or the one to replay; printed, so that a failure can be repeated.
    pub fn seed(test: &str) -> u64 {
        let replayed = std::env::var(SEED_VARIABLE).ok().map(|text| text.parse().expect("the seed is a number"));
        // The standard library's hash keys are the only source of chance without a dependency.
        let seed = replayed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        show(&format!("{test}: {SEED_VARIABLE}={seed}"));
        seed
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of the choices.
    pub fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }

    /// Random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}
