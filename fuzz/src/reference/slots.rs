//! The slots records that an opening reads beside the walk.

use crate::{
    reference::{
        file::File,
        frames::{Frame, Region, Seen},
        header::Header,
        outcome::Outcome,
        reading::Reading,
    },
    seal::CONTROL,
};

/// Limits no record. The limit of an opening does not apply to the records before the walk.
const RECORD_BYTES_LIMIT: u64 = 1 << 30;

/// Reads an unclosed log from the slots record in the newest header up to the walk.
///
/// `members` are all segments of the chain. The log begins at `first`.
pub fn check(members: &[File], reading: &Reading, first: u64) -> Result<(), Outcome> {
    let newest = members.last().unwrap().header.unwrap();
    let Some(anchor) = newest.slots else { return Ok(()) };
    let bases: Vec<u64> = members.iter().map(|file| file.header.unwrap().base).collect();
    let holding = |at: u64| bases.partition_point(|&base| base <= at).checked_sub(1);
    // The segments below both positions may be removed at any time.
    let oldest = bases[holding(anchor.min(first)).unwrap_or(0)];
    let mut at = start_of_slots(&newest).max(oldest);
    let until = reading.start.min(reading.end);
    while at < until {
        let member = holding(at).unwrap();
        let next = bases.get(member + 1).copied().unwrap_or(u64::MAX);
        let region = members[member].region(Some(next.min(until)));
        at = match region.unit_at(at, RECORD_BYTES_LIMIT) {
            Seen::Unit(frames) => frames.last().unwrap().end,
            Seen::Unsupported => return Err(Outcome::Unsupported),
            Seen::TooLarge => return Err(Outcome::TooLarge),
            Seen::End | Seen::Blank | Seen::Damaged => return Err(Outcome::Corrupt),
        };
    }
    Ok(())
}

/// Returns the position before which the log had no slot, or which leads to the older ones.
fn start_of_slots(newest: &Header) -> u64 {
    match newest.slots {
        // The first slots record, which was not durable yet.
        Some(anchor) if anchor >= newest.synced => newest.base.min(newest.synced),
        Some(anchor) => anchor,
        None => newest.base,
    }
}

const CLOSE_FRAME_BYTES: u64 = 24;
const NOTE_FRAME_BYTES: u64 = 32;
const SLOTS_CODE: [u8; 8] = [0x81, 0, 0, 0, 0, 0, 0, 0x81];
const TIME_CODE: [u8; 8] = [0x82, 0, 0, 0, 0, 0, 0, 0x82];

/// Checks that a closed log shows its slots: in the last frame before the close, or else from the
/// position in the newest header on.
pub fn check_closed(members: &[File], reading: &Reading) -> Result<(), Outcome> {
    let newest = members.last().unwrap().header.unwrap();
    let bases: Vec<u64> = members.iter().map(|file| file.header.unwrap().base).collect();
    let region_at = |at: u64, until: u64| {
        let member = bases.partition_point(|&base| base <= at).checked_sub(1)?;
        let next = bases.get(member + 1).copied().unwrap_or(u64::MAX);
        Some(members[member].region(Some(next.min(until))))
    };
    let mut end = reading.end - CLOSE_FRAME_BYTES;
    for is_note in [Frame::first_in_control as fn(&Frame) -> Option<u64>, time_in_control] {
        let at = end.saturating_sub(NOTE_FRAME_BYTES);
        let note = region_at(at, end).and_then(|region| region.frame_at(at));
        end = if note.is_some_and(|frame| is_note(&frame).is_some()) { at } else { end };
    }
    let start = start_of_slots(&newest);
    let walk = |from: u64| -> Result<(), Outcome> {
        let mut at = from;
        while at < end {
            let Some(region) = region_at(at, end) else { return Ok(()) };
            at = match region.unit_at(at, RECORD_BYTES_LIMIT) {
                Seen::Unit(frames) => frames.last().unwrap().end,
                Seen::Unsupported => return Err(Outcome::Unsupported),
                Seen::TooLarge => return Err(Outcome::TooLarge),
                Seen::End | Seen::Blank | Seen::Damaged => return Err(Outcome::Corrupt),
            };
        }
        Ok(())
    };
    let last = end.checked_sub(1).and_then(|at| region_at(at, end));
    if let Some(last) = last.and_then(|region| frame_before(&region, end)) {
        let is_slots = last.kind == CONTROL && last.payload.ends_with(&SLOTS_CODE);
        if !is_slots && !last.is_skipped() {
            return Ok(());
        }
        let from = slots_from(&last).filter(|from| (start..=last.lsn).contains(from));
        if from.is_some_and(|from| walk(from).is_ok()) {
            return Ok(());
        }
    }
    let oldest = bases[0];
    let Err(damage) = walk(start.max(oldest)) else { return Ok(()) };
    let has_slots = members.iter().zip(bases.iter().skip(1).chain([&end])).any(|(file, &next)| {
        let region = file.region(Some(next.min(end)));
        let from = start.max(oldest).max(region.base);
        from < end && region.search(from).iter().any(|frame| slots_from(frame).is_some())
    });
    if newest.slots.is_some() || has_slots { Err(damage) } else { Ok(()) }
}

fn time_in_control(frame: &Frame) -> Option<u64> {
    let (time, code) = frame.payload.split_first_chunk()?;
    (frame.kind == CONTROL && frame.flags == 0 && code == TIME_CODE)
        .then(|| u64::from_le_bytes(*time))
}

/// Returns the nearest valid frame that ends at `end`.
fn frame_before(region: &Region<'_>, end: u64) -> Option<Frame> {
    let words = (end - region.base) / 8;
    let positions = (2..=words).map(|word| end - word * 8);
    positions.filter_map(|at| region.known_frame_at(at)).find(|frame| frame.end == end)
}

/// Returns `from` in a slots record.
fn slots_from(frame: &Frame) -> Option<u64> {
    let (entries, tail) = frame.payload.split_last_chunk::<16>()?;
    let is_slots = frame.kind == CONTROL && frame.flags == 0 && tail[8..] == SLOTS_CODE;
    let from = u64::from_le_bytes(tail[..8].try_into().unwrap());
    (is_slots && from % 8 == 0 && are_entries(entries)).then_some(from)
}

fn are_entries(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Some((head, rest)) = bytes.split_first_chunk::<8>() else { return false };
        let is_position = |at: usize| {
            let word =
                rest.get(at..at + 8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
            word.is_some_and(|position| position % 8 == 0)
        };
        let name_bytes = usize::from(head[1]);
        let entry_bytes = match head[0] {
            1 => {
                let padded = name_bytes.next_multiple_of(8);
                let Some(name) = rest.get(16..16 + padded) else { return false };
                let (name, padding) = name.split_at(name_bytes);
                let is_name = (1..=64).contains(&name_bytes) && std::str::from_utf8(name).is_ok();
                if !is_name || padding.iter().any(|&byte| byte != 0) || !is_position(0) {
                    return false;
                }
                16 + padded
            }
            2 if name_bytes == 0 && is_position(0) => 8,
            3 if name_bytes == 0 => 0,
            _ => return false,
        };
        if head[2..4] != [0, 0] {
            return false;
        }
        bytes = &rest[entry_bytes..];
    }
    true
}
