//! Writes checkpoints.

use std::sync::atomic::Ordering;

use crate::{
    lsn::Lsn,
    pipeline::embed::{Goal, publish, request_write, room_for, set_hint, sync, unit},
    raft::{checkpoint::Packer, error::Result, records::record::RaftRecord, store::Store},
};

/// The size of a part of a checkpoint. A part takes at most a quarter of the ring.
const PART_BYTES: u64 = 32 << 10;

/// The minimum of bytes appended per byte of checkpoint.
const APPENDED_PER_CHECKPOINT_BYTE: u64 = 8;

/// Returns true if enough was appended since the newest checkpoint.
pub(super) fn is_checkpoint_due(store: &Store) -> bool {
    let (upkeep, log) = (&store.upkeep, store.log());
    let newest = Lsn::new(upkeep.newest.load(Ordering::Relaxed));
    let newest_bytes = upkeep.newest_bytes.load(Ordering::Relaxed);
    let enough_bytes =
        upkeep.checkpoint_bytes.max(newest_bytes.saturating_mul(APPENDED_PER_CHECKPOINT_BYTE));
    let is_later_segment =
        log.segments().find(log.written().get()).is_none_or(|(info, _)| info.base > newest);
    upkeep.is_checkpoint_due.load(Ordering::Relaxed)
        || is_later_segment && log.records_end().since(newest) >= enough_bytes
}

/// Writes a checkpoint. Headers of later segments name the durable checkpoint.
pub(super) async fn write_checkpoint(store: &Store) -> Result<()> {
    let log = store.log();
    let (begin, _) = write(store, &RaftRecord::CheckpointBegin { codec: store.codec }).await?;
    // The checkpoint need not contain groups that are created later, because all their records are
    // replayed.
    let mut groups = store.all_groups().into_iter();
    let part_bytes = PART_BYTES.min(log.ring_bytes() / 4);
    let mut packer = Packer::new(usize::try_from(part_bytes).unwrap_or(usize::MAX));
    let (mut count, mut bytes) = (0, 0);
    let mut is_end = false;
    loop {
        while let Some(fragments) = packer.take(is_end) {
            bytes += fragments.len() as u64;
            let (begin, fragments) = (begin.as_u64(), fragments.into());
            let part = RaftRecord::CheckpointPart { begin, number: count, fragments };
            write(store, &part).await?;
            count += 1;
        }
        if is_end {
            break;
        }
        match groups.next() {
            Some(group) => {
                // The clone copies few pointers, so the lock is short. Encoding needs no lock.
                let snapshot = group.lock().clone();
                if !snapshot.is_blank() {
                    packer.add(group.id, &snapshot);
                }
            }
            None => is_end = true,
        }
    }
    let end = RaftRecord::CheckpointEnd { begin: begin.as_u64(), count };
    let (_, goal) = write(store, &end).await?;
    sync(log, goal.into()).await?;
    set_hint(log, begin);
    let upkeep = &store.upkeep;
    upkeep.newest.store(begin.as_u64(), Ordering::Relaxed);
    upkeep.newest_bytes.store(bytes, Ordering::Relaxed);
    upkeep.is_checkpoint_due.store(false, Ordering::Relaxed);
    upkeep.checkpoint_count.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Publishes a record that belongs to no group and starts its write.
async fn write(store: &Store, record: &RaftRecord) -> Result<(Lsn, Goal)> {
    let log = store.log();
    let unit = unit(log, vec![record.encode().into()])?;
    let room = room_for(log, &unit).await?;
    let span = publish(log, room, unit);
    request_write(log);
    Ok((span.lsn, span.goal))
}
