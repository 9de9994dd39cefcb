//! The receipt of a record that was ordered and is on its way.

use std::{fmt, sync::Arc};

use crate::{
    error::Result,
    lsn::Lsn,
    pipeline::{OpenLog, Span},
};

/// A record that has its place in the log, and can be waited for.
///
/// Dropping a ticket changes nothing: the record belongs to the log.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// # use highwater::{Wal, storage::MemoryStorage};
/// # let wal = Wal::options().open_with(MemoryStorage::new()).await?;
/// let first = wal.enqueue(b"first").await?;
/// let second = wal.enqueue(b"second").await?;
/// second.synced().await?;
/// assert!(wal.watermarks().synced > first.lsn());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Ticket {
    core: Arc<OpenLog>,
    span: Span,
}

impl Ticket {
    pub(crate) fn new(core: Arc<OpenLog>, span: Span) -> Self {
        Ticket { core, span }
    }

    /// The record's position.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.span.lsn
    }

    /// Resolves when the record is with the operating system: it survives the end of the process.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`](crate::Error::Poisoned) if a write or sync failed before,
    /// [`Error::Closed`](crate::Error::Closed) if the log's runtime went away before,
    /// [`Error::Truncated`](crate::Error::Truncated) if the record was dropped by
    /// [`Wal::truncate_after`](crate::Wal::truncate_after): never answered for by what came later.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only ends the waiting.
    pub async fn written(&self) -> Result<()> {
        self.core.reach_written(self.span.goal).await
    }

    /// Has the record synced, and resolves when it is: it survives a loss of power.
    ///
    /// # Errors
    ///
    /// As [`Ticket::written`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only ends the waiting.
    pub async fn synced(&self) -> Result<()> {
        self.core.wait_synced(self.span.goal).await
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("lsn", &self.span.lsn)
            .field("end", &self.span.goal.end)
            .finish()
    }
}
