//! When something is handed over before its sync, and what: random, by seed.

use std::sync::Mutex;

use crate::simulation::{fault::lock, random::Random};

#[derive(Debug)]
pub(super) struct Early {
    one_in: u64,
    random: Mutex<Random>,
}

impl Early {
    pub(super) fn new(seed: u64, one_in: u32) -> Self {
        Early { one_in: u64::from(one_in), random: Mutex::new(Random::new(seed)) }
    }

    /// Whether it is time for it.
    pub(super) fn hits(&self) -> bool {
        self.below(self.one_in) == 0
    }

    /// A number below `end`; 0 if there is none.
    pub(super) fn below(&self, end: u64) -> u64 {
        lock(&self.random).below(usize::try_from(end).unwrap_or(usize::MAX)) as u64
    }

    /// Puts them into any order.
    pub(super) fn shuffle<T>(&self, items: &mut [T]) {
        for end in (2..=items.len()).rev() {
            items.swap(end - 1, lock(&self.random).below(end));
        }
    }
}
