//! The state that all handles of a Raft log share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, RwLock},
};

use crate::{
    pipeline::{OpenLog, embed::request_write},
    raft::{cache::TailCache, state::GroupState, upkeep::progress::Upkeep},
    sync::{LockAlways, ReadWriteAlways},
    wal::Wal,
};

/// The log, its groups, and their cache and upkeep.
pub(super) struct Store {
    pub(super) wal: Wal,
    pub(super) groups: RwLock<BTreeMap<u64, Arc<LockedGroup>>>,
    pub(super) cache: TailCache,
    pub(super) codec: u64,
    pub(super) upkeep: Upkeep,
    pub(super) opening: OpeningStats,
}

/// Statistics of opening the log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OpeningStats {
    pub(super) from_hint: bool,
    pub(super) read_bytes: u64,
}

/// A group, and the lock under which its changes are checked and get their LSNs.
pub(super) struct LockedGroup {
    pub(super) id: u64,
    state: Mutex<GroupState>,
}

impl LockedGroup {
    pub(super) fn new(id: u64, state: GroupState) -> Self {
        LockedGroup { id, state: Mutex::new(state) }
    }

    /// Locks the state. Hold the lock from the check of a change until the change is published and
    /// applied, and never across an `await`.
    ///
    /// So the order of changes in memory is the order of the log. The cache's lock may be taken
    /// under this one. A panic under the lock after a record got its LSN has stopped the log.
    pub(super) fn lock(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock_always()
    }
}

impl Store {
    /// Returns the open log under the groups.
    pub(super) fn log(&self) -> &Arc<OpenLog> {
        self.wal.core()
    }

    pub(super) fn all_groups(&self) -> Vec<Arc<LockedGroup>> {
        self.groups.read_always().values().map(Arc::clone).collect()
    }

    /// Returns the group with number `id`. Creates a new group if necessary.
    pub(super) fn group(&self, id: u64) -> Arc<LockedGroup> {
        let known = self.groups.read_always().get(&id).map(Arc::clone);
        known.unwrap_or_else(|| {
            let new = || Arc::new(LockedGroup::new(id, GroupState::default()));
            Arc::clone(self.groups.write_always().entry(id).or_insert_with(new))
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // No later write will include a change that waits for one.
        request_write(self.log());
    }
}
