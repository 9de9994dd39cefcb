//! Claims: each flushed group carries the proof that the group before it was durable.
//!
//! A frame claims the synced mark that its appender read. Under load the frames of group `n` are
//! published while flush `n - 1` runs, so they claim no more than group `n - 2`. Without a further
//! frame, nothing on disk would claim the last two acknowledged groups. One flipped bit in the
//! older of them would look like a torn tail. So before flush `n` the syncer makes sure that a
//! frame of group `n` claims group `n - 1`. Usually one does, because tasks woken by flush `n - 1`
//! append again before flush `n` begins. If none does, the syncer appends a mark.
//!
//! The mark takes no permit, because every permit may be held by a task that is not polled. It
//! never enters the ring. The syncer reserves its LSNs and writes it while it holds the writer's
//! lock. It does so only if nothing is reserved behind the written frames.
//!
//! One exception: if the device is full, the log can't get its next segment. It then has no room
//! for an unlimited number of marks, and its last flushes may leave two groups unclaimed.

use std::sync::Arc;

use crate::{
    error::Result,
    format::{
        control::Control,
        frame::{CONTROL_FRAME_BYTES, control_frame},
    },
    operation::Operation,
    pipeline::{
        core::Core,
        notes::write_notes,
        prepare::prepare_spare,
        state::{
            in_flight::Lane,
            writing::{Step, Unsynced, Writing},
        },
        writer::{Drained, after_write, write_direct, write_once},
    },
    sabotage::{self, Sabotage},
    sync::{MutexGuard, Ordering},
    turn::{lock_over_io, yield_now},
};

/// The syncer's turn. A written frame claims the synced mark, and no other syncer moves that mark.
pub(super) struct Claimed<'a> {
    /// The bytes that the flush covers. Bytes written while it runs are not part of it.
    pub(super) group: Group,
    _one_at_a_time: MutexGuard<'a, ()>,
}

/// Written bytes that are not known to be synced.
pub(super) struct Group {
    pub(super) unsynced: Unsynced,
    pub(super) record_count: u64,
    pub(super) epoch: u64,
}

/// The most frames that a flush writes directly for the log's notes. The rest follows with the next
/// flush.
const NOTES_PER_FLUSH: u32 = 16;

/// The writer's progress towards a claim.
enum Claim {
    /// A written frame claims the synced mark, or no unsynced group exists. Or the close was
    /// published, which claims everything before it.
    Made,
    /// A mark frame that claims the synced mark was written, or a note of the log.
    Marked(Step),
    /// A frame is reserved behind the written ones and must be written first.
    Behind,
    /// The mark has no place before the next segment is prepared.
    NeedsSpare,
}

/// Returns once a written frame claims the synced mark, or if nothing is written above that mark.
/// Returns `None` if the log has stopped. Jobs and tasks are woken while no lock is held.
pub(super) fn claim_synced(core: &Arc<Core>) -> Result<Option<Claimed<'_>>> {
    let mut is_out_of_space = false;
    let mut notes_left = NOTES_PER_FLUSH;
    loop {
        // A panic under one of the locks stops the log.
        let Ok(one_at_a_time) = lock_over_io(&core.roles.syncing) else { return Ok(None) };
        let claim = {
            let Ok(mut writing) = lock_over_io(&core.roles.writing) else { return Ok(None) };
            core.status().check()?;
            let claim = claim_under_locks(core, &mut writing).inspect_err(|error| {
                // Under the lock, so that no thread writes behind a failed write.
                core.set_stopped(error.clone().into_poison());
            })?;
            let is_made = matches!(claim, Claim::Made)
                || (is_out_of_space && matches!(claim, Claim::NeedsSpare))
                || sabotage::is_on(Sabotage::ForgetClaim);
            let noted = match is_made && notes_left > 0 && core.slots().is_due() {
                true => write_notes(core, &mut writing).inspect_err(|error| {
                    core.set_stopped(error.clone().into_poison());
                })?,
                false => None,
            };
            if let Some(step) = noted {
                notes_left -= 1;
                Claim::Marked(step)
            } else if is_made {
                // No truncation of the end comes in between, because it needs the writer's lock
                // too.
                let group = Group {
                    unsynced: writing.unsynced(),
                    record_count: core.measures().counters.written_record_count(),
                    epoch: core.epochs().current(),
                };
                return Ok(Some(Claimed { group, _one_at_a_time: one_at_a_time }));
            } else {
                claim
            }
        };
        if matches!(claim, Claim::NeedsSpare) {
            // Under the syncer's lock, so that waits for the synced mark depend on this call.
            let next = core.supply.space.next_sequence();
            let _underway = core.begin(Lane::Sync, Operation::Prepare, next);
            is_out_of_space = prepare_spare(core, 0).is_err();
        }
        drop(one_at_a_time);
        match claim {
            Claim::Made => {}
            Claim::Marked(step) => after_write(core, step),
            Claim::NeedsSpare => {
                // Other tasks may wait for this spare.
                core.supply.space.wake_all();
                core.publish_health();
            }
            // A frame that was sealed since then claims the synced mark itself. A thread publishes
            // a reserved frame within a few instructions, so this loop is short.
            Claim::Behind => match write_once(core) {
                Drained::Wrote => {}
                Drained::Stopped => return core.status().check().map(|()| None),
                Drained::Idle => yield_now(),
            },
        }
    }
}

fn claim_under_locks(core: &Core, writing: &mut Writing) -> Result<Claim> {
    let synced = core.synced().get();
    let end = writing.at();
    let is_closed = core.progress.close_frame.load(Ordering::Acquire).is_some();
    if end <= synced || writing.claimed >= synced || is_closed {
        return Ok(Claim::Made);
    }
    if sabotage::is_on(Sabotage::ForgetClaim) || core.tail() != end {
        return Ok(Claim::Behind);
    }
    // With a spare the mark fits. It goes to the active segment's end, into bytes that would stay
    // unused, or to the beginning of the next segment. There the permits leave room for it.
    let space = &core.supply.space;
    if !space.has_room(end) && !space.has_spare() {
        return Ok(Claim::NeedsSpare);
    }
    if !core.intake.ring.reserve_direct(end, CONTROL_FRAME_BYTES) {
        return Ok(Claim::Behind);
    }
    let seed = core.epochs().seed();
    let mark = |at| control_frame(seed, at, Control::Mark, synced);
    write_direct(writing, core, CONTROL_FRAME_BYTES, synced, mark).map(Claim::Marked)
}
