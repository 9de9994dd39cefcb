//! [`Follow`]: streams the existing records, and then each new one below a mark.
//!
//! There is no hand-over between the two. A follower reads all records between its position and its
//! mark. If there are none, it waits in the queue of the mark. So there can be neither a gap nor a
//! duplicate.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{Stream, ready, stream::FusedStream};

use crate::{
    error::{ClosedBy, Error, Result},
    format::frame::is_aligned,
    lsn::{Lsn, Start},
    pipeline::{Core, Mark, WaiterId},
    record::Record,
    replay::{AfterSeen, LiveSource, Records, position_after_seen},
    sabotage::{self, Sabotage},
};

/// The mark below which a follower stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Below {
    Synced,
    Written,
}

/// The stream of [`Wal::follow`](crate::Wal::follow) and
/// [`Wal::follow_written`](crate::Wal::follow_written).
///
/// It yields the log's records from a position on, then each new one. Each record is yielded once,
/// oldest first.
///
/// # How it continues
///
/// Each move of its mark wakes the stream. There is no timer and no polling. While the mark does
/// not move, the follower has one entry in the queue of the mark and does no I/O. It never starts a
/// sync: if no task syncs, a follower of durable records waits.
///
/// It reads in chunks of about 256 KiB, and only when it is polled. For any lag, it holds about 1.5
/// MiB at most, or two units if they are larger. A slow follower delays no other task, because the
/// records that it has not yielded yet are in the files.
///
/// # How it ends
///
/// | event | the stream yields all records below its mark, and then |
/// |---|---|
/// | [`close`](crate::Wal::close) | ends |
/// | the last handle was dropped, and its remaining work is done | ends |
/// | a write or a sync failed | yields [`Error::Poisoned`] and ends |
/// | the runtime of the log's I/O was shut down | yields [`Error::Closed`] and ends |
///
/// Records that were not below the mark when the log stopped are not yielded. They may be in the
/// log, so an end with an error is not the end of the log. Open the log again, and
/// continue from [`Follow::position`].
///
/// [`Error::Truncated`] does not end the stream:
/// [`Wal::truncate_after`](crate::Wal::truncate_after) has removed yielded records, all from `to`
/// on. The stream continues with the records that are there now. A truncation of records that were
/// not yielded yet causes no error.
///
/// Any other error ends the stream: [`Error::NotABoundary`], [`Error::BelowFirst`] if the next
/// record was truncated, [`Error::Corrupt`], [`Error::RecordTooLarge`],
/// [`Error::UnsupportedCompression`], [`Error::Io`].
///
/// A follower is not a handle: it does not keep the log open for new records. After the last
/// handle, ticket and job, it yields the remaining records, ends, and releases the log. Until then
/// it keeps the log and its directory's lock, like a replay. So poll a follower to its end, or drop
/// it. `close` does not wait for followers and frees the lock immediately. A follower that has not
/// yielded all records then continues to read. If the next owner of the directory removes the
/// files, the follower gets [`Error::Closed`].
///
/// # Cancel safety
///
/// Cancel-safe: the next future continues after the last yielded record. Dropping the stream
/// removes its entry in the queue of the mark. Another stream can continue at [`Follow::position`].
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// use futures::TryStreamExt;
/// use highwater::{Lsn, Wal, storage::MemoryStorage};
///
/// let wal = Wal::options().open_with(MemoryStorage::new()).await?;
/// wal.append_and_sync("history").await?;
/// let mut follower = wal.follow(Lsn::ZERO);
/// let replica = tokio::spawn(async move {
///     let mut copied = Vec::new();
///     while let Some(record) = follower.try_next().await? {
///         copied.push(record.payload);
///     }
///     highwater::Result::Ok(copied)
/// });
/// wal.append_and_sync("live").await?;
/// wal.close().await?;
/// assert_eq!(replica.await.unwrap()?, ["history", "live"]);
/// # Ok(()) }
/// ```
#[must_use = "streams do nothing unless polled"]
pub struct Follow {
    /// `None` after the end of the stream, which then does not hold the log.
    live: Option<LiveFollow>,
    /// An error that is the only item.
    refused: Option<Error>,
    position: Lsn,
    lag_at_end: u64,
}

impl Follow {
    pub(crate) fn new(core: &Arc<Core>, start: Start, below: Below) -> Self {
        let epoch = core.epoch();
        let from = start.lsn();
        // If `from` is between the mark and the tail, the stream begins when the mark passes it.
        let end = core.tail();
        let refused = if let Err(error) = core.status().check_read() {
            Some(error)
        } else if from > end {
            Some(Error::AboveEnd { lsn: from, end })
        } else if !is_aligned(from) {
            Some(Error::NotABoundary { lsn: from })
        } else {
            None
        };
        let live = refused.is_none().then(|| LiveFollow::new(core, start, below, epoch));
        Follow { live, refused, position: from, lag_at_end: 0 }
    }

    /// Returns the position after the last yielded record.
    ///
    /// A follower or a replay from this position yields the next record, also after the log was
    /// opened again. A crash may have removed records below the position of a follower of written
    /// records, but not of durable ones.
    ///
    /// A follower made with [`Start::After`] returns the LSN of that record until its first polls
    /// have found the record's end.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// Returns the bytes between the position and the mark, including the headers of frames.
    ///
    /// 0 if all records below the mark were yielded. After the end of the stream, this is the last
    /// value.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.live.as_ref().map_or(self.lag_at_end, |live| live.bytes_behind(self.position))
    }

    /// Ends the stream and releases the log.
    fn end(&mut self) {
        self.lag_at_end = self.lag();
        self.live = None;
    }
}

impl Stream for Follow {
    type Item = Result<Record>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(error) = this.refused.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let Some(live) = &mut this.live else {
            return Poll::Ready(None);
        };
        let item = ready!(live.poll_next(&mut this.position, context));
        if !matches!(item, Some(Ok(_) | Err(Error::Truncated { .. }))) {
            this.end();
        }
        Poll::Ready(item)
    }
}

impl FusedStream for Follow {
    fn is_terminated(&self) -> bool {
        self.live.is_none() && self.refused.is_none()
    }
}

impl fmt::Debug for Follow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follow")
            .field("position", &self.position)
            .field("lag", &self.lag())
            .finish_non_exhaustive()
    }
}

/// The state of a follower that has not ended.
struct LiveFollow {
    core: Arc<Core>,
    below: Below,
    /// The epoch up to which truncations of the end were handled.
    epoch: u64,
    /// The end of the last yielded record, or the start of the stream.
    yielded: Lsn,
    /// The record that the consumer has seen, until the stream has passed it.
    seen: Option<Lsn>,
    /// Finds the start of the stream, if that record was truncated.
    after_seen: Option<AfterSeen>,
    /// The records from the position up to the mark at the last look.
    records: Records,
    waiter: Option<WaiterId>,
    /// The position for which the waiter waits.
    target: Lsn,
}

/// Returns an empty stream that can be continued from `from`.
fn records(core: &Arc<Core>, from: Lsn, epoch: u64) -> Records {
    let source = Arc::new(LiveSource::surviving_close(core, from, epoch));
    Records::new(source, Arc::clone(core.executor()), from, from)
}

/// Starts the search for the position at which a consumer continues.
fn find_start(core: &Arc<Core>, start: Start) -> AfterSeen {
    let live = Arc::clone(core);
    AfterSeen::new(core.executor(), move || position_after_seen(&live, start))
}

/// The result of waiting.
enum Waited {
    /// The mark has passed the target.
    Moved,
    /// The mark will never pass the target.
    End(Option<Error>),
}

impl LiveFollow {
    fn new(core: &Arc<Core>, start: Start, below: Below, epoch: u64) -> Self {
        let (from, seen) = (start.lsn(), start.seen());
        let is_gone = from < core.beginning().readable_first();
        let after_seen = is_gone.then(|| find_start(core, start));
        let records = records(core, from, epoch);
        // A cut that removes the seen record counts as a cut of a yielded record.
        let yielded = seen.map_or(from, |seen| seen.plus(1));
        let below = if sabotage::is_on(Sabotage::FollowUnsynced) { Below::Written } else { below };
        let core = Arc::clone(core);
        let (waiter, target) = (None, from);
        LiveFollow { core, below, epoch, yielded, seen, after_seen, records, waiter, target }
    }

    fn mark(&self) -> &Mark {
        match self.below {
            Below::Synced => self.core.synced(),
            Below::Written => self.core.written(),
        }
    }

    fn bytes_behind(&self, position: Lsn) -> u64 {
        self.mark().get().since(self.core.past_control(position))
    }

    fn poll_next(
        &mut self,
        position: &mut Lsn,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Record>>> {
        loop {
            self.check_for_cuts(position)?;
            if let Some(after_seen) = &mut self.after_seen {
                let found = ready!(after_seen.poll(context));
                self.after_seen = None;
                let seen = self.seen.take();
                *position = found?;
                // The record may still exist.
                self.seen = seen.filter(|seen| seen == position);
                self.yielded = self.yielded.max(*position);
                self.records.continue_with(*position, *position);
            }
            match ready!(self.records.poll(context)) {
                Some(Ok(record)) => {
                    *position = self.records.yielded_end();
                    self.yielded = *position;
                    if self.seen.take() == Some(record.lsn) {
                        continue;
                    }
                    return Poll::Ready(Some(Ok(record)));
                }
                // The error came from reading truncated records.
                Some(Err(_)) if self.epoch != self.core.epochs().current() => continue,
                // The position was truncated during the read.
                Some(Err(_)) if self.find_after_seen(*position) => continue,
                Some(Err(error)) => return Poll::Ready(Some(Err(self.explain(error)))),
                // There may be control records after the last record.
                None => *position = self.records.until(),
            }
            let from = self.core.past_control(*position);
            let mark = self.mark().get();
            if from < mark {
                if self.find_after_seen(from) {
                    continue;
                }
                self.records.continue_with(from, mark);
            } else if let Waited::End(error) = ready!(self.poll_past(from, context)) {
                return Poll::Ready(error.map(Err));
            }
        }
    }

    /// Handles truncations of the end since the last call.
    ///
    /// Drops the records that were read ahead, because some may be gone. Fails if a yielded record
    /// is gone.
    fn check_for_cuts(&mut self, position: &mut Lsn) -> Result<()> {
        if self.core.epochs().current() == self.epoch {
            return Ok(());
        }
        let epoch = self.core.epoch();
        let cut = self.core.epochs().cut_since(self.epoch);
        self.epoch = epoch;
        let seen = self.seen.take();
        let to = cut.unwrap_or(*position).min(*position);
        let is_taken_back = cut.is_some_and(|cut| cut < self.yielded);
        *position = to;
        // The seen record stays known unless the cut has removed it.
        self.seen = seen.filter(|_| !is_taken_back);
        self.yielded = if is_taken_back { to } else { self.yielded };
        self.leave_queue();
        self.records = records(&self.core, to, epoch);
        if is_taken_back {
            self.after_seen = None;
            return Err(Error::Truncated { to });
        }
        Ok(())
    }

    /// Waits until the mark has passed `from`, or until the log ends.
    fn poll_past(&mut self, from: Lsn, context: &mut Context<'_>) -> Poll<Waited> {
        let target = from.plus(1);
        if target != self.target {
            self.leave_queue();
            self.target = target;
        }
        let mut waiter = self.waiter.take();
        let moved = self.mark().register_reader(target, &mut waiter, context.waker());
        self.waiter = waiter;
        // Checked after registering, because later changes wake this task.
        let end = match self.core.status().check() {
            _ if moved || self.core.epochs().current() != self.epoch => {
                return Poll::Ready(Waited::Moved);
            }
            Err(_) if self.core.status().was_closed() => None,
            Err(error) => Some(error),
            Ok(()) if self.core.status().is_abandoned() => None,
            Ok(()) => return Poll::Pending,
        };
        // The mark may have moved once more before the end.
        if self.mark().get() >= target {
            return Poll::Ready(Waited::Moved);
        }
        if self.core.status().was_closed() {
            // Reads after the close may have opened files again.
            self.core.segments().close_files();
        }
        Poll::Ready(Waited::End(end))
    }

    /// Returns whether `position` was truncated from the beginning of the log.
    ///
    /// If so, starts the search for the position at which the stream continues.
    fn find_after_seen(&mut self, position: Lsn) -> bool {
        let is_gone = position < self.core.beginning().readable_first();
        if is_gone {
            let is_seen = self.seen == Some(position);
            let start = if is_seen { Start::After(position) } else { Start::At(position) };
            self.after_seen = Some(find_start(&self.core, start));
        }
        is_gone
    }

    /// Returns the error of the stream for an error of a read.
    fn explain(&self, error: Error) -> Error {
        match error {
            // The directory may have another owner now, so the error does not concern this log.
            Error::Io { .. } | Error::Corrupt { .. } if self.core.status().was_closed() => {
                Error::Closed { by: ClosedBy::FilesRemoved }
            }
            error => error,
        }
    }

    fn leave_queue(&mut self) {
        if let Some(waiter) = self.waiter.take() {
            self.mark().cancel(waiter);
        }
    }
}

impl Drop for LiveFollow {
    fn drop(&mut self) {
        self.leave_queue();
    }
}
