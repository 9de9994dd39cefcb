//! The receipt of what was ordered and is on its way.

use std::{fmt, sync::Arc};

use crate::{
    error::Result,
    lsn::Lsn,
    pipeline::{Goal, OpenLog},
};

/// A change of a group that has its place in the log, and can be waited for.
///
/// The log is one stream: when a change is durable, all that were ordered before it are, of any group.
/// Dropping a ticket changes nothing.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// use highwater::{raft::{Entries, RaftLog}, storage::MemoryStorage};
/// let log = RaftLog::options().open_with(MemoryStorage::new()).await?;
/// let group = log.group(1);
/// let mut entries = Entries::new();
/// entries.push(1, 1, b"set x");
/// let ticket = group.append(entries).await?;
/// // Called once, from a thread of the log's, without any lock; in the order of the log.
/// ticket.on_durable(|outcome| assert!(outcome.is_ok()));
/// group.set_vote("2: node 1").await?.synced().await?;
/// # Ok(()) }
/// ```
#[must_use = "what was ordered is durable when the ticket says so"]
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

    /// Where its record stands, or the first of them. Where nothing had to be changed, what was
    /// ordered before.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Whether it is durable now.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.core.synced.get() >= self.goal.end
    }

    /// Has it synced, and resolves when it is: it survives a loss of power. Everybody who waits
    /// shares a flush.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`](crate::Error::Poisoned) if a write or sync failed before,
    /// [`Error::Closed`](crate::Error::Closed).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only ends the waiting.
    pub async fn synced(mut self) -> Result<()> {
        self.is_awaited = true;
        self.core.wait_synced(self.goal).await
    }

    /// A mistake: it waits for nothing.
    pub(super) fn already(mut self) -> Self {
        self.goal.end = Lsn::ZERO;
        self
    }

    /// It is written and synced with what comes next.
    pub(super) fn rides_along(mut self) {
        self.is_awaited = true;
    }

    /// Has it synced, and calls `done` when it is, or with the reason why it never will be.
    ///
    /// It is called exactly once, whatever happens: also when the log is poisoned, closed or
    /// dropped, and when its runtime is gone. Completions are called in the order of the log, one
    /// after the other, with no lock held, by the thread that has moved the mark: mostly one of the
    /// runtime's blocking pool, and the caller's if it is durable already. The next one waits for
    /// it, and so does the next flush: hand the news on and return. If it panics the others are
    /// called all the same.
    pub fn on_durable(mut self, done: impl FnOnce(Result<()>) + Send + 'static) {
        self.is_awaited = true;
        self.core.when_synced(self.goal, Box::new(done));
    }
}

impl Drop for AppendTicket {
    fn drop(&mut self) {
        // Who asks for a sync has it written on the way; for the others it is written soon.
        if !self.is_awaited {
            self.core.kick_writer();
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
