//! The targets and the values of mutations.

use arbitrary::Arbitrary;

use crate::{
    directory::{Directory, file_name},
    seal::{HEADER_BLOCK_BYTES, HEADER_BYTES, HEADER_COPY_OFFSET, word},
};

#[derive(Arbitrary, Clone, Debug)]
pub enum Spot {
    Header(u8),
    Copy(u8),
    /// An offset in bytes from the start of a frame.
    Frame(u8, u8),
    Sector(u8),
    Anywhere(u16),
}

#[derive(Arbitrary, Clone, Debug)]
pub enum Value {
    Positions(u16),
    /// A field of a segment's header.
    HeaderField(u8, u8),
    Bit(u8),
    FromTheEnd(u8),
    Any(u64),
}

#[derive(Arbitrary, Clone, Debug)]
pub enum Name {
    Segment(u8),
    Cut(u8),
    Last,
    Junk(u8),
}

impl Name {
    pub fn get(&self) -> String {
        match self {
            Name::Segment(sequence) => file_name(u64::from(sequence % 16)),
            Name::Cut(sequence) => file_name(u64::from(sequence % 16)) + ".cut",
            // Below the highest number, because a log stops there and no segment can follow.
            Name::Last => file_name(u64::MAX - 1_000_000),
            Name::Junk(which) => ["LOCK", "1.wal", "notes", ".wal"][usize::from(which % 4)].into(),
        }
    }
}

/// Returns the offsets of the frames, found by following their lengths.
pub fn frame_offsets(file: &[u8]) -> Vec<usize> {
    let mut offsets = Vec::new();
    let mut at = HEADER_BLOCK_BYTES;
    while word(file, at).is_some_and(|word| word != 0) && offsets.len() < 300 {
        offsets.push(at);
        let length = word(file, at).unwrap() as u32 as usize;
        at += 16 + length.next_multiple_of(8);
    }
    offsets
}

impl Spot {
    pub fn offset(&self, file: &[u8]) -> usize {
        let length = file.len().max(1);
        let offset = match *self {
            Spot::Header(at) => usize::from(at) % HEADER_BYTES,
            Spot::Copy(at) => HEADER_COPY_OFFSET + usize::from(at) % HEADER_BYTES,
            Spot::Frame(which, distance) => {
                let offsets = frame_offsets(file);
                let at = offsets.get(usize::from(which) % offsets.len().max(1));
                at.map_or(HEADER_BLOCK_BYTES, |at| at + usize::from(distance))
            }
            Spot::Sector(which) => usize::from(which) * 512,
            Spot::Anywhere(at) => usize::from(at),
        };
        offset % length
    }
}

impl Value {
    pub fn get(&self, directory: &Directory) -> u64 {
        match *self {
            Value::Positions(at) => u64::from(at) * 8,
            Value::HeaderField(which, field) => {
                let file = directory.pick(which).and_then(|name| directory.0.get(&name));
                file.and_then(|file| word(file, 32 + usize::from(field % 10) * 8)).unwrap_or(0)
            }
            Value::Bit(bit) => 1 << (bit % 64),
            Value::FromTheEnd(back) => u64::MAX - u64::from(back),
            Value::Any(value) => value,
        }
    }
}
