//! The records, which are the same for every contender.

use crate::work::Records;

/// The records of one call when a log is filled, which is not measured.
pub const FILL_BATCH: usize = 256;

/// The record sizes of the mixture, used in turn. They imitate a server that logs small changes,
/// some rows and a few blobs.
const MIXTURE: [usize; 32] = [
    96, 160, 120, 256, 80, 512, 200, 1024, 144, 300, 64, 4096, 180, 128, 700, 100, 240, 90, 16_384,
    150, 110, 350, 2048, 130, 220, 70, 900, 65_536, 170, 260, 105, 1500,
];

/// Generates the records of one task. Each record holds the task's number and its own number.
pub struct Source {
    buffer: Vec<u8>,
    /// The offset of the next record in the buffer.
    at: usize,
    records: Records,
    lane: u32,
    next: u32,
}

/// The buffer bytes of varied records, more than the windows of fast compressors.
const VARIED_BYTES: usize = 256 << 10;

impl Source {
    pub fn new(records: Records, lane: usize) -> Self {
        Source::noise(records, lane, largest(records))
    }

    /// Generates records that differ, for works that put several records into one write. Otherwise
    /// a contender that compresses such a write would have an advantage.
    pub fn varied(records: Records, lane: usize) -> Self {
        Source::noise(records, lane, largest(records).max(VARIED_BYTES))
    }

    fn noise(records: Records, lane: usize, size: usize) -> Self {
        // Random bytes, because compression must not help; a fixed seed, because all contenders
        // must get the same records.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut buffer = Vec::with_capacity(size + 8);
        while buffer.len() < size {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            buffer.extend_from_slice(&state.to_le_bytes());
        }
        buffer.truncate(size);
        Source { buffer, at: 0, records, lane: lane as u32, next: 0 }
    }

    /// Returns the next record, with its stamp.
    #[inline]
    pub fn next(&mut self) -> &[u8] {
        let size = match self.records {
            Records::Fixed(size) => size,
            Records::Mixture => MIXTURE[self.next as usize % MIXTURE.len()],
        };
        if self.at + size > self.buffer.len() {
            self.at = 0;
        }
        let record = self.at..self.at + size;
        // With a fixed size and without `varied` the buffer holds a single record.
        self.at = record.end;
        let record = &mut self.buffer[record];
        record[..4].copy_from_slice(&self.next.to_le_bytes());
        record[4..8].copy_from_slice(&self.lane.to_le_bytes());
        self.next = self.next.wrapping_add(1);
        record
    }
}

/// Returns the task's number and the record's number from a record's stamp.
pub fn stamp(record: &[u8]) -> Option<(u32, u32)> {
    let number = record.get(..4)?.try_into().ok()?;
    let lane = record.get(4..8)?.try_into().ok()?;
    Some((u32::from_le_bytes(lane), u32::from_le_bytes(number)))
}

/// Returns the largest record size, in bytes.
pub fn largest(records: Records) -> usize {
    match records {
        Records::Fixed(size) => size,
        Records::Mixture => MIXTURE.into_iter().max().unwrap_or(0),
    }
}

/// Returns a key for contenders that are maps. Keys sort in the order in which a thread wrote.
pub fn key(lane: usize, number: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&(lane as u32).to_be_bytes());
    key[4..].copy_from_slice(&number.to_be_bytes());
    key
}
