//! The slots records that an opening reads before the walk.

use crate::reference::{file::File, frames::Seen, outcome::Outcome, reading::Reading};

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
    let mut at = anchor.max(oldest);
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
