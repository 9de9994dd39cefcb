//! [`Ticket`]: the receipt of a record that has an LSN and is not written yet.

use std::{fmt, sync::Arc};

use crate::{
    error::Result,
    lsn::Lsn,
    pipeline::{OpenLog, Span, dispatch, wait::reach_written},
};

/// A receipt for an enqueued record, which waits until the record is written or synced.
///
/// Dropping a ticket changes nothing, because the record is already part of the log.
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

    /// Returns the LSN of the record.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.span.lsn
    }

    /// Returns the position behind the record, as [`Record::end`](crate::Record::end).
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.span.goal.end
    }

    /// Resolves when the operating system has the record.
    ///
    /// The record then survives the end of the process.
    ///
    /// # Errors
    ///
    /// - [`Error::Poisoned`](crate::Error::Poisoned) if a write or a sync failed before.
    /// - [`Error::Closed`](crate::Error::Closed) if the log's runtime was shut down before.
    /// - [`Error::Truncated`](crate::Error::Truncated) if
    ///   [`Wal::truncate_after`](crate::Wal::truncate_after) dropped the record, even if a later
    ///   record has its LSN now.
    /// - [`Error::Indeterminate`](crate::Error::Indeterminate) while the I/O stalls, with
    ///   [`OnStall::FailWaiters`](crate::OnStall::FailWaiters).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future only ends the wait.
    pub async fn written(&self) -> Result<()> {
        reach_written(&self.core, self.span).await
    }

    /// Syncs the record, and resolves when it survives a power loss.
    ///
    /// # Errors
    ///
    /// As [`Ticket::written`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future only ends the wait.
    pub async fn synced(&self) -> Result<()> {
        let commit = self.core.measures().instruments.commit();
        dispatch::sync(&self.core, self.span).await?;
        commit.done();
        Ok(())
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
