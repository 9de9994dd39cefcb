//! The words that the picture and the lines share.

use std::time::Duration;

use highwater::{Lsn, inspect::frame_bytes};

use crate::{
    files::Space,
    text::{age, count, counted, safe, size},
    top::{
        history::Rates,
        sample::{Log, Segments, Slot, State},
    },
};

/// The health of a log is known to its process only, and no process publishes it beside the log.
pub(super) const HEALTH: &str = "not published";

/// The bytes of a mark or a close: a header, and a payload of 8 bytes.
const MARK_FRAME_BYTES: u64 = frame_bytes(8);

/// How an operator should see a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    Odd,
    Bad,
}

pub(super) fn state(state: &State) -> (Mood, String) {
    match state {
        State::InUse(pid) => (Mood::Good, format!("in use by process {pid}")),
        State::Closed => (Mood::Good, "closed".to_owned()),
        // Only Linux reports the owner of the lock.
        State::NotClosed if cfg!(target_os = "linux") => {
            (Mood::Odd, "not closed, and not in use".to_owned())
        }
        State::NotClosed => (Mood::Good, "not closed".to_owned()),
        State::TornTail => (Mood::Odd, "torn tail".to_owned()),
        State::New => (Mood::Odd, "no log yet".to_owned()),
        State::Refused(reason) => (Mood::Bad, format!("refused: {}", safe(reason))),
        State::Unreadable(reason) => (Mood::Bad, safe(reason)),
    }
}

pub(super) fn lsn(lsn: Option<Lsn>) -> String {
    lsn.map_or_else(|| "unknown".to_owned(), |lsn| lsn.to_string())
}

pub(super) fn bytes_rate(rates: Rates) -> String {
    rates.bytes.map_or_else(|| "- B/s".to_owned(), |bytes| format!("{}/s", size(bytes)))
}

pub(super) fn record_rate(rates: Rates) -> String {
    let records = rates.records.map_or_else(|| "-".to_owned(), count);
    format!("{records} records/s")
}

/// Describes the bytes that are written and not known to be synced.
pub(super) fn unsynced(log: &Log) -> String {
    match log.unsynced_bytes() {
        // The mark that claims all bytes before it is not claimed itself.
        None | Some(0..=MARK_FRAME_BYTES) => String::new(),
        Some(bytes) => format!(" ({} not known synced)", size(bytes)),
    }
}

pub(super) fn segments(segments: &Segments) -> String {
    let spares = match segments.spare_count {
        0 => String::new(),
        spares => format!(", {}", counted(spares, "spare", "spares")),
    };
    format!(
        "{}, {} used of {}{spares}",
        counted(segments.count, "segment", "segments"),
        size(segments.used_bytes),
        size(segments.file_bytes)
    )
}

pub(super) fn ages(segments: &Segments) -> String {
    format!("newest {} old, oldest {} old", age(segments.newest_age), age(segments.oldest_age))
}

pub(super) fn space(space: Option<Space>) -> String {
    let Some(Space { free_bytes, total_bytes }) = space else { return "unknown".to_owned() };
    let percent = u128::from(free_bytes) * 100 / u128::from(total_bytes.max(1));
    format!("{} free of {} ({percent} %)", size(free_bytes), size(total_bytes))
}

pub(super) fn slot_name(slot: &Slot) -> String {
    slot.name.escape_debug().to_string()
}

/// Describes a read of the log that takes longer than usual.
pub(super) fn waiting(waiting: Duration) -> String {
    format!("the read of the log has not returned for {}: the disk may hang", age(waiting))
}
