//! Publishes the records of changes and applies the changes to the group.

use std::sync::Arc;

use crate::{
    pipeline::embed::{self, Goal, Room, Unit, frame_sizes},
    raft::{
        cache::CachedRecord,
        entries::EncodedEntries,
        index::IndexRun,
        records::record::GroupChange,
        state::{GroupState, RecordLocation},
        store::Store,
        ticket::AppendTicket,
    },
};

/// Values that are slow to drop. Drop them without a lock.
#[derive(Default)]
pub(super) struct Garbage {
    runs: Vec<Arc<IndexRun>>,
    cached: Vec<CachedRecord>,
}

/// Publishes the records of changes and applies the changes to `state`, without waiting.
///
/// `state` has been locked since the changes were checked. `unit` holds one record per change.
pub(super) fn publish(
    store: &Store,
    state: &mut GroupState,
    room: Room<'_>,
    unit: Unit<'_>,
    changes: &[GroupChange],
    entries: &[EncodedEntries],
) -> (AppendTicket, Garbage) {
    let log = store.log();
    let frames = frame_sizes(&unit);
    let span = embed::publish(log, room, unit);
    let mut garbage = Garbage::default();
    let mut lsn = span.lsn;
    for (number, (change, frame_bytes)) in changes.iter().zip(frames).enumerate() {
        if let Some(entries) = entries.get(number) {
            store.cache.insert(lsn, entries.cached(), &mut garbage.cached);
        }
        // Never rejected, because the change was checked under this lock.
        let runs = state.apply(change, RecordLocation { lsn, bytes: frame_bytes });
        garbage.runs.extend(runs.unwrap_or_default());
        lsn = lsn.plus(frame_bytes);
    }
    (AppendTicket::new(log, span.lsn, span.goal), garbage)
}

/// Returns the ticket of a call that has nothing to change. The ticket waits for the group's last
/// change.
pub(super) fn nothing_changed(store: &Store, state: &GroupState) -> AppendTicket {
    let log = store.log();
    AppendTicket::new(log, state.applied, Goal { end: state.applied, epoch: log.epoch() })
}

/// Drops a large amount of garbage on the log's pool instead of the caller's task.
pub(super) fn drop_garbage(store: &Store, garbage: Garbage) {
    const RUNS_ON_CALLER_MAX: usize = 64;
    if garbage.runs.len() > RUNS_ON_CALLER_MAX {
        store.log().executor().spawn(Box::new(move || drop(garbage)));
    }
}
