//! Which part of the log each segment file holds, by whatever headers are left.
//!
//! Unlike the chain of an intact log this asks for no links: a header that holds says where its
//! segment begins and of which epoch it is, and the epochs say what a cut replaced.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    error::{Error, Result},
    format::{
        frame::{FRAME_HEADER_BYTES_U64, FrameHeader, Seed},
        header::{FILE_BYTES_MAX, ParsedHeader, SEGMENT_HEADER_BYTES, VERSION},
        scan::Place,
        search::{Found, search},
    },
    inspect::Frozen,
    lsn::Lsn,
    options::Config,
    reader::view::reader_of,
    recovery::{Member, first_told_by, read_header},
    segments::{Region, SegmentFile, SegmentReader, Sequence},
    storage::Storage,
};

const CHUNK_BYTES: u64 = 1 << 20;

/// A part of the log, and the file that holds it.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    pub(super) reader: SegmentReader,
    pub(super) from: Lsn,
    pub(super) to: Lsn,
    /// Where it ends is known by its contents alone: it is the newest, or the next one is missing.
    pub(super) is_open: bool,
    /// Its header can't be read, nor its copy.
    pub(super) is_headless: bool,
}

/// A file of which nothing is known but that it holds something.
#[derive(Clone, Debug)]
pub(super) struct Stray {
    pub(super) name: String,
    pub(super) used_bytes: u64,
    pub(super) reason: &'static str,
}

/// What is left of a log.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// In the order of the log, none overlapping another.
    pub(super) extents: Vec<Extent>,
    pub(super) strays: Vec<Stray>,
    pub(super) first: Lsn,
    pub(super) committed: Lsn,
    /// Positions that something claims was synced: a unit begins at each.
    pub(super) boundaries: BTreeSet<Lsn>,
}

struct Headless {
    sequence: Sequence,
    bytes: u64,
}

/// What the headers of all files say.
struct Headers {
    members: Vec<Member>,
    headless: Vec<Headless>,
    strays: Vec<Stray>,
}

pub(super) fn survey(frozen: &Arc<Frozen>, config: &Config) -> Result<Remains> {
    let storage: Arc<dyn Storage> = Arc::<Frozen>::clone(frozen);
    let Headers { members, headless, strays } = headers(frozen)?;
    let mut remains = Remains { strays, ..Remains::default() };
    let mut live = live(&members);
    for (at, (member, to)) in live.clone().iter().enumerate() {
        let next = live.get(at + 1).map(|(next, _)| *next);
        let is_linked = next.is_some_and(|next| next.header.previous == Some(member.header.link()));
        let mut to = *to;
        match next.map(|next| next.header) {
            // What its file has lost is its own damage.
            Some(next) if is_linked => {
                let made_bytes = member.header.file_bytes.saturating_sub(SEGMENT_HEADER_BYTES);
                to = next.base.min(member.header.base.plus(made_bytes)).max(to);
            }
            Some(next) => {
                let missing = next.previous.map_or(member.header.base, |link| link.base);
                to = to.min(missing.max(member.header.base));
            }
            None => {}
        }
        let mut reader = reader_of(&storage, config, member, None)?;
        reader.place.end = to;
        remains.extents.push(Extent {
            from: member.header.base,
            reader,
            to,
            is_open: !is_linked,
            is_headless: false,
        });
        remains.first = remains.first.max(member.header.first);
        remains.committed = remains.committed.max(member.header.synced);
        remains.boundaries.insert(member.header.synced);
        remains.boundaries.insert(member.header.base);
    }
    for found in headless {
        place_headless(&storage, config, &mut live, &found, &mut remains)?;
    }
    remains.extents.sort_by_key(|extent| extent.from);
    let unsynced = live.last().map_or(Lsn::ZERO, |(newest, _)| newest.header.synced);
    for at in 0..remains.extents.len() {
        remains.read_claims(at, unsynced)?;
    }
    Ok(remains)
}

fn headers(frozen: &Arc<Frozen>) -> Result<Headers> {
    let mut headers = Headers { members: Vec::new(), headless: Vec::new(), strays: Vec::new() };
    for sequence in frozen.names().iter().filter_map(|name| Sequence::parse(name)) {
        let Ok(file) = SegmentFile::open(frozen.as_ref(), sequence) else {
            let (name, reason) = (sequence.file_name(), "the file can't be opened");
            headers.strays.push(Stray { name, used_bytes: 0, reason });
            continue;
        };
        let bytes = file.bytes()?;
        let segment = sequence.file_name();
        match read_header(&file)?.parsed {
            ParsedHeader::Valid(header) => {
                headers.members.push(Member { sequence, header, bytes });
            }
            ParsedHeader::Newer { version } => {
                return Err(Error::UnsupportedVersion { segment, version, supported: VERSION });
            }
            ParsedHeader::UnknownFlags { flags } => {
                let (offset, lsn, kind) = (0, Lsn::ZERO, 0);
                return Err(Error::UnsupportedFrame { segment, offset, lsn, kind, flags });
            }
            ParsedHeader::Blank | ParsedHeader::Damaged => {
                // Prepared and never begun: there is nothing in it.
                if frozen.file(&segment).is_none_or(|file| file.used_bytes > 0) {
                    headers.headless.push(Headless { sequence, bytes });
                }
            }
        }
    }
    // The log is whatever most of them belong to.
    let count = |id| headers.members.iter().filter(|member| member.header.log_id == id).count();
    let id = headers.members.iter().max_by_key(|member| count(member.header.log_id));
    if let Some(id) = id.map(|member| member.header.log_id) {
        let (own, foreign) = headers.members.iter().partition(|member| member.header.log_id == id);
        headers.members = own;
        let foreign: Vec<Member> = foreign;
        headers.strays.extend(foreign.into_iter().map(|member| Stray {
            name: member.sequence.file_name(),
            used_bytes: member.bytes,
            reason: "it belongs to another log",
        }));
    }
    Ok(headers)
}

/// The segments that no later epoch has replaced, in the order of the log, each with where its part
/// ends at the latest. `members` is in the order of the sequence.
fn live(members: &[Member]) -> Vec<(Member, Lsn)> {
    let mut live: Vec<(Member, Lsn)> = Vec::new();
    for (at, member) in members.iter().enumerate() {
        let later = members.get(at + 1..).unwrap_or_default();
        let header = &member.header;
        let is_copied = |other: &&Member| other.header == *header;
        let is_replaced =
            |other: &&Member| other.header.epoch > header.epoch && other.header.base <= header.base;
        if later.iter().any(|other| is_copied(&other) || is_replaced(&other)) {
            continue;
        }
        let after = |other: &&Member| {
            other.header.epoch >= header.epoch && other.header.base >= header.base
        };
        let next = later.iter().filter(after).map(|other| other.header.base).min();
        let end = next.map_or(member.file_end(), |next| next.min(member.file_end()));
        live.push((*member, end));
    }
    live.sort_by_key(|(member, _)| (member.header.base, member.sequence));
    live
}

/// Finds out where the frames of a segment without a header belong, by those before and behind it.
fn place_headless(
    storage: &Arc<dyn Storage>,
    config: &Config,
    live: &mut [(Member, Lsn)],
    found: &Headless,
    remains: &mut Remains,
) -> Result<()> {
    let before = live.iter().rfind(|(member, _)| member.sequence < found.sequence);
    let next = live.iter().find(|(member, _)| member.sequence > found.sequence);
    let (before, next) = (before.map(|(member, _)| *member), next.map(|(member, _)| *member));
    let link = next.and_then(|next| next.header.previous);
    let is_room = link.is_none_or(|link| before.is_none_or(|b| b.header.link() != link));
    let file = Arc::new(SegmentFile::open(storage.as_ref(), found.sequence)?);
    let room = found.bytes.min(FILE_BYTES_MAX).saturating_sub(SEGMENT_HEADER_BYTES);
    for member in [next, before].into_iter().flatten().filter(|_| is_room) {
        let seed = Seed::new(member.header.log_id, member.header.epoch);
        let bound = next.map(|next| next.header.base);
        let reader_at = |base: Lsn| {
            let end = bound.map_or(base.plus(room), |bound| bound.min(base.plus(room)));
            let place = Place { seed, end, record_bytes_max: config.record_bytes_max };
            SegmentReader { file: Arc::clone(&file), base, place }
        };
        let named = link.map(|link| link.base);
        let lowest = before.map_or(Lsn::ZERO, |before| before.header.base);
        let highest = before.map_or(lowest, |before| before.file_end());
        let first = first_frame(&reader_at(lowest), lowest, highest, &reader_at)?;
        for base in [first, named].into_iter().flatten() {
            let reader = reader_at(base);
            let intact = intact_frames(&reader, base)?;
            if !intact.is_empty() {
                let to = reader.place.end;
                let extent =
                    Extent { reader, from: base, to, is_open: next.is_none(), is_headless: true };
                end_before(remains, &extent);
                remains.boundaries.insert(base);
                remains.extents.push(extent);
                return Ok(());
            }
        }
    }
    let (name, used_bytes) = (found.sequence.file_name(), found.bytes);
    let reason = "neither its header nor its copy can be read, and its frames can't be placed";
    remains.strays.push(Stray { name, used_bytes, reason });
    Ok(())
}

/// Where the part of the one before a segment without a header ends.
fn end_before(remains: &mut Remains, placed: &Extent) {
    for extent in &mut remains.extents {
        if extent.from < placed.from && extent.to > placed.from {
            extent.to = placed.from;
            extent.reader.place.end = placed.from;
        }
    }
}

/// The position for which the first frame of a file was sealed.
fn first_frame(
    any: &SegmentReader,
    lowest: Lsn,
    highest: Lsn,
    reader_at: &dyn Fn(Lsn) -> SegmentReader,
) -> Result<Option<Lsn>> {
    let header = any.read(any.base, FRAME_HEADER_BYTES_U64)?;
    let Some(header) = header.first_chunk() else { return Ok(None) };
    let header = FrameHeader::parse(*header);
    let mut base = lowest;
    while base <= highest {
        if header.header_holds(any.place.seed, base) && reader_at(base).is_intact(base)? {
            return Ok(Some(base));
        }
        base = base.plus(8);
    }
    Ok(None)
}

/// The intact frames from a position to a segment's end.
pub(super) fn intact_frames(reader: &SegmentReader, from: Lsn) -> Result<Vec<Found>> {
    let used_end = reader.used_end(from, reader.place.end)?;
    let region = (used_end.since(from), reader.place.end.since(from));
    let mut source = Region { reader, start: from };
    let mut found = Vec::new();
    search(&mut source, from, region, reader.place.seed, &mut |frame| found.push(frame))?;
    Ok(found)
}

impl Remains {
    /// Reads what the unsynced end claims of what is synced, and of where the log begins.
    fn read_claims(&mut self, at: usize, unsynced: Lsn) -> Result<()> {
        let Some(extent) = self.extents.get(at).cloned() else { return Ok(()) };
        let mut next = extent.from.max(unsynced);
        if extent.to <= next {
            return Ok(());
        }
        let mut frames = Vec::new();
        loop {
            let chunk = extent.reader.read_chunk(next, extent.to, CHUNK_BYTES)?;
            frames.extend(chunk.frames);
            next = chunk.next;
            if chunk.stop.is_some() || next >= extent.to {
                break;
            }
        }
        for found in intact_frames(&extent.reader, next)? {
            let read = extent.reader.read_frame(found.lsn, extent.to, 64)?;
            frames.extend(read.ok().map(|(frame, _)| frame));
        }
        for frame in frames {
            self.first = self.first.max(first_told_by(&frame));
            if let Some(commitment) = frame.commitment {
                self.committed = self.committed.max(commitment);
                self.boundaries.insert(commitment);
            }
        }
        Ok(())
    }
}
