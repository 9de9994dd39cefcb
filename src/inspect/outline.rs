//! Describes a log without reading all of it: its files, their headers and the verdict.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    format::{
        frame::Seed,
        header::{HeaderBlock, ParsedHeader, SegmentHeader, file_end},
        scan::WalkBounds,
    },
    inspect::{
        found::{Header, HeaderState, Inspection, KeptCut, Problem, Role, Segment, Slot, Verdict},
        frozen::Frozen,
    },
    lsn::Lsn,
    options::{Config, RECORD_BYTES_LIMIT},
    recovery::{Assessment, Chain, Judged, Member, assess, link_up, read_header, refuse_foreign},
    segments::{SegmentFile, SegmentReader, Sequence, is_kept_cut},
    storage::Storage,
};

/// The largest record that any log may hold. Inspection has no smaller limit.
pub(super) const RECORD_BYTES_MAX: u64 = RECORD_BYTES_LIMIT;

pub(super) fn outline(frozen: &Frozen) -> Result<Inspection> {
    refuse_foreign(frozen)?;
    let sequences = frozen.names().iter().filter_map(|name| Sequence::parse(name));
    let mut segments = Vec::new();
    let mut members = Vec::new();
    for sequence in sequences {
        let (segment, member) = describe(frozen, sequence);
        segments.push(segment);
        members.extend(member);
    }
    let config = Config { record_bytes_max: RECORD_BYTES_MAX, ..Config::default() };
    let assessed = assess(frozen, &config);
    let judged = assessed.as_ref().ok().and_then(|assessed| assessed.judged.as_ref());
    // If opening refuses the log, the headers alone determine the chain.
    let chain = judged.map_or_else(|| chain_of_headers(&members), |judged| judged.chain.clone());
    assign_roles(&mut segments, &chain);
    let kept = frozen.names().iter().filter(|name| is_kept_cut(name)).map(|name| {
        let bytes = frozen.open(name).and_then(|file| file.len());
        KeptCut { name: name.clone(), bytes: bytes.ok() }
    });
    let mut inspection = Inspection {
        location: frozen.location(),
        owner_pid: None,
        verdict: Verdict::New,
        first: (!chain.members.is_empty()).then_some(chain.first),
        end: None,
        committed: None,
        segments,
        kept: kept.collect(),
        warnings: Vec::new(),
        damage: Vec::new(),
        slots: judged.map_or_else(Vec::new, slots),
    };
    match assessed {
        Ok(assessed) => add_assessment(&mut inspection, assessed),
        Err(error) => {
            if let Error::Corrupt { synced, .. } = &error {
                inspection.committed = Some(*synced);
            }
            inspection.verdict = Verdict::Refused(Problem::from(&error));
        }
    }
    Ok(inspection)
}

/// Describes the slots of a log, ordered by name.
fn slots(judged: &Judged) -> Vec<Slot> {
    let end = judged.end;
    let bases = || judged.chain.members.iter().map(|member| member.header.base);
    let described = judged.slots.table.slots.values().map(|slot| {
        let position = slot.position.min(end);
        let base = bases().rfind(|base| *base <= position).unwrap_or(position);
        Slot {
            name: slot.name.to_string(),
            position: slot.position,
            lag_bytes: end.since(position),
            held_bytes: end.since(base.min(end)),
            keep_bytes_max: slot.cap_bytes,
            is_lost: slot.position < judged.chain.first,
        }
    });
    let mut slots: Vec<Slot> = described.collect();
    slots.sort_by(|a, b| a.name.cmp(&b.name));
    slots
}

/// Returns the chain of the headers. Segments below a gap count as part of the log.
fn chain_of_headers(members: &[Member]) -> Chain {
    let mut chain = link_up(members, Lsn::ZERO);
    if chain.gap.is_some() {
        let before = std::mem::take(&mut chain.obsolete);
        chain.members.extend(before);
        chain.members.sort_by_key(|member| member.sequence);
    }
    chain
}

fn add_assessment(inspection: &mut Inspection, assessed: Assessment) {
    let report = assessed.report;
    inspection.warnings = report.warnings;
    if report.is_new {
        return;
    }
    inspection.end = Some(report.end);
    inspection.committed = Some(report.committed);
    inspection.verdict = match report.cut {
        Some(cut) => Verdict::TornTail(cut),
        None if report.was_closed => Verdict::Closed,
        None => Verdict::CleanEnd,
    };
}

/// Describes a segment file. The verdict reports unreadable parts.
fn describe(frozen: &Frozen, sequence: Sequence) -> (Segment, Option<Member>) {
    let name = sequence.file_name();
    let file = frozen.file(&name);
    let (bytes, used_bytes) = file.map_or((0, 0), |file| (file.bytes, file.used_bytes));
    let block = SegmentFile::open(frozen, sequence).and_then(|file| read_header(&file));
    let (header_state, header) = match block {
        Ok(block) => state(&block),
        Err(_) => (HeaderState::Unreadable, None),
    };
    let member = header.map(|header| Member { sequence, header, bytes });
    let is_spare = header_state == HeaderState::Blank && used_bytes == 0;
    let segment = Segment {
        name,
        bytes,
        used_bytes,
        role: if is_spare { Role::Spare } else { Role::Other },
        header_state,
        header: header.map(Header::from),
        end: member.map(|member| member.file_end()),
        contents: None,
    };
    (segment, member)
}

fn state(block: &HeaderBlock) -> (HeaderState, Option<SegmentHeader>) {
    match block.parsed {
        ParsedHeader::Valid(header) => {
            let state = match (block.main_holds, block.copy_holds) {
                (true, true) => HeaderState::Intact,
                (true, false) => HeaderState::CopyDamaged,
                (false, _) => HeaderState::MainDamaged,
            };
            (state, Some(header))
        }
        ParsedHeader::Blank => (HeaderState::Blank, None),
        ParsedHeader::Damaged => (HeaderState::Damaged, None),
        ParsedHeader::Newer { version } => (HeaderState::Newer { version }, None),
        ParsedHeader::UnknownFlags { flags } => (HeaderState::UnknownFlags { flags }, None),
        ParsedHeader::UnknownExtension { code } => (HeaderState::UnknownExtension { code }, None),
        ParsedHeader::Misplaced(header) => {
            (HeaderState::Misplaced { sequence: header.sequence }, None)
        }
    }
}

/// Sets the role and the end of each segment of the log.
fn assign_roles(segments: &mut [Segment], chain: &Chain) {
    let successors = chain.members.iter().skip(1).map(Some);
    for (member, successor) in chain.members.iter().zip(successors.chain([None])) {
        let name = member.sequence.file_name();
        if let Some(segment) = segments.iter_mut().find(|segment| segment.name == name) {
            segment.role = Role::Log;
            // A segment below a gap ends with its file.
            let next = successor.filter(|next| next.header.previous == Some(member.header.link()));
            segment.end = Some(next.map_or(member.file_end(), |next| next.header.base));
        }
    }
}

/// Returns a reader of a segment, or `None` if it has no valid header.
pub(super) fn reader(frozen: &Frozen, segment: &Segment) -> Result<Option<SegmentReader>> {
    let sequence = Sequence::parse(&segment.name);
    let (Some(header), Some(sequence)) = (segment.header, sequence) else { return Ok(None) };
    // No read goes past the end of the file, wherever the next header begins.
    let file_end = file_end(header.base, segment.bytes.min(header.file_bytes));
    let place = WalkBounds {
        seed: Seed::new(header.log_id.0, header.epoch),
        end: segment.end.map_or(file_end, |end| end.min(file_end)),
        record_bytes_max: RECORD_BYTES_MAX,
    };
    let file = Arc::new(SegmentFile::open(frozen, sequence)?);
    Ok(Some(SegmentReader { file, base: header.base, place }))
}
