//! Finds the position for which the first frame of a file is sealed, in a range too long to try
//! each position.
//!
//! CRCs are linear: `crc(a ^ b) = crc(a) ^ crc(b) ^ crc(0)`. So a table gives the lower 16 bits of
//! the position for the checksum that the upper bits leave open. Each hit is then checked
//! completely.

use std::collections::HashMap;

use crate::{reference::frames::Region, seal::Seed};

const LOW: u64 = 1 << 16;

/// The table of checksums for the lower bits of a position.
pub struct Sealed<'a> {
    bytes: &'a [u8],
    low: HashMap<u32, u64>,
}

impl<'a> Sealed<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        let region = Region { seed: Seed(0), base: 0, bytes };
        let zero = region.checksum_for(0).unwrap_or(0);
        let lows = (0..LOW).step_by(8);
        let low = lows.filter_map(|low| Some((region.checksum_for(low)? ^ zero, low))).collect();
        Sealed { bytes, low }
    }

    /// Returns a position in `lowest..end` at which the first frame is valid.
    pub fn within(&self, seed: Seed, lowest: u64, end: u64) -> Option<u64> {
        let at = |base| Region { seed, base, bytes: self.bytes };
        let difference = at(0).checksum_difference()?;
        let mut highs = (lowest / LOW * LOW..end).step_by(LOW as usize);
        highs.find_map(|high| {
            let of_high = at(0).checksum_for(high).zip(at(0).checksum_for(0));
            let wanted = of_high.map(|(high, zero)| difference ^ high ^ zero);
            let low = wanted.and_then(|wanted| self.low.get(&wanted));
            let base = low.map(|low| high + low).filter(|base| (lowest..end).contains(base));
            base.filter(|&base| at(base).frame_at(base).is_some())
        })
    }
}
