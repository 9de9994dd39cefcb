//! The limits and habits of appends that write in place, on their own thread.

use crate::{
    pipeline::state::habit::{GATHERING, Habit},
    sync::{AtomicBool, AtomicU64, Ordering, fence},
};

/// The largest write by a non-blocking call, which the kernel refuses instead of waiting.
const NONBLOCKING_BYTES_MAX: u64 = 64 << 10;

/// The penalty for a write that would have blocked; one that did not takes 1 off. From
/// [`REFUSALS_MAX`] on, non-blocking writes are disabled permanently: a storage that refuses more
/// than one in eight, as Btrfs does, gains nothing.
const REFUSAL: u64 = 8;
const REFUSALS_MAX: u64 = 512;

/// Limits and habits of writes in place.
#[derive(Debug)]
pub(crate) struct InPlace {
    /// The largest write by a plain call, which may wait for the device. Chosen by the user.
    plain_bytes_max: u64,
    /// True while the storage is believed to support non-blocking writes.
    is_nonblocking: AtomicBool,
    refusals: AtomicU64,
    /// An append yields, so that others publish first.
    pub(crate) gathering: Habit,
    /// The number of tasks that need published frames to be written.
    urgent_count: AtomicU64,
}

/// While it lives, appends do not yield before they write. Its owner must have published frames
/// written, because an append that has yielded may not be polled again for a long time.
pub(crate) struct Urgent<'a>(&'a InPlace);

impl Drop for Urgent<'_> {
    fn drop(&mut self) {
        self.0.urgent_count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl InPlace {
    pub(crate) fn new(plain_bytes_max: u64) -> Self {
        InPlace {
            plain_bytes_max,
            is_nonblocking: AtomicBool::new(true),
            refusals: AtomicU64::new(0),
            gathering: Habit::new(GATHERING),
            urgent_count: AtomicU64::new(0),
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.bytes_max() > 0
    }

    pub(crate) fn plain_bytes_max(&self) -> u64 {
        self.plain_bytes_max
    }

    /// Returns the most that may be written in place, by either kind of call.
    pub(crate) fn bytes_max(&self) -> u64 {
        let is_nonblocking = self.is_nonblocking.load(Ordering::Relaxed);
        self.plain_bytes_max.max(if is_nonblocking { NONBLOCKING_BYTES_MAX } else { 0 })
    }

    pub(crate) fn urgent(&self) -> Urgent<'_> {
        self.urgent_count.fetch_add(1, Ordering::Relaxed);
        // The fence comes before the caller looks for published frames.
        fence(Ordering::SeqCst);
        Urgent(self)
    }

    /// Returns whether a task needs published frames to be written. Call it after a fence.
    pub(crate) fn is_urgent(&self) -> bool {
        self.urgent_count.load(Ordering::Relaxed) > 0
    }

    /// Notes whether a non-blocking write was refused; `None` if the storage has none.
    pub(crate) fn learn_refusal(&self, is_refused: Option<bool>) {
        let refusals = self.refusals.load(Ordering::Relaxed);
        let learned = match is_refused {
            None => REFUSALS_MAX,
            Some(true) => refusals + REFUSAL,
            Some(false) => refusals.saturating_sub(1),
        };
        if learned != refusals {
            self.refusals.store(learned, Ordering::Relaxed);
        }
        if learned >= REFUSALS_MAX {
            self.is_nonblocking.store(false, Ordering::Relaxed);
        }
    }
}
