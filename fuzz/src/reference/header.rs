//! A segment's header.

use crate::seal::{HEADER_BYTES, HEADER_COPY_OFFSET, word};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub log_id: [u8; 16],
    pub base: u64,
    pub epoch: u64,
    pub incarnation: u64,
    /// Base and incarnation of the segment before.
    pub previous: Option<(u64, u64)>,
    pub first: u64,
    pub synced: u64,
    pub file_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    Blank,
    Valid(Header),
    Unsupported,
    Damaged,
}

/// The first of the two copies that isn't damaged.
pub fn parse(block: &[u8]) -> Parsed {
    if block.iter().all(|&byte| byte == 0) {
        return Parsed::Blank;
    }
    let copies = [Some(block), block.get(HEADER_COPY_OFFSET..)];
    let parsed = copies.into_iter().flatten().map(parse_copy);
    parsed.into_iter().find(|parsed| *parsed != Parsed::Damaged).unwrap_or(Parsed::Damaged)
}

fn parse_copy(copy: &[u8]) -> Parsed {
    if copy.len() < 16 || copy[..8] != [0x8b, 0x48, 0x57, 0x41, 0x4c, 0x0d, 0x0a, 0x1a] {
        return Parsed::Damaged;
    }
    let version = u16::from_le_bytes([copy[8], copy[9]]);
    let flags = u16::from_le_bytes([copy[10], copy[11]]);
    let encoded = u32::from_le_bytes(copy[12..16].try_into().unwrap()) as usize;
    if encoded < 4 || encoded > copy.len() {
        return Parsed::Damaged;
    }
    let (covered, checksum) = copy[..encoded].split_at(encoded - 4);
    if crc32c::crc32c(covered).to_le_bytes() != checksum {
        return Parsed::Damaged;
    }
    match version {
        0 => Parsed::Damaged,
        1 if encoded != HEADER_BYTES => Parsed::Damaged,
        1 if flags & !1 != 0 => Parsed::Unsupported,
        1 => fields(copy).map_or(Parsed::Damaged, Parsed::Valid),
        _ => Parsed::Unsupported,
    }
}

fn fields(copy: &[u8]) -> Option<Header> {
    let field = |at| word(copy, at).unwrap();
    let header = Header {
        log_id: copy[16..32].try_into().unwrap(),
        base: field(32),
        epoch: field(40),
        incarnation: field(48),
        previous: (field(64) != 0).then(|| (field(56), field(64))),
        first: field(72),
        synced: field(80),
        file_bytes: field(104),
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
        && header.file_bytes <= 8 << 30;
    is_valid.then_some(header)
}
