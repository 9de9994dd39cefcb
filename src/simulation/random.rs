//! [`Random`]: numbers that follow from a seed.

/// A generator whose numbers follow from its seed, on every machine and in every release. So a seed
/// that a test once printed replays that test in later releases, too.
///
/// It is xorshift64* (S. Vigna, *An experimental exploration of Marsaglia's xorshift generators,
/// scrambled*, 2016). Not for secrets.
///
/// ```
/// use highwater::simulation::Random;
/// let (mut a, mut b) = (Random::new(7), Random::new(7));
/// assert_eq!(a.below(100), b.below(100));
/// ```
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Creates the generator of `seed`. Neighbouring seeds give unrelated sequences.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mixed = (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mut random = Random(mixed | 1);
        for _ in 0..8 {
            random.next_u64();
        }
        random
    }

    /// Returns the next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number from 0 to `end - 1`; 0 if `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let drawn = (self.next_u64() >> 11) % (end as u64).max(1);
        usize::try_from(drawn).unwrap_or(usize::MAX)
    }

    /// Returns `true` with a chance of one in `count`; always if `count` is 0 or 1.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}
