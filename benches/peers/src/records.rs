//! The bytes of records: the same for every contender.

use crate::work::Records;

/// Sizes of the mixture in turn: as a server that logs small changes, some rows and a few blobs.
const MIXTURE: [usize; 32] = [
    96, 160, 120, 256, 80, 512, 200, 1024, 144, 300, 64, 4096, 180, 128, 700, 100, 240, 90, 16_384,
    150, 110, 350, 2048, 130, 220, 70, 900, 65_536, 170, 260, 105, 1500,
];

/// What one task writes: each record carries the task's number and its own.
pub struct Source {
    buffer: Vec<u8>,
    /// Where in the buffer the next record begins.
    at: usize,
    records: Records,
    lane: u32,
    next: u32,
}

/// Wider than the windows of fast compressors.
const VARIED_BYTES: usize = 256 << 10;

impl Source {
    pub fn new(records: Records, lane: usize) -> Self {
        Source::noise(records, lane, largest(records))
    }

    /// Records that don't repeat, for works that put many into one write: a contender that
    /// compresses such a write must not gain by it.
    pub fn varied(records: Records, lane: usize) -> Self {
        Source::noise(records, lane, largest(records).max(VARIED_BYTES))
    }

    fn noise(records: Records, lane: usize, size: usize) -> Self {
        // Noise, so that no contender gains by compressing; seeded, so that all get the same.
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

    /// The next record, stamped.
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
        // Of equal records there is but one in the buffer, unless they vary.
        self.at = record.end;
        let record = &mut self.buffer[record];
        record[..4].copy_from_slice(&self.next.to_le_bytes());
        record[4..8].copy_from_slice(&self.lane.to_le_bytes());
        self.next = self.next.wrapping_add(1);
        record
    }
}

/// The number of a task and the number of its record, from the record.
pub fn stamp(record: &[u8]) -> Option<(u32, u32)> {
    let number = record.get(..4)?.try_into().ok()?;
    let lane = record.get(4..8)?.try_into().ok()?;
    Some((u32::from_le_bytes(lane), u32::from_le_bytes(number)))
}

pub fn largest(records: Records) -> usize {
    match records {
        Records::Fixed(size) => size,
        Records::Mixture => MIXTURE.into_iter().max().unwrap_or(0),
    }
}
