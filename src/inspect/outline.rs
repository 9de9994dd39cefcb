//! What is known of a log without reading it: its files, their headers and the verdict.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    format::{
        frame::Seed,
        header::{HeaderBlock, ParsedHeader, SEGMENT_HEADER_BYTES, SegmentHeader},
        scan::Place,
    },
    inspect::{
        found::{Header, HeaderState, Inspection, KeptCut, Problem, Role, Segment, Verdict},
        frozen::Frozen,
    },
    lsn::Lsn,
    options::{Config, RECORD_BYTES_LIMIT},
    recovery::{Chain, Looked, Member, link_up, look, read_header, refuse_foreign},
    segments::{SegmentFile, SegmentReader, Sequence, is_kept_cut},
    storage::Storage,
};

/// The largest record that any log may hold: what is too large for one user is none the less there.
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
    let looked = look(frozen, &config);
    let judged = looked.as_ref().ok().and_then(|looked| looked.judged.as_ref());
    // Where opening refuses, the chain is what the headers alone say.
    let chain = judged.map_or_else(|| by_headers(&members), |judged| judged.chain.clone());
    assign(&mut segments, &chain);
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
    };
    match looked {
        Ok(looked) => fill(&mut inspection, looked),
        Err(error) => {
            if let Error::Corrupt { synced, .. } = &error {
                inspection.committed = Some(*synced);
            }
            inspection.verdict = Verdict::Refused(Problem::from(&error));
        }
    }
    Ok(inspection)
}

/// The chain as far as there is one: what stands before a gap is a part of the log all the same.
fn by_headers(members: &[Member]) -> Chain {
    let mut chain = link_up(members, Lsn::ZERO);
    if chain.broken.is_some() {
        let before = std::mem::take(&mut chain.dead);
        chain.members.extend(before);
        chain.members.sort_by_key(|member| member.sequence);
    }
    chain
}

fn fill(inspection: &mut Inspection, looked: Looked) {
    let report = looked.report;
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

/// A segment file by itself. What can't be read of it the verdict tells too.
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
    }
}

/// Says of each segment that is one of the log where its part of it ends.
fn assign(segments: &mut [Segment], chain: &Chain) {
    let successors = chain.members.iter().skip(1).map(Some);
    for (member, successor) in chain.members.iter().zip(successors.chain([None])) {
        let name = member.sequence.file_name();
        if let Some(segment) = segments.iter_mut().find(|segment| segment.name == name) {
            segment.role = Role::Log;
            // Before a gap a segment ends with its file.
            let next = successor.filter(|next| next.header.previous == Some(member.header.link()));
            segment.end = Some(next.map_or(member.file_end(), |next| next.header.base));
        }
    }
}

/// Reads what a segment's header vouches for; `None` if there is no such header.
pub(super) fn reader(frozen: &Frozen, segment: &Segment) -> Result<Option<SegmentReader>> {
    let sequence = Sequence::parse(&segment.name);
    let (Some(header), Some(sequence)) = (segment.header, sequence) else { return Ok(None) };
    // No file is read past its end, wherever the next header says that it ends.
    let bytes = segment.bytes.min(header.file_bytes).saturating_sub(SEGMENT_HEADER_BYTES);
    let file_end = header.base.plus(bytes);
    let place = Place {
        seed: Seed::new(header.log_id.0, header.epoch),
        end: segment.end.map_or(file_end, |end| end.min(file_end)),
        record_bytes_max: RECORD_BYTES_MAX,
    };
    let file = Arc::new(SegmentFile::open(frozen, sequence)?);
    Ok(Some(SegmentReader { file, base: header.base, place }))
}
