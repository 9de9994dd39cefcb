//! [`Header`]: a verified header of a segment, with its bytes as on disk.

use crate::{
    format::header::{HeaderBlock, ParsedHeader, SegmentHeader, file_end, file_offset},
    lsn::Lsn,
    segments::Sequence,
};

/// The place of the second copy of an encoded header.
const COPY_OFFSET: usize = 2048;

/// An intact header of a segment, and its encoded bytes, which include entries of later releases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    fields: SegmentHeader,
    encoded: Vec<u8>,
}

impl Header {
    /// The largest number of encoded bytes.
    pub const BYTES_MAX: usize = COPY_OFFSET;

    /// Verifies an encoded header, or the block at the start of a segment's file.
    ///
    /// # Errors
    ///
    /// The reason why this release can't use the header.
    pub fn parse(bytes: &[u8]) -> Result<Header, &'static str> {
        let block = HeaderBlock::parse(bytes, 0);
        let fields = match block.parsed {
            // The number of the file is unknown here, so each intact header is in another file.
            ParsedHeader::Misplaced(header) | ParsedHeader::Valid(header) => header,
            ParsedHeader::Blank => return Err("the header is blank"),
            ParsedHeader::Newer { .. } => return Err("the header is of a later release"),
            ParsedHeader::UnknownFlags { .. } => return Err("the header has unknown flags"),
            ParsedHeader::UnknownExtension { .. } => {
                return Err("the header has an entry of a later release");
            }
            ParsedHeader::Damaged => return Err("the header is damaged"),
        };
        if Sequence::parse(&Sequence(fields.sequence).file_name()).is_none() {
            return Err("the number of the segment is above the highest one");
        }
        let both = SegmentHeader::both_copies(bytes, fields.sequence).unwrap_or_default();
        let encoded = both.get(COPY_OFFSET..).unwrap_or_default().to_vec();
        Ok(Header { fields, encoded })
    }

    /// Returns whether the block at the start of a file has no intact copy of a header. A header of
    /// a later release is intact.
    #[must_use]
    pub fn is_missing(block: &[u8]) -> bool {
        let parsed = HeaderBlock::parse(block, 0).parsed;
        matches!(parsed, ParsedHeader::Blank | ParsedHeader::Damaged)
    }

    /// Returns the encoded bytes, which a file has twice.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Returns the bytes at the start of the file. The rest of the header block is zero.
    #[must_use]
    pub fn block(&self) -> Vec<u8> {
        let mut block = self.encoded.clone();
        block.resize(COPY_OFFSET, 0);
        block.extend_from_slice(&self.encoded);
        block
    }

    /// Returns the id of the log.
    #[must_use]
    pub fn log_id(&self) -> [u8; 16] {
        self.fields.log_id
    }

    /// Returns the number of the segment.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.fields.sequence
    }

    /// Returns the position of the first frame.
    #[must_use]
    pub fn base(&self) -> Lsn {
        self.fields.base
    }

    /// Returns the epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.fields.epoch
    }

    /// Returns whether a truncation of the end by a user began the epoch.
    #[must_use]
    pub fn is_by_truncation(&self) -> bool {
        self.fields.by_truncation
    }

    /// Returns the incarnation, which is random for each use of a file.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.fields.incarnation
    }

    /// Returns base and incarnation of the segment before.
    #[must_use]
    pub fn previous(&self) -> Option<(Lsn, u64)> {
        self.fields.previous.map(|link| (link.base, link.incarnation))
    }

    /// Returns where the log began when the segment was begun.
    #[must_use]
    pub fn first(&self) -> Lsn {
        self.fields.first
    }

    /// Returns the synced position that the header claims, at most the base.
    #[must_use]
    pub fn synced(&self) -> Lsn {
        self.fields.synced
    }

    /// Returns the position from which on segments are needed if this one is durable: the beginning
    /// of the log, or the slots records below it that opening reads.
    #[must_use]
    pub fn needed_from(&self) -> Lsn {
        let slots = self.fields.extension.slots;
        slots.map_or(self.fields.first, |slots| slots.min(self.fields.first))
    }

    /// Returns the length of the file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.fields.file_bytes
    }

    /// Returns the position up to which frames fit into the file.
    #[must_use]
    pub fn room_end(&self) -> Lsn {
        file_end(self.fields.base, self.fields.file_bytes)
    }

    /// Returns the offset of a position in the file.
    #[must_use]
    pub fn offset(&self, lsn: Lsn) -> u64 {
        file_offset(self.fields.base, lsn)
    }
}
