//! Segment headers.

use crate::seal::{HEADER_BYTES, HEADER_COPY_OFFSET, word};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The number of the file to which the header belongs.
    pub sequence: u64,
    pub log_id: [u8; 16],
    pub base: u64,
    pub epoch: u64,
    pub incarnation: u64,
    /// The base and the incarnation of the previous segment.
    pub previous: Option<(u64, u64)>,
    pub first: u64,
    pub synced: u64,
    pub file_bytes: u64,
    /// The position of a slots record in the extension.
    pub slots: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    Blank,
    Valid(Header),
    /// A valid header of a file with another number.
    Misplaced(Header),
    Unsupported,
    Damaged,
}

/// Parses a header block. Returns the first copy that is valid for this file number, or else the
/// first undamaged copy.
pub fn parse(block: &[u8], sequence: u64) -> Parsed {
    if block.iter().all(|&byte| byte == 0) {
        return Parsed::Blank;
    }
    let copies = [Some(block), block.get(HEADER_COPY_OFFSET..)];
    let parsed = copies.into_iter().flatten().map(parse_copy).map(|parsed| match parsed {
        Parsed::Valid(header) if header.sequence != sequence => Parsed::Misplaced(header),
        parsed => parsed,
    });
    let parsed: Vec<Parsed> = parsed.collect();
    let is_valid = |parsed: &&Parsed| !matches!(parsed, Parsed::Damaged | Parsed::Misplaced(_));
    let undamaged = |parsed: &&Parsed| **parsed != Parsed::Damaged;
    *parsed.iter().find(is_valid).or(parsed.iter().find(undamaged)).unwrap_or(&Parsed::Damaged)
}

/// The extension of a header.
struct Extension {
    /// True if this release knows each entry, or may skip it.
    is_supported: bool,
    slots: Option<u64>,
}

/// Parses the extension entries; `None` if an entry is incomplete.
fn entries(mut rest: &[u8]) -> Option<Extension> {
    let mut extension = Extension { is_supported: true, slots: None };
    while !rest.is_empty() {
        let code = u16::from_le_bytes([*rest.first()?, *rest.get(1)?]);
        let length = u16::from_le_bytes([*rest.get(2)?, *rest.get(3)?]) as usize;
        let padded = length.next_multiple_of(4);
        let value = rest.get(4..4 + padded)?;
        if value[length..].iter().any(|&byte| byte != 0) {
            return None;
        }
        extension.is_supported &= code & 0x8000 != 0;
        if (code, length) == (0x8004, 8) {
            let position = word(value, 0).filter(|position| position % 8 == 0);
            extension.slots = position.or(extension.slots);
        }
        rest = &rest[4 + padded..];
    }
    Some(extension)
}

fn parse_copy(copy: &[u8]) -> Parsed {
    if copy.len() < 16 || copy[..8] != [0x8b, 0x48, 0x57, 0x41, 0x4c, 0x0d, 0x0a, 0x1a] {
        return Parsed::Damaged;
    }
    let version = u16::from_le_bytes([copy[8], copy[9]]);
    let flags = u16::from_le_bytes([copy[10], copy[11]]);
    let encoded = u32::from_le_bytes(copy[12..16].try_into().unwrap()) as usize;
    if encoded < 4 || encoded > copy.len() || encoded > HEADER_COPY_OFFSET {
        return Parsed::Damaged;
    }
    let (covered, checksum) = copy[..encoded].split_at(encoded - 4);
    if crc32c::crc32c(covered).to_le_bytes() != checksum {
        return Parsed::Damaged;
    }
    match version {
        0 => Parsed::Damaged,
        1 if flags & !1 != 0 => Parsed::Unsupported,
        1 => match copy.get(HEADER_BYTES - 4..encoded - 4).and_then(entries) {
            Some(extension) if !extension.is_supported => Parsed::Unsupported,
            Some(extension) => fields(copy, &extension).map_or(Parsed::Damaged, Parsed::Valid),
            None => Parsed::Damaged,
        },
        _ => Parsed::Unsupported,
    }
}

fn fields(copy: &[u8], extension: &Extension) -> Option<Header> {
    let field = |at| word(copy, at).unwrap();
    let header = Header {
        sequence: field(112),
        log_id: copy[16..32].try_into().unwrap(),
        base: field(32),
        epoch: field(40),
        incarnation: field(48),
        previous: (field(64) != 0).then(|| (field(56), field(64))),
        first: field(72),
        synced: field(80),
        file_bytes: field(104),
        slots: extension.slots,
    };
    let is_position = |at: u64| at % 8 == 0 && at < 1 << 62;
    let before = header.previous.map_or(header.base, |(base, _)| base);
    let is_valid = header.synced <= header.base
        && before <= header.base
        && is_position(before)
        && header.first <= header.synced
        && (header.previous.is_some() || header.first == header.base)
        && header.incarnation != 0
        && is_position(header.base)
        && is_position(header.first)
        && is_position(header.synced)
        && header.file_bytes <= 8 << 30
        && header.base + header.file_bytes <= 1 << 62;
    is_valid.then_some(header)
}
