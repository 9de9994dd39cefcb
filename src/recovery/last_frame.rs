//! Finds the frame that ends at a position.
//!
//! Frames do not link to the frame before. So the search tries each position whose header states
//! that end, from the nearest on. It reads about as many bytes as the frame has.

use bytes::Bytes;

use crate::{
    error::Result,
    format::{
        frame::{FRAME_ALIGN, FRAME_HEADER_BYTES, FrameHeader},
        scan::{FrameAt, to_usize},
    },
    lsn::Lsn,
    segments::SegmentReader,
};

const PIECE_BYTES_MIN: u64 = 4 << 10;
const PIECE_BYTES_MAX: u64 = 256 << 10;

/// The most frames that are read. It bounds the work over a payload that imitates frames.
const TRIES_MAX: u32 = 16;

/// Returns the intact frame that ends at `end`, and the bytes from its beginning on. `None` if the
/// segment of `reader` holds none.
pub(super) fn frame_before(reader: &SegmentReader, end: Lsn) -> Result<Option<(FrameAt, Bytes)>> {
    let (mut piece_end, mut piece_bytes, mut try_count) = (end, PIECE_BYTES_MIN, 0);
    while piece_end > reader.base {
        let piece_start = piece_end.since(reader.base).saturating_sub(piece_bytes);
        let piece_start = reader.base.plus(piece_start);
        // A header may end in the piece that was read before.
        let read_end = piece_end.plus(FRAME_ALIGN).min(end);
        let bytes = reader.read(piece_start, read_end.since(piece_start))?;
        for lsn in frames_that_end_at(&bytes, piece_start, reader, end) {
            try_count += 1;
            if let Ok(found) = reader.read_frame(lsn, end, end.since(lsn))? {
                return Ok(Some(found));
            }
            if try_count == TRIES_MAX {
                return Ok(None);
            }
        }
        piece_end = piece_start;
        piece_bytes = (piece_bytes * 2).min(PIECE_BYTES_MAX);
    }
    Ok(None)
}

/// Returns the positions in `bytes` of headers that state a frame up to `end`, the nearest first.
fn frames_that_end_at(
    bytes: &[u8],
    start: Lsn,
    reader: &SegmentReader,
    end: Lsn,
) -> impl Iterator<Item = Lsn> {
    (0..bytes.len()).step_by(to_usize(FRAME_ALIGN)).rev().filter_map(move |offset| {
        let header = bytes.get(offset..)?.first_chunk::<FRAME_HEADER_BYTES>()?;
        let header = FrameHeader::parse(*header);
        let lsn = start.plus(offset as u64);
        let is_candidate =
            header.frame_bytes() == end.since(lsn) && header.header_holds(reader.place.seed, lsn);
        is_candidate.then_some(lsn)
    })
}
