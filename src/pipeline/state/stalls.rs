//! Judges the I/O calls in flight: which of them stall, and which waiters fail for that.
//!
//! Nothing here looks at a clock: the caller passes the time since some fixed moment. So a
//! simulation passes its own time.

use std::time::Duration;

use crate::{
    operation::Operation,
    options::{Config, OnStall},
    pipeline::state::in_flight::{InFlight, LANES, Lane, Seen},
    segments::Sequence,
    sync::{AtomicU64, LockAlways, Mutex, MutexGuard, Ordering},
};

/// The health is `Slow` for this long after a stall.
pub(crate) const CALM_AFTER: Duration = Duration::from_secs(15);

/// A log without a call in flight for this long is not watched any more.
const QUIET_AFTER: Duration = Duration::from_secs(1);

/// A stall is checked at least this often.
const TICK_MAX: Duration = Duration::from_millis(250);
const TICK_MIN: Duration = Duration::from_millis(1);

/// The longest time between two reports of the same stall. The time between reports doubles.
const REPORT_MAX: Duration = Duration::from_secs(60);

/// A call that has not returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stall {
    pub(crate) operation: Operation,
    pub(crate) sequence: Sequence,
    /// For how long it has been in flight, since the first check that saw it.
    pub(crate) time: Duration,
}

/// The state of the I/O, as far as calls in flight decide it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Good,
    /// A stall ended less than [`CALM_AFTER`] ago.
    Slow,
    Stalled(Stall),
}

/// An event to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StallEvent {
    Lasts(Stall),
    Ended(Stall),
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) event: Option<StallEvent>,
    /// The condition may differ from that of the previous check.
    pub(crate) is_changed: bool,
    /// Waiters have to be woken, because more of them fail now.
    pub(crate) fails_more: bool,
    /// The log has to be stopped for this call.
    pub(crate) stops: Option<Stall>,
    /// When the next check is due; `None` if there is nothing to watch any more.
    pub(crate) next: Option<Duration>,
}

/// The judgement about a log's calls.
#[derive(Debug)]
pub(crate) struct Stalls {
    judged: Mutex<Judged>,
    /// One bit for each lane whose waiters fail. Set and cleared under the lock, except that the
    /// lane's owner clears its bit when the call returns.
    failing: AtomicU64,
    count: AtomicU64,
    time_ns: AtomicU64,
}

#[derive(Debug)]
struct Judged {
    lanes: [Watch; LANES.len()],
    now: Duration,
    /// The time between this check and the previous one.
    step: Duration,
    current: Option<Current>,
    /// When the last stall ended, while the log is still `Slow`.
    ended_at: Option<Duration>,
    /// When a call was last in flight.
    active_at: Duration,
    has_stopped: bool,
}

/// The last look at a lane.
#[derive(Clone, Copy, Debug)]
struct Watch {
    seen: Seen,
    /// The time of the check that first saw this call.
    since: Duration,
}

/// The stall that lasts.
#[derive(Clone, Copy, Debug)]
struct Current {
    stall: Stall,
    report_at: Duration,
}

impl Stalls {
    pub(crate) fn new(in_flight: &InFlight) -> Self {
        let watch = |lane| Watch { seen: in_flight.look(lane), since: Duration::ZERO };
        let judged = Judged {
            lanes: LANES.map(watch),
            now: Duration::ZERO,
            step: Duration::ZERO,
            current: None,
            ended_at: None,
            active_at: Duration::ZERO,
            has_stopped: false,
        };
        Stalls {
            judged: Mutex::new(judged),
            failing: AtomicU64::new(0),
            count: AtomicU64::new(0),
            time_ns: AtomicU64::new(0),
        }
    }

    /// No user code runs under this lock.
    fn judged(&self) -> MutexGuard<'_, Judged> {
        self.judged.lock_always()
    }

    /// Checks the calls in flight at the time `now`, which never goes back.
    pub(crate) fn check(&self, now: Duration, in_flight: &InFlight, config: &Config) -> Verdict {
        let mut judged = self.judged();
        let is_active = judged.look(now, in_flight);
        let before = judged.condition();
        let event = self.judge(&mut judged, config.stall_after);
        let is_changed = before != judged.condition();
        let (mut fails_more, mut stops) = (false, None);
        match config.on_stall {
            OnStall::Report => {}
            OnStall::FailWaiters { after } => {
                fails_more = self.fail_waiters(&judged, in_flight, after);
            }
            OnStall::Stop { after } => stops = judged.stop(after),
        }
        if is_active {
            judged.active_at = now;
        }
        let is_watched = judged.current.is_some()
            || judged.ended_at.is_some()
            || now.saturating_sub(judged.active_at) < QUIET_AFTER;
        let tick = (config.stall_after / 4).clamp(TICK_MIN, TICK_MAX);
        let next = is_watched.then_some(tick);
        Verdict { event, is_changed, fails_more, stops, next }
    }

    /// Begins, continues or ends the log's stall.
    fn judge(&self, judged: &mut Judged, stall_after: Duration) -> Option<StallEvent> {
        let now = judged.now;
        let oldest = judged.oldest(&LANES).filter(|stall| stall.time >= stall_after);
        if judged.current.is_some() {
            self.add_time(judged.step);
        }
        let event = match (judged.current, oldest) {
            (None, Some(stall)) => {
                self.count.fetch_add(1, Ordering::Relaxed);
                self.add_time(stall.time);
                judged.current = Some(Current { stall, report_at: now + stall.time });
                Some(StallEvent::Lasts(stall))
            }
            (Some(current), Some(stall)) => {
                let is_due = now >= current.report_at;
                let pause = stall.time.min(REPORT_MAX);
                let report_at = if is_due { now + pause } else { current.report_at };
                judged.current = Some(Current { stall, report_at });
                is_due.then_some(StallEvent::Lasts(stall))
            }
            (Some(Current { stall, .. }), None) => {
                judged.current = None;
                judged.ended_at = Some(now);
                Some(StallEvent::Ended(stall))
            }
            (None, None) => None,
        };
        if judged.ended_at.is_some_and(|ended_at| now.saturating_sub(ended_at) >= CALM_AFTER) {
            judged.ended_at = None;
        }
        event
    }

    fn add_time(&self, time: Duration) {
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.time_ns.fetch_add(time_ns, Ordering::Relaxed);
    }

    /// Marks the lanes whose calls have been in flight for `after`. Returns whether there is a new
    /// one.
    fn fail_waiters(&self, judged: &Judged, in_flight: &InFlight, after: Duration) -> bool {
        let mut fails_more = false;
        for lane in [Lane::Write, Lane::Sync, Lane::Prepare] {
            let is_due = judged.oldest(&[lane]).is_some_and(|stall| stall.time >= after);
            let before = self.failing.load(Ordering::Acquire);
            if !is_due {
                self.recovered(lane);
                continue;
            }
            self.failing.fetch_or(bit(lane), Ordering::SeqCst);
            // The call may have returned since it was looked at. Then its owner may have missed
            // the bit.
            if judged.watch(lane).is_none_or(|watch| in_flight.look(lane) != watch.seen) {
                self.recovered(lane);
            } else {
                fails_more |= before & bit(lane) == 0;
            }
        }
        fails_more
    }

    /// Notes that the call of a lane has returned.
    #[inline]
    pub(crate) fn recovered(&self, lane: Lane) {
        // Any bit, because a look at one lane's bit costs an instruction more.
        if self.failing.load(Ordering::Relaxed) != 0 {
            self.failing.fetch_and(!bit(lane), Ordering::AcqRel);
        }
    }

    fn fails(&self, lanes: u64) -> bool {
        self.failing.load(Ordering::Acquire) & lanes != 0
    }

    /// Returns whether any wait fails.
    #[inline]
    pub(crate) fn fails_any(&self) -> bool {
        self.failing.load(Ordering::Acquire) != 0
    }

    /// Returns whether a wait for the written mark fails.
    pub(crate) fn fails_written(&self) -> bool {
        self.fails(bit(Lane::Write))
    }

    /// Returns whether a wait for the synced mark fails.
    pub(crate) fn fails_synced(&self) -> bool {
        self.fails(bit(Lane::Write) | bit(Lane::Sync))
    }

    /// Returns the call for which a wait for room fails, if it does. The wait may need a flush of a
    /// truncation, and the removal of a file.
    pub(crate) fn fails_room(&self, needs_removal: bool) -> Option<Stall> {
        let lanes: &[Lane] = match needs_removal {
            true => &[Lane::Write, Lane::Prepare, Lane::Sync, Lane::Remove],
            false => &[Lane::Write, Lane::Prepare],
        };
        if !self.fails(lanes.iter().copied().map(bit).sum()) {
            return None;
        }
        self.judged().oldest(lanes)
    }

    pub(crate) fn condition(&self) -> Condition {
        self.judged().condition()
    }

    /// Returns whether a call is in flight, or was since the last check.
    pub(crate) fn is_active(&self, in_flight: &InFlight) -> bool {
        let judged = self.judged();
        let mut lanes = judged.lanes.iter().zip(LANES);
        lanes.any(|(watch, lane)| {
            let seen = in_flight.look(lane);
            seen.is_in_flight() || seen.count != watch.seen.count
        })
    }

    /// Returns how many stalls there were, and their total time.
    pub(crate) fn totals(&self) -> (u64, Duration) {
        let time_ns = self.time_ns.load(Ordering::Relaxed);
        (self.count.load(Ordering::Relaxed), Duration::from_nanos(time_ns))
    }
}

impl Judged {
    /// Looks at all lanes. Returns whether a call was in flight since the previous look.
    fn look(&mut self, now: Duration, in_flight: &InFlight) -> bool {
        self.step = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        let mut is_active = false;
        for (watch, lane) in self.lanes.iter_mut().zip(LANES) {
            let seen = in_flight.look(lane);
            if seen.count != watch.seen.count {
                watch.since = self.now;
                is_active = true;
            }
            watch.seen = seen;
            is_active |= seen.is_in_flight();
        }
        is_active
    }

    fn watch(&self, lane: Lane) -> Option<Watch> {
        let mut lanes = self.lanes.iter().zip(LANES);
        lanes.find(|(_, other)| *other == lane).map(|(watch, _)| *watch)
    }

    /// Returns the call in flight that has taken longest among those of `lanes`.
    fn oldest(&self, lanes: &[Lane]) -> Option<Stall> {
        let calls = lanes.iter().filter_map(|lane| {
            let watch = self.watch(*lane).filter(|watch| watch.seen.is_in_flight())?;
            let Seen { operation, sequence, .. } = watch.seen;
            let since = if operation == Operation::Prepare {
                // A preparation takes many calls. The lane that waits for it stalls with it.
                watch.since.max(self.watch(Lane::Prepare).map_or(Duration::ZERO, |it| it.since))
            } else {
                watch.since
            };
            Some(Stall { operation, sequence, time: self.now.saturating_sub(since) })
        });
        // The first of several that are equally old.
        calls.reduce(|oldest, next| if next.time > oldest.time { next } else { oldest })
    }

    fn condition(&self) -> Condition {
        match (self.current, self.ended_at) {
            (Some(current), _) => Condition::Stalled(current.stall),
            (None, Some(_)) => Condition::Slow,
            (None, None) => Condition::Good,
        }
    }

    /// Returns the call for which the log has to be stopped, once.
    fn stop(&mut self, after: Duration) -> Option<Stall> {
        let oldest = self.oldest(&[Lane::Write, Lane::Sync, Lane::Prepare]);
        let stops = oldest.filter(|stall| stall.time >= after && !self.has_stopped);
        self.has_stopped |= stops.is_some();
        stops
    }
}

const fn bit(lane: Lane) -> u64 {
    match lane {
        Lane::Write => 1,
        Lane::Sync => 2,
        Lane::Prepare => 4,
        Lane::Remove => 8,
        Lane::Close => 16,
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests;
