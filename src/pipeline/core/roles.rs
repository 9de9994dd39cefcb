//! The roles: the kinds of background work, and their locks, flags and habits.

use std::sync::Arc;

use crate::{
    pipeline::state::{
        alone::Alone,
        habit::{Habit, STAYING, YIELDING},
        in_place::InPlace,
        ring::Drainer,
        scheduled::Scheduled,
        standby::Standby,
        writing::{Active, Writing},
    },
    sync::{AtomicBool, Hint, Mutex},
};

/// A kind of background work. At most one job of each kind runs at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pipeline) enum Role {
    /// Write the published frames to the active segment.
    Write,
    /// Flush the written bytes, for all callers that wait.
    Sync,
    /// Prepare the next segment's file, with room for a unit of `bytes`.
    Prepare { bytes: u64, attempt: u64 },
    /// Remove the files of dropped segments.
    Remove,
    /// Make room for appends that wait for the budget.
    Relieve,
    /// Write the mark that is owed.
    Mark,
}

/// The locks, flags and habits of the roles.
#[derive(Debug)]
pub(in crate::pipeline) struct Roles {
    /// Held by the thread that moves bytes from the ring to a file. That thread waits for nothing
    /// else meanwhile. Poisoned by a panic, which stops the log.
    pub(in crate::pipeline) writing: Mutex<Writing>,
    /// Held by the syncer from the claim of the previous group to the flush's end. So two groups
    /// never share a claim. Taken before `writing`.
    pub(in crate::pipeline) syncing: Mutex<()>,
    /// Set when the close syncs. No sync job is started beside it.
    pub(in crate::pipeline) is_closing_sync: AtomicBool,
    pub(in crate::pipeline) write_flag: Scheduled,
    pub(in crate::pipeline) sync_flag: Scheduled,
    /// A write job stays for a moment and looks for more work.
    pub(in crate::pipeline) lingering: Habit,
    /// A sync job waits for the tasks that it woke.
    pub(in crate::pipeline) regrouping: Habit,
    /// A task yields before it syncs in place.
    pub(in crate::pipeline) yielding: Habit,
    /// The number of records written when the last sync in place ended.
    pub(in crate::pipeline) in_place_record_count: Hint,
    pub(in crate::pipeline) in_place: InPlace,
    /// False once the storage has refused a durable write.
    pub(in crate::pipeline) durable_writes: AtomicBool,
    /// A commit that is alone flushes on its own thread.
    pub(in crate::pipeline) alone: Alone,
    /// A thread of the pool that has just flushed for a commit that is alone. It does not hold the
    /// log, so it holds this part itself.
    pub(in crate::pipeline) standby: Arc<Standby>,
}

impl Roles {
    pub(super) fn new(drainer: Drainer, active: Active, inline_bytes_max: u64) -> Self {
        Roles {
            writing: Mutex::new(Writing::new(drainer, active)),
            syncing: Mutex::new(()),
            is_closing_sync: AtomicBool::new(false),
            write_flag: Scheduled::new(),
            sync_flag: Scheduled::new(),
            lingering: Habit::new(STAYING),
            regrouping: Habit::new(STAYING),
            yielding: Habit::new(YIELDING),
            in_place_record_count: Hint::default(),
            in_place: InPlace::new(inline_bytes_max),
            durable_writes: AtomicBool::new(true),
            alone: Alone::default(),
            standby: Arc::new(Standby::new()),
        }
    }
}
