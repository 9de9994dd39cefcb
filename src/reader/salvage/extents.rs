//! Determines the part of the log in each segment file, from the readable headers.
//!
//! Unlike for the chain of an intact log, no links are needed. A valid header holds the base and
//! the epoch of its segment. The epochs show which segments a cut replaced.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    error::Result,
    format::{
        frame::Seed,
        header::{FILE_BYTES_MAX, ParsedHeader, file_end, frame_room},
        scan::WalkBounds,
        search::{FoundFrame, search},
    },
    inspect::Frozen,
    lsn::Lsn,
    options::Config,
    reader::{salvage::openable::OpenableLog, view::reader_of},
    recovery::{Member, first_recorded_in, read_header, refuse_unsupported},
    segments::{Region, SegmentFile, SegmentReader, Sequence},
    storage::Storage,
};

const CHUNK_BYTES: u64 = 1 << 20;

/// A part of the log and the file that holds it.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    pub(super) reader: SegmentReader,
    pub(super) from: Lsn,
    pub(super) to: Lsn,
    /// True if only the contents show the end, because no successor is present.
    pub(super) is_open: bool,
    /// True if neither copy of its header is readable.
    pub(super) is_headless: bool,
}

/// A file whose position in the log is unknown.
#[derive(Clone, Debug)]
pub(super) struct Stray {
    pub(super) name: String,
    pub(super) used_bytes: u64,
    pub(super) reason: String,
}

/// The readable parts of a log.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// In the order of the log, without overlaps.
    pub(super) extents: Vec<Extent>,
    pub(super) strays: Vec<Stray>,
    pub(super) first: Lsn,
    pub(super) committed: Lsn,
    /// Positions that a header or a frame claims were synced. A unit begins at each.
    pub(super) boundaries: BTreeSet<Lsn>,
}

struct Headless {
    sequence: Sequence,
    bytes: u64,
}

/// The segment files, by the state of their headers.
struct Headers {
    members: Vec<Member>,
    headless: Vec<Headless>,
    strays: Vec<Stray>,
}

pub(super) fn survey(frozen: &Arc<Frozen>, config: &Config) -> Result<Remains> {
    let storage: Arc<dyn Storage> = Arc::<Frozen>::clone(frozen);
    let openable = OpenableLog::judge(frozen, config);
    let Headers { members, headless, mut strays } = headers(frozen, &openable)?;
    let mut current = current_segments(&members, &openable, &mut strays);
    let mut remains = Remains { strays, ..Remains::default() };
    for (at, (member, to)) in current.clone().iter().enumerate() {
        let next = current.get(at + 1).map(|(next, _)| *next);
        let is_linked = next.is_some_and(|next| next.header.previous == Some(member.header.link()));
        let mut to = *to;
        match next.map(|next| next.header) {
            // The missing end of a shortened file is part of its extent, and is reported as a gap.
            Some(next) if is_linked => {
                let made_end = file_end(member.header.base, member.header.file_bytes);
                to = next.base.min(made_end).max(to);
            }
            Some(next) => {
                let missing = next.previous.map_or(member.header.base, |link| link.base);
                to = to.min(missing.max(member.header.base));
            }
            None => {}
        }
        to = to.max(openable.end_of(member));
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
        place_headless(&storage, config, &mut current, &found, (&openable, &mut remains))?;
    }
    remains.extents.sort_by_key(|extent| extent.from);
    let unsynced = current.last().map_or(Lsn::ZERO, |(newest, _)| newest.header.synced);
    for at in 0..remains.extents.len() {
        remains.read_claims(at, unsynced)?;
    }
    if !openable.members.is_empty() {
        remains.first = openable.first;
    }
    Ok(remains)
}

fn headers(frozen: &Arc<Frozen>, openable: &OpenableLog) -> Result<Headers> {
    let mut headers = Headers { members: Vec::new(), headless: Vec::new(), strays: Vec::new() };
    for sequence in frozen.names().iter().filter_map(|name| Sequence::parse(name)) {
        let file = match SegmentFile::open(frozen.as_ref(), sequence) {
            Ok(file) => file,
            Err(error) => {
                let (name, reason) = (sequence.file_name(), format!("{error:#}"));
                headers.strays.push(Stray { name, used_bytes: 0, reason });
                continue;
            }
        };
        let bytes = file.bytes()?;
        let segment = sequence.file_name();
        match read_header(&file)?.parsed {
            ParsedHeader::Valid(header) => {
                headers.members.push(Member { sequence, header, bytes });
            }
            other => {
                refuse_unsupported(&segment, &other)?;
                // A file that was prepared and never begun is empty.
                if frozen.file(&segment).is_none_or(|file| file.used_bytes > 0) {
                    headers.headless.push(Headless { sequence, bytes });
                }
            }
        }
    }
    // The log is the one that opening finds, or else the one with the most segments.
    let count = |id| headers.members.iter().filter(|member| member.header.log_id == id).count();
    let most = headers.members.iter().max_by_key(|member| count(member.header.log_id));
    if let Some(id) = openable.members.first().or(most).map(|member| member.header.log_id) {
        let (own, foreign) = headers.members.iter().partition(|member| member.header.log_id == id);
        headers.members = own;
        let foreign: Vec<Member> = foreign;
        headers.strays.extend(foreign.into_iter().map(|member| Stray {
            name: member.sequence.file_name(),
            used_bytes: member.bytes,
            reason: "it belongs to another log".to_owned(),
        }));
    }
    Ok(headers)
}

/// Returns the segments that no later epoch has replaced, each with its highest possible end.
///
/// The result is in the order of the log; `members` is in the order of the sequence. A segment that
/// opening drops never replaces one that opening keeps.
fn current_segments(
    members: &[Member],
    openable: &OpenableLog,
    strays: &mut Vec<Stray>,
) -> Vec<(Member, Lsn)> {
    let mut current: Vec<(Member, Lsn)> = Vec::new();
    for (at, member) in members.iter().enumerate() {
        let later = members.get(at + 1..).unwrap_or_default();
        let header = &member.header;
        let is_copied = |other: &&Member| other.header == *header;
        let is_replaced =
            |other: &&Member| other.header.epoch > header.epoch && other.header.base <= header.base;
        let is_openable = openable.has(member);
        if !is_openable && later.iter().any(|other| is_copied(&other) || is_replaced(&other)) {
            continue;
        }
        if !is_openable && openable.covers(header.base) {
            strays.push(Stray {
                name: member.sequence.file_name(),
                used_bytes: member.bytes,
                reason: "another segment has its position in the log".to_owned(),
            });
            continue;
        }
        let after = |other: &&Member| {
            other.header.epoch >= header.epoch && other.header.base >= header.base
        };
        let next = later.iter().filter(after).map(|other| other.header.base).min();
        let end = next.map_or(member.file_end(), |next| next.min(member.file_end()));
        current.push((*member, end));
    }
    current.sort_by_key(|(member, _)| (member.header.base, member.sequence));
    current
}

/// Finds the base of a headless segment from its neighbours.
fn place_headless(
    storage: &Arc<dyn Storage>,
    config: &Config,
    current: &mut [(Member, Lsn)],
    found: &Headless,
    (openable, remains): (&OpenableLog, &mut Remains),
) -> Result<()> {
    let before = current.iter().rfind(|(member, _)| member.sequence < found.sequence);
    let next = current.iter().find(|(member, _)| member.sequence > found.sequence);
    let (before, next) = (before.map(|(member, _)| *member), next.map(|(member, _)| *member));
    let link = next.and_then(|next| next.header.previous);
    let is_room = link.is_none_or(|link| before.is_none_or(|b| b.header.link() != link));
    let file = Arc::new(SegmentFile::open(storage.as_ref(), found.sequence)?);
    let room = frame_room(found.bytes.min(FILE_BYTES_MAX));
    for member in [next, before].into_iter().flatten().filter(|_| is_room) {
        let seed = Seed::new(member.header.log_id, member.header.epoch);
        let bound = next.map(|next| next.header.base);
        let reader_at = |base: Lsn| {
            let end = bound.map_or(base.plus(room), |bound| bound.min(base.plus(room)));
            let place = WalkBounds { seed, end, record_bytes_max: config.record_bytes_max };
            SegmentReader { file: Arc::clone(&file), base, place }
        };
        let named = link.map(|link| link.base);
        let lowest = before.map_or(Lsn::ZERO, |before| before.header.base);
        let highest = before.map_or(lowest, |before| before.file_end());
        let frame = reader_at(lowest).first_frame()?;
        let first = frame.and_then(|frame| frame.within(seed, lowest, highest));
        for base in [first, named].into_iter().flatten().filter(|base| !openable.covers(*base)) {
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
    let reason =
        "neither the header nor its copy is readable, and the position of its frames is unknown"
            .to_owned();
    remains.strays.push(Stray { name, used_bytes, reason });
    Ok(())
}

/// Ends earlier segments at the beginning of a placed headless segment.
fn end_before(remains: &mut Remains, placed: &Extent) {
    for extent in &mut remains.extents {
        if extent.from < placed.from && extent.to > placed.from {
            extent.to = placed.from;
            extent.reader.place.end = placed.from;
        }
    }
}

/// Returns the intact frames from a position to the segment's end.
pub(super) fn intact_frames(reader: &SegmentReader, from: Lsn) -> Result<Vec<FoundFrame>> {
    let used_end = reader.used_end(from, reader.place.end)?;
    let region = (used_end.since(from), reader.place.end.since(from));
    let mut source = Region { reader, start: from };
    let mut found = Vec::new();
    search(&mut source, from, region, reader.place.seed, &mut |frame| found.push(frame))?;
    Ok(found)
}

impl Remains {
    /// Reads the claims of synced positions and of the log's beginning in the unsynced end.
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
            self.first = self.first.max(first_recorded_in(&frame));
            if let Some(commitment) = frame.commitment {
                self.committed = self.committed.max(commitment);
                self.boundaries.insert(commitment);
            }
        }
        Ok(())
    }
}
