//! [`WalSink`]: the log as a sink for a stream of records.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{Sink, future::BoxFuture, ready};

use crate::{
    error::{Error, Result},
    lsn::Lsn,
    pipeline::{Goal, OpenLog, Span, dispatch},
    wal::handle::Wal,
};

/// A [`Sink`] of records that appends each record and syncs on flush; made by [`Wal::sink`].
///
/// - *Ready* is back pressure: it resolves when the previous record has an LSN. At most one record
///   waits in the sink. All other records are in the log, which writes them.
/// - *Flush* resolves when all sent records are on stable storage. Tasks that wait at the same time
///   share a flush.
/// - *Close* only flushes. **It does not close the log**, which may have other handles:
///   [`Wal::close`] does.
///
/// Sending without a flush gives the promise of [`Wal::enqueue`].
///
/// # Errors
///
/// Those of [`Wal::append`], and these:
///
/// - [`Error::RecordTooLarge`] when the record is sent. That record is not in the log.
/// - [`Error::NoSpace`], [`Error::OverBudget`] or [`Error::Io`] at the next call of any kind, if
///   the record had to wait. That record is not in the log.
/// - [`Error::Full`] if a record is sent before the sink is ready. Nothing was appended.
/// - [`Error::Truncated`] at a flush, once, if a sent record was dropped by
///   [`Wal::truncate_after`].
/// - [`Error::Poisoned`] and [`Error::Closed`] at every call.
///
/// The sink can be used again after all errors except the last two.
///
/// # Cancel safety
///
/// Dropping a future of the sink (`send`, `flush`, `feed`) takes no record back. A record that
/// still waits is appended by the next call. Dropping the sink drops the waiting record as a whole;
/// all others stay.
#[must_use = "sinks do nothing unless polled"]
pub struct WalSink {
    core: Arc<OpenLog>,
    /// The append of a record that found no room when it was sent.
    waiting: Option<BoxFuture<'static, Result<Span>>>,
    /// The end of the sent records, which a flush must reach.
    goal: Goal,
    /// Set if a truncation has dropped a record that was sent since the last flush.
    cut: Option<Error>,
    flushing: Option<BoxFuture<'static, Result<()>>>,
}

impl Wal {
    /// Returns a sink that appends each sent record, and syncs when it is flushed.
    ///
    /// A log may have any number of sinks.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// use bytes::Bytes;
    /// use futures::{SinkExt, StreamExt, stream};
    /// # let wal = highwater::Wal::options()
    /// #     .open_with(highwater::storage::MemoryStorage::new()).await?;
    /// let mut sink = wal.sink();
    /// let changes = stream::iter(["first", "second"]).map(Bytes::from);
    /// sink.send_all(&mut changes.map(Ok)).await?;
    /// assert_eq!(wal.watermarks().synced, wal.watermarks().reserved);
    /// # Ok(()) }
    /// ```
    pub fn sink(&self) -> WalSink {
        let goal = self.core().goal(|| Lsn::ZERO);
        WalSink { core: Arc::clone(self.core()), waiting: None, goal, cut: None, flushing: None }
    }
}

impl WalSink {
    fn sent(&mut self, span: Span) {
        if span.goal.epoch != self.goal.epoch {
            self.cut = self.cut.take().or(self.core.epochs().check(self.goal).err());
        }
        self.goal = span.goal;
    }

    /// Appends the waiting record, if there is one.
    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(waiting) = &mut self.waiting {
            let reserved = ready!(waiting.as_mut().poll(context));
            // An error is returned once.
            self.waiting = None;
            self.sent(reserved?);
        }
        Poll::Ready(Ok(()))
    }
}

impl Sink<Bytes> for WalSink {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_waiting(context))?;
        Poll::Ready(self.core.status().check_new())
    }

    fn start_send(mut self: Pin<&mut Self>, payload: Bytes) -> Result<()> {
        if self.waiting.is_some() {
            return Err(Error::Full);
        }
        match dispatch::try_enqueue(&self.core, payload.clone().into()) {
            Ok(span) => {
                self.sent(span);
                Ok(())
            }
            Err(Error::Full) => {
                let core = Arc::clone(&self.core);
                self.waiting =
                    Some(Box::pin(async move { dispatch::enqueue(&core, payload.into()).await }));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_waiting(context))?;
        if let Some(cut) = self.cut.take().or(self.core.epochs().check(self.goal).err()) {
            // Returned once, because records sent from now on are not affected.
            self.flushing = None;
            self.goal = self.core.goal(|| Lsn::ZERO);
            return Poll::Ready(Err(cut));
        }
        while self.core.synced().get() < self.goal.end {
            let (core, goal) = (Arc::clone(&self.core), self.goal);
            // A sync that began before more was sent ends too early, so the loop starts another.
            let flushing = self.flushing.get_or_insert_with(|| {
                Box::pin(async move {
                    let commit = core.measures().instruments.commit();
                    dispatch::sync(&core, goal.into()).await?;
                    commit.done();
                    Ok(())
                })
            });
            let flushed = ready!(flushing.as_mut().poll(context));
            self.flushing = None;
            flushed?;
        }
        self.flushing = None;
        // Checked after the mark was read, because the mark may be of a later epoch.
        Poll::Ready(self.core.epochs().check(self.goal))
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_flush(context)
    }
}

impl fmt::Debug for WalSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalSink")
            .field("end", &self.goal.end)
            .field("is_waiting", &self.waiting.is_some())
            .finish_non_exhaustive()
    }
}
