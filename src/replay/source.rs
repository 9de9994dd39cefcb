//! The source of chunks, and the error of a reader whose walk stops early.

use std::fmt;

use crate::{
    error::{Error, Result},
    format::{compression::Unexpandable, scan::Stop},
    lsn::Lsn,
    segments::{Buffers, Chunk, SegmentReader},
};

/// The bytes of one read.
///
/// Large enough that the cost of a job of the pool is small. Small enough for the processor's
/// cache.
pub(super) const CHUNK_BYTES: u64 = 256 << 10;

/// The segments from which chunks are read. All calls block.
pub(crate) trait ChunkSource: fmt::Debug + Send + Sync {
    /// Returns a reader of the segment that holds `lsn`.
    fn segment_at(&self, lsn: Lsn, until: Lsn) -> Result<SegmentReader>;

    /// Returns the error for a walk that stopped at `lsn`, before `until`.
    fn explain(&self, reader: &SegmentReader, lsn: Lsn, until: Lsn, stop: Stop) -> Error;
}

/// Reads the chunk at `from`, or returns the error that explains why there is none.
pub(super) fn read_chunk(
    source: &dyn ChunkSource,
    from: Lsn,
    until: Lsn,
    buffers: Buffers,
) -> Result<Chunk> {
    const PIECE_BYTES: u64 = 4 << 10;
    let reader = source.segment_at(from, until)?;
    let chunk = match reader.read_chunk_into(buffers, from, until, CHUNK_BYTES) {
        // Smaller reads return the records before an unreadable sector, and the error names the
        // sector.
        Err(Error::Io { .. }) => reader.read_chunk(from, until, PIECE_BYTES)?,
        read => read?,
    };
    match chunk.stop {
        None | Some(Stop::SegmentEnd) => Ok(chunk),
        // The units before the damage are intact. The next read begins at the damage.
        Some(_) if chunk.next > from => Ok(chunk),
        Some(stop) => Err(source.explain(&reader, chunk.next, until, stop)),
    }
}

/// Returns the error of a reader whose walk stopped before the end of the log.
pub(crate) fn damage(reader: &SegmentReader, lsn: Lsn, stop: Stop, synced: Lsn) -> Error {
    let segment = reader.file.name().to_owned();
    let directory = reader.file.directory().to_owned();
    let offset = reader.offset(lsn);
    match stop {
        Stop::Unsupported { lsn, kind, flags } => {
            let offset = reader.offset(lsn);
            let flags = u16::from(flags);
            Error::UnsupportedFrame { directory, segment, offset, lsn, kind, flags }
        }
        Stop::AboveLimit { lsn: at, payload_bytes } => match reader.is_intact(at) {
            Ok(true) => Error::RecordTooLarge {
                bytes: u64::from(payload_bytes),
                max: reader.place.record_bytes_max,
            },
            Ok(false) => {
                let reason = Stop::BadChecksum.describe().to_owned();
                Error::Corrupt { directory, lsn, segment, offset, synced, reason }
            }
            Err(error) => error,
        },
        Stop::Unexpandable(Unexpandable::NotBuilt(codec)) => {
            Error::UnsupportedCompression { directory, segment, offset, lsn, feature: codec.name() }
        }
        Stop::Unexpandable(Unexpandable::AboveLimit { bytes }) => {
            Error::RecordTooLarge { bytes, max: reader.place.record_bytes_max }
        }
        stop => {
            let reason = stop.describe().to_owned();
            Error::Corrupt { directory, lsn, segment, offset, synced, reason }
        }
    }
}
