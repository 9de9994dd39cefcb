//! The header of a segment file: its log, its position, and the log's synced end.

use crate::{
    format::extension::{self, Extension},
    lsn::Lsn,
};

/// The file offset of the first frame. The header is shorter; the rest of its block is zero.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 4096;
pub(crate) const VERSION: u16 = 1;

/// The first byte is not ASCII, and the last three bytes reveal a transfer in text mode.
pub(crate) const MAGIC: [u8; 8] = [0x8b, b'H', b'W', b'A', b'L', 0x0d, 0x0a, 0x1a];

/// The length of an encoded header without extension entries, with its checksum. Every version
/// keeps the place of the magic, of the version and of the encoded length. The checksum is always
/// in the last four encoded bytes. So an intact header of a newer version never looks damaged.
pub(crate) const ENCODED_BYTES: usize = 124;
const CHECKSUM_BYTES: usize = 4;

/// The offset of the second copy. It is in another sector, so one damaged sector does not lose the
/// identity of a segment. It also limits the encoded bytes of one copy.
const COPY_OFFSET: usize = 2048;

/// All LSNs are below this limit, so that no sum of positions overflows. At 1 GiB/s it lasts for
/// 136 years.
const LSN_LIMIT: u64 = 1 << 62;
/// The largest file size that a header may state: the largest batch, and some space. It limits how
/// far a reader follows a hostile header.
pub(crate) const FILE_BYTES_MAX: u64 = 8 << 30;
const HINT_NONE: u64 = u64::MAX;
const FLAG_TRUNCATION: u16 = 1;

/// Returns whether all LSNs of a segment of `file_bytes` at `base` are below the limit.
pub(crate) fn fits(base: Lsn, file_bytes: u64) -> bool {
    base.as_u64().checked_add(file_bytes).is_some_and(|end| end <= LSN_LIMIT)
}

/// Returns how many bytes of a segment file hold frames.
pub(crate) const fn frame_room(file_bytes: u64) -> u64 {
    file_bytes.saturating_sub(SEGMENT_HEADER_BYTES)
}

/// Returns the end of the LSNs for which a segment file of this size has room.
pub(crate) const fn file_end(base: Lsn, file_bytes: u64) -> Lsn {
    base.plus(frame_room(file_bytes))
}

/// Returns the file offset of `lsn` in the segment that begins at `base`.
pub(crate) const fn file_offset(base: Lsn, lsn: Lsn) -> u64 {
    lsn.since(base).saturating_add(SEGMENT_HEADER_BYTES)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The number in the file's name. A header in a file with another number does not count. A file
    /// that is being prepared may show old contents of its blocks.
    pub(crate) sequence: u64,
    /// Random; the same in all segments of a log.
    pub(crate) log_id: [u8; 16],
    /// The LSN of the first frame.
    pub(crate) base: Lsn,
    /// Stays the same until a cut, which begins a higher epoch.
    pub(crate) epoch: u64,
    /// Set if a user's truncation began the epoch, and not a recovery. Then the segments that it
    /// replaced are not needed.
    pub(crate) by_truncation: bool,
    /// Random for each use of a file; never 0.
    pub(crate) incarnation: u64,
    /// The previous segment; `None` at the beginning of a log.
    pub(crate) previous: Option<Link>,
    /// The first LSN of the log when this segment was created.
    pub(crate) first: Lsn,
    /// The synced end of the log when this segment was created. `synced <= base` holds, because a
    /// failed sync may drop the header itself. The header must then not count as evidence for its
    /// own segment.
    pub(crate) synced: Lsn,
    pub(crate) created_unix_ms: u64,
    /// A position that a user of the log finds without reading the log.
    pub(crate) hint: Option<Lsn>,
    /// The prepared size of the file.
    pub(crate) file_bytes: u64,
    pub(crate) extension: Extension,
}

/// How a segment identifies its predecessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) base: Lsn,
    pub(crate) incarnation: u64,
}

/// The result of parsing the first bytes of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParsedHeader {
    Valid(SegmentHeader),
    /// All zero: the file was prepared but never used.
    Blank,
    /// Intact, of a newer version.
    Newer {
        version: u16,
    },
    /// Intact, with flags that this release does not know.
    UnknownFlags {
        flags: u16,
    },
    /// Intact, with an extension entry that this release does not know and must not skip.
    UnknownExtension {
        code: u16,
    },
    /// Intact, but it belongs to a file with another number.
    Misplaced(SegmentHeader),
    Damaged,
}

/// A parsed block of a header, and which of its two copies are intact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeaderBlock {
    pub(crate) parsed: ParsedHeader,
    pub(crate) main_holds: bool,
    pub(crate) copy_holds: bool,
}

impl HeaderBlock {
    /// Parses the first [`SEGMENT_HEADER_BYTES`] bytes of the file with this number. A shorter file
    /// gives a shorter block.
    pub(crate) fn parse(block: &[u8], sequence: u64) -> Self {
        if block.iter().all(|&byte| byte == 0) {
            return HeaderBlock {
                parsed: ParsedHeader::Blank,
                main_holds: false,
                copy_holds: false,
            };
        }
        let main = SegmentHeader::parse_one(block).in_file(sequence);
        let copy = block.get(COPY_OFFSET..).unwrap_or_default();
        let copy = SegmentHeader::parse_one(copy).in_file(sequence);
        let holds = |parsed| !matches!(parsed, ParsedHeader::Damaged | ParsedHeader::Misplaced(_));
        let (main_holds, copy_holds) = (holds(main), holds(copy));
        let takes_main = main_holds || (!copy_holds && main != ParsedHeader::Damaged);
        HeaderBlock { parsed: if takes_main { main } else { copy }, main_holds, copy_holds }
    }
}

impl ParsedHeader {
    /// Returns the header as it counts in the file with this number.
    fn in_file(self, sequence: u64) -> Self {
        match self {
            ParsedHeader::Valid(header) if header.sequence != sequence => {
                ParsedHeader::Misplaced(header)
            }
            other => other,
        }
    }
}

impl SegmentHeader {
    pub(crate) fn link(&self) -> Link {
        Link { base: self.base, incarnation: self.incarnation }
    }

    /// Returns the bytes at the beginning of a file: the encoded fields, twice.
    pub(crate) fn block(&self) -> Vec<u8> {
        let mut block = self.encode();
        block.resize(COPY_OFFSET, 0);
        block.extend_from_slice(&self.encode());
        block
    }

    /// Returns a block with both copies, made from an intact copy. `sequence` is the number of the
    /// file. Unlike [`block`](SegmentHeader::block), it keeps extension entries that this release
    /// does not know.
    pub(crate) fn both_copies(block: &[u8], sequence: u64) -> Option<Vec<u8>> {
        let copies = [Some(block), block.get(COPY_OFFSET..)];
        let encoded = copies.into_iter().flatten().find_map(|copy| {
            match Self::parse_one(copy).in_file(sequence) {
                ParsedHeader::Valid(_) => {
                    let prologue = Prologue::parse(&mut Fields { rest: copy })?;
                    copy.get(..prologue.encoded_bytes)
                }
                _ => None,
            }
        })?;
        let mut bytes = encoded.to_vec();
        bytes.resize(COPY_OFFSET, 0);
        bytes.extend_from_slice(encoded);
        Some(bytes)
    }

    fn encode(&self) -> Vec<u8> {
        debug_assert!(self.synced <= self.base && self.incarnation != 0);
        let link = self.previous.unwrap_or(Link { base: Lsn::ZERO, incarnation: 0 });
        let mut bytes = Vec::with_capacity(ENCODED_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let flags = if self.by_truncation { FLAG_TRUNCATION } else { 0 };
        bytes.extend_from_slice(&flags.to_le_bytes());
        let extension = self.extension.encode();
        // At most 36 bytes of entries.
        let encoded_bytes = u32::try_from(ENCODED_BYTES + extension.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&encoded_bytes.to_le_bytes());
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
            self.sequence,
        ];
        for word in words {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&extension);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        debug_assert_eq!(bytes.len(), ENCODED_BYTES + extension.len());
        bytes
    }

    /// Parses a block as if it were in the file that it names.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn parse(block: &[u8]) -> ParsedHeader {
        match HeaderBlock::parse(block, 0).parsed {
            ParsedHeader::Misplaced(header) => ParsedHeader::Valid(header),
            parsed => parsed,
        }
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
        if prologue.version != VERSION {
            return ParsedHeader::Damaged;
        }
        if prologue.flags & !FLAG_TRUNCATION != 0 {
            return ParsedHeader::UnknownFlags { flags: prologue.flags };
        }
        let fields_bytes = ENCODED_BYTES - CHECKSUM_BYTES;
        let entries = prologue.encoded_bytes.checked_sub(CHECKSUM_BYTES);
        let entries = entries.and_then(|end| block.get(fields_bytes..end));
        let extension = match entries.map(extension::parse) {
            Some(Ok(extension)) => extension,
            Some(Err(extension::Refused::Unknown { code })) => {
                return ParsedHeader::UnknownExtension { code };
            }
            Some(Err(extension::Refused::Malformed)) | None => return ParsedHeader::Damaged,
        };
        let by_truncation = prologue.flags & FLAG_TRUNCATION != 0;
        match Self::parse_fields(&mut fields, by_truncation) {
            Some(header) if header.is_sound() => {
                ParsedHeader::Valid(SegmentHeader { extension, ..header })
            }
            _ => ParsedHeader::Damaged,
        }
    }

    /// Returns whether a log can have written these fields, whatever their checksum.
    fn is_sound(&self) -> bool {
        let before = self.previous.map_or(self.base, |link| link.base);
        let positions = [self.base, self.first, self.synced, before];
        // `first <= synced`: a log never begins above its synced end. Without a predecessor it
        // begins at `base`.
        self.first <= self.synced
            && self.synced <= self.base
            && before <= self.base
            && (self.previous.is_some() || self.first == self.base)
            && self.incarnation != 0
            && self.file_bytes <= FILE_BYTES_MAX
            && fits(self.base, self.file_bytes)
            && positions.iter().all(|at| at.as_u64() % 8 == 0 && at.as_u64() < LSN_LIMIT)
    }

    fn parse_fields(fields: &mut Fields<'_>, by_truncation: bool) -> Option<Self> {
        let log_id = fields.take()?;
        let base = Lsn::new(fields.word()?);
        let epoch = fields.word()?;
        let incarnation = fields.word()?;
        let link = Link { base: Lsn::new(fields.word()?), incarnation: fields.word()? };
        let first = Lsn::new(fields.word()?);
        let synced = Lsn::new(fields.word()?);
        let created_unix_ms = fields.word()?;
        let hint = Some(fields.word()?).filter(|&word| word != HINT_NONE).map(Lsn::new);
        let file_bytes = fields.word()?;
        Some(SegmentHeader {
            sequence: fields.word()?,
            log_id,
            base,
            epoch,
            by_truncation,
            incarnation,
            previous: (link.incarnation != 0).then_some(link),
            first,
            synced,
            created_unix_ms,
            hint,
            file_bytes,
            extension: Extension::default(),
        })
    }
}

/// The fields with which every version of the header begins.
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
        if self.encoded_bytes > COPY_OFFSET {
            return false;
        }
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
            sequence: 9,
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
            extension: Extension::default(),
        }
    }

    fn block(header: &SegmentHeader) -> Vec<u8> {
        let mut block = header.block();
        block.resize(4096, 0);
        block
    }

    #[test]
    fn headers_round_trip() {
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
    fn flipped_bit_is_damage_and_the_copy_is_used() {
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
            SegmentHeader { base: Lsn::new(LSN_LIMIT - sample().file_bytes + 8), ..sample() },
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

    /// A later version may have more fields. It keeps the prologue and the place of the checksum.
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

    /// Returns the sample with extension entries and a valid checksum.
    fn extended(entries: &[u8]) -> Vec<u8> {
        let mut bytes = sample().encode();
        bytes.truncate(ENCODED_BYTES - CHECKSUM_BYTES);
        bytes.extend_from_slice(entries);
        let encoded = u32::try_from(bytes.len() + CHECKSUM_BYTES).unwrap();
        bytes[12..16].copy_from_slice(&encoded.to_le_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn extension_entries_are_skipped_or_refused() {
        let skippable = [0x34, 0x92, 5, 0, b'v', b'a', b'l', b'u', b'e', 0, 0, 0];
        let valid = ParsedHeader::Valid(sample());
        assert_eq!(SegmentHeader::parse(&extended(&skippable)), valid);
        assert_eq!(SegmentHeader::parse(&extended(&skippable.repeat(20))), valid);
        let unknown = ParsedHeader::UnknownExtension { code: 0x1234 };
        assert_eq!(SegmentHeader::parse(&extended(&[0x34, 0x12, 0, 0])), unknown);
        let both = [&skippable[..], &[0x34, 0x12, 0, 0]].concat();
        assert_eq!(SegmentHeader::parse(&extended(&both)), unknown);
        for malformed in [&skippable[..11], &[0x34, 0x92, 1], &[0x34, 0x92, 9, 0, 0, 0, 0, 0]] {
            assert_eq!(SegmentHeader::parse(&extended(malformed)), ParsedHeader::Damaged);
        }
        let too_long = vec![0; COPY_OFFSET];
        assert_eq!(SegmentHeader::parse(&extended(&too_long)), ParsedHeader::Damaged);
    }

    #[test]
    fn both_copies_keep_skippable_entries() {
        let extended = extended(&[0x34, 0x92, 2, 0, b'v', b'w', 0, 0]);
        let mut damaged = vec![0; 4096];
        damaged[COPY_OFFSET..][..extended.len()].copy_from_slice(&extended);
        let whole = SegmentHeader::both_copies(&damaged, sample().sequence).unwrap();
        assert_eq!(whole[..extended.len()], extended);
        assert_eq!(whole[COPY_OFFSET..], extended);
        assert_eq!(SegmentHeader::both_copies(&damaged, 8), None, "of another file");
        assert_eq!(SegmentHeader::both_copies(&[0; 4096], 9), None);
    }

    #[test]
    fn header_under_another_number_does_not_count() {
        let other = SegmentHeader { sequence: 8, incarnation: 5, ..sample() };
        let in_file = |main: &SegmentHeader, copy: &SegmentHeader| {
            let mut bytes = block(main);
            bytes[COPY_OFFSET..].copy_from_slice(&block(copy)[..COPY_OFFSET]);
            let HeaderBlock { parsed, main_holds, copy_holds } = HeaderBlock::parse(&bytes, 9);
            (parsed, main_holds, copy_holds)
        };
        let valid = ParsedHeader::Valid(sample());
        assert_eq!(in_file(&sample(), &sample()), (valid, true, true));
        assert_eq!(in_file(&other, &sample()), (valid, false, true));
        assert_eq!(in_file(&sample(), &other), (valid, true, false));
        assert_eq!(in_file(&other, &other), (ParsedHeader::Misplaced(other), false, false));
    }

    #[test]
    fn newer_version_differs_from_damage() {
        assert_eq!(SegmentHeader::parse(&next_version()), ParsedHeader::Newer { version: 2 });
    }

    #[test]
    fn unknown_flags_differ_from_damage() {
        let mut bytes = sample().encode();
        bytes.truncate(ENCODED_BYTES - CHECKSUM_BYTES);
        bytes[10] |= 2;
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::parse(&bytes), ParsedHeader::UnknownFlags { flags: 3 });
    }
}
