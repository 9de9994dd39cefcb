//! Streams of records out of segments: chunks read ahead, payloads sliced out of them.

mod ahead;
mod live;
#[cfg(feature = "raft")]
mod many;
mod records;
mod stream;

use std::fmt;

use crate::{
    error::{Error, Result},
    format::{compression::Unexpandable, scan::Stop},
    lsn::Lsn,
    segments::{Buffers, Chunk, SegmentReader},
};

pub(crate) use live::{LiveSource, end_of_unit, explain_named, is_boundary, read_record};
#[cfg(feature = "raft")]
pub(crate) use many::read_records;
pub(crate) use records::Records;
pub use stream::Replay;

/// One read takes about this much: large enough to make a trip to the pool cheap, small enough to
/// stay in the processor's cache.
const CHUNK_BYTES: u64 = 256 << 10;

/// Where chunks come from. Blocks.
pub(crate) trait ChunkSource: fmt::Debug + Send + Sync {
    /// The reader of the segment that holds `lsn`.
    fn segment_at(&self, lsn: Lsn, until: Lsn) -> Result<SegmentReader>;

    /// What a walk that stopped at `lsn`, before `until`, means.
    fn explain(&self, reader: &SegmentReader, lsn: Lsn, until: Lsn, stop: Stop) -> Error;
}

/// Reads the chunk at `from`, or says what is wrong there.
fn read_chunk(source: &dyn ChunkSource, from: Lsn, until: Lsn, buffers: Buffers) -> Result<Chunk> {
    const PIECE_BYTES: u64 = 4 << 10;
    let reader = source.segment_at(from, until)?;
    let chunk = match reader.read_chunk_into(buffers, from, until, CHUNK_BYTES) {
        // One unreadable sector hides no record before it, and the error names its place.
        Err(Error::Io { .. }) => reader.read_chunk(from, until, PIECE_BYTES)?,
        read => read?,
    };
    match chunk.stop {
        None | Some(Stop::SegmentEnd) => Ok(chunk),
        // What came before the damage is whole; the next read begins at the damage.
        Some(_) if chunk.next > from => Ok(chunk),
        Some(stop) => Err(source.explain(&reader, chunk.next, until, stop)),
    }
}

/// What a walk that stopped too early means to a reader.
pub(crate) fn damage(reader: &SegmentReader, lsn: Lsn, stop: Stop, synced: Lsn) -> Error {
    let segment = reader.file.name().to_owned();
    let offset = reader.offset(lsn);
    match stop {
        Stop::Unsupported { lsn, kind, flags } => {
            let offset = reader.offset(lsn);
            Error::UnsupportedFrame { segment, offset, lsn, kind, flags: u16::from(flags) }
        }
        Stop::AboveLimit { lsn: at, payload_bytes } => match reader.is_intact(at) {
            Ok(true) => Error::RecordTooLarge {
                bytes: u64::from(payload_bytes),
                max: reader.place.record_bytes_max,
            },
            Ok(false) => {
                let reason = Stop::BadChecksum.describe().to_owned();
                Error::Corrupt { lsn, segment, offset, synced, reason }
            }
            Err(error) => error,
        },
        Stop::Unexpandable(Unexpandable::NotBuilt(codec)) => {
            Error::UnsupportedCompression { segment, offset, lsn, feature: codec.name() }
        }
        Stop::Unexpandable(Unexpandable::AboveLimit { bytes }) => {
            Error::RecordTooLarge { bytes, max: reader.place.record_bytes_max }
        }
        stop => Error::Corrupt { lsn, segment, offset, synced, reason: stop.describe().to_owned() },
    }
}
