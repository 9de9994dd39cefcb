//! The open log as a source of chunks and of single records.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    format::{
        frame::{Kind, frame_bytes},
        scan::{Place, Stop},
    },
    lsn::Lsn,
    pipeline::{Core, Goal},
    record::Record,
    replay::{CHUNK_BYTES, ChunkSource, damage},
    segments::{Chunk, SegmentReader},
};

/// The open log as a source of chunks.
#[derive(Debug)]
pub(crate) struct LiveSource {
    core: Arc<Core>,
    /// The position that a user named: the only one that may be no boundary.
    named: Lsn,
    /// What was cut since this is gone.
    epoch: u64,
    /// Whether it goes on when the log was closed: what is below a mark stays where it is.
    reads_on: bool,
}

impl LiveSource {
    pub(super) fn new(core: &Arc<Core>, named: Lsn, epoch: u64) -> Self {
        LiveSource { core: Arc::clone(core), named, epoch, reads_on: false }
    }

    /// One that `close` doesn't stop.
    pub(crate) fn reading_on(core: &Arc<Core>, named: Lsn, epoch: u64) -> Self {
        LiveSource { core: Arc::clone(core), named, epoch, reads_on: true }
    }

    /// Whether what stood at `lsn` still does.
    fn check_cut(&self, lsn: Lsn) -> Result<()> {
        self.core.epochs.check(Goal { end: lsn.plus(1), epoch: self.epoch })
    }

    /// Why a segment that was found can't be opened any more, if either end of the log has passed it
    /// since: both move before a file goes.
    fn gone_since(&self, lsn: Lsn) -> Option<Error> {
        let (first, end) = (self.core.purge.readable_first(), self.core.written.get());
        let is_purged = lsn < first;
        self.check_cut(lsn).err().or(is_purged.then_some(Error::OutOfRange { lsn, first, end }))
    }
}

impl ChunkSource for LiveSource {
    fn segment_at(&self, lsn: Lsn, until: Lsn) -> Result<SegmentReader> {
        let core = &self.core;
        if !self.reads_on {
            core.status.check_read()?;
        }
        let (first, end) = (core.purge.readable_first(), core.written.get());
        // Looked for before it is asked whether it may still be there: what was found then is there.
        let found = core.segments.find(lsn).filter(|_| lsn >= core.purge.readable_first());
        // The other way round: what was found is of our epoch if no cut had begun another by then.
        self.check_cut(lsn)?;
        let Some((info, successor)) = found else {
            return Err(Error::OutOfRange { lsn, first, end });
        };
        let place = Place {
            seed: info.seed,
            end: successor.unwrap_or(until),
            record_bytes_max: core.config.record_bytes_max,
        };
        match core.segments.open(info.sequence) {
            Ok(file) => Ok(SegmentReader { file, base: info.base, place }),
            Err(error) => Err(self.gone_since(lsn).unwrap_or(error)),
        }
    }

    fn explain(&self, reader: &SegmentReader, lsn: Lsn, until: Lsn, stop: Stop) -> Error {
        let synced = self.core.synced.get();
        // An intact frame begins there, so a record does.
        let holds = matches!(stop, Stop::Unexpandable(_));
        if lsn == self.named && !holds {
            explain_named(reader, lsn, until, stop, synced).unwrap_or_else(|error| error)
        } else {
            damage(reader, lsn, stop, synced)
        }
    }
}

/// No intact frame stands at an LSN that a user named: because none begins there, or because it is
/// damaged? Walks there from the segment's first frame; only ever on the way to an error.
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

/// Whether a unit begins at `lsn`, where something is written. Blocks.
pub(crate) fn is_boundary(core: &Arc<Core>, lsn: Lsn, epoch: u64) -> Result<bool> {
    let source = LiveSource::new(core, lsn, epoch);
    let until = core.written.get();
    let reader = source.segment_at(lsn, until)?;
    match reader.read_frame(lsn, until, CHUNK_BYTES)? {
        Ok((frame, _)) if !matches!(frame.kind, Kind::BatchPart | Kind::BatchEnd) => Ok(true),
        Err(stop) => match source.explain(&reader, lsn, until, stop) {
            Error::NotABoundary { .. } => Ok(false),
            damage => Err(damage),
        },
        // The first of its batch, or one of the others?
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

/// Whether the frame at `lsn` is not within a batch that began before it.
fn starts_a_unit(chunk: &Chunk, lsn: Lsn) -> bool {
    let before = chunk.frames.iter().take_while(|frame| frame.lsn < lsn).last();
    before.is_none_or(|frame| frame.kind != Kind::BatchPart)
}

pub(super) const GUESS_BYTES: u64 = 4096;

/// Where the unit ends whose last record stands at `lsn`. Blocks.
pub(crate) fn end_of_unit(core: &Arc<Core>, lsn: Lsn, epoch: u64) -> Result<Lsn> {
    let source = LiveSource::new(core, lsn, epoch);
    let until = core.written.get();
    let reader = source.segment_at(lsn, until)?;
    match reader.read_frame(lsn, until, GUESS_BYTES)? {
        Ok((frame, _)) if matches!(frame.kind, Kind::Record | Kind::BatchEnd) => {
            Ok(lsn.plus(frame_bytes(frame.payload_bytes as u64)))
        }
        Ok(_) => Err(Error::NotABoundary { lsn }),
        Err(stop) => Err(source.explain(&reader, lsn, until, stop)),
    }
}

/// Reads the record at `lsn`. Blocks.
pub(crate) fn read_record(core: &Arc<Core>, lsn: Lsn, epoch: u64) -> Result<Record> {
    let source = LiveSource::new(core, lsn, epoch);
    let until = core.written.get();
    let reader = source.segment_at(lsn, until)?;
    match reader.read_frame(lsn, until, GUESS_BYTES)? {
        Ok((frame, bytes)) if frame.kind != Kind::Control => {
            let end = frame.payload_start + frame.payload_bytes;
            let stored = bytes.slice(frame.payload_start..end);
            match reader.payload(&frame, stored) {
                Ok(payload) => Ok(Record { lsn, payload }),
                Err(stop) => Err(source.explain(&reader, lsn, until, stop)),
            }
        }
        Ok(_) => Err(Error::NotABoundary { lsn }),
        Err(stop) => Err(source.explain(&reader, lsn, until, stop)),
    }
}
