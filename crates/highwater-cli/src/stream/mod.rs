//! The portable stream that `export` writes and `import` reads, over any reader and writer.
//!
//! A stream is a header, an entry per record, and a trailer. `docs/EXPORT.md` specifies them. The
//! checksum of each entry also covers all entries before it. So a missing, repeated or moved entry
//! is found at its offset, and the last checksum covers the whole stream.

mod read;
#[cfg(test)]
mod tests;
mod write;

use bytes::Bytes;

pub(crate) use read::{StreamError, StreamReader};
pub(crate) use write::StreamWriter;

pub(crate) const MAGIC: [u8; 8] = *b"HWEXPORT";
pub(crate) const VERSION: u16 = 1;
/// The flag of a stream whose positions and log id are zero.
///
/// Streams of equal contents are then equal.
const WITHOUT_POSITIONS: u16 = 1;
const HEADER_BYTES: usize = 64;
const ENTRY_BYTES: usize = 24;
/// The largest record of a log.
const PAYLOAD_BYTES_MAX: u32 = 1 << 30;
/// The largest batch of a log, with its headers.
const BATCH_BYTES_MAX: u64 = 2 << 30;

/// The header of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) has_positions: bool,
    pub(crate) log_id: [u8; 16],
    /// The range of the source that the stream holds.
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Head {
    pub(crate) const WITHOUT_POSITIONS: Head =
        Head { has_positions: false, log_id: [0; 16], from: 0, to: 0 };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Record,
    BatchPart,
    BatchEnd,
    Trailer,
}

impl EntryKind {
    fn code(self) -> u8 {
        match self {
            EntryKind::Record => 1,
            EntryKind::BatchPart => 2,
            EntryKind::BatchEnd => 3,
            EntryKind::Trailer => 255,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [EntryKind::Record, EntryKind::BatchPart, EntryKind::BatchEnd, EntryKind::Trailer]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

/// The records that are appended together: one record, or all records of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) records: Vec<Positioned>,
}

/// A record, and its position in the source log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Positioned {
    pub(crate) position: Option<u64>,
    pub(crate) payload: Bytes,
}

/// The totals of a stream. Streams with the same records in the same batches have the same totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Totals {
    pub(crate) records: u64,
    pub(crate) payload_bytes: u64,
    /// Covers the kinds, lengths and payloads in order, but not the positions.
    pub(crate) contents_checksum: u32,
}

impl Totals {
    fn add(&mut self, kind: EntryKind, payload_bytes: u32, payload_crc: u32) {
        let mut covered = [kind.code(), 0, 0, 0, 0, 0, 0, 0, 0];
        let (_, rest) = covered.split_at_mut(1);
        let (length, crc) = rest.split_at_mut(4);
        length.copy_from_slice(&payload_bytes.to_le_bytes());
        crc.copy_from_slice(&payload_crc.to_le_bytes());
        self.contents_checksum = crc32c::crc32c_append(self.contents_checksum, &covered);
        self.records += 1;
        self.payload_bytes += u64::from(payload_bytes);
    }
}

/// The fields of an entry that its checksum covers.
struct Entry {
    kind: EntryKind,
    payload_bytes: u32,
    /// In the trailer: the number of records.
    position: u64,
    /// In the trailer: the checksum of the contents.
    payload_crc: u32,
}

impl Entry {
    fn encode(&self) -> [u8; ENTRY_BYTES - 4] {
        let mut bytes = [0; ENTRY_BYTES - 4];
        let [code, _, _, _, rest @ ..] = &mut bytes;
        *code = self.kind.code();
        let (length, rest) = rest.split_at_mut(4);
        let (position, crc) = rest.split_at_mut(8);
        length.copy_from_slice(&self.payload_bytes.to_le_bytes());
        position.copy_from_slice(&self.position.to_le_bytes());
        crc.copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes
    }
}
