//! The commit that is alone: it is flushed on the thread of its task, if that is faster.
//!
//! The runtime moves the other tasks of the thread to another thread first. So the flush delays
//! only this task. Whether it is alone, and which way is faster, is learned: see
//! [`Alone`](crate::pipeline::state::alone::Alone).
//!
//! Several commits of one task (a `join`) look alone, because each of them would flush before the
//! next one is polled. So the task yields before every 16th flush, and before each one for a while
//! after it has met others. All commits that come meanwhile count as company, and the pool flushes
//! from then on.

use std::{sync::Arc, time::Instant};

use crate::{
    lsn::Lsn,
    pipeline::{
        core::{Core, Role},
        job::{request_sync, run_here, start},
        state::alone::Way,
        sync_in_place::{claim_sync, flush_here, yield_to_company},
    },
};

/// A commit that was alone. Its time is to be learned.
pub(super) struct Timed {
    way: Way,
    began: Instant,
    is_learned: bool,
}

impl Timed {
    /// Notes that the commit is durable.
    pub(super) fn end(self, core: &Core) {
        if self.is_learned {
            core.roles.alone.learn(self.way, self.began.elapsed());
        }
    }
}

/// Has everything below `end` synced, which the caller has demanded: on this thread or by a job.
/// Returns `None` if the commit is not alone.
pub(super) async fn sync_alone(core: &Arc<Core>, end: Lsn) -> Option<Timed> {
    let alone = &core.roles.alone;
    if !alone.is_on() || !core.executor().may_block_here() {
        request_sync(core);
        return None;
    }
    let (way, is_learned) = alone.choose();
    let timed = Timed { began: Instant::now(), way, is_learned };
    // Without the role, another task has flushed meanwhile, or the running job sees the demand.
    if timed.way == Way::Here {
        let counted = alone.enter();
        yield_to_company(core, &alone.yielding).await;
        if !claim_sync(core, end) {
            return None;
        }
        counted.flushes();
    } else if !claim_sync(core, end) {
        return None;
    }
    let mut flush = || run_here(core, |core| flush_alone(core, timed.began), Role::Sync);
    if timed.way == Way::Pool || !core.executor().block_here(&mut flush) {
        start(core, Role::Sync);
    }
    Some(timed)
}

fn flush_alone(core: &Arc<Core>, began: Instant) -> bool {
    let alone = &core.roles.alone;
    flush_here(core, &alone.yielding, |woken| {
        // The caller itself is counted as a caller, not as a woken waiter.
        let caller_count = alone.take_callers() + woken.writer_count + woken.waiting_count;
        alone.note_group(caller_count, began.elapsed());
        caller_count > 1
    })
}
