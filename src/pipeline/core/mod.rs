//! [`Core`]: the state that the handles, tickets and jobs of a log share, in six parts.

mod intake;
mod life;
mod progress;
mod publish;
mod roles;
mod supply;
mod vitals;

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use self::{
    intake::Intake, life::Life, progress::Progress, roles::Roles, supply::Supply, vitals::Vitals,
};
pub(in crate::pipeline) use self::{
    roles::Role,
    vitals::{Patient, Underway},
};
use crate::{
    error::{ClosedBy, Error, Result},
    executor::Executor,
    format::{frame::CONTROL_FRAME_BYTES, header::SEGMENT_HEADER_BYTES},
    lsn::Lsn,
    operation::Operation,
    options::Config,
    pipeline::state::{
        beginning::Beginning,
        epochs::{Epochs, Goal},
        in_flight::Lane,
        mark::Mark,
        measures::{FlushReport, Measures},
        metrics::Instruments,
        recycled::Recycled,
        retaining::Retaining,
        ring::Ring,
        slots::{RecoveredSlots, Slots},
        space::{CONTROL_ROOM_BYTES, Space},
        stalls::Stall,
        status::Status,
        times::{RecoveredTimes, Times},
        watched::Watched,
        writing::Active,
    },
    segments::{SegmentInfo, SegmentSet, Sequence},
    storage::Storage,
    sync::Ordering,
    watermarks::Watermarks,
};

/// One open log.
///
/// Lock order: `syncing`, then the writer's lock, then `preparing` in `Space`, then the short locks
/// of the state. A short lock is held for a few instructions. Among the short locks, `Watched`
/// comes before `reserved_max`; the cuts of `Epochs` and the segment set come last.
#[derive(Debug)]
pub(crate) struct Core {
    storage: Arc<dyn Storage>,
    executor: Arc<dyn Executor>,
    config: Config,
    log_id: [u8; 16],
    pub(in crate::pipeline) intake: Intake,
    pub(in crate::pipeline) progress: Progress,
    pub(in crate::pipeline) supply: Supply,
    pub(in crate::pipeline) roles: Roles,
    pub(in crate::pipeline) life: Life,
    measures: Measures,
    vitals: Arc<Vitals>,
    slots: Slots,
    times: Times,
    retaining: Retaining,
    /// Does the work of a role.
    pub(in crate::pipeline) perform: fn(&Arc<Core>, Role),
}

/// The result of recovery, from which a log starts.
pub(crate) struct Start {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) config: Config,
    pub(crate) log_id: [u8; 16],
    pub(crate) epoch: u64,
    pub(crate) first: Lsn,
    /// The `first` in the active segment's header.
    pub(crate) known_first: Lsn,
    /// The end of the log. Everything below is in the files and synced.
    pub(crate) end: Lsn,
    pub(crate) is_clean: bool,
    /// The hint in the latest header.
    pub(crate) hint: Option<Lsn>,
    pub(crate) slots: RecoveredSlots,
    pub(crate) times: RecoveredTimes,
    /// True if recovery wrote records that no later frame claims yet.
    pub(crate) needs_mark: bool,
    pub(crate) active: Active,
    pub(crate) segments: Vec<SegmentInfo>,
    pub(crate) next_sequence: Sequence,
    pub(crate) lock: Option<Box<dyn Any + Send + Sync>>,
}

impl Core {
    /// `perform` does the work of a role, on the executor.
    pub(in crate::pipeline) fn new(
        start: Start,
        instruments: Instruments,
        perform: fn(&Arc<Core>, Role),
    ) -> Self {
        let active_capacity = start.config.segment_bytes - SEGMENT_HEADER_BYTES;
        // At most half a segment minus the control records, as the arithmetic of `space` demands.
        let half = (active_capacity - CONTROL_ROOM_BYTES) / 2;
        let ring_bytes = start.config.ring_bytes.min(half);
        let ring_bytes = 1 << ring_bytes.ilog2();
        let (ring, drainer) = Ring::new(ring_bytes, start.end);
        let segments = SegmentSet::new(Arc::clone(&start.storage), start.segments);
        segments.note_user(&start.active.file);
        // An earlier process may have used the space kept for control records.
        let has_used_reserve = start.active.end().since(start.end) < CONTROL_ROOM_BYTES;
        let reserve_used_at = has_used_reserve.then_some(start.end);
        let beginning = Beginning::new(start.first, start.known_first, reserve_used_at);
        beginning.change_holds(|holds| {
            holds.set_floor(start.slots.floor);
            for (id, slot) in &start.slots.table.slots {
                holds.set_slot(*id, slot.position);
                holds.set_cap(*id, slot.cap_bytes);
            }
        });
        let slots = Slots::new(ring_bytes, start.slots, start.end);
        let space = Space::new(ring_bytes, start.next_sequence);
        space.rotated(start.active.base(), start.active.end());
        if has_used_reserve {
            space.use_slots_room(Some(start.end));
        }
        let recycled = Recycled::new(start.config.recycle_segments);
        let epochs = Epochs::new(start.log_id, start.epoch);
        let vitals = Arc::new(Vitals::new(start.config, start.executor.as_ref()));
        Core {
            storage: start.storage,
            executor: start.executor,
            log_id: start.log_id,
            intake: Intake::new(ring, ring_bytes),
            progress: Progress::new(epochs, start.first, start.end, start.is_clean),
            supply: Supply::new(segments, beginning, start.hint, space, recycled),
            roles: Roles::new(drainer, start.active, start.config.inline_bytes_max),
            life: Life::new(start.lock),
            measures: Measures::new(instruments),
            vitals,
            slots,
            times: Times::new(start.config.time_marks_ms, start.times),
            retaining: Retaining::new(&start.config),
            perform,
            config: start.config,
        }
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    pub(crate) fn executor(&self) -> &Arc<dyn Executor> {
        &self.executor
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn log_id(&self) -> [u8; 16] {
        self.log_id
    }

    pub(crate) fn status(&self) -> &Status {
        &self.life.status
    }

    pub(crate) fn segments(&self) -> &SegmentSet {
        &self.supply.segments
    }

    pub(crate) fn beginning(&self) -> &Beginning {
        &self.supply.beginning
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    pub(in crate::pipeline) fn times(&self) -> &Times {
        &self.times
    }

    pub(in crate::pipeline) fn retaining(&self) -> &Retaining {
        &self.retaining
    }

    pub(crate) fn written(&self) -> &Mark {
        &self.progress.written
    }

    pub(crate) fn synced(&self) -> &Mark {
        &self.progress.synced
    }

    pub(crate) fn epochs(&self) -> &Epochs {
        &self.progress.epochs
    }

    pub(crate) fn measures(&self) -> &Measures {
        &self.measures
    }

    pub(crate) fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    /// Marks a call as in flight until the result is dropped. The caller owns the lane.
    #[inline]
    pub(in crate::pipeline) fn begin(
        &self,
        lane: Lane,
        operation: Operation,
        sequence: Sequence,
    ) -> Underway<'_> {
        self.vitals.begin(self.executor.as_ref(), (lane, operation, sequence))
    }

    /// Notes a flush of the active segment, if that decides when its mark is left.
    pub(in crate::pipeline) fn note_flush(&self, report: &FlushReport) {
        if self.executor.notices_rest() {
            self.vitals.owed_mark().note_flush(report.began, report.time);
        }
    }

    /// Publishes the health to the tasks that watch it, and to the recorder of metrics. Call it
    /// without any lock held.
    pub(in crate::pipeline) fn publish_health(&self) {
        self.wake_health_watches();
        self.publish_metrics();
    }

    /// Publishes the health to the tasks that watch it. Call it without any lock held.
    pub(in crate::pipeline) fn wake_health_watches(&self) {
        self.vitals.publish(|| self.supply.space.refusal());
    }

    /// Returns the error of a call that needs the I/O of `stall`.
    pub(in crate::pipeline) fn stalled(&self, stall: Stall) -> Error {
        Error::Stalled {
            directory: self.storage.location(),
            operation: stall.operation,
            file: stall.sequence.file_name(),
            time: stall.time,
        }
    }

    /// Returns one past the last reserved byte.
    pub(crate) fn tail(&self) -> Lsn {
        self.intake.ring.tail()
    }

    pub(crate) fn ring_bytes(&self) -> u64 {
        self.intake.ring.capacity_bytes()
    }

    pub(crate) fn recycled_count(&self) -> u64 {
        self.supply.recycled.reused_count()
    }

    /// Returns one past the last record. A mark frame at the end is left out, because no caller
    /// needs it synced.
    pub(crate) fn records_end(&self) -> Lsn {
        self.records_end_at(self.tail())
    }

    /// As [`records_end`](Core::records_end), for a tail that was read before.
    pub(crate) fn records_end_at(&self, tail: Lsn) -> Lsn {
        // `trailing_mark` is stored after the mark was reserved. A caller that misses it counts the
        // mark as a record.
        match self.progress.trailing_mark.load(Ordering::Acquire) {
            Some(mark) if mark.plus(CONTROL_FRAME_BYTES) == tail => mark,
            _ => tail,
        }
    }

    /// Returns the goal that covers everything below `end` in the current epoch. Reads the epoch
    /// before the end. If the log is truncated in between, a waiter gets `Truncated` instead of
    /// waiting forever.
    pub(crate) fn goal(&self, end: impl FnOnce() -> Lsn) -> Goal {
        let epoch = self.epoch();
        Goal { end: end(), epoch }
    }

    /// Returns the current epoch. Takes a lock, so that it never sees a truncation of the end half
    /// done.
    pub(crate) fn epoch(&self) -> u64 {
        self.progress.epoch()
    }

    pub(crate) fn watermarks(&self) -> Watermarks {
        self.progress.watermarks(|| self.records_end(), || self.beginning().first())
    }

    /// Returns the holder of the newest marks, which is kept current from now on.
    pub(crate) fn watched(&self) -> &Arc<Watched<Watermarks>> {
        self.progress.begin_watch();
        self.publish_marks();
        &self.progress.watched
    }

    /// Publishes the marks to the tasks that watch them. Costs a fence and a load if no task has
    /// ever watched them.
    pub(in crate::pipeline) fn publish_marks(&self) {
        if self.progress.is_watched() {
            self.progress.watched.publish(|| self.watermarks(), PartialEq::eq);
        }
    }

    /// Returns `synced` and `first` for a new segment's header. `first` includes each truncation
    /// below `synced`, and `first <= synced`.
    pub(in crate::pipeline) fn synced_and_first(&self) -> (Lsn, Lsn) {
        loop {
            let synced = self.synced().get();
            let first = self.beginning().first();
            // Otherwise `first` has moved after `synced` was read, to a position that is synced by
            // now.
            if first <= synced {
                return (synced, first);
            }
        }
    }

    /// Returns whether there is something to write. The result may be wrong while another thread
    /// drains.
    pub(in crate::pipeline) fn has_published(&self) -> bool {
        let ring = &self.intake.ring;
        ring.is_ready() || self.intake.oversized.is_at(ring.drained())
    }

    /// Returns whether a caller waits for a sync, and a flush would advance it. A frame that is
    /// reserved and not published does not count. The writer checks again once that frame is
    /// written.
    pub(in crate::pipeline) fn wants_sync(&self) -> bool {
        let synced = self.synced().get();
        !self.roles.is_closing_sync.load(Ordering::Acquire)
            && self.progress.sync_demand.load(Ordering::Acquire) > synced
            && (self.intake.ring.drained() > synced || self.has_published())
    }

    /// Returns `lsn`, or the end of the log's own newest frames if they begin there. So a reader
    /// need not read them to learn that they hold no record.
    pub(crate) fn past_control(&self, lsn: Lsn) -> Lsn {
        self.progress.past_control(lsn)
    }

    /// Returns how many turns a job takes before it hands over to a new one. If jobs run in place,
    /// a job takes all turns, because a new job would only nest.
    pub(in crate::pipeline) fn turns(&self, turn_count: u32) -> u32 {
        if self.executor.runs_in_place() { u32::MAX } else { turn_count }
    }

    // The end of the log's work.

    /// Stops the log. Keeps the first cause and wakes every waiter, which reads it. Call it
    /// without any lock held.
    pub(in crate::pipeline) fn stop(&self, cause: Error) {
        let log = self.storage.location();
        let cause = cause.in_log(&log);
        let is_closed = cause.is_closed();
        if is_closed {
            self.life.lock.release_when_idle();
        }
        self.status().stop(cause.clone());
        self.wake_all();
        // Last, because a subscriber is user code, and may write to the disk that has failed.
        if is_closed {
            tracing::debug!(log, cause = format_args!("{cause:#}"), "the log is closed");
        } else {
            tracing::error!(log, cause = format_args!("{cause:#}"), "the log has stopped");
        }
        self.publish_metrics();
        self.run_completions();
    }

    /// The first half of a stop, under the writer's lock: no later write follows a failed one.
    pub(in crate::pipeline) fn set_stopped(&self, cause: Error) {
        self.status().stop(cause.in_log(&self.storage.location()));
    }

    /// The second half: every waiter is woken to read the cause.
    fn wake_all(&self) {
        self.intake.permits.close();
        self.written().wake_all();
        self.synced().wake_all();
        self.supply.space.wake_all();
        self.publish_marks();
        self.progress.watched.end(self.status().why_stopped());
        self.vitals.watched().end(self.status().why_stopped());
    }

    /// Wakes every waiter, to read whether its wait fails. Call it without any lock held.
    pub(in crate::pipeline) fn wake_waiters(&self) {
        self.written().wake_all();
        self.synced().wake_all();
        self.intake.permits.wake_all();
        self.supply.space.wake_all();
    }

    /// Wakes all waiters when the last holder is gone, because no mark moves any more.
    pub(in crate::pipeline) fn end_waits(&self) {
        self.written().wake_all();
        self.synced().wake_all();
        self.progress.watched.end(Error::Closed { by: ClosedBy::LastHandle });
        self.vitals.watched().end(Error::Closed { by: ClosedBy::LastHandle });
        self.publish_metrics();
        self.run_completions();
    }

    /// Runs the completions that are due after `synced` moved or the log stopped. Call it without
    /// any lock held.
    pub(in crate::pipeline) fn run_completions(&self) {
        let completions = &self.progress.completions;
        if !completions.begin() {
            return;
        }
        while let Some((completion, outcome)) = completions.next(|goal| self.outcome(goal)) {
            // The callback is the user's code. Its panic must not keep the others from their
            // result.
            if catch_unwind(AssertUnwindSafe(|| completion(outcome))).is_err() {
                tracing::error!(log = self.storage.location(), "a completion panicked");
            }
        }
    }

    /// Returns the result of waiting for a goal; `None` if it is not known yet.
    fn outcome(&self, goal: Goal) -> Option<Result<()>> {
        let synced = self.synced().get();
        if let Err(error) = self.epochs().check(goal) {
            return Some(Err(error));
        }
        if synced >= goal.end {
            return Some(Ok(()));
        }
        match self.status().check() {
            Err(error) => Some(Err(error)),
            Ok(()) if self.status().is_abandoned() => {
                Some(Err(Error::Closed { by: ClosedBy::LastHandle }))
            }
            Ok(()) if self.vitals.stalls().fails_synced() => {
                Some(Err(Error::Indeterminate { lsn: goal.end }))
            }
            Ok(()) => None,
        }
    }
}
