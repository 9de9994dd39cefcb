//! One frame: a header of 16 bytes, the payload, and zeros up to the next multiple of 8.
//!
//! ```text
//!  0        4    5     6       8            12       16
//!  | length |kind|flags| check | synced lag | crc32c | payload … | 0..7 zeros |
//! ```
//!
//! `check` (16 bits) covers the header, so that the length is trusted even if the payload is
//! damaged. `crc32c` covers the payload and the header. Both are seeded with the log's id, the
//! epoch and the LSN, so a frame is valid only where it was written. The payload comes first under
//! `crc32c`, so an append computes nearly all of it before it reserves its LSN.

use crate::{
    format::{
        control::{CONTROL_PAYLOAD_BYTES, Control, FIRST_PAYLOAD_BYTES},
        shift::Shift,
    },
    lsn::Lsn,
    sabotage::{self, Sabotage},
};

pub(crate) const FRAME_HEADER_BYTES: usize = 16;
pub(crate) const FRAME_HEADER_BYTES_U64: u64 = 16;
pub(crate) const FRAME_ALIGN: u64 = 8;

/// The lag of a frame that claims nothing.
const LAG_NONE: u32 = u32::MAX;

/// Returns the size of a frame in the log: header, payload and padding.
///
/// The payload counts in its stored form, which may be compressed. For an uncompressed record at
/// `lsn`, the next frame begins at `lsn + frame_bytes(payload_bytes)`.
///
/// ```
/// assert_eq!(highwater::inspect::frame_bytes(100), 120);
/// ```
#[must_use]
pub const fn frame_bytes(payload_bytes: u64) -> u64 {
    let payload_end = payload_bytes.saturating_add(FRAME_ALIGN - 1) / FRAME_ALIGN * FRAME_ALIGN;
    payload_end.saturating_add(FRAME_HEADER_BYTES_U64)
}

/// The size of the frame of a mark or a close.
pub(crate) const CONTROL_FRAME_BYTES: u64 = frame_bytes(CONTROL_PAYLOAD_BYTES as u64);
/// The size of the frame that records the log's first position.
pub(crate) const FIRST_FRAME_BYTES: u64 = frame_bytes(FIRST_PAYLOAD_BYTES as u64);

/// Returns whether a frame can begin at `lsn`.
pub(crate) const fn is_aligned(lsn: Lsn) -> bool {
    lsn.as_u64() % FRAME_ALIGN == 0
}

/// Returns the position of the payload of the frame at `lsn`.
pub(crate) const fn payload_lsn(lsn: Lsn) -> Lsn {
    lsn.plus(FRAME_HEADER_BYTES_U64)
}

/// Returns a whole control frame at `lsn`. It claims that everything below `synced` is synced.
pub(crate) fn control_frame(seed: Seed, lsn: Lsn, control: Control, synced: Lsn) -> Vec<u8> {
    control_frame_of(seed, lsn, &control.payload(), synced)
}

/// As [`control_frame`], with the payload, a multiple of 8 bytes.
pub(crate) fn control_frame_of(seed: Seed, lsn: Lsn, payload: &[u8], synced: Lsn) -> Vec<u8> {
    let (header, _) = control_header(seed, lsn, payload, synced);
    [&header.to_bytes(), payload].concat()
}

/// As [`control_frame_of`], but claims nothing.
pub(crate) fn unclaiming_control_frame(seed: Seed, lsn: Lsn, payload: &[u8]) -> Vec<u8> {
    let (mut header, crc) = control_header(seed, lsn, payload, lsn);
    header.lag = LAG_NONE;
    header.set_checksums(seed, lsn, crc);
    [&header.to_bytes(), payload].concat()
}

/// Returns the header of a control frame, and the CRC of its payload.
fn control_header(seed: Seed, lsn: Lsn, payload: &[u8], synced: Lsn) -> (FrameHeader, u32) {
    // A control payload has at most 64 KiB.
    let payload_bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let crc = crc32c::crc32c(payload);
    (FrameHeader::seal(seed, lsn, Kind::Control, payload_bytes, crc, synced), crc)
}

/// The seed of all checksums of an epoch: the log's id and the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    pub(crate) fn new(log_id: [u8; 16], epoch: u64) -> Self {
        let id = crc32c::crc32c(&log_id);
        Seed(crc32c::crc32c_append(id, &epoch.to_le_bytes()))
    }

    /// Returns the value, to store it in an atomic.
    pub(crate) const fn value(self) -> u32 {
        self.0
    }

    pub(crate) const fn from_value(value: u32) -> Self {
        Seed(value)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A single record.
    Record,
    /// A record of a batch, but not the last one.
    BatchPart,
    /// The last record of a batch.
    BatchEnd,
    /// A record of the log itself; never returned to readers.
    Control,
}

impl Kind {
    /// Returns the code, never 0. So the first word of a frame is never zero, and a zero means that
    /// nothing was written there.
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

/// The CRC of the bytes of a header that both checksums cover, with zeros in place of `check`. Both
/// checksums follow from it, so it is computed once for a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Covered(u32);

/// The bytes that `crc32c` covers after the payload.
static AFTER_PAYLOAD: Shift<4> = Shift::by(24);
/// The bytes of `check`, which are the last ones that `crc32c` covers.
static AFTER_CHECK: Shift<2> = Shift::by(2);

impl Covered {
    fn check(self) -> u16 {
        let [a, b, c, d] = self.0.to_le_bytes();
        u16::from_le_bytes([a ^ c, b ^ d])
    }

    /// Returns the CRC-32C of the payload, followed by the covered bytes with this `check`.
    fn crc(self, payload_crc: u32, check: u16) -> u32 {
        self.0 ^ AFTER_PAYLOAD.of(payload_crc.to_le_bytes()) ^ AFTER_CHECK.of(check.to_le_bytes())
    }
}

/// The header of a frame, as stored. No field may be trusted before it is checked.
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
    /// Returns whether the frame holds a record of a user, alone or in a batch.
    pub(crate) fn is_record(&self) -> bool {
        self.kind_code != Kind::Control.code()
    }

    /// Returns the header of a new frame at `lsn`, in a log that is synced up to `synced`.
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
        header.set_checksums(seed, lsn, payload_crc);
        header
    }

    fn set_checksums(&mut self, seed: Seed, lsn: Lsn, payload_crc: u32) {
        let covered = self.covered(seed, lsn);
        self.check = covered.check();
        self.crc = covered.crc(payload_crc, self.check);
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

    /// Returns the header as two little-endian words.
    pub(crate) fn to_words(self) -> (u64, u64) {
        let first = u64::from(self.payload_bytes)
            | u64::from(self.kind_code) << 32
            | u64::from(self.flags) << 40
            | u64::from(self.check) << 48;
        let second = u64::from(self.lag) | u64::from(self.crc) << 32;
        (first, second)
    }

    /// Parses the words that `to_words` returned.
    pub(crate) fn from_words([first, second]: [u64; 2]) -> Self {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let (low, high) = bytes.split_at_mut(8);
        low.copy_from_slice(&first.to_le_bytes());
        high.copy_from_slice(&second.to_le_bytes());
        Self::parse(bytes)
    }

    pub(crate) fn to_bytes(self) -> [u8; FRAME_HEADER_BYTES] {
        let (first, second) = self.to_words();
        let mut bytes = [0; FRAME_HEADER_BYTES];
        let (low, high) = bytes.split_at_mut(8);
        low.copy_from_slice(&first.to_le_bytes());
        high.copy_from_slice(&second.to_le_bytes());
        bytes
    }

    /// Returns the payload length and the kind of a frame, from its first word.
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

    /// Returns whether the header is as it was sealed at `lsn`.
    pub(crate) fn header_holds(&self, seed: Seed, lsn: Lsn) -> bool {
        self.intact(seed, lsn).is_some()
    }

    /// Returns the CRC of the header if it is as it was sealed at `lsn`.
    #[inline]
    pub(crate) fn intact(&self, seed: Seed, lsn: Lsn) -> Option<Covered> {
        let covered = self.covered(seed, lsn);
        (self.kind_code != 0 && self.check == covered.check()).then_some(covered)
    }

    /// Returns whether header and payload are as they were sealed at `lsn`. The payload is given by
    /// its plain CRC-32C.
    pub(crate) fn payload_holds(&self, seed: Seed, lsn: Lsn, payload_crc: u32) -> bool {
        self.payload_holds_after(self.covered(seed, lsn), payload_crc)
    }

    /// As [`payload_holds`](FrameHeader::payload_holds), with the CRC of this header.
    #[inline]
    pub(crate) fn payload_holds_after(&self, covered: Covered, payload_crc: u32) -> bool {
        self.crc == covered.crc(payload_crc, self.check)
    }

    /// Returns the bits in which the stored CRC differs from that of a frame sealed at `lsn`.
    pub(super) fn crc_difference(&self, seed: Seed, lsn: Lsn, payload_crc: u32) -> u32 {
        self.crc ^ self.covered(seed, lsn).crc(payload_crc, self.check)
    }

    /// Returns how far the log was known to be synced when the frame was created. Valid for intact
    /// frames only.
    pub(crate) fn commitment(&self, lsn: Lsn) -> Option<Lsn> {
        let back = u64::from(self.lag).checked_mul(FRAME_ALIGN)?;
        if self.lag == LAG_NONE {
            return None;
        }
        lsn.as_u64().checked_sub(back).map(Lsn::new)
    }

    /// Returns whether the frame claims that a part of the log is synced.
    pub(crate) fn has_claim(&self) -> bool {
        self.lag != LAG_NONE
    }

    /// Returns the CRC of the 24 bytes that both checksums cover: seed, lag, LSN and the first
    /// header word, without `check`.
    #[inline]
    fn covered(&self, seed: Seed, lsn: Lsn) -> Covered {
        let (first, _) = FrameHeader { check: 0, ..*self }.to_words();
        let front = u64::from(seed.0) | u64::from(self.lag) << 32;
        let lsn = if sabotage::is_on(Sabotage::ForgetLsn) { 0 } else { lsn.as_u64() };
        let mut covered = [0; 24];
        let words = [front, lsn, first];
        for (place, word) in covered.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        Covered(crc32c::crc32c(&covered))
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
    fn header_round_trips() {
        let header = sealed(b"payload", 4096);
        assert_eq!(FrameHeader::parse(header.to_bytes()), header);
        assert_eq!(FrameHeader::shape_of_word(header.to_words().0), (7, Some(Kind::Record)));
        assert!(header.header_holds(seed(), Lsn::new(4096)));
        assert!(header.payload_holds(seed(), Lsn::new(4096), crc32c::crc32c(b"payload")));
        assert_eq!(header.commitment(Lsn::new(4096)), Some(Lsn::new(2048)));
    }

    /// The checksums are those of `docs/FORMAT.md`, computed from the bytes.
    #[test]
    fn checksums_are_those_of_the_format() {
        for (number, lsn) in [0, 64, 4096, 1 << 40, u64::MAX / 8 * 8].into_iter().enumerate() {
            let payload = vec![0xa7; number * 5];
            let header = sealed(&payload, lsn);
            let (first, second) = header.to_words();
            let covered = |first: u64| {
                let front = u64::from(seed().0) | second << 32;
                [front, lsn, first].map(u64::to_le_bytes).concat()
            };
            let crc = crc32c::crc32c(&covered(first & 0xffff_ffff_ffff));
            assert_eq!(u32::from(header.check), (crc ^ crc >> 16) & 0xffff);
            let whole = [payload, covered(first)].concat();
            assert_eq!(header.crc, crc32c::crc32c(&whole));
        }
    }

    #[test]
    fn flipped_bit_in_header_or_payload_is_detected() {
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

    /// Negative control for a checksum without the LSN, the log's id or the epoch.
    #[test]
    fn frame_is_valid_only_where_it_was_written() {
        let header = sealed(b"x", 64);
        let crc = crc32c::crc32c(b"x");
        let elsewhere = [(seed(), 72), (Seed::new([7; 16], 4), 64), (Seed::new([8; 16], 3), 64)];
        for (seed, lsn) in elsewhere {
            assert!(!header.payload_holds(seed, Lsn::new(lsn), crc), "{seed:?} at {lsn}");
            assert!(!header.header_holds(seed, Lsn::new(lsn)), "{seed:?} at {lsn}");
        }
    }

    #[test]
    fn lag_above_32_bits_claims_nothing() {
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
