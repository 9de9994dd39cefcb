//! Finds every intact frame of a region whose frame boundaries cannot be trusted.
//!
//! After damage no length can be trusted, so each 8-byte position is tried. The CRC of any range
//! comes from prefix CRCs of the region: `crc(a..b)` is `crc(0..b)` without `crc(0..a)` shifted by
//! `b - a` bytes. So a candidate costs the same whatever length it claims. The search takes linear
//! time, even over payloads that imitate frames.

use crate::{
    format::{
        frame::{FRAME_ALIGN, FRAME_HEADER_BYTES, FrameHeader, Seed},
        scan::to_usize,
    },
    lsn::Lsn,
    sabotage::{self, Sabotage},
    steps,
};

/// Reads bytes of a region by position. It keeps the search free of I/O.
pub(crate) trait Source {
    type Error;

    /// Fills `buffer` from `offset` bytes past the region's start.
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;
}

/// An intact frame past the damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FoundFrame {
    pub(crate) lsn: Lsn,
    /// The end of its padding.
    pub(crate) end: Lsn,
    pub(crate) commitment: Option<Lsn>,
    pub(crate) is_record: bool,
}

/// The maximum size of the prefix table, in entries.
const TABLE_ENTRIES_MAX: u64 = 1 << 20;
const GRANULE_BYTES_MIN: u64 = 256;
const WINDOW_BYTES: u64 = 256 << 10;

/// Calls `found` for each intact frame in a region of `region_bytes` at `start`. Only frames that
/// begin in its first `used_bytes` are searched. A frame may end in the zeros after the used bytes.
/// Frames do not overlap: the search continues after an intact frame.
pub(crate) fn search<S: Source>(
    source: &mut S,
    start: Lsn,
    (used_bytes, region_bytes): (u64, u64),
    seed: Seed,
    found: &mut dyn FnMut(FoundFrame),
) -> Result<(), S::Error> {
    let mut prefixes = None;
    let mut window = Vec::new();
    let mut window_offset = 0;
    let mut offset = 0;
    let mut steps = 0;
    while offset < used_bytes && offset + FRAME_HEADER_BYTES as u64 <= region_bytes {
        steps += 1;
        let window_end = window_offset + window.len() as u64;
        if offset < window_offset || offset + FRAME_HEADER_BYTES as u64 > window_end {
            window_offset = offset;
            window.resize(to_usize(WINDOW_BYTES.min(region_bytes - offset)), 0);
            source.read(offset, &mut window)?;
        }
        let header = window
            .get(to_usize(offset - window_offset)..)
            .and_then(<[u8]>::first_chunk::<FRAME_HEADER_BYTES>)
            .map(|bytes| FrameHeader::parse(*bytes));
        let lsn = start.plus(offset);
        let candidate = header.filter(|header| {
            header.to_words().0 != 0
                && offset.saturating_add(header.frame_bytes()) <= region_bytes
                && header.header_holds(seed, lsn)
        });
        let mut step = FRAME_ALIGN;
        if let Some(header) = header.filter(|_| sabotage::is_on(Sabotage::TrustLength)) {
            step = header.frame_bytes();
        }
        if let Some(header) = candidate {
            let prefixes = match &mut prefixes {
                Some(prefixes) => prefixes,
                None => prefixes.insert(Prefixes::build(source, region_bytes)?),
            };
            let payload_start = offset + FRAME_HEADER_BYTES as u64;
            let payload_bytes = u64::from(header.payload_bytes);
            let crc = prefixes.crc(source, payload_start, payload_bytes)?;
            if header.payload_holds(seed, lsn, crc) {
                let is_record = header.is_record();
                let end = lsn.plus(header.frame_bytes());
                found(FoundFrame { lsn, end, commitment: header.commitment(lsn), is_record });
                step = header.frame_bytes();
            }
        }
        offset += step;
    }
    steps::count(steps);
    Ok(())
}

/// `sums[i]` is the CRC of the region's first `i * granule_bytes` bytes.
struct Prefixes {
    granule_bytes: u64,
    sums: Vec<u32>,
    scratch: Vec<u8>,
}

impl Prefixes {
    fn build<S: Source>(source: &mut S, region_bytes: u64) -> Result<Self, S::Error> {
        let granule_bytes =
            (region_bytes / TABLE_ENTRIES_MAX).next_power_of_two().max(GRANULE_BYTES_MIN);
        let mut sums = vec![0];
        let mut crc = 0;
        let mut window = vec![0; to_usize(granule_bytes.max(WINDOW_BYTES))];
        let mut offset = 0;
        while offset < region_bytes {
            let count = (region_bytes - offset).min(window.len() as u64);
            let Some(bytes) = window.get_mut(..to_usize(count)) else {
                break;
            };
            source.read(offset, bytes)?;
            for granule in bytes.chunks_exact(to_usize(granule_bytes)) {
                crc = crc32c::crc32c_append(crc, granule);
                sums.push(crc);
            }
            offset += count;
        }
        Ok(Prefixes { granule_bytes, sums, scratch: Vec::new() })
    }

    /// Returns the CRC of `bytes` bytes from `start`.
    fn crc<S: Source>(&mut self, source: &mut S, start: u64, bytes: u64) -> Result<u32, S::Error> {
        if bytes == 0 {
            return Ok(0);
        }
        let before = self.prefix(source, start)?;
        let through = self.prefix(source, start + bytes)?;
        Ok(crc32c::crc32c_combine(before, through, to_usize(bytes)))
    }

    fn prefix<S: Source>(&mut self, source: &mut S, end: u64) -> Result<u32, S::Error> {
        let granule = (end / self.granule_bytes).min(self.sums.len() as u64 - 1);
        let sum = self.sums.get(to_usize(granule)).copied().unwrap_or_default();
        let from = granule * self.granule_bytes;
        self.scratch.resize(to_usize(end - from), 0);
        source.read(from, &mut self.scratch)?;
        Ok(crc32c::crc32c_append(sum, &self.scratch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{
        frame::Kind,
        scan::tests::{push, seed},
    };

    struct Slice<'a> {
        bytes: &'a [u8],
        read_bytes: u64,
    }

    impl Source for Slice<'_> {
        type Error = ();

        fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), ()> {
            self.read_bytes += buffer.len() as u64;
            let offset = to_usize(offset);
            buffer.copy_from_slice(&self.bytes[offset..offset + buffer.len()]);
            Ok(())
        }
    }

    fn found(bytes: &[u8], start: Lsn) -> (Vec<Lsn>, u64) {
        let mut source = Slice { bytes, read_bytes: 0 };
        let mut lsns = Vec::new();
        let region = (bytes.len() as u64, bytes.len() as u64);
        search(&mut source, start, region, seed(), &mut |f| lsns.push(f.lsn)).unwrap();
        (lsns, source.read_bytes)
    }

    #[test]
    fn frames_after_any_damage_are_found() {
        let base = Lsn::new(1 << 20);
        let mut log = Vec::new();
        let mut lsns = Vec::new();
        for i in 0..200u8 {
            lsns.push(base.plus(log.len() as u64));
            push(&mut log, base, Kind::Record, &vec![i; usize::from(i) * 7], base);
        }
        assert_eq!(found(&log, base).0, lsns);
        // All other frames are found if the header, the length or the payload of one is damaged.
        let third = to_usize(lsns[3].since(base));
        for damaged_byte in [third + 12, third, third + 20] {
            let mut damaged = log.clone();
            damaged[damaged_byte] ^= 0x10;
            let expected: Vec<_> = lsns.iter().copied().filter(|&l| l != lsns[3]).collect();
            assert_eq!(found(&damaged, base).0, expected);
        }
    }

    #[test]
    fn a_payload_full_of_frame_headers_costs_linear_time() {
        // Each word imitates a frame that reaches to the end of the region.
        let region = 1usize << 16;
        let mut log = vec![0u8; region];
        for at in (0..region - 32).step_by(16) {
            let claims = u32::try_from(region - at - 16).unwrap();
            let lsn = Lsn::new(at as u64);
            let header = FrameHeader::seal(seed(), lsn, Kind::Record, claims, 1, Lsn::ZERO);
            log[at..at + 16].copy_from_slice(&header.to_bytes());
        }
        let (lsns, read_bytes) = found(&log, Lsn::ZERO);
        assert_eq!(lsns, []);
        let candidates = region as u64 / 16;
        assert!(
            read_bytes < 4 * region as u64 + candidates * 2 * GRANULE_BYTES_MIN,
            "{read_bytes}"
        );
    }

    #[test]
    fn short_and_empty_regions_hold_nothing() {
        for length in [0, 1, 8, 15, 16, 24] {
            assert_eq!(found(&vec![0; length], Lsn::ZERO).0, []);
        }
    }
}
