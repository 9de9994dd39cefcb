//! The files that wait to be used again as segments.

use crate::{
    segments::Sequence,
    sync::{AtomicU64, LockAlways, Mutex, MutexGuard, Ordering},
};

#[derive(Debug)]
pub(crate) struct Recycled {
    state: Mutex<RecycledState>,
    reused_count: AtomicU64,
}

#[derive(Debug)]
struct RecycledState {
    /// The former sequence numbers of the waiting files, which are durably blank. The most recently
    /// written file is last.
    waiting: Vec<Sequence>,
    /// The number of further files that may wait or be made blank.
    room: usize,
    /// The largest number of files.
    count_max: usize,
    is_closed: bool,
}

impl Recycled {
    pub(crate) fn new(count: usize) -> Self {
        let state =
            RecycledState { waiting: Vec::new(), room: count, count_max: count, is_closed: false };
        Recycled { state: Mutex::new(state), reused_count: AtomicU64::new(0) }
    }

    pub(crate) fn note_reused(&self) {
        self.reused_count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn reused_count(&self) -> u64 {
        self.reused_count.load(Ordering::Relaxed)
    }

    /// No I/O runs under this lock.
    fn state(&self) -> MutexGuard<'_, RecycledState> {
        self.state.lock_always()
    }

    /// Takes a place for one more file, if there is any.
    pub(crate) fn take_room(&self) -> bool {
        let mut state = self.state();
        let has_room = state.room > 0 && !state.is_closed;
        state.room -= usize::from(has_room);
        has_room
    }

    pub(crate) fn give_room(&self) {
        self.state().room += 1;
    }

    /// Adds a blank file in the place that was taken for it. Returns `false` once the log is
    /// closed.
    pub(crate) fn add(&self, sequence: Sequence) -> bool {
        let mut state = self.state();
        if !state.is_closed {
            state.waiting.push(sequence);
        }
        !state.is_closed
    }

    pub(crate) fn take(&self) -> Option<Sequence> {
        let mut state = self.state();
        let taken = state.waiting.pop();
        state.room += usize::from(taken.is_some());
        taken
    }

    /// Returns how many files wait, and how many wait or are being made blank.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.waiting.len() as u64, state.count_max.saturating_sub(state.room) as u64)
    }

    /// Accepts no further file.
    pub(crate) fn close(&self) {
        self.state().is_closed = true;
    }
}
