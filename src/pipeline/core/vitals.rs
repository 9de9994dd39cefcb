//! The health of the log: the calls in flight, their judgement, and the tasks that watch it.
//!
//! The watching thread holds only this part of the log. So it keeps no file open and no directory
//! locked. It reaches the rest of the log only while a stall lasts.

use std::{
    io,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use crate::{
    error::Error,
    executor::{Executor, Watchable},
    health::Health,
    operation::Operation,
    options::{Config, OnStall},
    pipeline::state::{
        in_flight::{InFlight, Lane},
        owed_mark::{OwedMark, REST_TICK},
        stalls::{Condition, Stall, Stalls, Verdict},
        watched::Watched,
    },
    segments::Sequence,
    sync::{AtomicBool, Ordering},
};

/// The log whose vitals are checked.
pub(in crate::pipeline) trait Patient: Send + Sync {
    /// Acts on the verdict of a check.
    fn act(self: Arc<Self>, verdict: &Verdict);

    /// Has the mark written that is owed, or drops the debt if the log has stopped.
    fn settle(self: Arc<Self>);

    /// Reports that nothing checks the vitals.
    #[cfg_attr(shuttle, allow(dead_code, reason = "shuttle's threads watch nothing"))]
    fn is_unwatched(self: Arc<Self>, error: &io::Error);
}

#[derive(Debug)]
pub(crate) struct Vitals {
    config: Config,
    /// False if nothing watches this log. Then calls are not marked.
    is_watchable: bool,
    in_flight: InFlight,
    stalls: Stalls,
    owed_mark: OwedMark,
    watched: Arc<Watched<Health>>,
    /// Set once the log has started.
    patient: OnceLock<Attached>,
    /// True while a thread reports a stall.
    is_reporting: AtomicBool,
}

struct Attached(Weak<dyn Patient>);

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached").finish_non_exhaustive()
    }
}

/// A call in flight. It has returned when this is dropped.
pub(in crate::pipeline) struct Underway<'a> {
    /// `None` if the call is not marked.
    vitals: Option<&'a Vitals>,
    lane: Lane,
}

impl Underway<'_> {
    /// Notes that one call of several has returned, and the next begins.
    pub(in crate::pipeline) fn progressed(&self) {
        if let Some(vitals) = self.vitals {
            vitals.in_flight.progressed(self.lane);
            vitals.stalls.recovered(self.lane);
        }
    }
}

impl Drop for Underway<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(vitals) = self.vitals {
            vitals.in_flight.end(self.lane);
            vitals.stalls.recovered(self.lane);
        }
    }
}

impl Vitals {
    pub(super) fn new(config: Config, executor: &dyn Executor) -> Self {
        let in_flight = InFlight::new();
        Vitals {
            config,
            is_watchable: executor.watches(),
            stalls: Stalls::new(&in_flight),
            in_flight,
            owed_mark: OwedMark::new(),
            watched: Arc::new(Watched::new(Health::Good)),
            patient: OnceLock::new(),
            is_reporting: AtomicBool::new(false),
        }
    }

    pub(crate) fn watched(&self) -> &Arc<Watched<Health>> {
        &self.watched
    }

    pub(crate) fn owed_mark(&self) -> &OwedMark {
        &self.owed_mark
    }

    pub(crate) fn stalls(&self) -> &Stalls {
        &self.stalls
    }

    /// Notes the log whose vitals these are.
    pub(in crate::pipeline) fn attach(&self, patient: Weak<dyn Patient>) {
        // No other code sets this cell.
        let _ = self.patient.set(Attached(patient));
    }

    /// Marks a call as in flight until the result is dropped. The caller owns the lane. Costs two
    /// stores and a fence, unless nothing watches the log.
    #[inline]
    pub(super) fn begin(
        self: &Arc<Self>,
        executor: &dyn Executor,
        (lane, operation, sequence): (Lane, Operation, Sequence),
    ) -> Underway<'_> {
        if !self.is_watchable {
            return Underway { vitals: None, lane };
        }
        self.in_flight.begin(lane, operation, sequence);
        if self.in_flight.is_watched.claim(|| true) {
            self.begin_watch(executor);
        }
        Underway { vitals: Some(self), lane }
    }

    /// Owes the mark after a flush that is part of a run. Returns false if the caller has to leave
    /// the mark itself: nothing would write it later, or the drop of the log must not wait for a
    /// disk.
    pub(in crate::pipeline) fn owe_mark(self: &Arc<Self>, executor: &dyn Executor) -> bool {
        let may_wait = executor.notices_rest() && self.config.on_stall == OnStall::Report;
        if !may_wait || !self.owed_mark.is_run() {
            return false;
        }
        let is_new = self.owed_mark.owe();
        // As for a call: the thread that watches releases the flag, then looks at the debt.
        if self.in_flight.is_watched.claim(|| true) && !self.begin_watch(executor) {
            return !self.owed_mark.take();
        }
        if is_new {
            // The thread may sleep for longer than the pause after which a log rests.
            executor.look_soon();
        }
        true
    }

    /// Returns whether the log is watched now.
    #[cold]
    fn begin_watch(self: &Arc<Self>, executor: &dyn Executor) -> bool {
        let watchable: Arc<dyn Watchable> = Arc::clone(self) as Arc<dyn Watchable>;
        let is_watched = executor.watch(Arc::downgrade(&watchable));
        if !is_watched {
            // The next call tries again.
            self.in_flight.is_watched.release(|| false);
        }
        is_watched
    }

    /// Returns the number of calls that the writer and the syncer have made, or `None` while one
    /// is in flight.
    fn progress(&self) -> Option<u64> {
        let lanes = [Lane::Write, Lane::Sync].map(|lane| self.in_flight.look(lane));
        let [write, sync] = lanes.map(|seen| (!seen.is_in_flight()).then_some(seen.count));
        Some(write?.wrapping_add(sync?))
    }

    fn patient(&self) -> Option<Arc<dyn Patient>> {
        self.patient.get().and_then(|Attached(patient)| patient.upgrade())
    }

    /// Publishes the health of the I/O and of the supply of files. `refusal` returns the reason why
    /// the next segment can't be prepared. Call it without any lock held.
    pub(super) fn publish(&self, refusal: impl FnOnce() -> Option<Error>) {
        let look = || match (self.stalls.condition(), refusal()) {
            (Condition::Stalled(Stall { operation, sequence, time }), _) => {
                Health::Stalled { operation, file: sequence.file_name(), time }
            }
            (_, Some(error @ (Error::NoSpace { .. } | Error::OverBudget { .. }))) => {
                Health::Full { error }
            }
            (_, Some(error)) => Health::Refusing { error },
            (Condition::Slow, None) => Health::Slow,
            (Condition::Good, None) => Health::Good,
        };
        self.watched.publish(look, Health::is_same_state);
    }

    /// Begins a report. Returns whether an earlier one has not ended.
    pub(in crate::pipeline) fn begin_report(&self) -> bool {
        self.is_reporting.swap(true, Ordering::AcqRel)
    }

    pub(in crate::pipeline) fn end_report(&self) {
        self.is_reporting.store(false, Ordering::Release);
    }
}

impl Watchable for Vitals {
    fn check(self: Arc<Self>, now: Duration) -> Option<Duration> {
        let verdict = self.stalls.check(now, &self.in_flight, &self.config);
        let is_eventful = verdict.is_changed
            || verdict.fails_more
            || verdict.event.is_some()
            || verdict.stops.is_some();
        if is_eventful {
            self.patient().into_iter().for_each(|patient| patient.act(&verdict));
        }
        if self.owed_mark.is_due(self.progress()) {
            match self.patient() {
                Some(patient) => patient.settle(),
                // The log is gone.
                None => drop(self.owed_mark.take()),
            }
        }
        let is_owed = || self.owed_mark.is_owed();
        let is_wanted = || self.stalls.is_active(&self.in_flight) || is_owed();
        match verdict.next {
            None if !self.in_flight.is_watched.release(is_wanted) => None,
            None if is_owed() => Some(REST_TICK),
            None => Some(Duration::ZERO),
            Some(next) if is_owed() => Some(next.min(REST_TICK)),
            next => next,
        }
    }

    fn is_unwatched(self: Arc<Self>, error: &io::Error) {
        self.patient().into_iter().for_each(|patient| patient.is_unwatched(error));
    }
}
