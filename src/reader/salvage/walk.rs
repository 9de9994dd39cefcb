//! The walk over what is left: whole units as replay reads them, and around damage frame by frame.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use crate::{
    error::Result,
    format::{
        frame::{FRAME_ALIGN, FRAME_HEADER_BYTES_U64, FrameHeader, Kind, frame_bytes},
        header::SEGMENT_HEADER_BYTES,
        scan::{Place, Stop, to_usize},
    },
    inspect::Frozen,
    lsn::Lsn,
    options::Config,
    reader::salvage::{
        Gap, Items,
        extents::{Extent, Remains, Stray, intact_frames, survey},
        forgiving::Forgiving,
    },
    record::Record,
    recovery::refuse_foreign,
    segments::{Chunk, SegmentReader},
    storage::Storage,
};

const CHUNK_BYTES: u64 = 256 << 10;
/// Most frames are shorter.
const FIRST_READ_BYTES: u64 = 4096;
/// What is searched first for the next intact frame.
const WINDOW_BYTES: u64 = 64 << 10;

/// Who walks. Blocks.
#[derive(Debug)]
pub(super) struct Salvager {
    extents: VecDeque<Extent>,
    strays: Vec<Stray>,
    committed: Lsn,
    boundaries: BTreeSet<Lsn>,
    /// Up to where everything was given, or told of.
    at: Lsn,
    /// Where what isn't zero ends in the extent at hand, once that was asked.
    used_end: Option<Lsn>,
    has_entered: bool,
    items: Items,
    /// A gap that the next one may go on.
    gap: Option<Gap>,
}

/// Where a gap ends, and what stands at its beginning.
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
            items: Items::new(),
            gap: None,
        })
    }

    /// Some items; none at the end.
    pub(super) fn read_some(&mut self) -> Items {
        while self.items.is_empty() {
            let Some(extent) = self.extents.front().cloned() else {
                self.end_gap();
                self.tell_strays();
                break;
            };
            if !self.has_entered {
                self.enter(&extent);
            }
            let goes_on = self.at < extent.to
                && self.step(&extent).unwrap_or_else(|error| {
                    let reason = error.to_string();
                    self.tell(Some(&extent.reader), extent.to, &reason);
                    false
                });
            if !goes_on {
                self.extents.pop_front();
                self.used_end = None;
                self.has_entered = false;
            }
        }
        std::mem::take(&mut self.items)
    }

    /// Tells what is missing before an extent, and that its header is.
    fn enter(&mut self, extent: &Extent) {
        self.has_entered = true;
        if self.at < extent.from {
            let reason = "the segment that begins here is missing, or neither of its headers can \
                          be read";
            self.tell(None, extent.from, reason);
        }
        if extent.is_headless {
            self.end_gap();
            self.items.push_back(Err(Gap {
                segment: Some(extent.reader.file.name().to_owned()),
                offset: 0,
                from: extent.from,
                to: extent.from,
                bytes: SEGMENT_HEADER_BYTES,
                is_committed: extent.from < self.committed,
                reason: "neither the segment's header nor its copy can be read; its frames were \
                         placed by its neighbours"
                    .to_owned(),
            }));
        }
    }

    /// Gives the next units, or tells of the next gap; `false` at the end of the extent.
    fn step(&mut self, extent: &Extent) -> Result<bool> {
        let reader = &extent.reader;
        let chunk = reader.read_chunk(self.at, extent.to, CHUNK_BYTES)?;
        if chunk.next > self.at {
            self.end_gap();
            self.give(&chunk);
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
        self.tell(Some(reader), resumed.at, resumed.reason);
        Ok(true)
    }

    fn give(&mut self, chunk: &Chunk) {
        for frame in chunk.frames.iter().filter(|frame| frame.kind != Kind::Control) {
            let end = frame.payload_start + frame.payload_bytes;
            let stored = chunk.bytes.slice(frame.payload_start..end);
            let reader = &chunk.reader;
            let item = match reader.payload(frame, stored) {
                Ok(payload) => Ok(Record { lsn: frame.lsn, payload }),
                Err(stop) => {
                    let to = frame.lsn.plus(frame_bytes(frame.payload_bytes as u64));
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
            };
            self.items.push_back(item);
        }
    }

    /// Where the next unit begins behind what doesn't hold at `self.at`: an intact record, or a batch
    /// of which it is known that it begins there. `end` at the latest.
    fn resume(&mut self, reader: &SegmentReader, end: Lsn, stop: Stop) -> Result<Resumed> {
        let start = self.at;
        let reason = stop.describe();
        let mut at = start;
        // Whether a unit is known to begin at `at`, and whether it is within a batch.
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

    /// The next intact frame past `at`: mostly close behind it, so what is searched grows.
    fn next_intact(&mut self, reader: &SegmentReader, at: Lsn) -> Result<Option<Lsn>> {
        let from = at.plus(FRAME_ALIGN);
        let end = reader.place.end;
        let (mut to, mut window_bytes) = (from, WINDOW_BYTES);
        while to < end {
            to = from.plus(window_bytes).min(end);
            let place = Place { end: to, ..reader.place };
            let found = intact_frames(&SegmentReader { place, ..reader.clone() }, from)?;
            self.boundaries.extend(found.iter().filter_map(|frame| frame.commitment));
            if let Some(first) = found.first() {
                return Ok(Some(first.lsn));
            }
            window_bytes = window_bytes.saturating_mul(4);
        }
        Ok(None)
    }

    /// All from where it is up to `to` is a gap.
    fn tell(&mut self, reader: Option<&SegmentReader>, to: Lsn, reason: &str) {
        let segment = reader.map(|reader| reader.file.name().to_owned());
        let from = std::mem::replace(&mut self.at, to);
        match &mut self.gap {
            Some(gap) if gap.to == from && gap.segment == segment => {
                gap.to = to;
                gap.bytes = to.since(gap.from);
            }
            _ => {
                self.end_gap();
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

    fn end_gap(&mut self) {
        self.items.extend(self.gap.take().map(Err));
    }

    fn tell_strays(&mut self) {
        for stray in std::mem::take(&mut self.strays) {
            self.items.push_back(Err(Gap {
                segment: Some(stray.name),
                offset: 0,
                from: self.at,
                to: self.at,
                bytes: stray.used_bytes,
                is_committed: false,
                reason: stray.reason.to_owned(),
            }));
        }
    }
}

/// The end and the kind of a frame that is damaged and whose header isn't: believed if what comes
/// next has a header that holds too, as both checks are short.
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

/// The kind of the damaged frame that ends right before an intact one, if its header holds: that both
/// its check and its length do is no accident.
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
        // The last positions of a piece have no whole header in it.
        at = at.plus(offset.max(FRAME_ALIGN));
    }
    Ok(None)
}
