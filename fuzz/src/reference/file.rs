//! Segment files.

use crate::{
    reference::{frames::Region, header::Header},
    seal::{HEADER_BLOCK_BYTES, Seed},
};

/// A segment file.
#[derive(Clone, Debug)]
pub struct File {
    pub sequence: u64,
    /// `None` if the header is blank, damaged or misplaced.
    pub header: Option<Header>,
    /// A valid header that belongs to a file with another number.
    pub misplaced: Option<Header>,
    pub is_blank: bool,
    pub bytes: Vec<u8>,
}

impl File {
    /// Returns the bytes after the header block.
    pub fn body(&self) -> &[u8] {
        self.bytes.get(HEADER_BLOCK_BYTES..).unwrap_or_default()
    }

    pub fn has_zero_body(&self) -> bool {
        self.body().iter().all(|&byte| byte == 0)
    }

    /// Returns the frames of a segment with a valid header, up to `end` or to its created size.
    pub fn region(&self, end: Option<u64>) -> Region<'_> {
        let header = self.header.unwrap();
        let created = (header.file_bytes as usize).saturating_sub(HEADER_BLOCK_BYTES);
        let mut bytes = &self.body()[..self.body().len().min(created)];
        if let Some(end) = end {
            let room = end.saturating_sub(header.base);
            bytes = &bytes[..bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        }
        Region { seed: Seed::new(header.log_id, header.epoch), base: header.base, bytes }
    }
}
