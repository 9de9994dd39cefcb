//! Reads the slots records of a part of the log, also past damage.

use std::sync::Arc;

use crate::{
    error::Result,
    format::{
        extension::TimeMark,
        frame::Seed,
        scan::{Stop, WalkBounds},
        search::search,
    },
    lsn::Lsn,
    options::RECORD_BYTES_LIMIT,
    recovery::{
        chain::Member,
        judged::Judged,
        scan::{CHUNK_BYTES, SlotsAt, slots_in, time_in},
    },
    segments::{Region, SegmentFile, SegmentReader},
    storage::Storage,
};

/// The records of a part of the log.
#[derive(Default)]
pub(super) struct Records {
    pub(super) found: Vec<SlotsAt>,
    /// The place and the reason of an early end of the walk.
    pub(super) stop: Option<(SegmentReader, Lsn, Stop)>,
    pub(super) read_bytes: u64,
    /// The newest time mark.
    pub(super) time: Option<TimeMark>,
}

/// Reads the slots records of `from..until`.
pub(super) fn read_records(
    storage: &dyn Storage,
    judged: &Judged,
    from: Lsn,
    until: Lsn,
) -> Result<Records> {
    let mut records = Records::default();
    let mut at = from;
    while at < until {
        let Some(reader) = reader_at(storage, judged, at)? else { break };
        let end = reader.place.end.min(until);
        if at >= end {
            // The file has lost its end, so the rest of its records is missing.
            records.stop = Some((reader, at, Stop::SegmentEnd));
            return Ok(records);
        }
        while at < end {
            let chunk = reader.read_chunk(at, end, CHUNK_BYTES)?;
            records.found.extend(slots_in(&chunk));
            records.time = time_in(&chunk).or(records.time);
            records.read_bytes += chunk.next.since(at);
            if chunk.next == at {
                let stop = chunk.stop.unwrap_or(Stop::BadHeader);
                records.stop = Some((reader, at, stop));
                return Ok(records);
            }
            at = chunk.next;
        }
    }
    Ok(records)
}

/// Returns the intact slots records between damage at `damage` and `until`.
pub(super) fn records_past(
    storage: &dyn Storage,
    judged: &Judged,
    damage: Lsn,
    until: Lsn,
) -> Result<Vec<SlotsAt>> {
    let mut found = Vec::new();
    let members = &judged.chain.members;
    let bases = members.iter().skip(1).map(|next| next.header.base);
    for (member, next) in members.iter().zip(bases.chain([until])) {
        let from = member.header.base.max(damage);
        if next <= from || until <= from {
            continue;
        }
        let reader = reader(storage, member, Some(next.min(until)))?;
        let region_bytes = reader.place.end.since(from);
        let mut controls = Vec::new();
        let mut source = Region { reader: &reader, start: from };
        let region = (region_bytes, region_bytes);
        search(&mut source, from, region, reader.place.seed, &mut |frame| {
            if !frame.is_record {
                controls.push((frame.lsn, frame.end));
            }
        })?;
        for (lsn, end) in controls {
            found.extend(slots_in(&reader.read_chunk(lsn, end, end.since(lsn))?));
        }
    }
    Ok(found)
}

/// Returns a reader of the segment that holds `lsn`.
pub(super) fn reader_at(
    storage: &dyn Storage,
    judged: &Judged,
    lsn: Lsn,
) -> Result<Option<SegmentReader>> {
    let members = &judged.chain.members;
    let after = members.partition_point(|member| member.header.base <= lsn);
    let Some(member) = after.checked_sub(1).and_then(|at| members.get(at)) else {
        return Ok(None);
    };
    let next = members.get(after).map(|next| next.header.base);
    reader(storage, member, next).map(Some)
}

fn reader(storage: &dyn Storage, member: &Member, next: Option<Lsn>) -> Result<SegmentReader> {
    let file_end = member.file_end();
    let place = WalkBounds {
        seed: Seed::new(member.header.log_id, member.header.epoch),
        end: next.map_or(file_end, |next| next.min(file_end)),
        // A record above the limit of this opening is no reason to lose a slot.
        record_bytes_max: RECORD_BYTES_LIMIT,
    };
    let file = Arc::new(SegmentFile::open(storage, member.sequence)?);
    Ok(SegmentReader { file, base: member.header.base, place })
}
