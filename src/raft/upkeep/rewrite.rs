//! Rewrites old live entries at the end of the log, to free old segments.

use std::sync::atomic::Ordering;

use crate::{
    pipeline::embed::{room_for, unit},
    raft::{
        entries::Entries,
        error::{Error, Result},
        index::RecordPart,
        publish::publish,
        read::read,
        records::{entries::EntriesHead, kind::RecordKind, record::GroupChange},
        store::{LockedGroup, Store},
        upkeep::remove_segments::oldest_live,
    },
};

/// The number of bytes to copy before the live entries are looked up again.
const COPY_BYTES: u64 = 1 << 20;

/// The maximum number of records of a group to copy before the next lookup.
const COPIED_RECORDS_MAX: usize = 256;

/// Copies live entries of the oldest segment if the log is too large.
///
/// The limit is `rewrite_above_bytes`, or twice the live bytes if that is higher.
///
/// Returns true if it copied entries. Then call it again.
pub(super) async fn rewrite_oldest_segment(store: &Store) -> Result<bool> {
    let log = store.log();
    let (lowest, live_bytes) = oldest_live(store);
    let limit = store.upkeep.rewrite_above_bytes.max(live_bytes.saturating_mul(2));
    if log.records_end().since(lowest) <= limit {
        return Ok(false);
    }
    let Some((_, Some(end))) = log.segments().find(lowest) else { return Ok(false) };
    let mut copied_bytes = 0;
    for group in store.all_groups() {
        let parts: Vec<RecordPart> = {
            let state = group.lock();
            let parts = state.index.parts(state.first..state.next);
            parts.filter(|part| part.lsn < end).take(COPIED_RECORDS_MAX).collect()
        };
        for part in parts {
            copied_bytes += copy(store, &group, part).await?;
            if copied_bytes >= COPY_BYTES {
                break;
            }
        }
    }
    store.upkeep.copied_bytes.fetch_add(copied_bytes, Ordering::Relaxed);
    Ok(copied_bytes > 0)
}

/// Copies a part of a record to the end of the log. Returns the copied bytes.
///
/// Copies nothing if the entries changed in between.
async fn copy(store: &Store, group: &LockedGroup, part: RecordPart) -> Result<u64> {
    let indexes = part.indexes.clone();
    let count = indexes.end - indexes.start;
    let entries = match read(store, group, indexes.clone(), u64::MAX).await {
        // Purged in between: there is nothing to copy.
        Err(Error::Purged { .. }) => return Ok(0),
        entries => entries?,
    };
    if entries.len() as u64 != count {
        return Ok(0);
    }
    let mut entries: Entries = entries.into_iter().collect();
    let terms = entries.terms().to_vec();
    let log = store.log();
    let records = entries.finish(group.id, RecordKind::Copy);
    let [record] = records.as_slice() else { return Ok(0) };
    let bytes = record.payload.len() as u64;
    let unit = unit(log, vec![(&record.payload).into()])?;
    let room = room_for(log, &unit).await?;
    let mut state = group.lock();
    // The lock prevents further changes. Copy only if the live entries still have their old record.
    let live = indexes.start.max(state.first)..indexes.end.min(state.next);
    let is_unchanged = state.index.parts(live.clone()).all(|now| now.lsn == part.lsn);
    if live.is_empty() || !is_unchanged {
        return Ok(0);
    }
    let head = EntriesHead { group: group.id, first: indexes.start, count };
    let change = GroupChange::Entries(RecordKind::Copy, head, terms);
    let (ticket, garbage) = publish(store, &mut state, room, unit, &[change], &[]);
    drop(state);
    drop((ticket, garbage));
    Ok(bytes)
}
