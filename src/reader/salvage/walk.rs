//! Walks over the readable parts of a log.
//!
//! Reads whole units, as a replay does, and frame by frame around damage.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    error::Result,
    format::{
        frame::{FRAME_ALIGN, FRAME_HEADER_BYTES_U64, FrameHeader, Kind, frame_bytes},
        header::SEGMENT_HEADER_BYTES,
        scan::{FrameAt, Stop, WalkBounds, to_usize},
    },
    inspect::Frozen,
    lsn::Lsn,
    options::Config,
    reader::salvage::{
        extents::{Extent, Remains, Stray, intact_frames, survey},
        forgiving::Forgiving,
        gap::{Gap, Items},
    },
    record::Record,
    recovery::refuse_foreign,
    segments::{Chunk, SegmentReader},
    storage::Storage,
};

const CHUNK_BYTES: u64 = 256 << 10;
/// The bytes of the first read of a frame. Most frames are shorter.
const FIRST_READ_BYTES: u64 = 4096;
/// The bytes that are first searched for the next intact frame.
const WINDOW_BYTES: u64 = 64 << 10;

/// Iterates over damaged segments. Blocking.
#[derive(Debug)]
pub(super) struct Salvager {
    extents: VecDeque<Extent>,
    strays: Vec<Stray>,
    committed: Lsn,
    boundaries: BTreeSet<Lsn>,
    /// The end of the part that was yielded or reported.
    at: Lsn,
    /// The end of the nonzero bytes in the current extent, once determined.
    used_end: Option<Lsn>,
    has_entered: bool,
    /// The items that were found and not yielded yet.
    pending: VecDeque<PendingItem>,
    /// The last gap, which the next one may extend.
    gap: Option<Gap>,
}

/// An item to yield.
#[derive(Debug)]
enum PendingItem {
    Gap(Gap),
    /// A record in its stored form. It is expanded only when the stream yields it, because the
    /// expanded size is unbounded.
    Record {
        reader: SegmentReader,
        frame: FrameAt,
        stored: Bytes,
    },
}

/// The end of a gap and its reason.
struct Resumed {
    at: Lsn,
    reason: &'static str,
}

impl Salvager {
    pub(super) fn begin(storage: Arc<dyn Storage>, config: Config) -> Result<Self> {
        refuse_foreign(storage.as_ref())?;
        let forgiving: Arc<dyn Storage> = Arc::new(Forgiving(storage));
        let frozen = Arc::new(Frozen::new(forgiving)?);
        let Remains { extents, strays, first, committed, boundaries } = survey(&frozen, &config)?;
        Ok(Salvager {
            extents: extents.into_iter().filter(|extent| extent.to > first).collect(),
            strays,
            committed,
            boundaries,
            at: first,
            used_end: None,
            has_entered: false,
            pending: VecDeque::new(),
            gap: None,
        })
    }

    /// Returns the next items, or none at the end.
    ///
    /// Expands about as many bytes as a chunk has, and at least one record.
    pub(super) fn read_some(&mut self) -> Items {
        self.find_some();
        let mut items = Items::new();
        let mut expanded_bytes = 0;
        while expanded_bytes < CHUNK_BYTES {
            let item = match self.pending.pop_front() {
                None => break,
                Some(PendingItem::Gap(gap)) => Err(gap.into()),
                Some(PendingItem::Record { reader, frame, stored }) => {
                    self.expand(&reader, &frame, stored).map_err(Into::into)
                }
            };
            expanded_bytes += item.as_ref().map_or(0, |record| record.payload.len() as u64);
            items.push_back(item);
        }
        items
    }

    /// Walks until an item is found, or to the end.
    fn find_some(&mut self) {
        while self.pending.is_empty() {
            let Some(extent) = self.extents.front().cloned() else {
                self.finish_gap();
                self.add_strays();
                break;
            };
            if !self.has_entered {
                self.enter(&extent);
            }
            let continues = self.at < extent.to
                && self.step(&extent).unwrap_or_else(|error| {
                    let reason = format!("{error:#}");
                    self.add_gap(Some(&extent.reader), extent.to, &reason);
                    false
                });
            if !continues {
                self.extents.pop_front();
                self.used_end = None;
                self.has_entered = false;
            }
        }
    }

    /// Reports the missing part before an extent, and a missing header.
    fn enter(&mut self, extent: &Extent) {
        self.has_entered = true;
        if self.at < extent.from {
            let reason = "the segment that begins here is missing, or neither copy of its header \
                          is readable";
            self.add_gap(None, extent.from, reason);
        }
        if extent.is_headless {
            self.finish_gap();
            self.pending.push_back(PendingItem::Gap(Gap {
                segment: Some(extent.reader.file.name().to_owned()),
                offset: 0,
                from: extent.from,
                to: extent.from,
                bytes: SEGMENT_HEADER_BYTES,
                is_committed: extent.from < self.committed,
                reason:
                    "neither the segment's header nor its copy is readable; its neighbours show \
                         the position of its frames"
                        .to_owned(),
            }));
        }
    }

    /// Yields the next units or reports the next gap. Returns `false` at the end of the extent.
    fn step(&mut self, extent: &Extent) -> Result<bool> {
        let reader = &extent.reader;
        let chunk = reader.read_chunk(self.at, extent.to, CHUNK_BYTES)?;
        if chunk.next > self.at {
            self.finish_gap();
            self.add_records(&chunk);
            self.at = chunk.next;
        }
        let stop = match chunk.stop {
            None => return Ok(true),
            Some(Stop::SegmentEnd) => return Ok(false),
            Some(stop) => stop,
        };
        let end = match self.used_end {
            Some(end) => end,
            None if extent.is_open => {
                *self.used_end.insert(reader.used_end(extent.from, extent.to)?)
            }
            None => extent.to,
        };
        if end <= self.at {
            return Ok(false);
        }
        let resumed = self.resume(reader, end, stop)?;
        self.add_gap(Some(reader), resumed.at, resumed.reason);
        Ok(true)
    }

    fn add_records(&mut self, chunk: &Chunk) {
        for frame in chunk.frames.iter().filter(|frame| frame.kind != Kind::Control) {
            let end = frame.payload_start + frame.payload_bytes;
            let stored = chunk.bytes.slice(frame.payload_start..end);
            let reader = chunk.reader.clone();
            self.pending.push_back(PendingItem::Record { reader, frame: *frame, stored });
        }
    }

    fn expand(
        &self,
        reader: &SegmentReader,
        frame: &FrameAt,
        stored: Bytes,
    ) -> Result<Record, Gap> {
        let stop = match reader.payload(frame, stored) {
            Ok(payload) => return Ok(Record { lsn: frame.lsn, end: frame.end(), payload }),
            Err(stop) => stop,
        };
        let to = frame.end();
        Err(Gap {
            segment: Some(reader.file.name().to_owned()),
            offset: reader.offset(frame.lsn),
            from: frame.lsn,
            to,
            bytes: to.since(frame.lsn),
            is_committed: frame.lsn < self.committed,
            reason: stop.describe().to_owned(),
        })
    }

    /// Returns the beginning of the next valid unit after `self.at`, at most `end`.
    ///
    /// The unit is an intact record, or a batch that is known to begin there.
    fn resume(&mut self, reader: &SegmentReader, end: Lsn, stop: Stop) -> Result<Resumed> {
        let start = self.at;
        let reason = stop.describe();
        let mut at = start;
        // True if a unit is known to begin at `at`, and true if `at` is within a batch.
        let (mut is_certain, mut is_within) = (true, false);
        while at < end {
            let kind = match reader.read_frame(at, reader.place.end, FIRST_READ_BYTES)? {
                Ok((frame, _)) => {
                    let is_batch = matches!(frame.kind, Kind::BatchPart | Kind::BatchEnd);
                    let begins_batch = (is_certain && !is_within) || self.boundaries.contains(&at);
                    if at > start && (!is_batch || begins_batch) {
                        return Ok(Resumed { at, reason });
                    }
                    at = at.plus(frame_bytes(frame.payload_bytes as u64));
                    Some(frame.kind)
                }
                Err(_) => match trusted_frame(reader, at, end)? {
                    Some((next, kind)) => {
                        at = next;
                        kind
                    }
                    None => {
                        let Some(next) = self.next_intact(reader, at)? else {
                            return Ok(Resumed { at: end, reason });
                        };
                        let before = frame_before(reader, at, next)?;
                        at = next;
                        is_certain = before.is_some();
                        is_within = before == Some(Kind::BatchPart);
                        continue;
                    }
                },
            };
            is_within = kind == Some(Kind::BatchPart);
            is_certain |= !is_within;
        }
        Ok(Resumed { at: at.min(end), reason })
    }

    /// Returns the next intact frame after `at`. The frame is usually near, so the first window is
    /// small.
    fn next_intact(&mut self, reader: &SegmentReader, at: Lsn) -> Result<Option<Lsn>> {
        let from = at.plus(FRAME_ALIGN);
        let end = reader.place.end;
        let (mut to, mut window_bytes) = (from, WINDOW_BYTES);
        while to < end {
            to = from.plus(window_bytes).min(end);
            let place = WalkBounds { end: to, ..reader.place };
            let found = intact_frames(&SegmentReader { place, ..reader.clone() }, from)?;
            self.boundaries.extend(found.iter().filter_map(|frame| frame.commitment));
            if let Some(first) = found.first() {
                return Ok(Some(first.lsn));
            }
            window_bytes = window_bytes.saturating_mul(4);
        }
        Ok(None)
    }

    /// Reports everything from the current position to `to` as a gap.
    fn add_gap(&mut self, reader: Option<&SegmentReader>, to: Lsn, reason: &str) {
        let segment = reader.map(|reader| reader.file.name().to_owned());
        let from = std::mem::replace(&mut self.at, to);
        match &mut self.gap {
            Some(gap) if gap.to == from && gap.segment == segment => {
                gap.to = to;
                gap.bytes = to.since(gap.from);
            }
            _ => {
                self.finish_gap();
                self.gap = Some(Gap {
                    offset: reader.map_or(0, |reader| reader.offset(from)),
                    segment,
                    from,
                    to,
                    bytes: to.since(from),
                    is_committed: from < self.committed,
                    reason: reason.to_owned(),
                });
            }
        }
    }

    fn finish_gap(&mut self) {
        self.pending.extend(self.gap.take().map(PendingItem::Gap));
    }

    fn add_strays(&mut self) {
        for stray in std::mem::take(&mut self.strays) {
            self.pending.push_back(PendingItem::Gap(Gap {
                segment: Some(stray.name),
                offset: 0,
                from: self.at,
                to: self.at,
                bytes: stray.used_bytes,
                is_committed: false,
                reason: stray.reason,
            }));
        }
    }
}

/// Returns the end and the kind of a damaged frame whose header is valid.
///
/// Both checks of a header are short. So the header is trusted only if the next one is valid, too.
fn trusted_frame(reader: &SegmentReader, at: Lsn, end: Lsn) -> Result<Option<(Lsn, Option<Kind>)>> {
    let Some(header) = header_at(reader, at)? else { return Ok(None) };
    let next = at.plus(header.frame_bytes());
    let is_borne_out = next == end || (next < end && header_at(reader, next)?.is_some());
    Ok(is_borne_out.then_some((next, header.kind())))
}

fn header_at(reader: &SegmentReader, at: Lsn) -> Result<Option<FrameHeader>> {
    let header = reader.read(at, FRAME_HEADER_BYTES_U64)?;
    let header = header.first_chunk().map(|bytes| FrameHeader::parse(*bytes));
    Ok(header.filter(|header| header.header_holds(reader.place.seed, at)))
}

/// Returns the kind of the damaged frame that ends right before an intact one.
///
/// `None` if no valid header precedes the intact frame.
///
/// A header with a right check and a right length is not a coincidence.
fn frame_before(reader: &SegmentReader, from: Lsn, next: Lsn) -> Result<Option<Kind>> {
    const PIECE_BYTES: u64 = 256 << 10;
    let mut at = from;
    while at < next {
        let piece = reader.read(at, next.since(at).min(PIECE_BYTES))?;
        let mut offset = 0;
        while let Some(bytes) = piece.get(to_usize(offset)..).and_then(<[u8]>::first_chunk) {
            let header = FrameHeader::parse(*bytes);
            let lsn = at.plus(offset);
            if lsn.plus(header.frame_bytes()) == next && header.header_holds(reader.place.seed, lsn)
            {
                return Ok(header.kind());
            }
            offset += FRAME_ALIGN;
        }
        // The last positions of a piece hold no complete header.
        at = at.plus(offset.max(FRAME_ALIGN));
    }
    Ok(None)
}
