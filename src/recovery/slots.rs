//! Finds the slots of a log: folds its slots records, from a position that a header or the newest
//! record names. Finds the newest time mark, too.
//!
//! A header names the first record of a round that was durable when the segment began. So the
//! records from there on give the state of every slot, and opening reads a bounded part of the log.
//! In a closed log the last record before the close names that position, too.
//!
//! A slot that is lost without a word lets a truncation remove records that its consumer needs. So
//! damage that may hide a slot is refused, or at least reported.

use crate::{
    error::{Error, Result},
    format::{
        control::Control,
        extension::TimeMark,
        frame::{CONTROL_FRAME_BYTES, FIRST_FRAME_BYTES},
        header::SegmentHeader,
        judge::Verdict,
        scan::Stop,
        slots::{SlotTable, parse},
    },
    lsn::Lsn,
    options::OnDamage,
    pipeline::{RecoveredSlots, RecoveredTimes},
    recovery::{
        judged::Judged,
        last_frame::frame_before,
        report::Warning,
        scan::SlotsAt,
        slots_read::{read_records, reader_at, records_past},
    },
    replay::damage,
    sabotage::{self, Sabotage},
    segments::SegmentReader,
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
/// [`Error::Corrupt`] if slots records can't be read. With [`OnDamage::TruncateAtDamage`] this is a
/// warning, because a cut there would drop all records of the log.
pub(super) fn recover_slots(
    storage: &dyn Storage,
    judged: &Judged,
    on_damage: OnDamage,
) -> Result<Found> {
    let mut found = match judged.verdict {
        Verdict::CleanClose => closed(storage, judged, on_damage)?,
        _ => unclosed(storage, judged, on_damage)?,
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

/// The slots of a log that was closed.
fn closed(storage: &dyn Storage, judged: &Judged, on_damage: OnDamage) -> Result<Found> {
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
    let walk = SlotsWalk::from_header(&newest.header, at);
    let found = match shown_at_end(storage, judged, &walk)? {
        Some(found) => found,
        None if sabotage::is_on(Sabotage::ForgetDamagedSlots) => Found::default(),
        None => walk.fold(storage, judged, on_damage, [])?,
    };
    Ok(Found { time, ..found })
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

/// Returns the slots that the last frame of a closed log shows. That frame precedes the close, its
/// time mark and its record of the beginning. If it is no slots record, the log has no slot.
///
/// `None` if the frame, or a record to which it leads, can't be read.
fn shown_at_end(storage: &dyn Storage, judged: &Judged, walk: &SlotsWalk) -> Result<Option<Found>> {
    let before_end = Lsn::new(walk.until.as_u64().saturating_sub(1));
    let Some(reader) = reader_at(storage, judged, before_end)? else { return Ok(None) };
    let Some((frame, bytes)) = frame_before(&reader, walk.until)? else { return Ok(None) };
    match frame.control {
        Some(Control::Slots) => {}
        // A later release may write more between the slots and the close.
        Some(Control::Skipped) => return Ok(None),
        _ => return Ok(Some(Found::default())),
    }
    let payload_end = frame.payload_start + frame.payload_bytes;
    let parsed = bytes.get(frame.payload_start..payload_end).and_then(parse);
    let from = parsed.map(|(_, from)| from);
    let Some(from) = from.filter(|from| (walk.start..=frame.lsn).contains(from)) else {
        return Ok(None);
    };
    let records = read_records(storage, judged, from, walk.until)?;
    if records.stop.is_some() || records.found.last().is_none_or(|last| last.end != walk.until) {
        return Ok(None);
    }
    let (table, _) = fold(records.found);
    let slots = RecoveredSlots { table, from: Some(from), floor: walk.named };
    Ok(Some(Found { slots, read_bytes: records.read_bytes, ..Found::default() }))
}

/// The slots of a log that was not closed: the records from the position that a header names up to
/// the end.
fn unclosed(storage: &dyn Storage, judged: &Judged, on_damage: OnDamage) -> Result<Found> {
    // A header's position counts if all that was synced then is there. Only a cut at damage ends
    // the log before that.
    let header = judged.chain.members.iter().rfind(|member| member.header.synced <= judged.end);
    let Some(header) = header.map(|member| &member.header) else {
        // A cut has set aside every header that leads to slots.
        let is_cut = judged.damage_cut.is_some();
        let warning = is_cut.then_some(Warning::SlotsIncomplete { lsn: judged.end });
        return Ok(Found { warning, ..Found::default() });
    };
    let walk = SlotsWalk::from_header(header, judged.walk_start.min(judged.end));
    let seen = judged.slots_seen.iter().filter(|it| it.lsn >= walk.start && it.end <= judged.end);
    walk.fold(storage, judged, on_damage, seen.cloned())
}

/// The part of the log that gives the state of all slots.
struct SlotsWalk {
    /// The position that a header names.
    named: Option<Lsn>,
    /// That position, if it was durable when the header was written.
    anchor: Option<Lsn>,
    /// The beginning of the part. Before that the log had no slot.
    start: Lsn,
    until: Lsn,
}

impl SlotsWalk {
    fn from_header(header: &SegmentHeader, until: Lsn) -> Self {
        let named = header.extension.slots;
        let anchor = named.filter(|named| *named < header.synced);
        // At or above `synced` it is the position of the first slots record, which may be lost.
        // Then other frames are there, and the log's first slots record may be below it. Or a
        // truncation of the end began the segment: it wrote all slots from the base on, which is
        // its `synced`.
        let start = match (anchor, named) {
            (Some(anchor), _) => anchor,
            (None, Some(_)) => header.base.min(header.synced),
            (None, None) => header.base,
        };
        SlotsWalk { named, anchor, start, until }
    }

    /// Reads the part, and builds the slots from it and from the records that were `seen` after it.
    fn fold(
        &self,
        storage: &dyn Storage,
        judged: &Judged,
        on_damage: OnDamage,
        seen: impl IntoIterator<Item = SlotsAt>,
    ) -> Result<Found> {
        let oldest = judged.chain.members.first().map_or(Lsn::ZERO, |member| member.header.base);
        let read = read_records(storage, judged, self.start.max(oldest), self.until)?;
        let mut records = read.found;
        if let Some((_, lsn, _)) = &read.stop {
            records.extend(records_past(storage, judged, *lsn, self.until)?);
        }
        records.extend(seen);
        if let Some((reader, lsn, stop)) = &read.stop {
            let has_slots = self.named.is_some() || !records.is_empty();
            if has_slots && on_damage == OnDamage::Strict {
                return Err(slots_damage(reader, *lsn, *stop, judged.commitment));
            }
        }
        let missing = self.named.filter(|named| *named < oldest);
        let damaged = read.stop.map(|(_, lsn, _)| lsn);
        let warning = missing.or(damaged).map(|lsn| Warning::SlotsIncomplete { lsn });
        let (table, first) = fold(records);
        let from = self.anchor.filter(|anchor| *anchor < judged.end).or(first);
        let slots = RecoveredSlots { table, from, floor: self.named };
        let times = RecoveredTimes::default();
        Ok(Found { slots, times, warning, read_bytes: read.read_bytes, time: read.time })
    }
}

/// Returns the error for damage to the records that give the state of the slots.
fn slots_damage(reader: &SegmentReader, lsn: Lsn, stop: Stop, synced: Lsn) -> Error {
    match damage(reader, lsn, stop, synced) {
        Error::Corrupt { directory, lsn, segment, offset, synced, reason } => {
            let reason = format!("{reason}, in the part that shows the log's slots");
            Error::Corrupt { directory, lsn, segment, offset, synced, reason }
        }
        error => error,
    }
}
