//! When the log decides what to drop by itself, who waits for that, and the pure decisions.

use crate::{
    lsn::Lsn,
    options::Config,
    pipeline::state::scheduled::Scheduled,
    retention::{Budget, OnBudget, Retention},
    segments::SegmentInfo,
    sync::{AtomicBool, AtomicU64, Ordering, fence},
};

/// No unit of an append has this size.
const NONE: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Retaining {
    retention: Retention,
    budget: Option<Budget>,
    /// True if a segment was begun, or a holder has moved, since the last decision.
    is_due: AtomicBool,
    /// The time from which on the age of a segment makes a decision due.
    due_ms: AtomicU64,
    /// The size of the unit for which segments are to be dropped, because its segment does not fit
    /// into the budget; `NONE` if no unit waits for that.
    dropping_for: AtomicU64,
    /// The number of callers that wait until segments are removed.
    waiting_count: AtomicU64,
    /// True if the relief job has to look again.
    is_relief_wanted: AtomicBool,
    pub(crate) relief_flag: Scheduled,
    /// True if the next segment may exceed the budget, because a truncation has no other space.
    has_credit: AtomicBool,
}

/// A caller that waits until segments are removed.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a Retaining);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.waiting_count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.end_dropping();
        }
    }
}

/// A decision about the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The next segment fits.
    Fits,
    /// It fits once the segments below this position are removed.
    FitsFrom(Lsn),
    /// It would not fit beside the newest segment alone.
    TooLarge,
}

impl Retaining {
    pub(crate) fn new(config: &Config) -> Self {
        Retaining {
            retention: config.retention,
            budget: config.budget,
            is_due: AtomicBool::new(!config.retention.is_off()),
            due_ms: AtomicU64::new(u64::MAX),
            dropping_for: AtomicU64::new(NONE),
            waiting_count: AtomicU64::new(0),
            is_relief_wanted: AtomicBool::new(false),
            relief_flag: Scheduled::new(),
            has_credit: AtomicBool::new(false),
        }
    }

    /// Returns whether the log drops anything by itself.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        !self.retention.is_off() || self.drops_oldest()
    }

    pub(crate) fn has_age(&self) -> bool {
        self.retention.age.is_some()
    }

    pub(crate) fn budget(&self) -> Option<Budget> {
        self.budget
    }

    pub(crate) fn drops_oldest(&self) -> bool {
        self.budget.is_some_and(|budget| budget.when_used_up == OnBudget::DropOldest)
    }

    /// Makes a decision due: a segment was begun, or a holder has moved.
    pub(crate) fn note_change(&self) {
        if !self.retention.is_off() {
            self.is_due.store(true, Ordering::Release);
        }
    }

    /// Returns whether a decision is due. The caller decides then.
    pub(crate) fn take_due(&self, now_ms: impl FnOnce() -> u64) -> bool {
        if self.is_due.load(Ordering::Acquire) {
            return self.is_due.swap(false, Ordering::AcqRel);
        }
        self.has_age() && now_ms() >= self.due_ms.load(Ordering::Acquire)
    }

    /// Returns the base of the oldest segment that the retention keeps, and notes when the age of
    /// a segment makes the next decision due. `end` is the synced mark.
    pub(crate) fn kept_from(&self, segments: &[SegmentInfo], end: Lsn, now_ms: u64) -> Option<Lsn> {
        let bases = segments.iter().map(|segment| segment.base);
        let first = bases.clone().next()?;
        let by_bytes = self.retention.bytes.and_then(|bytes| {
            bases.take_while(|base| *base <= end && end.since(*base) >= bytes).last()
        });
        let Some(age) = self.retention.age else { return by_bytes };
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        // The successor of a segment was begun after its last record.
        let begun = segments.iter().skip(1);
        let is_old = |begun_ms: u64| begun_ms.saturating_add(age_ms) <= now_ms;
        let by_age = begun.clone().take_while(|next| is_old(next.created_unix_ms)).last();
        let next = begun.map(|next| next.created_unix_ms).find(|begun_ms| !is_old(*begun_ms));
        let due_ms = next.map_or(u64::MAX, |begun_ms| begun_ms.saturating_add(age_ms));
        self.due_ms.store(due_ms, Ordering::Release);
        by_bytes.max(by_age.map(|next| next.base)).or(Some(first))
    }

    // The budget.

    /// Returns whether a segment of `bytes` fits into the budget beside `segments` and
    /// `other_bytes` of other files.
    pub(crate) fn judge(&self, segments: &[SegmentInfo], other_bytes: u64, bytes: u64) -> Verdict {
        let Some(budget) = self.budget else { return Verdict::Fits };
        if self.has_credit.load(Ordering::Acquire) {
            return Verdict::Fits;
        }
        let sum: u64 = segments.iter().map(|segment| segment.file_bytes).sum();
        let mut needed = sum.saturating_add(other_bytes).saturating_add(bytes);
        if needed <= budget.bytes {
            return Verdict::Fits;
        }
        for (segment, next) in segments.iter().zip(segments.iter().skip(1)) {
            needed -= segment.file_bytes;
            if needed <= budget.bytes {
                return Verdict::FitsFrom(next.base);
            }
        }
        Verdict::TooLarge
    }

    /// Has segments dropped until the segment of a unit of `unit_bytes` fits, and that of each unit
    /// before it.
    pub(crate) fn begin_dropping(&self, unit_bytes: u64) {
        let larger = |now: u64| (now == NONE || now < unit_bytes).then_some(unit_bytes);
        // An error means that a larger unit waits.
        let _ = self.dropping_for.fetch_update(Ordering::AcqRel, Ordering::Acquire, larger);
    }

    pub(crate) fn end_dropping(&self) {
        self.dropping_for.store(NONE, Ordering::Release);
    }

    /// Returns the size of the unit for which segments are to be dropped.
    #[inline]
    pub(crate) fn dropping_for(&self) -> Option<u64> {
        Some(self.dropping_for.load(Ordering::Acquire)).filter(|bytes| *bytes != NONE)
    }

    /// Lets the next segment exceed the budget, once.
    pub(crate) fn give_credit(&self) {
        self.has_credit.store(true, Ordering::Release);
    }

    /// Notes that a segment was prepared. Returns whether it was permitted to exceed the budget.
    pub(crate) fn use_credit(&self) -> bool {
        self.has_credit.load(Ordering::Acquire) && self.has_credit.swap(false, Ordering::AcqRel)
    }

    // The callers that wait, and the relief job.

    /// Notes a caller that waits until segments are removed. A change of that state
    /// is followed by relief from then on.
    pub(crate) fn begin_wait(&self) -> Waiting<'_> {
        self.waiting_count.fetch_add(1, Ordering::AcqRel);
        Waiting(self)
    }

    /// Returns whether a change of a slot, of a lease or of the synced mark has to be followed by
    /// relief. Call it after the change: a waiter counts itself, then looks at the state.
    pub(crate) fn needs_relief(&self) -> bool {
        if self.budget.is_none() {
            return false;
        }
        fence(Ordering::SeqCst);
        self.waiting_count.load(Ordering::Acquire) > 0 || self.dropping_for().is_some()
    }

    /// Has the relief job look again. Returns whether the caller has to start it.
    pub(crate) fn claim_relief(&self) -> bool {
        self.is_relief_wanted.store(true, Ordering::Release);
        self.relief_flag.claim(|| true)
    }

    /// Begins a look of the relief job.
    pub(crate) fn begin_relief(&self) {
        self.is_relief_wanted.store(false, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// Ends a look of the relief job. Returns whether the job has to look again.
    pub(crate) fn end_relief(&self) -> bool {
        self.relief_flag.release(|| self.is_relief_wanted.load(Ordering::Acquire))
    }
}

/// Returns the base of the segment that holds `lsn`, or of the oldest one.
pub(crate) fn base_of(segments: &[SegmentInfo], lsn: Lsn) -> Option<Lsn> {
    let holding = segments.iter().rev().find(|segment| segment.base <= lsn);
    holding.or(segments.first()).map(|segment| segment.base)
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{format::frame::Seed, segments::Sequence};

    const fn at(lsn: u64) -> Lsn {
        Lsn::new(lsn)
    }

    /// Returns three segments of 100 bytes, begun at the times 10, 20 and 30.
    fn segments() -> Vec<SegmentInfo> {
        let segment = |number: u64| SegmentInfo {
            sequence: Sequence(number + 1),
            base: at(100 * number),
            incarnation: 0,
            epoch: 0,
            seed: Seed::new([0; 16], 0),
            created_unix_ms: 10 * (number + 1),
            file_bytes: 150,
        };
        (0..3).map(segment).collect()
    }

    fn retaining(retention: Retention, budget: Option<Budget>) -> Retaining {
        Retaining::new(&Config { retention, budget, ..Config::default() })
    }

    #[test]
    fn bytes_are_kept_behind_a_whole_segment() {
        let kept = |bytes, end| {
            let retaining = retaining(Retention::default().bytes(bytes), None);
            retaining.kept_from(&segments(), at(end), 0)
        };
        assert_eq!((kept(50, 249), kept(50, 250)), (Some(at(100)), Some(at(200))));
        assert_eq!((kept(0, 200), kept(0, 199)), (Some(at(200)), Some(at(100))));
        assert_eq!(kept(1000, 250), None, "all of it");
    }

    #[test]
    fn segment_is_as_old_as_its_successor() {
        let retaining = retaining(Retention::default().age(Duration::from_millis(15)), None);
        assert!(retaining.take_due(|| 0), "a log that was just opened decides");
        for (now_ms, from, due_ms) in [(34, 0, 35), (35, 100, 45), (44, 100, 45), (45, 200, 60)] {
            assert_eq!(retaining.kept_from(&segments(), at(250), now_ms), Some(at(from)));
            let is_last = from == 200;
            assert!(!retaining.take_due(|| due_ms - 1));
            assert_eq!(retaining.take_due(|| due_ms), !is_last, "the newest segment stays");
        }
        retaining.note_change();
        assert!(retaining.take_due(|| 0) && !retaining.take_due(|| 0));
    }

    #[test]
    fn budget_names_the_segments_that_have_to_go() {
        let budget = |bytes| Some(Budget { bytes, when_used_up: OnBudget::DropOldest });
        let judge = |bytes, other_bytes, next_bytes| {
            let retaining = retaining(Retention::default(), budget(bytes));
            retaining.judge(&segments(), other_bytes, next_bytes)
        };
        assert_eq!(judge(600, 0, 150), Verdict::Fits);
        assert_eq!(judge(599, 0, 150), Verdict::FitsFrom(at(100)));
        assert_eq!(judge(600, 150, 150), Verdict::FitsFrom(at(100)));
        assert_eq!(judge(300, 0, 150), Verdict::FitsFrom(at(200)));
        assert_eq!(judge(299, 0, 150), Verdict::TooLarge);
        let unlimited = retaining(Retention::default(), None);
        assert_eq!(unlimited.judge(&segments(), 0, u64::MAX), Verdict::Fits);
    }
}
