//! Chooses by seed which changes are written back before their sync, and when.

use std::sync::Mutex;

use crate::{simulation::random::Random, sync::LockAlways};

#[derive(Debug)]
pub(super) struct Early {
    one_in: u64,
    random: Mutex<Random>,
}

impl Early {
    pub(super) fn new(seed: u64, one_in: u32) -> Self {
        Early { one_in: u64::from(one_in), random: Mutex::new(Random::new(seed)) }
    }

    /// Returns whether something is written back now.
    pub(super) fn hits(&self) -> bool {
        self.below(self.one_in) == 0
    }

    /// Returns a number below `end`; 0 if `end` is 0.
    pub(super) fn below(&self, end: u64) -> u64 {
        self.random.lock_always().below(usize::try_from(end).unwrap_or(usize::MAX)) as u64
    }

    /// Shuffles the items.
    pub(super) fn shuffle<T>(&self, items: &mut [T]) {
        for end in (2..=items.len()).rev() {
            items.swap(end - 1, self.random.lock_always().below(end));
        }
    }
}
