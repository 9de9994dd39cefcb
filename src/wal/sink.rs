//! The log as a sink of records, for those who have a stream of them.

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
    pipeline::{Goal, OpenLog, Span},
    wal::handle::Wal,
};

/// A [`Sink`] of records: sending appends, flushing syncs. Made by [`Wal::sink`].
///
/// - *Ready* is back pressure: it comes when the record before has its place in the log. At most
///   one record waits in the sink; all others are the log's, and on their way to the file.
/// - *Flush* resolves when all that was sent is on stable storage. Everybody who waits for a sync
///   shares it.
/// - *Close* only flushes. **It doesn't close the log**, which may have other handles:
///   [`Wal::close`] does.
///
/// Sending without flushing promises what [`Wal::enqueue`] promises.
///
/// # Errors
///
/// Those of [`Wal::append`]. [`Error::RecordTooLarge`] comes from sending the record, and
/// [`Error::NoSpace`] from the next call of any kind, if the record had to wait; after both that
/// record, and it alone, isn't in the log, and the sink can be used on. [`Error::Poisoned`] and
/// [`Error::Closed`] come back from every call. Sending without having asked for readiness may
/// give [`Error::Full`]: nothing was appended.
///
/// # Cancel safety
///
/// Dropping a future made of the sink (`send`, `flush`, `feed`) takes nothing back: what was sent
/// stays sent, and a record that still waits goes on at the next call. Dropping the sink drops the
/// record that waits, whole; all others stay.
#[must_use = "sinks do nothing unless polled"]
pub struct WalSink {
    core: Arc<OpenLog>,
    /// The record that found no room when it was sent, on its way.
    waiting: Option<BoxFuture<'static, Result<Span>>>,
    /// What a flush has to cover.
    goal: Goal,
    /// Something that was sent since the last flush is no part of the log any more.
    cut: Option<Error>,
    flushing: Option<BoxFuture<'static, Result<()>>>,
}

impl Wal {
    /// A sink that appends what it is sent, and syncs when it is flushed. There may be any number
    /// of them.
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
            self.cut = self.cut.take().or(self.core.epochs.check(self.goal).err());
        }
        self.goal = span.goal;
    }

    /// Gets the record that waits into the log.
    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(waiting) = &mut self.waiting {
            let reserved = ready!(waiting.as_mut().poll(context));
            // Whatever the answer, it is given once.
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
        Poll::Ready(self.core.status.check_new())
    }

    fn start_send(mut self: Pin<&mut Self>, payload: Bytes) -> Result<()> {
        if self.waiting.is_some() {
            return Err(Error::Full);
        }
        match self.core.try_reserve_record(payload.clone().into()) {
            Ok(span) => {
                self.core.kick_writer();
                self.sent(span);
                Ok(())
            }
            Err(Error::Full) => {
                let core = Arc::clone(&self.core);
                self.waiting = Some(Box::pin(async move {
                    let span = core.reserve_record(payload.into()).await?;
                    core.kick_writer();
                    Ok(span)
                }));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_waiting(context))?;
        if let Some(cut) = self.cut.take().or(self.core.epochs.check(self.goal).err()) {
            // Said once: what is sent from now on is none of it.
            self.flushing = None;
            self.goal = self.core.goal(|| Lsn::ZERO);
            return Poll::Ready(Err(cut));
        }
        while self.core.synced.get() < self.goal.end {
            let (core, goal) = (Arc::clone(&self.core), self.goal);
            // One that was begun before more was sent ends earlier: then there is another round.
            let flushing = self
                .flushing
                .get_or_insert_with(|| Box::pin(async move { core.wait_synced(goal).await }));
            let flushed = ready!(flushing.as_mut().poll(context));
            self.flushing = None;
            flushed?;
        }
        self.flushing = None;
        // After the mark was read, which may be one of a later epoch.
        Poll::Ready(self.core.epochs.check(self.goal))
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
