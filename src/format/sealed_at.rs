//! Computes the LSNs for which a frame can have been sealed, without trying each position.
//!
//! A CRC is linear over GF(2): each bit of the LSN flips a fixed pattern of the CRC's bits. The
//! patterns of 32 neighbouring bits are independent. So for given upper 32 bits of the LSN, exactly
//! one value of the lower 32 bits gives the stored CRC. A range of 4 GiB costs one step.

use crate::{
    format::frame::{FRAME_ALIGN, FrameHeader, Seed},
    lsn::Lsn,
    steps,
};

const LOW_BITS: usize = 32;

/// A frame whose LSN is unknown, with the plain CRC-32C of its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unplaced {
    header: FrameHeader,
    payload_crc: u32,
    /// For each bit of a CRC difference, the lower LSN bits that cause it. `None` if the CRC does
    /// not depend on the LSN, which only a sabotage causes.
    inverse: Option<[u32; LOW_BITS]>,
}

impl Unplaced {
    pub(crate) fn new(header: FrameHeader, payload_crc: u32) -> Self {
        Unplaced { header, payload_crc, inverse: inverse(&header) }
    }

    /// Returns whether the frame claims that a part of the log is synced.
    pub(crate) fn has_claim(&self) -> bool {
        self.header.has_claim()
    }

    /// Returns whether the frame is intact at `lsn`.
    pub(crate) fn holds_at(&self, seed: Seed, lsn: Lsn) -> bool {
        self.header.header_holds(seed, lsn)
            && self.header.payload_holds(seed, lsn, self.payload_crc)
    }

    /// Returns the lowest LSN in `lowest..=highest` at which the frame is intact. In a range of
    /// more than a few GiB the result may be wrong, because each 4 GiB contain one LSN with the
    /// same CRC.
    pub(crate) fn within(&self, seed: Seed, lowest: Lsn, highest: Lsn) -> Option<Lsn> {
        let inverse = self.inverse.as_ref()?;
        if lowest > highest {
            return None;
        }
        let mut uppers = lowest.as_u64() >> LOW_BITS..=highest.as_u64() >> LOW_BITS;
        uppers.find_map(|upper| {
            steps::count(1);
            let upper = upper << LOW_BITS;
            let difference = self.header.crc_difference(seed, Lsn::new(upper), self.payload_crc);
            let lsn = Lsn::new(upper | u64::from(apply(inverse, difference)));
            let is_within = (lowest..=highest).contains(&lsn) && lsn.as_u64() % FRAME_ALIGN == 0;
            (is_within && self.holds_at(seed, lsn)).then_some(lsn)
        })
    }
}

/// Returns the sum over GF(2) of the rows that `bits` selects.
fn apply(rows: &[u32; LOW_BITS], bits: u32) -> u32 {
    let chosen = rows.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
    chosen.fold(0, |sum, (_, row)| sum ^ row)
}

/// Inverts the map from the lower bits of an LSN to the CRC bits that they flip.
fn inverse(header: &FrameHeader) -> Option<[u32; LOW_BITS]> {
    let crc_at = |lsn| header.crc_difference(Seed::from_value(0), Lsn::new(lsn), 0);
    let zero = crc_at(0);
    // Each pair is a pattern and the LSN bits that flip it, in triangular form.
    let mut pivots = [(0u32, 0u32); LOW_BITS];
    for bit in 0..LOW_BITS {
        let (mut pattern, mut bits) = (crc_at(1 << bit) ^ zero, 1u32 << bit);
        for (at, (pivot, flips)) in pivots.iter_mut().enumerate().rev() {
            if pattern >> at & 1 == 0 {
                continue;
            }
            if *pivot == 0 {
                (*pivot, *flips) = (pattern, bits);
                break;
            }
            pattern ^= *pivot;
            bits ^= *flips;
        }
    }
    let mut inverse = [0; LOW_BITS];
    for (at, solution) in inverse.iter_mut().enumerate() {
        let mut pattern = 1u32 << at;
        for (place, (pivot, flips)) in pivots.iter().enumerate().rev() {
            if pattern >> place & 1 == 1 {
                pattern ^= pivot;
                *solution ^= flips;
            }
        }
        if pattern != 0 {
            return None;
        }
    }
    Some(inverse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::Kind;

    fn sealed(seed: Seed, lsn: Lsn, payload: &[u8]) -> Unplaced {
        let bytes = u32::try_from(payload.len()).unwrap();
        let crc = crc32c::crc32c(payload);
        let synced = Lsn::new(lsn.as_u64() / 16 * 8);
        Unplaced::new(FrameHeader::seal(seed, lsn, Kind::Record, bytes, crc, synced), crc)
    }

    #[test]
    fn unplaced_frame_at_any_lsn_is_found() {
        let seed = Seed::new([9; 16], 4);
        let far = (1u64 << 62) - 8;
        for lsn in [0, 8, 4096, (1 << 32) - 8, 1 << 32, (1 << 40) + 24, far - (1 << 33), far] {
            let lsn = Lsn::new(lsn);
            let frame = sealed(seed, lsn, b"payload");
            let lowest = Lsn::new(lsn.as_u64().saturating_sub(1 << 24));
            let highest = lsn.plus(1 << 24);
            assert_eq!(frame.within(seed, lowest, highest), Some(lsn));
            assert_eq!(frame.within(seed, lsn, lsn), Some(lsn));
            assert!(frame.holds_at(seed, lsn));
            assert_eq!(frame.within(seed, lsn.plus(8), highest), None, "below the range");
            assert_eq!(frame.within(seed, highest, lowest), None, "an empty range");
            let other = Seed::new([9; 16], 5);
            assert_eq!(frame.within(other, lowest, highest), None, "another epoch");
        }
    }

    #[test]
    fn unplaced_frame_within_agrees_with_every_position() {
        for step in 0..200u64 {
            let seed = Seed::new([1; 16], step);
            let lsn = Lsn::new(step * 104);
            let frame = sealed(seed, lsn, &step.to_le_bytes());
            let tried = (0..4096).map(|at| Lsn::new(at * 8));
            let naive = tried.into_iter().find(|&at| frame.holds_at(seed, at));
            assert_eq!(frame.within(seed, Lsn::ZERO, Lsn::new(32760)), naive);
            assert_eq!(naive, Some(lsn));
        }
    }
}
