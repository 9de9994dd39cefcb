//! The receipt of a change that has its position in the log.

use std::{fmt, sync::Arc};

use crate::{
    lsn::Lsn,
    pipeline::{
        OpenLog,
        embed::{Goal, Span, on_durable, request_write, sync},
    },
    raft::error::{Error, Result},
};

/// A change of a group that has its position in the log.
///
/// When a change is durable, all changes with lower LSNs are durable too, in any group. Dropping
/// the ticket does not undo the change.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::raft::Result<()> {
/// use highwater::{raft::{Entries, RaftLog}, storage::MemoryStorage};
/// let log = RaftLog::options().open_with(MemoryStorage::new()).await?;
/// let group = log.group(1);
/// let mut entries = Entries::new();
/// entries.push(1, 1, b"set x");
/// let ticket = group.append(entries).await?;
/// // Called once, in the order of the log, on a thread of the log that holds no lock.
/// ticket.on_durable(|outcome| assert!(outcome.is_ok()));
/// group.set_vote("2: node 1").await?.synced().await?;
/// # Ok(()) }
/// ```
#[must_use = "the change is durable only when the ticket reports it"]
pub struct AppendTicket {
    core: Arc<OpenLog>,
    lsn: Lsn,
    goal: Goal,
    is_awaited: bool,
}

impl AppendTicket {
    pub(super) fn new(core: &Arc<OpenLog>, lsn: Lsn, goal: Goal) -> Self {
        AppendTicket { core: Arc::clone(core), lsn, goal, is_awaited: false }
    }

    /// Returns the LSN of the change's record, or of the first if it has several.
    ///
    /// If there was nothing to change, it is 1 above the LSN of the group's last record.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Returns true if the change is durable now.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.core.synced().get() >= self.goal.end
    }

    /// Requests a sync and waits until the change survives a power loss.
    ///
    /// All waiting tasks share one flush.
    ///
    /// # Errors
    ///
    /// [`Poisoned`](crate::Error::Poisoned) if a write or sync failed before,
    /// [`Closed`](crate::Error::Closed), and [`Indeterminate`](crate::Error::Indeterminate) while
    /// the I/O stalls, with [`OnStall::FailWaiters`](crate::OnStall::FailWaiters).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future only stops the wait.
    pub async fn synced(mut self) -> Result<()> {
        self.is_awaited = true;
        let commit = self.core.measures().instruments.commit();
        sync(&self.core, Span { lsn: self.lsn, goal: self.goal }).await?;
        commit.done();
        Ok(())
    }

    /// Makes the ticket report durability at once. A deliberate mistake, for the tests.
    pub(super) fn without_sync(mut self) -> Self {
        self.goal.end = Lsn::ZERO;
        self
    }

    /// Leaves the write and the sync of the change to the next one.
    pub(super) fn join_next_write(mut self) {
        self.is_awaited = true;
    }

    /// Requests a sync and calls `done` when the change is durable or never will be.
    ///
    /// - `done` is called exactly once, also if the log is poisoned, closed or dropped, or if its
    ///   runtime is gone.
    /// - With [`OnStall::FailWaiters`](crate::OnStall::FailWaiters) it gets
    ///   [`Indeterminate`](crate::Error::Indeterminate) while the I/O stalls. The change may still
    ///   become durable, so it is neither saved nor lost.
    /// - Completions run one at a time, in the order of the log, without a lock.
    /// - They run on the thread that moved the mark, mostly one of the runtime's blocking pool. If
    ///   the change is durable already, `done` runs on the caller's thread.
    /// - The next completion and the next flush wait for `done`: pass the outcome on and return.
    /// - If `done` panics, the other completions still run.
    pub fn on_durable(mut self, done: impl FnOnce(Result<()>) + Send + 'static) {
        self.is_awaited = true;
        let lsn = self.lsn;
        let done = move |outcome: crate::error::Result<()>| {
            done(outcome.map_err(|error| Error::from(error.for_record(lsn))));
        };
        on_durable(&self.core, self.goal, Box::new(done));
    }
}

impl Drop for AppendTicket {
    fn drop(&mut self) {
        // A sync writes the record first. Without one, the record is written soon.
        if !self.is_awaited {
            request_write(&self.core);
        }
    }
}

impl fmt::Debug for AppendTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppendTicket")
            .field("lsn", &self.lsn)
            .field("end", &self.goal.end)
            .finish_non_exhaustive()
    }
}
