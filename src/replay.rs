//! Streams of records out of segments: chunks read ahead, payloads sliced out of them.

use std::{
    fmt,
    ops::{Bound, RangeBounds},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{Future, Stream, ready};
use tokio::sync::oneshot;

#[cfg(feature = "raft")]
use crate::format::scan::{Looked, frame_at, to_usize};
use crate::{
    error::{Error, Result},
    executor::{Executor, start},
    format::{
        compression::{Unexpandable, real_bytes},
        frame::{Kind, frame_bytes},
        scan::{FrameAt, Place, Stop},
    },
    lsn::Lsn,
    pipeline::{Core, Goal},
    record::Record,
    segments::{Chunk, SegmentReader},
};

/// One read takes about this much: large enough to make a trip to the pool cheap, small enough to
/// stay in the processor's cache.
const CHUNK_BYTES: u64 = 256 << 10;

/// Compressed records above this are expanded by the pool: a reader's thread is never busy for long.
const EXPANDED_HERE_BYTES_MAX: u64 = CHUNK_BYTES;

/// Where chunks come from. Blocks.
pub(crate) trait ChunkSource: fmt::Debug + Send + Sync {
    /// The reader of the segment that holds `lsn`.
    fn segment_at(&self, lsn: Lsn, until: Lsn) -> Result<SegmentReader>;

    /// What a walk that stopped at `lsn`, before `until`, means.
    fn explain(&self, reader: &SegmentReader, lsn: Lsn, until: Lsn, stop: Stop) -> Error;
}

/// Reads the chunk at `from`, or says what is wrong there.
pub(crate) fn read_chunk(source: &dyn ChunkSource, from: Lsn, until: Lsn) -> Result<Chunk> {
    const PIECE_BYTES: u64 = 4 << 10;
    let reader = source.segment_at(from, until)?;
    let chunk = match reader.read_chunk(from, until, CHUNK_BYTES) {
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

/// The records of a range, oldest first, read one chunk ahead.
pub(crate) struct Records {
    source: Arc<dyn ChunkSource>,
    executor: Arc<dyn Executor>,
    /// Where the next read begins, and where the last one ends.
    next: Lsn,
    until: Lsn,
    /// Records that begin here or later aren't wanted, so nothing is read for them.
    stop_at: Lsn,
    reading: Option<oneshot::Receiver<Result<Chunk>>>,
    chunk: Option<Chunk>,
    frame_index: usize,
    /// A record that the pool expands.
    expanding: Option<oneshot::Receiver<Result<Record>>>,
    /// One past the frame of the record that was yielded last.
    yielded_end: Lsn,
}

/// What comes next in a chunk.
enum Next {
    Record(Record),
    /// The pool has been asked for it.
    Expanding,
    /// All of the chunk has been yielded.
    Nothing,
}

impl Records {
    pub(crate) fn new(
        source: Arc<dyn ChunkSource>,
        executor: Arc<dyn Executor>,
        from: Lsn,
        until: Lsn,
    ) -> Self {
        Records {
            source,
            executor,
            next: from,
            until,
            stop_at: Lsn::new(u64::MAX),
            reading: None,
            chunk: None,
            frame_index: 0,
            expanding: None,
            yielded_end: from,
        }
    }

    /// One past the frame of the record that was yielded last, which its payload doesn't tell.
    pub(crate) fn yielded_end(&self) -> Lsn {
        self.yielded_end
    }

    /// Where it ends.
    pub(crate) fn until(&self) -> Lsn {
        self.until
    }

    /// Goes on with another range, once the one before has been yielded.
    pub(crate) fn go_on(&mut self, from: Lsn, until: Lsn) {
        self.next = from;
        self.until = until;
    }

    fn start_reading(&mut self) {
        if self.next < self.until.min(self.stop_at) {
            let (source, from, until) = (Arc::clone(&self.source), self.next, self.until);
            let read =
                start(self.executor.as_ref(), move || read_chunk(source.as_ref(), from, until));
            self.reading = Some(read);
        }
    }

    fn next_in_chunk(&mut self) -> Next {
        let Some(chunk) = &self.chunk else { return Next::Nothing };
        while let Some(frame) = chunk.frames.get(self.frame_index) {
            self.frame_index += 1;
            if frame.kind == Kind::Control {
                continue;
            }
            let end = frame.payload_start + frame.payload_bytes;
            let stored = chunk.bytes.slice(frame.payload_start..end);
            self.yielded_end = frame.lsn.plus(frame_bytes(frame.payload_bytes as u64));
            if frame.codec.is_none() {
                return Next::Record(Record { lsn: frame.lsn, payload: stored });
            }
            // One at a time: a chunk of compressed records may hold any amount.
            if real_bytes(&stored).is_some_and(|bytes| bytes <= EXPANDED_HERE_BYTES_MAX) {
                if let Ok(payload) = chunk.reader.payload(frame, stored.clone()) {
                    return Next::Record(Record { lsn: frame.lsn, payload });
                }
            }
            let (reader, frame) = (chunk.reader.clone(), *frame);
            self.expand_in_pool(reader, frame, stored);
            return Next::Expanding;
        }
        self.chunk = None;
        Next::Nothing
    }

    /// Large ones, and those that can't be: to say why may take a look into the file.
    fn expand_in_pool(&mut self, reader: SegmentReader, frame: FrameAt, stored: Bytes) {
        let (source, until) = (Arc::clone(&self.source), self.until);
        let expanding =
            start(self.executor.as_ref(), move || match reader.payload(&frame, stored) {
                Ok(payload) => Ok(Record { lsn: frame.lsn, payload }),
                Err(stop) => Err(source.explain(&reader, frame.lsn, until, stop)),
            });
        self.expanding = Some(expanding);
    }

    /// The record that the pool expands, if it is at one.
    fn poll_expanding(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Record>>> {
        let Some(expanding) = &mut self.expanding else { return Poll::Ready(None) };
        let expanded = ready!(Pin::new(expanding).poll(context));
        self.expanding = None;
        let expanded = expanded.unwrap_or_else(|_| Err(pool_is_gone()));
        if expanded.is_err() {
            self.stop();
        }
        Poll::Ready(Some(expanded))
    }

    /// Ends the stream here.
    fn stop(&mut self) {
        self.chunk = None;
        self.reading = None;
        self.expanding = None;
        self.next = self.until;
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Record>>> {
        loop {
            if let Some(expanded) = ready!(self.poll_expanding(context)) {
                return Poll::Ready(Some(expanded));
            }
            match self.next_in_chunk() {
                Next::Record(record) => return Poll::Ready(Some(Ok(record))),
                Next::Expanding => continue,
                Next::Nothing => {}
            }
            if self.reading.is_none() {
                self.start_reading();
            }
            let Some(reading) = &mut self.reading else {
                return Poll::Ready(None);
            };
            let chunk = match Pin::new(reading).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(chunk)) => chunk,
                Poll::Ready(Err(_)) => Err(pool_is_gone()),
            };
            self.reading = None;
            match chunk {
                Ok(chunk) => {
                    self.next = chunk.next;
                    self.chunk = Some(chunk);
                    self.frame_index = 0;
                    self.start_reading();
                }
                Err(error) => {
                    // An error ends the stream.
                    self.stop();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

fn pool_is_gone() -> Error {
    Error::Closed { reason: "the runtime that runs its I/O is gone" }
}

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
    fn new(core: &Arc<Core>, named: Lsn, epoch: u64) -> Self {
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
            // Or was it cut and removed since?
            Err(error) => self.check_cut(lsn).and(Err(error)),
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

const GUESS_BYTES: u64 = 4096;

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

/// Reads the records at `lsns`, whose order is the caller's, with one read for those that stand near
/// each other. Blocks.
#[cfg(feature = "raft")]
pub(crate) fn read_records(core: &Arc<Core>, lsns: &[Lsn], epoch: u64) -> Result<Vec<Bytes>> {
    /// What lies between two records is read along if it is less.
    const NEAR_BYTES: u64 = 64 << 10;
    let mut payloads = Vec::with_capacity(lsns.len());
    let mut needed = 0;
    while let Some(&from) = lsns.get(payloads.len()) {
        let rest = lsns.get(payloads.len()..).unwrap_or_default();
        let mut last = from;
        let near = |next: Lsn, last: Lsn| {
            next > last && next.since(last) <= NEAR_BYTES && next.since(from) <= CHUNK_BYTES
        };
        for &next in rest.iter().skip(1) {
            if !near(next, last) {
                break;
            }
            last = next;
        }
        let source = LiveSource::new(core, from, epoch);
        let until = core.written.get();
        let reader = source.segment_at(from, until)?;
        let room = until.min(reader.place.end).since(from);
        let asked = (last.since(from) + GUESS_BYTES).max(needed).min(room);
        let bytes = Bytes::from(reader.read(from, asked)?);
        needed = 0;
        for &lsn in rest {
            let offset = to_usize(lsn.since(from));
            if lsn < from || lsn > last || lsn >= reader.place.end || offset > bytes.len() {
                break;
            }
            let part = bytes.slice(offset..);
            let stop = match frame_at(&part, lsn, &reader.place) {
                Looked::Frame { frame, .. } if frame.kind != Kind::Control => {
                    let end = frame.payload_start + frame.payload_bytes;
                    let stored = part.slice(frame.payload_start..end);
                    match reader.payload(&frame, stored) {
                        Ok(payload) => {
                            payloads.push(payload);
                            continue;
                        }
                        Err(stop) => stop,
                    }
                }
                Looked::Frame { .. } => return Err(Error::NotABoundary { lsn }),
                Looked::NeedsBytes(_) if lsn > from => break,
                // Unless the file ends before.
                Looked::NeedsBytes(more) if asked < more && more <= room => {
                    needed = more;
                    break;
                }
                Looked::NeedsBytes(_) => Stop::PartialHeader,
                Looked::Stop(stop) => stop,
            };
            return Err(source.explain(&reader, lsn, until, stop));
        }
    }
    Ok(payloads)
}

/// The stream that [`Wal::replay`](crate::Wal::replay) gives: a range of records, oldest first.
///
/// It ends at what was written when it was made. An error ends it: damage is
/// [`Error::Corrupt`], a failing device [`Error::Io`], a record compressed with what this build has
/// no codec for [`Error::UnsupportedCompression`]; what comes before was given, also of its batch.
/// [`Error::Truncated`] if what comes next was dropped by
/// [`Wal::truncate_after`](crate::Wal::truncate_after) since. It reads one chunk ahead, so it holds two
/// chunks of about 256 KiB at most, or two records if they are larger.
#[must_use = "streams do nothing unless polled"]
pub struct Replay {
    records: Records,
    range: (Bound<Lsn>, Bound<Lsn>),
    /// An error to begin and end with.
    refused: Option<Error>,
}

impl Replay {
    pub(crate) fn new(core: &Arc<Core>, range: (Bound<Lsn>, Bound<Lsn>)) -> Self {
        let goal = core.goal(|| core.written.get());
        let end = goal.end;
        let from = match range.0 {
            Bound::Included(lsn) | Bound::Excluded(lsn) => lsn,
            Bound::Unbounded => core.purge.first(),
        };
        let mut refused = core.status.check_read().err();
        let first = core.purge.readable_first();
        if from < first || from > end {
            refused = refused.or(Some(Error::OutOfRange { lsn: from, first, end }));
        } else if from.as_u64() % 8 != 0 {
            refused = refused.or(Some(Error::NotABoundary { lsn: from }));
        }
        let source = Arc::new(LiveSource::new(core, from, goal.epoch));
        Self::of(source, Arc::clone(&core.executor), (from, end), range, refused)
    }

    /// Of what lies between two positions, or of an error.
    pub(crate) fn of(
        source: Arc<dyn ChunkSource>,
        executor: Arc<dyn Executor>,
        (from, end): (Lsn, Lsn),
        range: (Bound<Lsn>, Bound<Lsn>),
        refused: Option<Error>,
    ) -> Self {
        let until = if refused.is_some() { from } else { end };
        let mut records = Records::new(source, executor, from, until);
        records.stop_at = match range.1 {
            Bound::Included(last) => last.plus(1),
            Bound::Excluded(end) => end,
            Bound::Unbounded => Lsn::new(u64::MAX),
        };
        Replay { records, range, refused }
    }
}

impl Stream for Replay {
    type Item = Result<Record>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(error) = self.refused.take() {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            let Some(item) = ready!(self.records.poll(context)) else {
                return Poll::Ready(None);
            };
            let record = match item {
                Ok(record) => record,
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            if self.range.contains(&record.lsn) {
                return Poll::Ready(Some(Ok(record)));
            }
            let is_past = match self.range.1 {
                Bound::Included(last) => record.lsn > last,
                Bound::Excluded(end) => record.lsn >= end,
                Bound::Unbounded => false,
            };
            if is_past {
                self.records.stop();
                return Poll::Ready(None);
            }
        }
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("next", &self.records.next)
            .field("until", &self.records.until)
            .finish_non_exhaustive()
    }
}
