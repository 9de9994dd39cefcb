//! The amount of work, and the extra work that a test adds on purpose.

use std::hint::black_box;

use crate::failure::Failure;

/// The variable that adds a loop of this many rounds to every operation. A round takes at least one
/// instruction, so `check` must fail.
pub const EXTRA: &str = "HIGHWATER_INSTRUCTIONS_EXTRA";

#[derive(Clone)]
pub struct Load {
    turns: u64,
    extra: u64,
}

impl Load {
    /// # Errors
    ///
    /// If `turns` or the variable is not a number.
    pub fn of(turns: &str) -> Result<Self, Failure> {
        let extra = std::env::var(EXTRA).map_or(Ok(0), |extra| extra.parse())?;
        Ok(Load { turns: turns.parse()?, extra })
    }

    pub fn turns(&self) -> std::ops::Range<u64> {
        0..self.turns
    }

    /// Does the extra work. Each operation calls it once.
    pub fn operation(&self) {
        for turn in 0..self.extra {
            black_box(turn);
        }
    }
}
