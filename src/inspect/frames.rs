//! The frames of a segment one by one, also those past damage.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{
    error::Result,
    format::{
        compression::real_bytes,
        control::Control,
        frame::{FRAME_HEADER_BYTES_U64, FrameHeader, Kind, frame_bytes},
        scan::{FrameAt, Stop},
        search::{Found, search},
    },
    inspect::found::Contents,
    lsn::Lsn,
    segments::{Chunk, Region, SegmentReader},
};

const CHUNK_BYTES: u64 = 1 << 20;
/// Most frames are shorter.
const FIRST_READ_BYTES: u64 = 4096;

/// A frame, or the place where one is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// Where it stands in the log.
    pub lsn: Lsn,
    /// Where it stands in its file.
    pub offset: u64,
    /// What it is.
    pub kind: FrameKind,
    /// Whether it holds.
    pub state: FrameState,
    /// How many bytes of payload it has: what its header tells, and the real length if it was
    /// compressed; 0 if the header doesn't hold.
    pub payload_bytes: u64,
    /// How many of them stand in the file: less, if it was compressed.
    pub stored_bytes: u64,
    /// How it was compressed; `None` if it wasn't.
    pub compression: Option<Compressed>,
    /// How far it claims that the log was synced when it was made.
    pub synced: Option<Lsn>,
    /// The payload: all of it, expanded if it was compressed and that can be done; else as it
    /// stands there. Not to be believed unless the frame is [intact](FrameState::is_intact).
    pub payload: Bytes,
}

/// How a record was compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Compressed {
    /// The codec, `lz4` or `zstd`: also the name of the feature that reads it.
    pub codec: &'static str,
    /// Why [`Frame::payload`] isn't expanded; `None` if it is.
    #[cfg_attr(feature = "cli", serde(skip_serializing_if = "Option::is_none"))]
    pub problem: Option<&'static str>,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum FrameKind {
    /// A record of its own.
    Record,
    /// A record of a batch, with more of the batch behind it.
    BatchPart,
    /// The last record of a batch.
    BatchEnd,
    /// A control record that says only what its commitment says.
    Mark,
    /// A control record: the log was closed.
    Close,
    /// A control record: the log begins at a later position, what stands before was truncated.
    First,
    /// Of a kind, or with a control code, that this release doesn't know, or with a header that
    /// doesn't hold.
    Unknown,
}

/// Whether a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum FrameState {
    /// It and all before it in its segment hold.
    Intact,
    /// It holds, and stands past a place where none does: no reader of the log gets there.
    Past,
    /// It doesn't hold, for this reason.
    Damaged(&'static str),
}

impl FrameState {
    /// Whether both checksums hold.
    #[must_use]
    pub fn is_intact(self) -> bool {
        matches!(self, FrameState::Intact | FrameState::Past)
    }
}

/// The frames of one segment, in the order of their LSNs: up to the first place where no valid unit
/// stands, and past it every intact frame, with one damaged item for what stands between two of
/// them. Ends after an error.
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

    /// Past where the walk stopped: each intact frame, and what stands between them.
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
        // A batch without its end stopped the walk, and is itself whole frames.
        match reader.read_frame(self.next, end, FIRST_READ_BYTES)? {
            Ok((at, bytes)) if next == Some(self.next) => {
                past.pop_front();
                let found = frame(reader, &at, &bytes, FrameState::Past);
                self.next = self.next.plus(frame_bytes(found.stored_bytes));
                Ok(Some(found))
            }
            Ok(_) => Ok(None),
            Err(stop) => {
                let found = damaged(reader, self.next, stop)?;
                if next == Some(self.next) {
                    // Intact, and of a kind that this release doesn't know.
                    past.pop_front();
                    self.next = self.next.plus(frame_bytes(found.stored_bytes));
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
    let problem = expanded.as_ref().err().map(|stop| stop.describe());
    Frame {
        lsn: at.lsn,
        offset: reader.offset(at.lsn),
        kind: kind(Some(at.kind), at.control),
        state,
        payload_bytes: told_bytes(at, &stored),
        stored_bytes: at.payload_bytes as u64,
        compression: at.codec.map(|codec| Compressed { codec: codec.name(), problem }),
        synced: at.commitment,
        payload: expanded.unwrap_or(stored),
    }
}

/// The length of a payload, or what is stored of it tells that.
fn told_bytes(at: &FrameAt, stored: &[u8]) -> u64 {
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
        _ => FrameKind::Unknown,
    }
}

/// What stands where no valid frame does: as much of it as its header, if that holds, vouches for.
fn damaged(reader: &SegmentReader, lsn: Lsn, stop: Stop) -> Result<Frame> {
    let mut frame = Frame {
        lsn,
        offset: reader.offset(lsn),
        kind: FrameKind::Unknown,
        state: FrameState::Damaged(stop.describe()),
        payload_bytes: 0,
        stored_bytes: 0,
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
    let at = lsn.plus(FRAME_HEADER_BYTES_U64);
    let room = reader.place.end.since(at);
    frame.payload = reader.read(at, frame.payload_bytes.min(room))?.into();
    Ok(frame)
}

/// The intact frames from where a walk stopped to the segment's end.
fn intact_from(reader: &SegmentReader, from: Lsn, stop: Stop) -> Result<Vec<Lsn>> {
    let mut lsns = Vec::new();
    if stop == Stop::SegmentEnd {
        return Ok(lsns);
    }
    let used_end = reader.used_end(from, reader.place.end)?;
    let region = (used_end.since(from), reader.place.end.since(from));
    let mut source = Region { reader, start: from };
    search(&mut source, from, region, reader.place.seed, &mut |found: Found| lsns.push(found.lsn))?;
    Ok(lsns)
}

/// What reading all of a segment found.
pub(super) struct Counted {
    pub(super) contents: Contents,
    /// Why it stopped.
    pub(super) stop: Stop,
    /// The first record that a reader would not get, although it is intact.
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
    let payload_bytes = told_bytes(frame, &stored);
    contents.payload_bytes += payload_bytes;
    compressed.record_count += 1;
    compressed.payload_bytes += payload_bytes;
    compressed.stored_bytes += stored_bytes;
    if let Err(stop) = chunk.reader.payload(frame, stored) {
        counted.withheld.get_or_insert((frame.lsn, stop));
    }
}

/// Walks a segment to where it stops, telling `progress` how many bytes each step took.
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
