//! One line for each look, for an output that is no terminal.

use crate::top::{
    history::{Change, History},
    sample::Sample,
    words::{self, HEALTH},
};

/// Returns the line of the newest look, without a line break.
pub(super) fn line(history: &History, date: &str) -> String {
    let Some(Sample { state, log, space, .. }) = history.newest() else { return String::new() };
    let mut parts = vec![format!("{date}  {}", words::state(state).1)];
    if let Some(log) = log {
        let rates = history.rates();
        let first = words::lsn(log.first);
        let (end, synced) = (words::lsn(log.end), words::lsn(log.synced));
        let (bytes, records) = (words::bytes_rate(rates), words::record_rate(rates));
        parts.push(format!("first {first}, end {end}, synced {synced}"));
        parts.push(format!("{bytes}, {records}, {}", history.rotations()));
        parts.push(words::segments(&log.segments));
        if let Some(slot) = log.holder() {
            let (name, held) = (words::slot_name(slot), crate::text::size(slot.held_bytes));
            parts.push(format!("slot {name} keeps {held}"));
        }
    }
    parts.push(format!("disk {}", words::space(*space)));
    parts.push(format!("health: {HEALTH}"));
    parts.extend(history.newest_changes().map(Change::text));
    parts.join("; ")
}
