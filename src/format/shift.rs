//! The CRC-32C of a longer input, from a CRC that is known.
//!
//! A CRC is linear. If zero bytes follow an input, its CRC changes by a function of the CRC alone.
//! One table for each byte of the CRC holds that function. For short inputs, the tables take fewer
//! instructions than a call of the CRC itself.

/// The polynomial of CRC-32C, with its bits in reverse.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Maps a CRC of `N` bytes to the CRC after a number of zero bytes, without the inversion of the
/// bits at either end.
pub(super) struct Shift<const N: usize>([[u32; 256]; N]);

impl<const N: usize> Shift<N> {
    /// Returns the map for `zero_bytes` zero bytes.
    #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, in a static")]
    pub(super) const fn by(zero_bytes: u32) -> Self {
        let mut tables = [[0; 256]; N];
        let mut bit = 0;
        while bit < N * 8 {
            let mut shifted = 1_u32 << bit;
            let mut step = 0;
            while step < zero_bytes * 8 {
                shifted = (shifted >> 1) ^ (POLYNOMIAL * (shifted & 1));
                step += 1;
            }
            let mut byte = 0;
            while byte < 256 {
                if byte >> (bit % 8) & 1 == 1 {
                    tables[bit / 8][byte] ^= shifted;
                }
                byte += 1;
            }
            bit += 1;
        }
        Shift(tables)
    }

    #[inline]
    #[expect(clippy::indexing_slicing, reason = "each table has an entry for every byte")]
    pub(super) fn of(&self, crc: [u8; N]) -> u32 {
        let entries = self.0.iter().zip(crc).map(|(table, byte)| table[usize::from(byte)]);
        entries.fold(0, |sum, entry| sum ^ entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appends zeros to `crc`, without the inversions.
    fn after_zeros(crc: u32, zeros: &[u8]) -> u32 {
        !crc32c::crc32c_append(!crc, zeros)
    }

    #[test]
    fn shift_agrees_with_appended_zeros() {
        static BY_24: Shift<4> = Shift::by(24);
        static BY_2: Shift<2> = Shift::by(2);
        let mut crc = 1_u32;
        for round in 0..10_000_u32 {
            crc = crc.wrapping_mul(0x9e37_79b1).wrapping_add(round);
            assert_eq!(BY_24.of(crc.to_le_bytes()), after_zeros(crc, &[0; 24]), "{crc:#x}");
            let [low, high, ..] = crc.to_le_bytes();
            let short = u32::from(u16::from_le_bytes([low, high]));
            assert_eq!(BY_2.of([low, high]), after_zeros(short, &[0; 2]), "{short:#x}");
        }
    }
}
