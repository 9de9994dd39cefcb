//! Iterates over the frames of a segment, including those after damage.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    error::Result,
    format::{
        compression::real_bytes,
        control::Control,
        frame::{FRAME_HEADER_BYTES_U64, FrameHeader, Kind, frame_bytes, payload_lsn},
        scan::{FrameAt, Stop},
        search::{FoundFrame, search},
    },
    inspect::found::{Contents, Problem, ProblemKind},
    lsn::Lsn,
    replay::damage,
    segments::{Chunk, Region, SegmentReader},
};

const CHUNK_BYTES: u64 = 1 << 20;
/// The bytes of the first read of a frame. Most frames are shorter.
const FIRST_READ_BYTES: u64 = 4096;

/// A frame, or a damaged part of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// Its position in the log.
    pub lsn: Lsn,
    /// Its offset in the file.
    pub offset: u64,
    /// The kind of the frame.
    pub kind: FrameKind,
    /// Its validity.
    pub state: FrameState,
    /// The length of the payload in bytes, uncompressed. The length comes from the frame's header;
    /// 0 if the header is invalid.
    pub payload_bytes: u64,
    /// The number of bytes in the file, which is smaller if the payload is compressed.
    pub stored_bytes: u64,
    /// The problem with which a reader would refuse the payload; `None` without a problem.
    pub problem: Option<ProblemKind>,
    /// The compression; `None` if the payload is stored uncompressed.
    pub compression: Option<Compressed>,
    /// The position that was synced when the frame was made, according to the frame.
    pub synced: Option<Lsn>,
    /// The payload. A compressed one is expanded if that is possible.
    ///
    /// Do not trust it unless the frame is [intact](FrameState::is_intact).
    pub payload: Bytes,
}

impl Frame {
    /// Returns the LSN of the next frame, if the length of this one is right.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.lsn.plus(frame_bytes(self.stored_bytes))
    }
}

/// The compression of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Compressed {
    /// The codec, `lz4` or `zstd`, which is also the feature that reads it.
    pub codec: &'static str,
    /// Why [`Frame::payload`] is not expanded; `None` if it is.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub problem: Option<&'static str>,
}

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum FrameKind {
    /// A single record.
    Record,
    /// A record of a batch, but not the last one.
    BatchPart,
    /// The last record of a batch.
    BatchEnd,
    /// A control record that only carries its commitment.
    Mark,
    /// A control record: the log was closed.
    Close,
    /// A control record: the beginning of the log was truncated to a later position.
    First,
    /// A control record: changes of the slots.
    Slots,
    /// A control record: the time at which it was made.
    Time,
    /// A control record of a newer release, which this one may skip.
    Skipped,
    /// A frame of an unknown kind or control code, or with an invalid header.
    Unknown,
}

/// The validity of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum FrameState {
    /// The frame and all frames before it in its segment are valid.
    Intact,
    /// The frame is valid, but follows an invalid one. No reader of the log reaches it.
    Past,
    /// The frame is invalid for this reason.
    Damaged(&'static str),
}

impl FrameState {
    /// Returns whether both checksums are right.
    #[must_use]
    pub fn is_intact(self) -> bool {
        matches!(self, FrameState::Intact | FrameState::Past)
    }
}

/// An iterator over the frames of one segment, in the order of their LSNs.
///
/// It yields all frames up to the first position without a valid unit. After that it yields each
/// intact frame, and one damaged item for the bytes between two of them. The iterator ends after an
/// error.
#[derive(Debug)]
#[must_use = "iterators do nothing unless used"]
pub struct Frames {
    reader: SegmentReader,
    next: Lsn,
    chunk: Option<Chunk>,
    frame_index: usize,
    past: Option<VecDeque<Lsn>>,
    is_over: bool,
}

impl Frames {
    pub(super) fn new(reader: SegmentReader) -> Self {
        let next = reader.base;
        Frames { reader, next, chunk: None, frame_index: 0, past: None, is_over: false }
    }

    /// Returns the next item after the position where the walk stopped.
    fn step_past(&mut self, stop: Stop) -> Result<Option<Frame>> {
        let past = match &mut self.past {
            Some(past) => past,
            None => self.past.insert(intact_from(&self.reader, self.next, stop)?.into()),
        };
        let reader = &self.reader;
        let end = reader.place.end;
        let next = past.front().copied();
        if next.is_none() && (self.next >= end || reader.used_end(self.next, end)? <= self.next) {
            return Ok(None);
        }
        // An incomplete batch stopped the walk, but its frames are valid.
        match reader.read_frame(self.next, end, FIRST_READ_BYTES)? {
            Ok((at, bytes)) if next == Some(self.next) => {
                past.pop_front();
                let found = frame(reader, &at, &bytes, FrameState::Past);
                self.next = found.end();
                Ok(Some(found))
            }
            Ok(_) => Ok(None),
            Err(stop) => {
                let found = damaged(reader, self.next, stop)?;
                if next == Some(self.next) {
                    // The frame is intact, but this release does not know its kind.
                    past.pop_front();
                    self.next = found.end();
                } else {
                    self.next = next.unwrap_or(end);
                }
                Ok(Some(found))
            }
        }
    }

    fn step(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(chunk) = &self.chunk {
                if let Some(at) = chunk.frames.get(self.frame_index) {
                    self.frame_index += 1;
                    return Ok(Some(frame(&self.reader, at, &chunk.bytes, FrameState::Intact)));
                }
                if let Some(stop) = chunk.stop {
                    return self.step_past(stop);
                }
            }
            let chunk = self.reader.read_chunk(self.next, self.reader.place.end, CHUNK_BYTES)?;
            self.next = chunk.next;
            self.frame_index = 0;
            self.chunk = Some(chunk);
        }
    }
}

impl Iterator for Frames {
    type Item = Result<Frame>;

    fn next(&mut self) -> Option<Result<Frame>> {
        if self.is_over {
            return None;
        }
        let step = self.step();
        self.is_over = !matches!(step, Ok(Some(_)));
        step.transpose()
    }
}

fn frame(reader: &SegmentReader, at: &FrameAt, bytes: &Bytes, state: FrameState) -> Frame {
    let stored = bytes.slice(at.payload_start..at.payload_start + at.payload_bytes);
    let expanded = reader.payload(at, stored.clone());
    let refused = expanded.as_ref().err().copied();
    let codec_problem = refused.map(Stop::describe);
    Frame {
        lsn: at.lsn,
        offset: reader.offset(at.lsn),
        kind: kind(Some(at.kind), at.control),
        state,
        payload_bytes: expanded_bytes(at, &stored),
        stored_bytes: at.payload_bytes as u64,
        problem: refused.map(|stop| problem_kind(reader, at.lsn, stop)),
        compression: at
            .codec
            .map(|codec| Compressed { codec: codec.name(), problem: codec_problem }),
        synced: at.commitment,
        payload: expanded.unwrap_or(stored),
    }
}

/// Classifies a problem as a reader of the log does.
fn problem_kind(reader: &SegmentReader, lsn: Lsn, stop: Stop) -> ProblemKind {
    Problem::from(&damage(reader, lsn, stop, Lsn::ZERO)).kind
}

/// Returns the uncompressed length of a payload.
fn expanded_bytes(at: &FrameAt, stored: &[u8]) -> u64 {
    let stored_bytes = at.payload_bytes as u64;
    at.codec.map_or(stored_bytes, |_| real_bytes(stored).unwrap_or(stored_bytes))
}

fn kind(kind: Option<Kind>, control: Option<Control>) -> FrameKind {
    match (kind, control) {
        (Some(Kind::Record), _) => FrameKind::Record,
        (Some(Kind::BatchPart), _) => FrameKind::BatchPart,
        (Some(Kind::BatchEnd), _) => FrameKind::BatchEnd,
        (Some(Kind::Control), Some(Control::Mark)) => FrameKind::Mark,
        (Some(Kind::Control), Some(Control::Close)) => FrameKind::Close,
        (Some(Kind::Control), Some(Control::First(_))) => FrameKind::First,
        (Some(Kind::Control), Some(Control::Slots)) => FrameKind::Slots,
        (Some(Kind::Control), Some(Control::Time(_))) => FrameKind::Time,
        (Some(Kind::Control), Some(Control::Skipped)) => FrameKind::Skipped,
        _ => FrameKind::Unknown,
    }
}

/// Returns the damaged item at a position.
///
/// The item has the payload if the frame header is valid.
fn damaged(reader: &SegmentReader, lsn: Lsn, stop: Stop) -> Result<Frame> {
    let mut frame = Frame {
        lsn,
        offset: reader.offset(lsn),
        kind: FrameKind::Unknown,
        state: FrameState::Damaged(stop.describe()),
        payload_bytes: 0,
        stored_bytes: 0,
        problem: Some(problem_kind(reader, lsn, stop)),
        compression: None,
        synced: None,
        payload: Bytes::new(),
    };
    let header = reader.read(lsn, FRAME_HEADER_BYTES_U64)?;
    let header = header.first_chunk().map(|bytes| FrameHeader::parse(*bytes));
    let Some(header) = header.filter(|header| header.header_holds(reader.place.seed, lsn)) else {
        return Ok(frame);
    };
    frame.kind = kind(header.kind(), None);
    frame.stored_bytes = u64::from(header.payload_bytes);
    frame.payload_bytes = frame.stored_bytes;
    frame.synced = header.commitment(lsn);
    let at = payload_lsn(lsn);
    let room = reader.place.end.since(at);
    frame.payload = reader.read(at, frame.payload_bytes.min(room))?.into();
    Ok(frame)
}

/// Returns the intact frames from the position where a walk stopped.
fn intact_from(reader: &SegmentReader, from: Lsn, stop: Stop) -> Result<Vec<Lsn>> {
    let mut lsns = Vec::new();
    if stop == Stop::SegmentEnd {
        return Ok(lsns);
    }
    let used_end = reader.used_end(from, reader.place.end)?;
    let region = (used_end.since(from), reader.place.end.since(from));
    let mut source = Region { reader, start: from };
    search(&mut source, from, region, reader.place.seed, &mut |found: FoundFrame| {
        lsns.push(found.lsn)
    })?;
    Ok(lsns)
}

/// The result of reading a whole segment.
pub(super) struct Counted {
    pub(super) contents: Contents,
    /// Why the walk stopped.
    pub(super) stop: Stop,
    /// The first intact record that a reader would refuse.
    pub(super) withheld: Option<(Lsn, Stop)>,
}

/// Counts a record.
fn add_record(counted: &mut Counted, chunk: &Chunk, frame: &FrameAt) {
    let contents = &mut counted.contents;
    contents.record_count += 1;
    contents.batch_count += u64::from(frame.kind == Kind::BatchEnd);
    let stored_bytes = frame.payload_bytes as u64;
    if frame.codec.is_none() {
        contents.payload_bytes += stored_bytes;
        return;
    }
    let end = frame.payload_start + frame.payload_bytes;
    let stored = chunk.bytes.slice(frame.payload_start..end);
    let compressed = contents.compressed.get_or_insert_default();
    let payload_bytes = expanded_bytes(frame, &stored);
    contents.payload_bytes += payload_bytes;
    compressed.record_count += 1;
    compressed.payload_bytes += payload_bytes;
    compressed.stored_bytes += stored_bytes;
    if let Err(stop) = chunk.reader.payload(frame, stored) {
        counted.withheld.get_or_insert((frame.lsn, stop));
    }
}

/// Counts the frames of a segment. Calls `progress` with the number of bytes of each step.
pub(super) fn count(reader: &SegmentReader, progress: &mut dyn FnMut(u64)) -> Result<Counted> {
    let contents = Contents { end: reader.base, ..Contents::default() };
    let mut counted = Counted { contents, stop: Stop::SegmentEnd, withheld: None };
    loop {
        let contents = &counted.contents;
        let chunk = reader.read_chunk(contents.end, reader.place.end, CHUNK_BYTES)?;
        for frame in &chunk.frames {
            match frame.kind {
                Kind::Control => counted.contents.control_count += 1,
                _ => add_record(&mut counted, &chunk, frame),
            }
        }
        let contents = &mut counted.contents;
        contents.frame_count += chunk.frames.len() as u64;
        if let (Some(first), Some(last)) = (chunk.frames.first(), chunk.frames.last()) {
            let first = contents.frames.map_or(first.lsn, |(first, _)| first);
            contents.frames = Some((first, last.lsn));
        }
        progress(chunk.next.since(contents.end));
        contents.end = chunk.next;
        if let Some(stop) = chunk.stop {
            counted.stop = stop;
            break;
        }
    }
    let contents = &mut counted.contents;
    contents.end_offset = reader.offset(contents.end);
    contents.stop = counted.stop.describe();
    contents.past_count = intact_from(reader, contents.end, counted.stop)?.len() as u64;
    Ok(counted)
}
