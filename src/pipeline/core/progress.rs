//! The log's progress: its marks, and the tasks that wait for them.

use std::{sync::Arc, task::Waker};

use crate::{
    format::frame::CONTROL_FRAME_BYTES,
    lsn::{AtomicLsn, AtomicOptionLsn, Lsn},
    pipeline::state::{
        completions::Completions,
        epochs::Epochs,
        mark::{Mark, Woken},
        orders::SyncOrders,
        watched::Watched,
    },
    sync::{AtomicBool, LockAlways, Mutex, MutexGuard, Ordering, fence},
    watermarks::Watermarks,
};

/// The marks, with `synced <= written <= reserved`, and everything that waits for them.
#[derive(Debug)]
pub(in crate::pipeline) struct Progress {
    pub(in crate::pipeline) written: Mark,
    pub(in crate::pipeline) synced: Mark,
    pub(in crate::pipeline) epochs: Epochs,
    /// The highest position that a caller wants synced.
    pub(in crate::pipeline) sync_demand: AtomicLsn,
    /// The position of the newest mark frame. If it is the log's last frame, no caller waits for
    /// it.
    pub(in crate::pipeline) trailing_mark: AtomicOptionLsn,
    /// The position of the close frame.
    pub(in crate::pipeline) close_frame: AtomicOptionLsn,
    /// The end of the last clean close. While it is the end of the log, the log is still clean.
    clean_end: AtomicOptionLsn,
    /// The highest `reserved` that was returned. Its lock excludes a truncation of the end: marks,
    /// tail and segments that are read or raised under it are of one epoch.
    reserved_max: Mutex<Lsn>,
    is_watched: AtomicBool,
    pub(in crate::pipeline) watched: Arc<Watched<Watermarks>>,
    pub(in crate::pipeline) completions: Completions,
    pub(in crate::pipeline) orders: SyncOrders,
}

impl Progress {
    /// Returns the progress of a log in which everything below `end` is synced.
    pub(super) fn new(epochs: Epochs, first: Lsn, end: Lsn, is_clean: bool) -> Self {
        let marks = Watermarks { first, synced: end, written: end, reserved: end };
        Progress {
            written: Mark::new(end),
            synced: Mark::new(end),
            epochs,
            sync_demand: AtomicLsn::new(end),
            trailing_mark: AtomicOptionLsn::new(None),
            close_frame: AtomicOptionLsn::new(None),
            clean_end: AtomicOptionLsn::new(is_clean.then_some(end)),
            reserved_max: Mutex::new(end),
            is_watched: AtomicBool::new(false),
            watched: Arc::new(Watched::new(marks)),
            completions: Completions::default(),
            orders: SyncOrders::new(),
        }
    }

    fn same_epoch(&self) -> MutexGuard<'_, Lsn> {
        self.reserved_max.lock_always()
    }

    pub(super) fn epoch(&self) -> u64 {
        let _same_epoch = self.same_epoch();
        self.epochs.current()
    }

    /// Reads all marks. `records_end` and `first` read positions of other parts of the core.
    pub(super) fn watermarks(
        &self,
        records_end: impl FnOnce() -> Lsn,
        first: impl FnOnce() -> Lsn,
    ) -> Watermarks {
        let mut reserved_max = self.same_epoch();
        // In this order, because `synced <= written <= reserved` and each of them only grows.
        let synced = self.synced.get();
        let written = self.written.get().max(synced);
        // A mark frame that is being reserved may look like a record. `reserved` never goes back.
        let reserved = records_end().max(synced).max(*reserved_max);
        *reserved_max = reserved;
        Watermarks { first: first(), synced, written: written.min(reserved), reserved }
    }

    /// Raises the marks to `synced`, which a flush of `epoch` covered. Returns `false` if the end
    /// was truncated in between. Wakes no waiter.
    pub(in crate::pipeline) fn raise_marks(&self, epoch: u64, synced: Lsn) -> bool {
        let _same_epoch = self.same_epoch();
        if self.epochs.current() != epoch {
            return false;
        }
        // Another job may have written these bytes and not raised `written` yet.
        self.written.raise(synced);
        self.synced.raise(synced);
        true
    }

    /// Wakes the tasks that wait for the written mark, which was raised to `synced`. Returns the
    /// wakers for the synced mark. Call it without any lock held.
    pub(in crate::pipeline) fn take_reached(&self, synced: Lsn) -> (Vec<Waker>, Woken) {
        self.written.wake_reached(synced);
        self.synced.take_reached(synced)
    }

    /// Moves the marks back to `cut`, and begins `epoch` there. `exchange` moves the tail and
    /// replaces the segments. The caller holds all permits of the ring, which is empty.
    pub(in crate::pipeline) fn lower_marks(&self, epoch: u64, cut: Lsn, exchange: impl FnOnce()) {
        let mut reserved_max = self.same_epoch();
        self.epochs.begin(epoch, cut);
        exchange();
        self.written.lower(cut);
        self.synced.lower(cut);
        self.sync_demand.store(cut, Ordering::Release);
        self.trailing_mark.store(None, Ordering::Release);
        self.clean_end.store(None, Ordering::Release);
        *reserved_max = cut;
    }

    /// Notes that a caller wants everything below `end` synced.
    pub(in crate::pipeline) fn demand_sync(&self, end: Lsn) {
        self.sync_demand.fetch_max(end, Ordering::AcqRel);
    }

    /// Returns whether a clean close ends at `end`.
    pub(in crate::pipeline) fn is_clean_end(&self, end: Lsn) -> bool {
        self.clean_end.load(Ordering::Acquire) == Some(end)
    }

    /// Returns whether a mark frame or a clean close ends at `end`.
    pub(in crate::pipeline) fn ends_with_mark(&self, end: Lsn) -> bool {
        let mark = self.trailing_mark.load(Ordering::Acquire);
        mark.is_some_and(|mark| mark.plus(CONTROL_FRAME_BYTES) == end) || self.is_clean_end(end)
    }

    pub(super) fn past_control(&self, lsn: Lsn) -> Lsn {
        let mut at = lsn;
        for control in [&self.trailing_mark, &self.close_frame] {
            if control.load(Ordering::Acquire) == Some(at) {
                at = at.plus(CONTROL_FRAME_BYTES);
            }
        }
        at
    }

    pub(super) fn begin_watch(&self) {
        self.is_watched.store(true, Ordering::Release);
    }

    /// Returns whether a task has ever watched the marks. The fence pairs with the fence of another
    /// caller. Either this caller sees the watch, or the watching task sees the marks that this
    /// caller has moved.
    pub(super) fn is_watched(&self) -> bool {
        fence(Ordering::SeqCst);
        self.is_watched.load(Ordering::Acquire)
    }
}
