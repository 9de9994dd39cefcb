//! The header of a segment file: who it belongs to, where it stands, how far the log was synced.

use crate::lsn::Lsn;

/// The first frame stands here. The header itself is shorter; the rest of its block is zero.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 4096;
pub(crate) const VERSION: u16 = 1;

/// The first byte isn't ASCII and the last four notice a transfer in text mode.
pub(crate) const MAGIC: [u8; 8] = [0x8b, b'H', b'W', b'A', b'L', 0x0d, 0x0a, 0x1a];

/// The encoded fields, checksum included. Every version keeps magic, version and this length where
/// they are, and its checksum in the last four of these bytes, so that an intact header of a newer
/// version is told from a damaged one.
pub(crate) const ENCODED_BYTES: usize = 116;
const CHECKSUM_BYTES: usize = 4;

/// A second copy stands here, in another sector: one damaged sector doesn't lose a segment's identity.
const COPY_OFFSET: usize = 2048;

/// LSNs stay below, so that no sum of positions overflows; at a gibibyte a second, for 146 years.
const LSN_LIMIT: u64 = 1 << 62;
/// The largest batch, and room to spare: no header makes anybody look further than this.
pub(crate) const FILE_BYTES_MAX: u64 = 8 << 30;
const HINT_NONE: u64 = u64::MAX;
const FLAG_TRUNCATION: u16 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Random, the same in all segments of a log.
    pub(crate) log_id: [u8; 16],
    /// The LSN of the first frame.
    pub(crate) base: Lsn,
    /// The same until a cut, which starts the next.
    pub(crate) epoch: u64,
    /// Whether the epoch began because a user cut the log here, and not a recovery: then nobody
    /// needs the segments that it took the place of.
    pub(crate) by_truncation: bool,
    /// Random for each use of a file; never 0.
    pub(crate) incarnation: u64,
    /// The segment before this one; `None` at the beginning of a log.
    pub(crate) previous: Option<Link>,
    /// The first LSN of the log when this segment was begun.
    pub(crate) first: Lsn,
    /// How far the log was synced when this segment was begun; never above `base`, because a
    /// failed sync may drop the header itself, and then it must not vouch for anything.
    pub(crate) synced: Lsn,
    pub(crate) created_unix_ms: u64,
    /// A position that a user of the log wants to find again without reading it.
    pub(crate) hint: Option<Lsn>,
    /// The size that the file was prepared with.
    pub(crate) file_bytes: u64,
}

/// How a segment names the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) base: Lsn,
    pub(crate) incarnation: u64,
}

/// What the first bytes of a segment file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParsedHeader {
    Valid(SegmentHeader),
    /// All zero: prepared, never used.
    Blank,
    /// Intact, of a newer version.
    Newer {
        version: u16,
    },
    /// Intact, with flags that this release doesn't know.
    UnknownFlags {
        flags: u16,
    },
    Damaged,
}

/// A header's block: what it says, and which of its two copies do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeaderBlock {
    pub(crate) parsed: ParsedHeader,
    pub(crate) main_holds: bool,
    pub(crate) copy_holds: bool,
}

impl HeaderBlock {
    /// Judges the first [`SEGMENT_HEADER_BYTES`] of a file, or what there is of them.
    pub(crate) fn parse(block: &[u8]) -> Self {
        if block.iter().all(|&byte| byte == 0) {
            return HeaderBlock {
                parsed: ParsedHeader::Blank,
                main_holds: false,
                copy_holds: false,
            };
        }
        let main = SegmentHeader::parse_one(block);
        let copy = SegmentHeader::parse_one(block.get(COPY_OFFSET..).unwrap_or_default());
        let main_holds = main != ParsedHeader::Damaged;
        let parsed = if main_holds { main } else { copy };
        HeaderBlock { parsed, main_holds, copy_holds: copy != ParsedHeader::Damaged }
    }
}

impl SegmentHeader {
    pub(crate) fn link(&self) -> Link {
        Link { base: self.base, incarnation: self.incarnation }
    }

    /// What is written at the beginning of a file: the encoded fields, twice.
    pub(crate) fn block(&self) -> Vec<u8> {
        let mut block = self.encode();
        block.resize(COPY_OFFSET, 0);
        block.extend_from_slice(&self.encode());
        block
    }

    fn encode(&self) -> Vec<u8> {
        debug_assert!(self.synced <= self.base && self.incarnation != 0);
        let link = self.previous.unwrap_or(Link { base: Lsn::ZERO, incarnation: 0 });
        let mut bytes = Vec::with_capacity(ENCODED_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let flags = if self.by_truncation { FLAG_TRUNCATION } else { 0 };
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&116u32.to_le_bytes());
        bytes.extend_from_slice(&self.log_id);
        let words = [
            self.base.as_u64(),
            self.epoch,
            self.incarnation,
            link.base.as_u64(),
            link.incarnation,
            self.first.as_u64(),
            self.synced.as_u64(),
            self.created_unix_ms,
            self.hint.map_or(HINT_NONE, Lsn::as_u64),
            self.file_bytes,
        ];
        for word in words {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        debug_assert_eq!(bytes.len(), ENCODED_BYTES);
        bytes
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn parse(block: &[u8]) -> ParsedHeader {
        HeaderBlock::parse(block).parsed
    }

    fn parse_one(block: &[u8]) -> ParsedHeader {
        let mut fields = Fields { rest: block };
        let Some(prologue) = Prologue::parse(&mut fields) else {
            return ParsedHeader::Damaged;
        };
        if !prologue.checksum_holds(block) {
            return ParsedHeader::Damaged;
        }
        if prologue.version > VERSION {
            return ParsedHeader::Newer { version: prologue.version };
        }
        if prologue.version != VERSION || prologue.encoded_bytes != ENCODED_BYTES {
            return ParsedHeader::Damaged;
        }
        if prologue.flags & !FLAG_TRUNCATION != 0 {
            return ParsedHeader::UnknownFlags { flags: prologue.flags };
        }
        let by_truncation = prologue.flags & FLAG_TRUNCATION != 0;
        match Self::parse_fields(&mut fields, by_truncation) {
            Some(header) if header.is_sound() => ParsedHeader::Valid(header),
            _ => ParsedHeader::Damaged,
        }
    }

    /// Whether the fields can have been written by a log, whatever their checksum says.
    fn is_sound(&self) -> bool {
        let before = self.previous.map_or(self.base, |link| link.base);
        let positions = [self.base, self.first, self.synced, before];
        // A log never begins above what is synced of it; without a predecessor it begins here.
        self.first <= self.synced
            && self.synced <= self.base
            && before <= self.base
            && (self.previous.is_some() || self.first == self.base)
            && self.incarnation != 0
            && self.file_bytes <= FILE_BYTES_MAX
            && positions.iter().all(|at| at.as_u64() % 8 == 0 && at.as_u64() < LSN_LIMIT)
    }

    fn parse_fields(fields: &mut Fields<'_>, by_truncation: bool) -> Option<Self> {
        let log_id = fields.take()?;
        let base = Lsn::new(fields.word()?);
        let epoch = fields.word()?;
        let incarnation = fields.word()?;
        let link = Link { base: Lsn::new(fields.word()?), incarnation: fields.word()? };
        Some(SegmentHeader {
            log_id,
            base,
            epoch,
            by_truncation,
            incarnation,
            previous: (link.incarnation != 0).then_some(link),
            first: Lsn::new(fields.word()?),
            synced: Lsn::new(fields.word()?),
            created_unix_ms: fields.word()?,
            hint: Some(fields.word()?).filter(|&word| word != HINT_NONE).map(Lsn::new),
            file_bytes: fields.word()?,
        })
    }
}

/// What every version of the format begins with.
struct Prologue {
    version: u16,
    flags: u16,
    encoded_bytes: usize,
}

impl Prologue {
    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let magic: [u8; 8] = fields.take()?;
        let version = u16::from_le_bytes(fields.take()?);
        let flags = u16::from_le_bytes(fields.take()?);
        let encoded_bytes = usize::try_from(u32::from_le_bytes(fields.take()?)).ok()?;
        (magic == MAGIC).then_some(Prologue { version, flags, encoded_bytes })
    }

    fn checksum_holds(&self, block: &[u8]) -> bool {
        let checked = block.get(..self.encoded_bytes);
        let Some((covered, crc)) = checked.and_then(<[u8]>::split_last_chunk::<CHECKSUM_BYTES>)
        else {
            return false;
        };
        u32::from_le_bytes(*crc) == crc32c::crc32c(covered)
    }
}

struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*field)
    }

    fn word(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> SegmentHeader {
        SegmentHeader {
            log_id: *b"0123456789abcdef",
            base: Lsn::new(8192),
            epoch: 2,
            by_truncation: true,
            incarnation: 77,
            previous: Some(Link { base: Lsn::new(64), incarnation: 76 }),
            first: Lsn::ZERO,
            synced: Lsn::new(4096),
            created_unix_ms: 1_790_000_000_000,
            hint: None,
            file_bytes: 1 << 20,
        }
    }

    fn block(header: &SegmentHeader) -> Vec<u8> {
        let mut block = header.block();
        block.resize(4096, 0);
        block
    }

    #[test]
    fn headers_survive_the_round_trip() {
        let hint = Some(Lsn::new(8));
        let begins = Lsn::new(64);
        let oldest =
            SegmentHeader { base: begins, first: begins, synced: begins, hint, ..sample() };
        let first = SegmentHeader { previous: None, ..oldest };
        for header in [sample(), oldest, first] {
            assert_eq!(SegmentHeader::parse(&block(&header)), ParsedHeader::Valid(header));
        }
    }

    #[test]
    fn every_flipped_bit_is_damage_and_never_another_version_and_the_copy_stands_in() {
        let intact = block(&sample());
        for bit in 0..ENCODED_BYTES * 8 {
            let mut damaged = intact.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::parse_one(&damaged), ParsedHeader::Damaged, "bit {bit}");
            assert_eq!(SegmentHeader::parse(&damaged), ParsedHeader::Valid(sample()), "bit {bit}");
            damaged[COPY_OFFSET + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SegmentHeader::parse(&damaged), ParsedHeader::Damaged, "bit {bit}");
        }
    }

    #[test]
    fn positions_that_no_log_writes_are_damage() {
        let later = Some(Link { base: sample().base.plus(8), incarnation: 76 });
        let unsound = [
            SegmentHeader { base: Lsn::new(u64::MAX - 7), ..sample() },
            SegmentHeader { base: Lsn::new(8196), ..sample() },
            SegmentHeader { first: Lsn::new(1), ..sample() },
            SegmentHeader { synced: Lsn::new(4), ..sample() },
            SegmentHeader { first: Lsn::new(4104), ..sample() },
            SegmentHeader { previous: None, ..sample() },
            SegmentHeader { previous: later, ..sample() },
            SegmentHeader { file_bytes: u64::MAX, ..sample() },
        ];
        for header in unsound {
            assert_eq!(SegmentHeader::parse(&header.encode()), ParsedHeader::Damaged, "{header:?}");
        }
    }

    #[test]
    fn every_truncation_is_damage() {
        let intact = block(&sample());
        for length in 1..ENCODED_BYTES {
            assert_eq!(SegmentHeader::parse(&intact[..length]), ParsedHeader::Damaged);
        }
        assert_eq!(SegmentHeader::parse(&[]), ParsedHeader::Blank);
        assert_eq!(SegmentHeader::parse(&[0; 4096]), ParsedHeader::Blank);
    }

    /// A next version may have more fields; it keeps the prologue and the checksum's place.
    pub(crate) fn next_version() -> Vec<u8> {
        let mut bytes = sample().encode();
        bytes.truncate(ENCODED_BYTES - CHECKSUM_BYTES);
        bytes[8..10].copy_from_slice(&2u16.to_le_bytes());
        bytes.extend_from_slice(b"a new field");
        let encoded = u32::try_from(bytes.len() + CHECKSUM_BYTES).unwrap();
        bytes[12..16].copy_from_slice(&encoded.to_le_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.resize(4096, 0);
        bytes
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        assert_eq!(SegmentHeader::parse(&next_version()), ParsedHeader::Newer { version: 2 });
    }

    #[test]
    fn unknown_flags_are_told_from_damage() {
        let mut bytes = sample().encode();
        bytes.truncate(ENCODED_BYTES - CHECKSUM_BYTES);
        bytes[10] |= 2;
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::parse(&bytes), ParsedHeader::UnknownFlags { flags: 3 });
    }
}
