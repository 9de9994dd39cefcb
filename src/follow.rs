//! Streams of records that go on live: history as a replay reads it, then whatever a mark passes.
//!
//! There is no hand-over between the two. A follower reads what stands between its position and its
//! mark, however much that is, and waits in the mark's queue when it is nothing; so there is
//! neither a gap nor a duplicate to be avoided.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{Stream, ready, stream::FusedStream};

use crate::{
    error::{Error, Result},
    lsn::Lsn,
    pipeline::{Core, Mark, WaiterId},
    record::Record,
    replay::{LiveSource, Records},
    sabotage::{self, Sabotage},
};

/// Which mark a follower stays below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Below {
    Synced,
    Written,
}

/// The stream that [`Wal::follow`](crate::Wal::follow) and
/// [`Wal::follow_written`](crate::Wal::follow_written) give: the log's records from a position on,
/// oldest first, those of the past and then those to come, each once.
///
/// # How it goes on
///
/// It is woken when its mark moves, by whoever moves it: there is no timer and no polling. While
/// nothing moves it has one place in the mark's queue and does no I/O. It never asks for a sync: if
/// nobody syncs, a follower of durable records waits.
///
/// It reads in chunks of about 256 KiB, one ahead, and only when it is polled; so it holds two of
/// them at most (or two units, if they are larger), however far behind it is. A slow follower slows
/// nobody down: what it hasn't yielded yet is in the files.
///
/// # How it ends
///
/// | what happened | the stream yields all below its mark, then |
/// |---|---|
/// | [`close`](crate::Wal::close) | ends |
/// | the last handle was dropped, and the work it left has been done | ends |
/// | a write or a sync failed | [`Error::Poisoned`], and ends |
/// | the runtime of the log's I/O is gone | [`Error::Closed`], and ends; it can read no more |
///
/// What was in flight when the log stopped may reach the mark after that, and isn't yielded: an end
/// with an error is never the end of the log. Open it again, and go on from [`Follow::position`].
///
/// [`Error::Truncated`] is no end: [`Wal::truncate_after`](crate::Wal::truncate_after) has taken
/// back some of what was yielded, all from `to` on, and the stream goes on with what stands there
/// now. A truncation of what wasn't yielded yet isn't mentioned.
///
/// Any other error comes in its place and ends the stream too: [`Error::NotABoundary`],
/// [`Error::OutOfRange`] if what comes next is no longer part of the log, [`Error::Corrupt`],
/// [`Error::RecordTooLarge`], [`Error::UnsupportedCompression`], [`Error::Io`].
///
/// A follower is no handle: it doesn't keep the log open for what may come. Behind the last handle,
/// ticket and job it yields what there is, ends and lets go of the log. Until then it holds it, and
/// its directory's lock, as a replay does: poll it to its end, or drop it. `close` waits for no
/// follower and frees the lock at once. One that is behind by then goes on reading; if whoever owns
/// the directory next has taken away what it reads, it gets [`Error::Closed`].
///
/// # Cancel safety
///
/// Cancel-safe: what a future such as `next()` hasn't yielded, the next one will. Dropping the
/// stream gives up its place in the mark's queue; [`Follow::position`] is where another goes on.
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
    /// `None` once it has ended: it holds nothing of the log then.
    live: Option<Live>,
    /// An error to begin and end with.
    refused: Option<Error>,
    position: Lsn,
    lag_at_end: u64,
}

impl Follow {
    pub(crate) fn new(core: &Arc<Core>, from: Lsn, below: Below) -> Self {
        let epoch = core.epoch();
        // What is ordered and not below the mark yet will be: from there it begins later.
        let (first, end) = (core.purge.readable_first(), core.ring.tail());
        let refused = if let Err(error) = core.status.check_read() {
            Some(error)
        } else if from < first || from > end {
            Some(Error::OutOfRange { lsn: from, first, end })
        } else if from.as_u64() % 8 != 0 {
            Some(Error::NotABoundary { lsn: from })
        } else {
            None
        };
        let live = refused.is_none().then(|| Live::new(core, from, below, epoch));
        Follow { live, refused, position: from, lag_at_end: 0 }
    }

    /// Where it goes on: one past all that it has yielded. A follower made from here by the same
    /// or a later opening of the log, or a replay, begins with the record that would come next,
    /// unless a crash has taken what stood below: a follower of written records can be ahead of
    /// what survives, one of durable records can't.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// The bytes between what it has yielded and its mark, frames' headers included: how far it is
    /// behind what it may yield. 0 if that was all; after the end, what it was then.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.live.as_ref().map_or(self.lag_at_end, |live| live.bytes_behind(self.position))
    }

    /// Lets go of the log.
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

/// A follower that has not ended.
struct Live {
    core: Arc<Core>,
    below: Below,
    /// What was cut since this is gone.
    epoch: u64,
    /// One past the last record that was yielded, or where it began.
    yielded: Lsn,
    /// What is being read: from the position on, up to what the mark was when it was last looked at.
    records: Records,
    waiter: Option<WaiterId>,
    /// What the waiter waits for.
    target: Lsn,
}

/// Nothing yet, to go on from there.
fn records(core: &Arc<Core>, from: Lsn, epoch: u64) -> Records {
    let source = Arc::new(LiveSource::reading_on(core, from, epoch));
    Records::new(source, Arc::clone(&core.executor), from, from)
}

/// What waiting came to.
enum Waited {
    /// The mark is past the target.
    Moved,
    /// It never will be.
    End(Option<Error>),
}

impl Live {
    fn new(core: &Arc<Core>, from: Lsn, below: Below, epoch: u64) -> Self {
        let records = records(core, from, epoch);
        let below = if sabotage::is_on(Sabotage::FollowUnsynced) { Below::Written } else { below };
        let core = Arc::clone(core);
        Live { core, below, epoch, yielded: from, records, waiter: None, target: from }
    }

    fn mark(&self) -> &Mark {
        match self.below {
            Below::Synced => &self.core.synced,
            Below::Written => &self.core.written,
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
            self.look_for_cuts(position)?;
            match ready!(self.records.poll(context)) {
                Some(Ok(record)) => {
                    *position = self.records.yielded_end();
                    self.yielded = *position;
                    return Poll::Ready(Some(Ok(record)));
                }
                // It was reading what a cut has taken.
                Some(Err(_)) if self.epoch != self.core.epochs.current() => continue,
                Some(Err(error)) => return Poll::Ready(Some(Err(self.explain(*position, error)))),
                // Behind the last record there may have been frames of the log's own.
                None => *position = self.records.until(),
            }
            let from = self.core.past_control(*position);
            let mark = self.mark().get();
            if from < mark {
                if let Err(error) = self.check_is_there(from) {
                    return Poll::Ready(Some(Err(error)));
                }
                self.records.go_on(from, mark);
            } else if let Waited::End(error) = ready!(self.poll_past(from, context)) {
                return Poll::Ready(error.map(Err));
            }
        }
    }

    /// If the log was cut since the last look: drops what was read ahead, as some of it may be gone,
    /// and says so if that holds for something that was yielded.
    fn look_for_cuts(&mut self, position: &mut Lsn) -> Result<()> {
        if self.core.epochs.current() == self.epoch {
            return Ok(());
        }
        let epoch = self.core.epoch();
        let cut = self.core.epochs.cut_since(self.epoch);
        self.epoch = epoch;
        let to = cut.unwrap_or(*position).min(*position);
        let is_taken_back = to < self.yielded;
        *position = to;
        self.yielded = self.yielded.min(to);
        self.leave_queue();
        self.records = records(&self.core, to, epoch);
        if is_taken_back { Err(Error::Truncated { to }) } else { Ok(()) }
    }

    /// Waits until the mark is past `from`, or for the end.
    fn poll_past(&mut self, from: Lsn, context: &mut Context<'_>) -> Poll<Waited> {
        let target = from.plus(1);
        if target != self.target {
            self.leave_queue();
            self.target = target;
        }
        let mut waiter = self.waiter.take();
        let moved = self.mark().register_reader(target, &mut waiter, context.waker());
        self.waiter = waiter;
        // After registering: what comes later wakes us.
        let end = match self.core.status.check() {
            _ if moved || self.core.epochs.current() != self.epoch => {
                return Poll::Ready(Waited::Moved);
            }
            Err(_) if self.core.was_closed() => None,
            Err(error) => Some(error),
            Ok(()) if self.core.status.is_abandoned() => None,
            Ok(()) => return Poll::Pending,
        };
        // Before the end came the mark may have moved once more.
        if self.mark().get() >= target {
            return Poll::Ready(Waited::Moved);
        }
        if self.core.was_closed() {
            // What we read after the closing has opened files again.
            self.core.segments.close_files();
        }
        Poll::Ready(Waited::End(end))
    }

    /// The one place that finds out that what comes next was taken off the log's beginning.
    fn check_is_there(&self, position: Lsn) -> Result<()> {
        let first = self.core.purge.readable_first();
        if position < first {
            return Err(Error::OutOfRange { lsn: position, first, end: self.mark().get() });
        }
        Ok(())
    }

    /// What an error that reading gave means to a follower.
    fn explain(&self, position: Lsn, error: Error) -> Error {
        // Taken away while it was being read.
        if let Err(truncated) = self.check_is_there(position) {
            return truncated;
        }
        match error {
            // The directory may have another owner by now: this says nothing of our log.
            Error::Io { .. } | Error::Corrupt { .. } if self.core.was_closed() => {
                Error::Closed { reason: "what a follower had still to read is gone" }
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

impl Drop for Live {
    fn drop(&mut self) {
        self.leave_queue();
    }
}
