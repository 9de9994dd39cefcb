//! Finds the slots of a log: folds its slots records, from a position that a header or the newest
//! record names. Finds the newest time mark, too.
//!
//! A header names the first record of a round that was durable when the segment began. So the
//! records from there on give the state of every slot, and opening reads a bounded part of the log.
//! In a closed log the last record before the close names that position, too.

use std::sync::Arc;

use crate::{
    error::Result,
    format::{
        control::Control,
        extension::TimeMark,
        frame::{CONTROL_FRAME_BYTES, FIRST_FRAME_BYTES, Seed},
        judge::Verdict,
        scan::{Stop, WalkBounds},
        slots::{SlotTable, TAIL_BYTES, from_in_tail},
    },
    lsn::Lsn,
    options::RECORD_BYTES_LIMIT,
    pipeline::{RecoveredSlots, RecoveredTimes},
    recovery::{
        chain::Member,
        judged::Judged,
        report::Warning,
        scan::{CHUNK_BYTES, SlotsAt, slots_in, time_in},
    },
    replay::damage,
    segments::{SegmentFile, SegmentReader},
    storage::Storage,
};

/// The slots of a log, and how they were found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) slots: RecoveredSlots,
    pub(super) times: RecoveredTimes,
    pub(super) warning: Option<Warning>,
    pub(super) read_bytes: u64,
    /// The newest time mark that was met.
    time: Option<TimeMark>,
}

/// Returns the highest time in the log, and its newest mark. `seen` was met beside the walk.
fn times(judged: &Judged, seen: Option<TimeMark>) -> RecoveredTimes {
    let headers = || judged.chain.members.iter().map(|member| &member.header);
    let in_headers = headers().filter_map(|header| header.extension.time);
    let marks = in_headers.chain(seen).chain(judged.time_seen);
    let mark = marks.filter(|mark| mark.lsn < judged.end).max_by_key(|mark| mark.lsn);
    let created = headers().map(|header| header.created_unix_ms).max();
    let newest_ms = created.max(mark.map(|mark| mark.unix_ms)).unwrap_or_default();
    RecoveredTimes { newest_ms, mark }
}

/// Finds the slots of a judged log.
///
/// # Errors
///
/// [`Error::Corrupt`](crate::Error::Corrupt) if a header leads to slots records that can't be read.
pub(super) fn recover_slots(storage: &dyn Storage, judged: &Judged) -> Result<Found> {
    let mut found = match judged.verdict {
        Verdict::CleanClose => closed(storage, judged)?,
        _ => unclosed(storage, judged)?,
    };
    // Damage may have cut records below a position.
    found.slots.table.clamp(judged.end);
    found.times = times(judged, found.time);
    Ok(found)
}

/// Builds the table from records in the order of their positions.
fn fold(records: impl IntoIterator<Item = SlotsAt>) -> (SlotTable, Option<Lsn>) {
    let mut table = SlotTable::default();
    let mut from = None;
    for record in records {
        from = from.or(Some(record.lsn));
        record.entries.into_iter().for_each(|entry| table.apply(entry));
    }
    (table, from)
}

/// The slots of a log that was closed: a slots record precedes the close, or the record of the
/// beginning before it.
fn closed(storage: &dyn Storage, judged: &Judged) -> Result<Found> {
    let Some(newest) = judged.chain.members.last() else { return Ok(Found::default()) };
    let close = Lsn::new(judged.end.as_u64().saturating_sub(CONTROL_FRAME_BYTES));
    let (end, _) = before_control(storage, judged, close, |control| {
        matches!(control, Control::First(_)).then_some(0)
    })?;
    let (at, unix_ms) = before_control(storage, judged, end, |control| match control {
        Control::Time(unix_ms) => Some(unix_ms),
        _ => None,
    })?;
    let time = unix_ms.map(|unix_ms| TimeMark { unix_ms, lsn: at });
    let none = |read_bytes| Found { time, read_bytes, ..Found::default() };
    let end = at;
    let tail = Lsn::new(end.as_u64().saturating_sub(TAIL_BYTES));
    let Some(reader) = reader_at(storage, judged, tail)? else { return Ok(none(0)) };
    let mut bytes = [0; 16];
    let read = reader.file.read_at(&mut bytes, reader.offset(tail))?;
    let lowest = newest.header.extension.slots.unwrap_or(newest.header.base);
    let named = from_in_tail(bytes.get(..read).unwrap_or_default());
    let Some(from) = named.filter(|from| *from >= lowest && *from <= tail) else {
        return Ok(none(0));
    };
    // A user's record may end with the same bytes, so only an intact slots record counts.
    let records = read_records(storage, judged, from, end)?;
    if records.stop.is_some() || records.found.last().is_none_or(|last| last.end != end) {
        return Ok(none(records.read_bytes));
    }
    let floor = newest.header.extension.slots;
    let (table, _) = fold(records.found);
    let slots = RecoveredSlots { table, from: Some(from), floor };
    Ok(Found { slots, ..none(records.read_bytes) })
}

/// Returns the beginning and the value of a control record that ends at `lsn`, if `value` knows it;
/// otherwise `lsn`.
fn before_control(
    storage: &dyn Storage,
    judged: &Judged,
    lsn: Lsn,
    value: impl Fn(Control) -> Option<u64>,
) -> Result<(Lsn, Option<u64>)> {
    let at = Lsn::new(lsn.as_u64().saturating_sub(FIRST_FRAME_BYTES));
    let Some(reader) = reader_at(storage, judged, at)? else { return Ok((lsn, None)) };
    let frame = reader.read_frame(at, lsn, FIRST_FRAME_BYTES)?.ok();
    let value = frame.and_then(|(frame, _)| frame.control).and_then(value);
    Ok(if value.is_some() { (at, value) } else { (lsn, None) })
}

/// The slots of a log that was not closed: the records from the position that a header names up to
/// the end.
fn unclosed(storage: &dyn Storage, judged: &Judged) -> Result<Found> {
    let members = &judged.chain.members;
    // A header's position counts if all that was synced then is there. Only a cut at damage ends
    // the log before that.
    let header = members.iter().rfind(|member| member.header.synced <= judged.end);
    let Some(header) = header.map(|member| &member.header) else { return Ok(Found::default()) };
    let named = header.extension.slots;
    let start = named.unwrap_or(header.base);
    let oldest = members.first().map_or(Lsn::ZERO, |member| member.header.base);
    let walk_start = judged.walk_start.min(judged.end);
    let before = read_records(storage, judged, start.max(oldest), walk_start)?;
    if let (Some((reader, lsn, stop)), Some(_)) = (&before.stop, named) {
        return Err(damage(reader, *lsn, *stop, judged.commitment));
    }
    let seen = judged.slots_seen.iter().filter(|it| it.lsn >= start && it.end <= judged.end);
    let (table, first) = fold(before.found.into_iter().chain(seen.cloned()));
    let is_missing = start < oldest && named.is_some();
    let is_damaged = before.stop.is_some() && !table.slots.is_empty();
    let warning = (is_missing || is_damaged).then_some(Warning::SlotsIncomplete { lsn: start });
    let from = named.filter(|named| *named < judged.end).or(first);
    let slots = RecoveredSlots { table, from, floor: named };
    let times = RecoveredTimes::default();
    Ok(Found { slots, times, warning, read_bytes: before.read_bytes, time: before.time })
}

/// The records of a part of the log.
#[derive(Default)]
struct Records {
    found: Vec<SlotsAt>,
    /// The place and the reason of an early end of the walk.
    stop: Option<(SegmentReader, Lsn, Stop)>,
    read_bytes: u64,
    /// The newest time mark.
    time: Option<TimeMark>,
}

/// Reads the slots records of `from..until`.
fn read_records(storage: &dyn Storage, judged: &Judged, from: Lsn, until: Lsn) -> Result<Records> {
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

/// Returns a reader of the segment that holds `lsn`.
fn reader_at(storage: &dyn Storage, judged: &Judged, lsn: Lsn) -> Result<Option<SegmentReader>> {
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
