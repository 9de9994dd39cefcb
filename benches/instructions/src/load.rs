//! How much a work has to do, and the work that a test adds on purpose.

use std::hint::black_box;

/// Adds a loop of so many rounds, an instruction each at least, to every operation: `check` must
/// notice.
pub const EXTRA: &str = "HIGHWATER_INSTRUCTIONS_EXTRA";

#[derive(Clone)]
pub struct Load {
    turns: u64,
    extra: u64,
}

impl Load {
    /// # Errors
    ///
    /// If one of the two isn't a number.
    pub fn of(turns: &str) -> Result<Self, crate::Failure> {
        let extra = std::env::var(EXTRA).map_or(Ok(0), |extra| extra.parse())?;
        Ok(Load { turns: turns.parse()?, extra })
    }

    pub fn turns(&self) -> std::ops::Range<u64> {
        0..self.turns
    }

    /// Each operation calls it once.
    pub fn operation(&self) {
        for turn in 0..self.extra {
            black_box(turn);
        }
    }
}
