//! Writes frames and headers with valid checksums, according to `docs/FORMAT.md`.

pub const HEADER_BLOCK_BYTES: usize = 4096;
pub const HEADER_COPY_OFFSET: usize = 2048;
pub const HEADER_BYTES: usize = 124;
pub const FRAME_HEADER_BYTES: usize = 16;

pub const RECORD: u8 = 1;
pub const BATCH_PART: u8 = 2;
pub const BATCH_END: u8 = 3;
pub const CONTROL: u8 = 4;

pub const CLOSE: [u8; 8] = [2, 0, 0, 0, 0, 0, 0, 2];

/// The CRC of the log's ID and the epoch, with which each frame's checksums start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u32);

impl Seed {
    pub fn new(log_id: [u8; 16], epoch: u64) -> Self {
        let mut bytes = log_id.to_vec();
        bytes.extend(epoch.to_le_bytes());
        Seed(crc32c::crc32c(&bytes))
    }
}

/// The fields of a frame's header, except for its checksums.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    pub length: u32,
    pub kind: u8,
    pub flags: u8,
    pub lag: u32,
}

impl Fields {
    fn covered(&self, seed: Seed, lsn: u64, check: u16) -> Vec<u8> {
        let mut covered = seed.0.to_le_bytes().to_vec();
        covered.extend(self.lag.to_le_bytes());
        covered.extend(lsn.to_le_bytes());
        covered.extend(self.length.to_le_bytes());
        covered.extend([self.kind, self.flags]);
        covered.extend(check.to_le_bytes());
        covered
    }

    pub fn check(&self, seed: Seed, lsn: u64) -> u16 {
        let crc = crc32c::crc32c(&self.covered(seed, lsn, 0));
        (crc >> 16) as u16 ^ crc as u16
    }

    pub fn checksum(&self, seed: Seed, lsn: u64, check: u16, payload: &[u8]) -> u32 {
        let mut bytes = payload.to_vec();
        bytes.extend(self.covered(seed, lsn, check));
        crc32c::crc32c(&bytes)
    }
}

/// Returns a frame with padding, sealed for `lsn`. The length in `fields` may differ from the
/// payload's.
pub fn frame(seed: Seed, lsn: u64, fields: Fields, payload: &[u8]) -> Vec<u8> {
    let check = fields.check(seed, lsn);
    let checksum = fields.checksum(seed, lsn, check, payload);
    let mut frame = fields.length.to_le_bytes().to_vec();
    frame.extend([fields.kind, fields.flags]);
    frame.extend(check.to_le_bytes());
    frame.extend(fields.lag.to_le_bytes());
    frame.extend(checksum.to_le_bytes());
    frame.extend(payload);
    frame.resize(frame.len().next_multiple_of(8), 0);
    frame
}

/// Corrects the checksum of a changed header copy, if its length field is valid.
pub fn reseal_header(copy: &mut [u8]) {
    let Some(encoded) = copy.get(12..16) else { return };
    let encoded = u32::from_le_bytes(encoded.try_into().unwrap()) as usize;
    if encoded >= 4 && encoded <= copy.len() {
        let (covered, rest) = copy.split_at_mut(encoded - 4);
        rest[..4].copy_from_slice(&crc32c::crc32c(covered).to_le_bytes());
    }
}

pub fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().unwrap()))
}
