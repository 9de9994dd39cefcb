//! The log's clock, which never goes back, and its time marks.
//!
//! A time mark is a control record with the clock. The clock is read before the record gets its
//! position. So every record above a mark was appended at the mark's time or later. Every record
//! below a mark was appended before the clock was read for the next mark.

use std::collections::VecDeque;

use crate::{
    format::extension::TimeMark,
    lsn::Lsn,
    sabotage::{self, Sabotage},
    sync::{AtomicU64, LockAlways, Mutex, Ordering},
};

/// How many of the newest marks are kept: one may be above the base of the next segment.
const MARKS_KEPT: usize = 4;

#[derive(Debug)]
pub(crate) struct Times {
    /// The highest time that the log has written.
    newest_ms: AtomicU64,
    /// `None` if the log writes no time marks.
    interval_ms: Option<u64>,
    /// The time from which on a mark is due.
    due_ms: AtomicU64,
    /// The newest marks, oldest first.
    marks: Mutex<VecDeque<TimeMark>>,
}

/// The times that recovery has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecoveredTimes {
    /// The highest time in the log.
    pub(crate) newest_ms: u64,
    /// The newest time mark.
    pub(crate) mark: Option<TimeMark>,
}

impl Times {
    pub(crate) fn new(interval_ms: Option<u64>, recovered: RecoveredTimes) -> Self {
        Times {
            newest_ms: AtomicU64::new(recovered.newest_ms),
            interval_ms,
            due_ms: AtomicU64::new(0),
            marks: Mutex::new(recovered.mark.into_iter().collect()),
        }
    }

    /// Returns the time to write, if the clock shows `unix_ms`. Never below an earlier one.
    pub(crate) fn now(&self, unix_ms: u64) -> u64 {
        if sabotage::is_on(Sabotage::TimeGoesBack) {
            return unix_ms;
        }
        self.newest_ms.fetch_max(unix_ms, Ordering::AcqRel).max(unix_ms)
    }

    /// Returns whether the log writes time marks.
    pub(crate) fn is_on(&self) -> bool {
        self.interval_ms.is_some()
    }

    /// Returns whether the log has a time mark.
    pub(crate) fn has_mark(&self) -> bool {
        !self.marks.lock_always().is_empty()
    }

    /// Returns whether a mark is due at `now_ms`.
    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        self.is_on() && now_ms >= self.due_ms.load(Ordering::Acquire)
    }

    /// Makes a mark due, because a segment was begun.
    pub(crate) fn begin_segment(&self) {
        self.due_ms.store(0, Ordering::Release);
    }

    /// Notes the mark with `unix_ms`. `reserve` reserves its position, and must not wait.
    pub(crate) fn place<R>(&self, unix_ms: u64, reserve: impl FnOnce() -> (R, Lsn)) -> R {
        let mut marks = self.marks.lock_always();
        let (reserved, lsn) = reserve();
        marks.push_back(TimeMark { unix_ms, lsn });
        if marks.len() > MARKS_KEPT {
            marks.pop_front();
        }
        let due_ms = unix_ms.saturating_add(self.interval_ms.unwrap_or_default());
        self.due_ms.store(due_ms, Ordering::Release);
        reserved
    }

    /// Returns the newest mark below `base`, for the header of a segment that begins there.
    pub(crate) fn mark_below(&self, base: Lsn) -> Option<TimeMark> {
        let marks = self.marks.lock_always();
        marks.iter().rfind(|mark| mark.lsn < base).copied()
    }

    /// Forgets the marks from `cut` on, where the log was cut.
    pub(crate) fn cut_at(&self, cut: Lsn) {
        self.marks.lock_always().retain(|mark| mark.lsn < cut);
        self.begin_segment();
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back_and_marks_are_found() {
        let mark = TimeMark { unix_ms: 50, lsn: Lsn::new(8) };
        let recovered = RecoveredTimes { newest_ms: 60, mark: Some(mark) };
        let times = Times::new(Some(10), recovered);
        assert_eq!((times.now(40), times.now(70), times.now(65)), (60, 70, 70));
        assert!(times.is_due(0) && times.has_mark());
        times.place(70, || ((), Lsn::new(80)));
        assert!(!times.is_due(79) && times.is_due(80));
        let newest = TimeMark { unix_ms: 70, lsn: Lsn::new(80) };
        assert_eq!(times.mark_below(Lsn::new(88)), Some(newest));
        assert_eq!(times.mark_below(Lsn::new(80)), Some(mark));
        assert_eq!(times.mark_below(Lsn::new(8)), None);
        times.cut_at(Lsn::new(80));
        assert_eq!(times.mark_below(Lsn::new(88)), Some(mark));
        assert!(times.is_due(0), "the new segment gets one");
        assert!(!Times::new(None, recovered).is_due(u64::MAX));
    }
}
