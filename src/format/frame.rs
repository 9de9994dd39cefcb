//! One frame: 16 bytes of header, the payload, zeros up to the next multiple of 8.
//!
//! ```text
//!  0        4    5     6       8            12       16
//!  | length |kind|flags| check | synced lag | crc32c | payload … | 0..7 zeros |
//! ```
//!
//! `check` (16 bits) covers the header, so that a damaged payload still has a trusted length;
//! `crc32c` covers the payload and the header. Both are seeded with the log's id, the epoch and the
//! LSN: a frame counts only where it was written. The payload comes first under `crc32c`, so an
//! appender computes nearly all of it before it reserves its LSN.

use crate::{
    lsn::Lsn,
    sabotage::{self, Sabotage},
};

pub(crate) const FRAME_HEADER_BYTES: usize = 16;
pub(crate) const FRAME_HEADER_BYTES_U64: u64 = 16;
pub(crate) const FRAME_ALIGN: u64 = 8;

/// A synced lag that claims nothing.
const LAG_NONE: u32 = u32::MAX;

/// The bytes that a frame with this payload takes in the log.
pub(crate) const fn frame_bytes(payload_bytes: u64) -> u64 {
    FRAME_HEADER_BYTES_U64 + payload_bytes.next_multiple_of(FRAME_ALIGN)
}

/// The identity under which frames are sealed: the log's id and the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(log_id: [u8; 16], epoch: u64) -> Self {
        let id = crc32c::crc32c(&log_id);
        Seed(crc32c::crc32c_append(id, &epoch.to_le_bytes()))
    }

    /// For whoever keeps it in an atomic.
    pub(crate) const fn value(self) -> u32 {
        self.0
    }

    pub(crate) const fn from_value(value: u32) -> Self {
        Seed(value)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A record of its own.
    Record,
    /// A record of a batch, with more of the batch behind it.
    BatchPart,
    /// The last record of a batch.
    BatchEnd,
    /// A note of the log to itself; never shown to readers.
    Control,
}

impl Kind {
    /// Never 0: the first word of a frame is never zero, so zero means "nothing was written here".
    pub(crate) const fn code(self) -> u8 {
        match self {
            Kind::Record => 1,
            Kind::BatchPart => 2,
            Kind::BatchEnd => 3,
            Kind::Control => 4,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Kind::Record),
            2 => Some(Kind::BatchPart),
            3 => Some(Kind::BatchEnd),
            4 => Some(Kind::Control),
            _ => None,
        }
    }
}

/// A frame's header as it stands in the file; nothing in it is believed before it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) payload_bytes: u32,
    pub(crate) kind_code: u8,
    pub(crate) flags: u8,
    check: u16,
    lag: u32,
    crc: u32,
}

impl FrameHeader {
    /// Whether it is that of a user's record, of its own or of a batch.
    pub(crate) fn is_record(&self) -> bool {
        self.kind_code != Kind::Control.code()
    }

    /// The header of a frame about to be written at `lsn`, when the log was synced up to `synced`.
    ///
    /// `payload_crc` is the plain CRC-32C of the payload.
    pub(crate) fn seal(
        seed: Seed,
        lsn: Lsn,
        kind: Kind,
        payload_bytes: u32,
        payload_crc: u32,
        synced: Lsn,
    ) -> Self {
        Self::seal_flagged(seed, lsn, (kind, 0), payload_bytes, payload_crc, synced)
    }

    /// As [`FrameHeader::seal`], with flags.
    pub(crate) fn seal_flagged(
        seed: Seed,
        lsn: Lsn,
        (kind, flags): (Kind, u8),
        payload_bytes: u32,
        payload_crc: u32,
        synced: Lsn,
    ) -> Self {
        debug_assert!(synced <= lsn, "nothing past a frame can be synced before it is written");
        let lag = u32::try_from(lsn.since(synced) / FRAME_ALIGN).unwrap_or(LAG_NONE);
        let mut header =
            FrameHeader { payload_bytes, kind_code: kind.code(), flags, check: 0, lag, crc: 0 };
        header.check = header.expected_check(seed, lsn);
        header.crc = header.expected_crc(seed, lsn, payload_crc);
        header
    }

    pub(crate) fn parse(bytes: [u8; FRAME_HEADER_BYTES]) -> Self {
        let [l0, l1, l2, l3, kind_code, flags, c0, c1, g0, g1, g2, g3, r0, r1, r2, r3] = bytes;
        FrameHeader {
            payload_bytes: u32::from_le_bytes([l0, l1, l2, l3]),
            kind_code,
            flags,
            check: u16::from_le_bytes([c0, c1]),
            lag: u32::from_le_bytes([g0, g1, g2, g3]),
            crc: u32::from_le_bytes([r0, r1, r2, r3]),
        }
    }

    /// The header as two little-endian words. The first is the one that publishes a frame.
    pub(crate) fn to_words(self) -> (u64, u64) {
        let first = u64::from(self.payload_bytes)
            | u64::from(self.kind_code) << 32
            | u64::from(self.flags) << 40
            | u64::from(self.check) << 48;
        let second = u64::from(self.lag) | u64::from(self.crc) << 32;
        (first, second)
    }

    pub(crate) fn to_bytes(self) -> [u8; FRAME_HEADER_BYTES] {
        let (first, second) = self.to_words();
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let (low, high) = bytes.split_at_mut(8);
        low.copy_from_slice(&first.to_le_bytes());
        high.copy_from_slice(&second.to_le_bytes());
        bytes
    }

    /// The payload length and the kind of a frame, from its first word.
    pub(crate) fn shape_of_word(word: u64) -> (u64, Option<Kind>) {
        let [l0, l1, l2, l3, kind_code, ..] = word.to_le_bytes();
        (u64::from(u32::from_le_bytes([l0, l1, l2, l3])), Kind::from_code(kind_code))
    }

    pub(crate) fn kind(&self) -> Option<Kind> {
        Kind::from_code(self.kind_code)
    }

    pub(crate) fn frame_bytes(&self) -> u64 {
        frame_bytes(u64::from(self.payload_bytes))
    }

    /// Whether the length and the other fields are those that were sealed at `lsn`.
    pub(crate) fn header_holds(&self, seed: Seed, lsn: Lsn) -> bool {
        self.kind_code != 0 && self.check == self.expected_check(seed, lsn)
    }

    /// Whether the payload, given by its plain CRC-32C, and the header are those that were sealed.
    pub(crate) fn payload_holds(&self, seed: Seed, lsn: Lsn, payload_crc: u32) -> bool {
        self.crc == self.expected_crc(seed, lsn, payload_crc)
    }

    /// How far the log was known synced when this frame was made. Ask only a frame that holds.
    pub(crate) fn commitment(&self, lsn: Lsn) -> Option<Lsn> {
        let back = u64::from(self.lag).checked_mul(FRAME_ALIGN)?;
        if self.lag == LAG_NONE {
            return None;
        }
        lsn.as_u64().checked_sub(back).map(Lsn::new)
    }

    fn expected_check(&self, seed: Seed, lsn: Lsn) -> u16 {
        let crc = crc32c::crc32c(&self.covered(seed, lsn, 0));
        let [a, b, c, d] = crc.to_le_bytes();
        u16::from_le_bytes([a ^ c, b ^ d])
    }

    fn expected_crc(&self, seed: Seed, lsn: Lsn, payload_crc: u32) -> u32 {
        crc32c::crc32c_append(payload_crc, &self.covered(seed, lsn, self.check))
    }

    /// The 24 bytes that both checksums cover: seed, lag, LSN and the first header word.
    fn covered(&self, seed: Seed, lsn: Lsn, check: u16) -> [u8; 24] {
        let (first, _) = FrameHeader { check, ..*self }.to_words();
        let front = u64::from(seed.0) | u64::from(self.lag) << 32;
        let lsn = if sabotage::is_on(Sabotage::ForgetLsn) { 0 } else { lsn.as_u64() };
        let mut covered = [0; 24];
        let words = [front, lsn, first];
        for (place, word) in covered.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        covered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> Seed {
        Seed::new([7; 16], 3)
    }

    fn sealed(payload: &[u8], lsn: u64) -> FrameHeader {
        let crc = crc32c::crc32c(payload);
        let bytes = u32::try_from(payload.len()).unwrap();
        FrameHeader::seal(seed(), Lsn::new(lsn), Kind::Record, bytes, crc, Lsn::new(lsn / 2))
    }

    #[test]
    fn a_header_survives_the_round_trip() {
        let header = sealed(b"payload", 4096);
        assert_eq!(FrameHeader::parse(header.to_bytes()), header);
        assert_eq!(FrameHeader::shape_of_word(header.to_words().0), (7, Some(Kind::Record)));
        assert!(header.header_holds(seed(), Lsn::new(4096)));
        assert!(header.payload_holds(seed(), Lsn::new(4096), crc32c::crc32c(b"payload")));
        assert_eq!(header.commitment(Lsn::new(4096)), Some(Lsn::new(2048)));
    }

    #[test]
    fn every_flipped_bit_of_header_and_payload_is_seen() {
        let payload = b"some payload";
        let header = sealed(payload, 64).to_bytes();
        for bit in 0..header.len() * 8 {
            let mut damaged = header;
            damaged[bit / 8] ^= 1 << (bit % 8);
            let damaged = FrameHeader::parse(damaged);
            let holds = damaged.header_holds(seed(), Lsn::new(64))
                && damaged.payload_holds(seed(), Lsn::new(64), crc32c::crc32c(payload));
            assert!(!holds, "bit {bit} of the header");
        }
        for bit in 0..payload.len() * 8 {
            let mut damaged = *payload;
            damaged[bit / 8] ^= 1 << (bit % 8);
            let header = FrameHeader::parse(header);
            assert!(header.header_holds(seed(), Lsn::new(64)), "the length stays trusted");
            assert!(!header.payload_holds(seed(), Lsn::new(64), crc32c::crc32c(&damaged)));
        }
    }

    /// Negative control for "leave the LSN (or the log, or the epoch) out of the checksum".
    #[test]
    fn a_frame_holds_only_where_it_was_written() {
        let header = sealed(b"x", 64);
        let crc = crc32c::crc32c(b"x");
        let elsewhere = [(seed(), 72), (Seed::new([7; 16], 4), 64), (Seed::new([8; 16], 3), 64)];
        for (seed, lsn) in elsewhere {
            assert!(!header.payload_holds(seed, Lsn::new(lsn), crc), "{seed:?} at {lsn}");
            assert!(!header.header_holds(seed, Lsn::new(lsn)), "{seed:?} at {lsn}");
        }
    }

    #[test]
    fn a_lag_that_does_not_fit_claims_nothing() {
        let far = Lsn::new(u64::from(u32::MAX) * 8 + 64);
        let header = FrameHeader::seal(seed(), far, Kind::Record, 0, 0, Lsn::ZERO);
        assert_eq!(header.commitment(far), None);
    }

    #[test]
    fn frames_are_aligned() {
        for (payload, frame) in [(0, 16), (1, 24), (8, 24), (9, 32), (256, 272)] {
            assert_eq!(frame_bytes(payload), frame);
        }
    }
}
