//! Reads chunks and single records of an open log.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    format::{
        frame::Kind,
        scan::{Stop, WalkBounds},
    },
    lsn::Lsn,
    pipeline::{Core, Goal},
    record::Record,
    replay::source::{CHUNK_BYTES, ChunkSource, damage},
    segments::{Chunk, SegmentReader},
};

/// The open log as a source of chunks.
#[derive(Debug)]
pub(crate) struct LiveSource {
    core: Arc<Core>,
    /// The start position of the caller. All other positions are boundaries.
    named: Lsn,
    /// The epoch in which the read began. Records that were truncated since then are gone.
    epoch: u64,
    /// True if reads continue after the log was closed.
    survives_close: bool,
}

impl LiveSource {
    pub(super) fn new(core: &Arc<Core>, named: Lsn, epoch: u64) -> Self {
        LiveSource { core: Arc::clone(core), named, epoch, survives_close: false }
    }

    /// As [`new`](LiveSource::new), but `close` does not stop the reads.
    pub(crate) fn surviving_close(core: &Arc<Core>, named: Lsn, epoch: u64) -> Self {
        LiveSource { core: Arc::clone(core), named, epoch, survives_close: true }
    }

    /// Fails if a truncation of the end has removed the position since the read began.
    fn check_cut(&self, lsn: Lsn) -> Result<()> {
        self.core.epochs().check(Goal { end: lsn.plus(1), epoch: self.epoch })
    }

    /// Returns the error that stopped the log, if this error explains the damage.
    ///
    /// A flush that failed may have dropped the bytes that it should make durable. No record at or
    /// above the synced mark was acknowledged as durable, so none of them needs to be restored.
    fn lost_by_failure(&self, error: &Error, synced: Lsn) -> Option<Error> {
        let is_unsynced = matches!(error, Error::Corrupt { lsn, .. } if *lsn >= synced);
        self.core.status().check().err().filter(|stopped| is_unsynced && stopped.is_poisoned())
    }

    /// Returns the error for a segment that a truncation has removed.
    ///
    /// Both ends of the log move before a file is removed.
    fn gone_since(&self, lsn: Lsn) -> Option<Error> {
        let (first, end) = (self.core.beginning().readable_first(), self.core.written().get());
        let is_purged = lsn < first;
        self.check_cut(lsn).err().or(is_purged.then_some(Error::outside(lsn, first, end)))
    }
}

impl ChunkSource for LiveSource {
    fn segment_at(&self, lsn: Lsn, until: Lsn) -> Result<SegmentReader> {
        let core = &self.core;
        if !self.survives_close {
            core.status().check_read()?;
        }
        let end = core.written().get();
        // Searched before `first` is read: then a segment that was found is still part of the log.
        let found = core.segments().find(lsn).filter(|_| lsn >= core.beginning().readable_first());
        // Checked after the search: if no truncation came before, the segment is of this epoch.
        self.check_cut(lsn)?;
        let Some((info, successor)) = found else {
            // The beginning may have passed the position during the search.
            return Err(Error::outside(lsn, core.beginning().readable_first(), end));
        };
        let place = WalkBounds {
            seed: info.seed,
            end: successor.unwrap_or(until),
            record_bytes_max: core.config().record_bytes_max,
        };
        match core.segments().open(info.sequence) {
            Ok(file) => Ok(SegmentReader { file, base: info.base, place }),
            Err(error) => Err(self.gone_since(lsn).unwrap_or(error)),
        }
    }

    fn explain(&self, reader: &SegmentReader, lsn: Lsn, until: Lsn, stop: Stop) -> Error {
        let synced = self.core.synced().get();
        // A frame that cannot be expanded is intact, so a record begins there.
        let holds = matches!(stop, Stop::Unexpandable(_));
        let error = if lsn == self.named && !holds {
            explain_named(reader, lsn, until, stop, synced).unwrap_or_else(|error| error)
        } else {
            damage(reader, lsn, stop, synced)
        };
        self.lost_by_failure(&error, synced).unwrap_or(error)
    }
}

/// Returns the error for an LSN of the caller without an intact frame.
///
/// Walks from the segment's first frame to see if a frame begins there and is damaged. Called only
/// before an error is returned.
pub(crate) fn explain_named(
    reader: &SegmentReader,
    lsn: Lsn,
    until: Lsn,
    stop: Stop,
    synced: Lsn,
) -> Result<Error> {
    let mut at = reader.base;
    while at < lsn {
        let chunk = reader.read_chunk(at, until, CHUNK_BYTES)?;
        if chunk.next > lsn {
            return Ok(Error::NotABoundary { lsn });
        }
        if chunk.next < lsn && chunk.stop.is_some() {
            let stop = chunk.stop.unwrap_or(stop);
            return Ok(damage(reader, chunk.next, stop, synced));
        }
        at = chunk.next;
    }
    Ok(damage(reader, lsn, stop, synced))
}

/// Returns whether a unit begins at `lsn`, which must be below the written mark. Blocking.
pub(crate) fn is_boundary(core: &Arc<Core>, lsn: Lsn, epoch: u64) -> Result<bool> {
    let source = LiveSource::new(core, lsn, epoch);
    let until = core.written().get();
    let reader = source.segment_at(lsn, until)?;
    match reader.read_frame(lsn, until, CHUNK_BYTES)? {
        Ok((frame, _)) if !matches!(frame.kind, Kind::BatchPart | Kind::BatchEnd) => Ok(true),
        Err(stop) => match source.explain(&reader, lsn, until, stop) {
            Error::NotABoundary { .. } => Ok(false),
            damage => Err(damage),
        },
        // Only a walk can show whether the frame is the first of its batch.
        Ok(_) => {
            let mut at = reader.base;
            while at < lsn {
                let chunk = reader.read_chunk(at, until, CHUNK_BYTES)?;
                let is_unit = chunk.next <= lsn || chunk.frames.iter().any(|f| f.lsn == lsn);
                if !is_unit || chunk.next == at {
                    return Ok(false);
                }
                if chunk.next > lsn {
                    return Ok(starts_a_unit(&chunk, lsn));
                }
                at = chunk.next;
            }
            Ok(true)
        }
    }
}

/// Returns the beginning of the unit that holds `lsn`, which is below the written mark. Blocking.
pub(crate) fn start_of_unit(core: &Arc<Core>, lsn: Lsn, epoch: u64) -> Result<Lsn> {
    let source = LiveSource::new(core, lsn, epoch);
    let until = core.written().get();
    let first = core.beginning().first();
    let reader = source.segment_at(lsn, until)?;
    let mut at = reader.base.max(first.min(lsn));
    while at < lsn {
        let chunk = reader.read_chunk(at, until, CHUNK_BYTES)?;
        if chunk.next > lsn {
            let (mut unit, mut continues) = (at, false);
            for frame in chunk.frames.iter().take_while(|frame| frame.lsn <= lsn) {
                unit = if continues { unit } else { frame.lsn };
                continues = frame.kind == Kind::BatchPart;
            }
            return Ok(unit);
        }
        if chunk.next == at {
            let stop = chunk.stop.unwrap_or(Stop::SegmentEnd);
            return Err(damage(&reader, at, stop, core.synced().get()));
        }
        at = chunk.next;
    }
    Ok(at)
}

/// Returns whether the frame at `lsn` does not continue a batch.
fn starts_a_unit(chunk: &Chunk, lsn: Lsn) -> bool {
    let before = chunk.frames.iter().take_while(|frame| frame.lsn < lsn).last();
    before.is_none_or(|frame| frame.kind != Kind::BatchPart)
}

/// The bytes of the first read of a record. Most frames are shorter.
pub(super) const GUESS_BYTES: u64 = 4096;

/// Returns the end of the unit whose last record is at `lsn`. Blocking.
pub(crate) fn end_of_unit(core: &Arc<Core>, lsn: Lsn, epoch: u64) -> Result<Lsn> {
    let source = LiveSource::new(core, lsn, epoch);
    let until = core.written().get();
    let reader = source.segment_at(lsn, until)?;
    match reader.read_frame(lsn, until, GUESS_BYTES)? {
        Ok((frame, _)) if matches!(frame.kind, Kind::Record | Kind::BatchEnd) => Ok(frame.end()),
        Ok(_) => Err(Error::NotABoundary { lsn }),
        Err(stop) => Err(source.explain(&reader, lsn, until, stop)),
    }
}

/// Reads the record at `lsn`. Blocking.
pub(crate) fn read_record(core: &Arc<Core>, lsn: Lsn, epoch: u64) -> Result<Record> {
    let source = LiveSource::new(core, lsn, epoch);
    let until = core.written().get();
    let reader = source.segment_at(lsn, until)?;
    match reader.read_frame(lsn, until, GUESS_BYTES)? {
        Ok((frame, bytes)) if frame.kind != Kind::Control => {
            let end = frame.payload_start + frame.payload_bytes;
            let stored = bytes.slice(frame.payload_start..end);
            match reader.payload(&frame, stored) {
                Ok(payload) => Ok(Record { lsn, end: frame.end(), payload }),
                Err(stop) => Err(source.explain(&reader, lsn, until, stop)),
            }
        }
        Ok(_) => Err(Error::NotABoundary { lsn }),
        Err(stop) => Err(source.explain(&reader, lsn, until, stop)),
    }
}
