//! Walks and searches a segment built from pieces. The search finds every frame of the walk.
#![no_main]

use arbitrary::Arbitrary;
use highwater::fuzzing::{Spot, search_region, walk_segment};
use highwater_fuzz::seal::{self, Fields, Seed};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Piece {
    /// A frame sealed for its position.
    Frame {
        kind: u8,
        flags: bool,
        lag: u16,
        payload: Payload,
    },
    /// A frame sealed for its position, with another length.
    LongFrame {
        length: u32,
        payload: Payload,
    },
    /// A frame sealed for another position.
    Stale {
        back: u8,
        payload: Payload,
    },
    Raw(Vec<u8>),
    Zeros(u16),
    /// A copy of earlier bytes.
    Again {
        from: u16,
        bytes: u16,
    },
}

#[derive(Arbitrary, Debug)]
enum Payload {
    Bytes(Vec<u8>),
    Fill(u16, u8),
    Mark,
    Close,
}

impl Payload {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Payload::Bytes(bytes) => bytes.clone(),
            Payload::Fill(count, byte) => vec![*byte; usize::from(*count) % 3000],
            Payload::Mark => vec![1, 0, 0, 0, 0, 0, 0, 1],
            Payload::Close => seal::CLOSE.to_vec(),
        }
    }
}

#[derive(Arbitrary, Debug)]
struct Input {
    lsn: u32,
    record_bytes_max: u16,
    chunk_bytes: u16,
    flips: Vec<u16>,
    cut: u8,
    pieces: Vec<Piece>,
}

const LOG_ID: [u8; 16] = *b"0123456789abcdef";

impl Piece {
    fn push(&self, bytes: &mut Vec<u8>, start: u64) {
        let seed = Seed::new(LOG_ID, 1);
        let lsn = start + bytes.len() as u64;
        let record = |length, payload: &[u8], lsn| {
            let fields = Fields { length, kind: seal::RECORD, flags: 0, lag: 0 };
            seal::frame(seed, lsn, fields, payload)
        };
        match self {
            Piece::Frame { kind, flags, lag, payload } => {
                let payload = payload.bytes();
                let (length, kind) = (payload.len() as u32, kind % 6);
                let flags = u8::from(*flags);
                let fields = Fields { length, kind, flags, lag: u32::from(*lag) };
                bytes.extend(seal::frame(seed, lsn, fields, &payload));
            }
            Piece::LongFrame { length, payload } => {
                bytes.extend(record(*length, &payload.bytes(), lsn));
            }
            Piece::Stale { back, payload } => {
                let payload = payload.bytes();
                let lsn = lsn.saturating_sub(u64::from(*back) * 8);
                bytes.extend(record(payload.len() as u32, &payload, lsn));
            }
            Piece::Raw(raw) => bytes.extend(raw),
            Piece::Zeros(count) => bytes.resize(bytes.len() + usize::from(*count) % 3000, 0),
            Piece::Again { from, bytes: count } if !bytes.is_empty() => {
                let from = usize::from(*from) % bytes.len();
                let end = bytes.len().min(from + usize::from(*count) % 3000);
                bytes.extend_from_within(from..end);
            }
            Piece::Again { .. } => {}
        }
        // Mostly pad to a multiple of 8, because frames can only start there.
        if !matches!(self, Piece::Raw(raw) if raw.len() % 16 == 1) {
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
    }
}

fuzz_target!(|input: Input| {
    let lsn = u64::from(input.lsn) * 8;
    let mut bytes = Vec::new();
    for piece in input.pieces.iter().take(40) {
        piece.push(&mut bytes, lsn);
    }
    bytes.truncate(bytes.len().saturating_sub(usize::from(input.cut)));
    for &at in input.flips.iter().take(4) {
        let at = usize::from(at) % (bytes.len() * 8).max(1);
        bytes.get_mut(at / 8).into_iter().for_each(|byte| *byte ^= 1 << (at % 8));
    }
    let record_bytes_max = u64::from(input.record_bytes_max.max(1));
    let spot = Spot { log_id: LOG_ID, epoch: 1, lsn, record_bytes_max };
    let walked = walk_segment(&bytes, &spot, usize::from(input.chunk_bytes));
    let found = search_region(&bytes, &spot);
    for frame in &walked {
        assert!(found.contains(&frame.lsn), "the search misses {}", frame.lsn);
        assert!(frame.commitment.is_none_or(|synced| synced <= frame.lsn));
    }
    assert!(found.is_sorted() && found.iter().all(|at| (*at - lsn) as usize + 16 <= bytes.len()));
});
