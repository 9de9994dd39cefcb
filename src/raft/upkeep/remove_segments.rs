//! Removes segments that hold neither a live entry nor the newest checkpoint.

use crate::{
    lsn::Lsn,
    pipeline::embed::{recorded_hint, sync_all, truncate_start},
    raft::{error::Result, store::Store},
    sabotage::{self, Sabotage},
};

/// Moves the log's beginning to the first segment that is needed. The files are removed later.
pub(super) async fn remove_segments(store: &Store) -> Result<()> {
    let log = store.log();
    // The hint is read first. Entries that are appended after `oldest_live` have higher LSNs.
    let mut needed = recorded_hint(log).unwrap_or(log.beginning().first());
    if sabotage::is_on(Sabotage::ForgetState) {
        needed = log.written().get();
    }
    let needed = needed.min(oldest_live(store).0);
    // A unit begins at the base of every segment, so the log may begin there.
    let Some((segment, _)) = log.segments().find(needed) else { return Ok(()) };
    if segment.base > log.beginning().first() {
        // The next header may contain the new beginning at once. So the records that allow it must
        // be durable first: purges, copies, and the header that names the checkpoint.
        if !sabotage::is_on(Sabotage::BeginBeforePurge) {
            sync_all(log).await?;
        }
        truncate_start(log, segment.base, log.epoch()).await?;
    }
    Ok(())
}

/// Returns the lowest LSN of a live entry, and an estimate of the live bytes.
///
/// Without live entries, the LSN is `u64::MAX`.
pub(super) fn oldest_live(store: &Store) -> (Lsn, u64) {
    let (mut lowest, mut bytes) = (Lsn::new(u64::MAX), 0u64);
    for group in store.all_groups() {
        let (index, first) = {
            let state = group.lock();
            (state.index.clone(), state.first)
        };
        lowest = lowest.min(index.lowest(first).unwrap_or(lowest));
        bytes = bytes.saturating_add(index.live_bytes(first));
    }
    (lowest, bytes)
}
