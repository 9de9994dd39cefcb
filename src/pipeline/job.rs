//! Jobs: the log's background work. If a job can't finish, the log stops and every waiter gets the
//! reason.

use std::{fmt, sync::Arc};

use crate::{
    error::{ClosedBy, Error},
    lsn::Lsn,
    pipeline::{
        core::{Core, Role},
        open_log::OpenLog,
        state::space::SpareRequest,
    },
};

type OtherWork = Box<dyn FnOnce(&Arc<Core>) + Send>;

/// The work of a job. A role needs no allocation.
enum Work {
    Role(Role),
    Other(OtherWork),
}

/// A piece of the log's work. If it is dropped unfinished, because its runtime was shut down or it
/// panicked, the log stops.
pub(crate) struct Job {
    core: Arc<Core>,
    /// A job may move the marks, so it is a holder of the log.
    _open: Option<OpenLog>,
    work: Option<Work>,
}

impl Job {
    pub(super) fn new(core: &Arc<Core>, work: impl FnOnce(&Arc<Core>) + Send + 'static) -> Self {
        Job::of(core, Work::Other(Box::new(work)))
    }

    fn of(core: &Arc<Core>, work: Work) -> Self {
        Job { core: Arc::clone(core), _open: OpenLog::enter(core), work: Some(work) }
    }

    /// Hands the job to the log's executor, or to a thread that stays for it.
    pub(crate) fn spawn(self) {
        let executor = Arc::clone(self.core.executor());
        let standby = Arc::clone(&self.core.roles.standby);
        if !standby.is_taken() {
            executor.spawn(Box::new(move || {
                if self.run_and_stay() {
                    standby.stand_by();
                }
            }));
        } else if let Err(task) = standby.call(Box::new(move || self.run_and_stay())) {
            executor.spawn(Box::new(move || {
                task();
            }));
        }
    }

    /// Does the work. Returns whether its thread should stay for the next job.
    fn run_and_stay(mut self) -> bool {
        self.run();
        // The next commit of a task that is alone comes as soon as this one has returned.
        let roles = &self.core.roles;
        roles.alone.is_on() && self.core.executor().may_linger() && roles.standby.takes()
    }

    fn run(&mut self) {
        if let Some(work) = self.work.take() {
            let guard = PanicGuard { core: &self.core };
            // The directory's lock is held while the job runs, because no other process may own the
            // log while this I/O can still reach the files. The lock is gone only if the log is
            // closed; then nothing is left to do.
            let lock = self.core.life.lock.hold();
            match work {
                _ if lock.is_none() => {}
                Work::Role(role) => (self.core.perform)(&self.core, role),
                Work::Other(work) => work(&self.core),
            }
            drop(lock);
            std::mem::forget(guard);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.work.is_some() {
            self.core.stop(Error::Closed { by: ClosedBy::RuntimeGone });
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}

/// Stops the log when it is dropped by unwinding.
pub(super) struct PanicGuard<'a> {
    pub(super) core: &'a Core,
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        self.core.stop(Error::Panicked { context: "" }.into_poison());
    }
}

/// Starts a job for a role that the caller has claimed.
pub(super) fn start(core: &Arc<Core>, role: Role) {
    Job::of(core, Work::Role(role)).spawn();
}

/// As [`start`], for a small role that must not wait for a thread of the pool.
pub(super) fn start_apart(core: &Arc<Core>, role: Role) {
    let mut job = Job::of(core, Work::Role(role));
    core.executor().run_apart(Box::new(move || job.run()));
}

/// Has the published frames written, by the running job or a new one. Call it after publishing.
pub(crate) fn request_write(core: &Arc<Core>) {
    if core.roles.write_flag.claim(|| true) {
        start(core, Role::Write);
    }
}

/// Has a sync done if one is wanted, by the running job or a new one. Call it after storing demand
/// or writing bytes, which `wants_sync` reads.
pub(super) fn request_sync(core: &Arc<Core>) {
    if core.roles.sync_flag.claim(|| core.wants_sync()) {
        start(core, Role::Sync);
    }
}

/// Has everything below `end` synced, by the running job or a new one.
pub(crate) fn demand_sync(core: &Arc<Core>, end: Lsn) {
    core.progress.demand_sync(end);
    request_sync(core);
}

/// Has a spare with room for a unit of `bytes` prepared. Returns the number of the attempt; `None`
/// if there is a spare.
pub(super) fn request_spare(core: &Arc<Core>, bytes: u64) -> Option<u64> {
    match core.supply.space.request(bytes) {
        SpareRequest::Ready => None,
        SpareRequest::Scheduled(attempt) => Some(attempt),
        SpareRequest::Claimed(attempt) => {
            start(core, Role::Prepare { bytes, attempt });
            Some(attempt)
        }
    }
}

/// Has room made for appends that wait for the budget, by the running job or a new one.
pub(super) fn request_relief(core: &Arc<Core>) {
    if core.retaining().claim_relief() {
        start(core, Role::Relieve);
    }
}

/// As [`request_relief`], after a change that may permit a truncation.
pub(super) fn request_relief_after_change(core: &Arc<Core>) {
    if core.retaining().needs_relief() {
        request_relief(core);
    }
}

/// Has the files removed that the log does not need any more.
pub(super) fn request_removal(core: &Arc<Core>) {
    if core.beginning().claim_removal(|horizon| core.segments().has_below(horizon)) {
        start(core, Role::Remove);
    }
}

/// Does the work of a claimed role on the caller's thread. If `here` returns `false`, a job does
/// the rest.
pub(super) fn run_here(core: &Arc<Core>, here: impl FnOnce(&Arc<Core>) -> bool, role: Role) {
    let guard = PanicGuard { core };
    let is_done = here(core);
    std::mem::forget(guard);
    if !is_done {
        start(core, role);
    }
}
