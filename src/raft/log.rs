//! The log of all groups: who is in it, and what they share.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, atomic::Ordering},
};

use crate::{
    error::Result,
    lsn::Lsn,
    raft::{
        cache::TailCache, group::RaftGroup, keeper::Keeper, options::RaftOptions, record::Change,
        state::GroupState, ticket::AppendTicket,
    },
    wal::Wal,
};

/// A log of Raft groups over one [`Wal`]. A cheap handle.
///
/// Each group is a log of entries with a vote and what else belongs to it. All of them are written to
/// the same files and share each flush, so a thousand groups commit with as few flushes as one.
///
/// One task at a time is to change a group, as a Raft node does; groups are independent, and reading is
/// free to all. When the last handle is gone without [`close`](RaftLog::close), what was ordered is
/// written and not synced.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// use highwater::{raft::{Entries, RaftLog}, storage::MemoryStorage};
/// let log = RaftLog::options().open_with(MemoryStorage::new()).await?;
/// for group in 0..100 {
///     let mut entries = Entries::new();
///     entries.push(1, 1, b"set x");
///     log.group(group).append(entries).await?.on_durable(|outcome| outcome.unwrap());
/// }
/// assert_eq!(log.groups().len(), 100);
/// log.close().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RaftLog {
    pub(super) store: Arc<Store>,
}

/// What handles share.
pub(super) struct Store {
    pub(super) wal: Wal,
    pub(super) groups: RwLock<BTreeMap<u64, Arc<Group>>>,
    pub(super) cache: TailCache,
    pub(super) codec: u64,
    pub(super) keeper: Keeper,
    pub(super) opened: Opened,
}

/// What opening took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Opened {
    pub(super) from_hint: bool,
    pub(super) read_bytes: u64,
}

/// A group, and the lock under which its changes are checked and ordered.
pub(super) struct Group {
    pub(super) id: u64,
    state: Mutex<GroupState>,
}

impl Group {
    pub(super) fn new(id: u64, state: GroupState) -> Self {
        Group { id, state: Mutex::new(state) }
    }

    /// Held while a change is checked, ordered and made, and never across a wait: so the order of
    /// changes in memory is that of the log. The cache's lock may be taken under it.
    pub(super) fn lock(&self) -> MutexGuard<'_, GroupState> {
        // A panic in between has stopped the log, if something was ordered.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    pub(super) fn all_groups(&self) -> Vec<Arc<Group>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.values().map(Arc::clone).collect()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // What rides along with the next sync has none to ride along with any more.
        self.wal.core().kick_writer();
    }
}

/// What a Raft log takes and has done, besides what its [`Wal`] tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RaftStats {
    /// Groups of which something is known.
    pub group_count: u64,
    /// Bytes of entries kept in memory.
    pub cached_bytes: u64,
    /// State records written.
    pub state_count: u64,
    /// Bytes of entries written again, so that the log's beginning could go.
    pub rewritten_bytes: u64,
    /// Whether opening began at the state record that the newest segment names, and not with a look
    /// at the whole log.
    pub opened_from_hint: bool,
    /// Bytes of the log that opening had to read.
    pub opened_bytes: u64,
}

impl RaftLog {
    /// Opens the log in `directory` with the default settings, creating both if they aren't there.
    ///
    /// # Errors
    ///
    /// As [`RaftOptions::open`].
    ///
    /// # Cancel safety
    ///
    /// As [`RaftOptions::open`].
    pub async fn open(directory: impl AsRef<Path>) -> Result<Self> {
        RaftOptions::default().open(directory).await
    }

    /// Settings to open a log with.
    pub fn options() -> RaftOptions {
        RaftOptions::default()
    }

    /// A handle of the group with that number, which begins to exist with its first change.
    #[must_use]
    pub fn group(&self, id: u64) -> RaftGroup {
        let known = {
            let groups = self.store.groups.read().unwrap_or_else(PoisonError::into_inner);
            groups.get(&id).map(Arc::clone)
        };
        let group = known.unwrap_or_else(|| {
            let mut groups = self.store.groups.write().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Group::new(id, GroupState::default()));
            Arc::clone(groups.entry(id).or_insert_with(new))
        });
        RaftGroup::new(Arc::clone(&self.store), group)
    }

    /// The groups of which something is known, in the order of their numbers.
    #[must_use]
    pub fn groups(&self) -> Vec<u64> {
        let groups = self.store.all_groups();
        let known = groups.iter().filter(|group| !group.lock().is_blank());
        known.map(|group| group.id).collect()
    }

    /// Drops a group with all that is known of it; it can begin anew. Its handles stay usable, on what
    /// is an empty group then.
    ///
    /// # Errors
    ///
    /// As [`RaftGroup::append`].
    ///
    /// # Cancel safety
    ///
    /// As [`RaftGroup::append`].
    pub async fn remove_group(&self, id: u64) -> Result<AppendTicket> {
        self.group(id).change(|_| Ok(Some(Change::Remove))).await
    }

    /// Has everything ordered before the call synced, of all groups, and says up to where that is.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`](crate::Error::Poisoned), [`Error::Closed`](crate::Error::Closed).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only ends the waiting.
    pub async fn sync(&self) -> Result<Lsn> {
        self.store.wal.sync().await
    }

    /// Ends the log: what was ordered is synced, every completion is called, the lock is freed. Other
    /// handles get [`Error::Closed`](crate::Error::Closed) from then on. Closing a closed log is
    /// fine.
    ///
    /// # Errors
    ///
    /// As [`Wal::close`].
    ///
    /// # Cancel safety
    ///
    /// As [`Wal::close`].
    pub async fn close(&self) -> Result<()> {
        self.store.wal.close().await
    }

    /// The log underneath, to be looked at: marks, statistics, the report of its recovery, leases,
    /// copies. Whoever appends to it or truncates it destroys the groups.
    #[must_use]
    pub fn wal(&self) -> &Wal {
        &self.store.wal
    }

    /// The number of the codec that it was opened with.
    #[must_use]
    pub fn codec(&self) -> u64 {
        self.store.codec
    }

    /// What it takes and has done. Looks at every group.
    #[must_use]
    pub fn stats(&self) -> RaftStats {
        RaftStats {
            group_count: self.groups().len() as u64,
            cached_bytes: self.store.cache.bytes(),
            state_count: self.store.keeper.checkpoint_count.load(Ordering::Relaxed),
            rewritten_bytes: self.store.keeper.copied_bytes.load(Ordering::Relaxed),
            opened_from_hint: self.store.opened.from_hint,
            opened_bytes: self.store.opened.read_bytes,
        }
    }
}

impl fmt::Debug for RaftLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftLog").field("wal", &self.store.wal).finish_non_exhaustive()
    }
}
