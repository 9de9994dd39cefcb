//! The handle of the log of all groups.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    lsn::Lsn,
    raft::{
        error::Result, group::RaftGroup, records::record::GroupChange, store::Store,
        ticket::AppendTicket,
    },
    wal::Wal,
};

/// A log of Raft groups in one [`Wal`]. The handle is cheap to clone.
///
/// Each group has its own entries, vote and other state. All groups are written to the same files
/// and share each flush, so a thousand groups need as few flushes as one.
///
/// Only one task at a time may change a group, as in a Raft node. Groups are independent, and any
/// task may read. If the last handle is dropped without [`close`](RaftLog::close), pending changes
/// are written but not synced.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::raft::Result<()> {
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

/// Statistics of a Raft log, in addition to those of its [`Wal`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RaftStats {
    /// The number of groups that have entries or state.
    pub group_count: u64,
    /// The size of the cache, in bytes.
    pub cached_bytes: u64,
    /// The number of checkpoints written since the log was opened.
    pub checkpoint_count: u64,
    /// Bytes of entries that were rewritten so that old segments could be removed.
    pub rewritten_bytes: u64,
    /// True if opening started at the checkpoint that the newest segment names.
    ///
    /// Otherwise opening searched the whole log.
    pub opened_from_hint: bool,
    /// Bytes of the log that opening read.
    pub opened_bytes: u64,
}

impl RaftLog {
    /// Returns a handle of the group with number `id`. The group is created by its first change.
    #[must_use]
    pub fn group(&self, id: u64) -> RaftGroup {
        RaftGroup::new(Arc::clone(&self.store), self.store.group(id))
    }

    /// Returns the numbers of the groups that have entries or state, in ascending order.
    #[must_use]
    pub fn groups(&self) -> Vec<u64> {
        let groups = self.store.all_groups();
        let known = groups.iter().filter(|group| !group.lock().is_blank());
        known.map(|group| group.id).collect()
    }

    /// Removes a group with its entries and state.
    ///
    /// Its handles stay valid and refer to an empty group, which can be used again.
    ///
    /// # Errors
    ///
    /// As [`RaftGroup::append`].
    ///
    /// # Cancel safety
    ///
    /// As [`RaftGroup::append`].
    pub async fn remove_group(&self, id: u64) -> Result<AppendTicket> {
        self.group(id).change(|_| Some(GroupChange::Remove)).await
    }

    /// Syncs every earlier change of all groups. Returns the LSN up to which the log is durable.
    ///
    /// # Errors
    ///
    /// [`Poisoned`](crate::Error::Poisoned), [`Closed`](crate::Error::Closed).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future only stops the wait.
    pub async fn sync(&self) -> Result<Lsn> {
        Ok(self.store.wal.sync().await?)
    }

    /// Closes the log: syncs every change, calls every completion and releases the directory's
    /// lock.
    ///
    /// Other handles get [`Closed`](crate::Error::Closed) from then on. Closing a closed log does
    /// nothing.
    ///
    /// # Errors
    ///
    /// As [`Wal::close`].
    ///
    /// # Cancel safety
    ///
    /// As [`Wal::close`].
    pub async fn close(&self) -> Result<()> {
        Ok(self.store.wal.close().await?)
    }

    /// Returns the log underneath, for marks, statistics, the recovery report, leases and copies.
    ///
    /// Never append to that log or truncate it, because this destroys the groups.
    #[must_use]
    pub fn wal(&self) -> &Wal {
        &self.store.wal
    }

    /// Returns the codec number that the log was opened with.
    #[must_use]
    pub fn codec(&self) -> u64 {
        self.store.codec
    }

    /// Returns the statistics. Locks every group once.
    #[must_use]
    pub fn stats(&self) -> RaftStats {
        RaftStats {
            group_count: self.groups().len() as u64,
            cached_bytes: self.store.cache.bytes(),
            checkpoint_count: self.store.upkeep.checkpoint_count.load(Ordering::Relaxed),
            rewritten_bytes: self.store.upkeep.copied_bytes.load(Ordering::Relaxed),
            opened_from_hint: self.store.opening.from_hint,
            opened_bytes: self.store.opening.read_bytes,
        }
    }
}

impl fmt::Debug for RaftLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftLog").field("wal", &self.store.wal).finish_non_exhaustive()
    }
}

impl RaftGroup {
    /// Returns the log that contains the group.
    #[must_use]
    pub fn log(&self) -> RaftLog {
        RaftLog { store: Arc::clone(&self.store) }
    }
}
