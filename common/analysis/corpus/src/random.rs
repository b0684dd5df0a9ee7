//! Chance, from a seed.

use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};

/// Makes the choices of one session.
pub struct Chance(StdRng);

impl Chance {
    /// The same choices for the same seed and name.
    #[must_use]
    pub fn new(seed: u64, name: &str) -> Self {
        // FNV-1a, so that sessions of one run differ from each other and stay the same when others are added.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        Self(StdRng::seed_from_u64(seed ^ hash))
    }

    /// A number in `from..=to`.
    pub fn number(&mut self, from: u32, to: u32) -> u32 {
        self.0.random_range(from..=to)
    }

    /// A size in `from..=to`.
    pub fn size(&mut self, from: usize, to: usize) -> usize {
        self.0.random_range(from..=to)
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u32) -> bool {
        self.0.next_u32().is_multiple_of(times)
    }

    /// One of them.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.0.random_range(0..of.len())]
    }

    /// One of the characters.
    ///
    /// # Panics
    /// If there is none.
    pub fn letter(&mut self, of: &str) -> char {
        let count = of.chars().count();
        let at = self.size(0, count - 1);
        of.chars().nth(at).expect("it is below the count")
    }
}

/// Any seed.
#[must_use]
pub fn seed() -> u64 {
    rand::random()
}
