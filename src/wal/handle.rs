//! [`Wal`]: the handle that users call.

use std::{
    fmt,
    ops::{Range, RangeBounds},
    sync::Arc,
};

use crate::{
    error::{ClosedBy, Error, Result},
    executor::start,
    follow::{Below, Follow},
    format::frame::is_aligned,
    lsn::{Lsn, Start},
    pipeline::{
        OpenLog, Payload, Span,
        close::close,
        dispatch,
        job::request_write,
        wait::{reach_synced, reach_written},
    },
    record::Record,
    recovery::RecoveryReport,
    replay::{Replay, read_record},
    stats::Stats,
    wal::ticket::Ticket,
    watermarks::Watermarks,
};

/// A handle of an open log.
///
/// Clones are handles of the same log. All methods take `&self` and may be called from any task.
///
/// The promise of each call that has returned `Ok`:
///
/// | call | after the process is killed | after a power loss |
/// |---|---|---|
/// | [`append`](Wal::append) | kept | may be lost, always as a suffix of the log |
/// | [`enqueue`](Wal::enqueue) alone | may be lost, as a suffix | may be lost, as a suffix |
/// | [`sync`](Wal::sync), [`append_and_sync`](Wal::append_and_sync), [`Ticket::synced`] | kept | kept |
/// | [`append_batch`](Wal::append_batch) | all kept | all or none |
///
/// After a write or a sync has failed, only reads succeed on this log. Every other call and every
/// waiter gets [`Error::Poisoned`]. Reopen the log to learn which records survived.
///
/// If the last handle is dropped without [`close`](Wal::close), the appended records are still
/// written, but not synced. The directory's lock is freed after that. Tickets and replays are
/// handles in this sense. Each [`Follow`] ends then.
///
/// *Cancel-safe* means: a future that is dropped before it resolves has appended either nothing or
/// the whole record or batch. It leaves neither a gap nor a waiter. Only the log shows which of the
/// two happened. A record that has an LSN stays in the log.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// use futures::TryStreamExt;
/// use highwater::Wal;
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("log");
/// let wal = Wal::open(path).await?;
/// let lsn = wal.append_and_sync(b"change").await?;
/// let records: Vec<_> = wal.replay(lsn..).try_collect().await?;
/// assert_eq!(records[0].payload, "change");
/// wal.close().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Wal {
    core: Arc<OpenLog>,
    report: Arc<RecoveryReport>,
}

impl Wal {
    pub(crate) fn new(core: Arc<OpenLog>, report: RecoveryReport) -> Self {
        Wal { core, report: Arc::new(report) }
    }

    pub(crate) fn core(&self) -> &Arc<OpenLog> {
        &self.core
    }

    /// Returns the report of what opening found and did.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.report
    }

    /// Appends a record, and resolves when the operating system has it.
    ///
    /// The log's I/O needs a free thread of its blocking pool. If all threads of that pool wait in
    /// `block_on` for the log, they wait forever. [`Options::io_handle`](crate::Options::io_handle)
    /// avoids that.
    ///
    /// # Errors
    ///
    /// - [`Error::RecordTooLarge`], [`Error::NoSpace`], [`Error::OverBudget`],
    ///   [`Error::LsnLimit`]: nothing was appended.
    /// - [`Error::Io`] if the next segment's file cannot be prepared: nothing was appended, and the
    ///   next append tries again.
    /// - While the I/O stalls, with [`OnStall::FailWaiters`](crate::OnStall::FailWaiters):
    ///   [`Error::Indeterminate`] if the record has its place, [`Error::Stalled`] if nothing was
    ///   appended.
    /// - [`Error::Poisoned`], [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe. If the future is dropped while it waits for room, nothing is appended. If it is
    /// dropped later, the record stays.
    pub async fn append<'a>(&self, payload: impl Into<Payload<'a>>) -> Result<Lsn> {
        Ok(dispatch::append(&self.core, payload.into()).await?.lsn)
    }

    /// Appends a record, and resolves when it is on stable storage.
    ///
    /// All tasks that wait at the same time share one flush.
    ///
    /// The log's I/O needs a free thread of its blocking pool. If all threads of that pool wait in
    /// `block_on` for the log, they wait forever. [`Options::io_handle`](crate::Options::io_handle)
    /// avoids that.
    ///
    /// # Errors
    ///
    /// As [`Wal::append`].
    ///
    /// # Cancel safety
    ///
    /// As [`Wal::append`].
    pub async fn append_and_sync<'a>(&self, payload: impl Into<Payload<'a>>) -> Result<Lsn> {
        Ok(dispatch::append_and_sync(&self.core, payload.into()).await?.lsn)
    }

    /// Appends records as a batch, which a crash keeps as a whole or not at all.
    ///
    /// Resolves when the operating system has them. Returns the range that holds their LSNs. An
    /// empty batch appends nothing and returns an empty range.
    ///
    /// # Errors
    ///
    /// Those of [`Wal::append`], and [`Error::BatchTooLarge`]: nothing was appended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe. If the future is dropped while it waits for room, nothing is appended. If it is
    /// dropped later, the whole batch stays.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # use highwater::{Wal, storage::MemoryStorage};
    /// # let wal = Wal::options().open_with(MemoryStorage::new()).await?;
    /// wal.append_batch(["debit 5", "credit 5"]).await?;
    /// # Ok(()) }
    /// ```
    pub async fn append_batch<'a, P>(
        &self,
        payloads: impl IntoIterator<Item = P>,
    ) -> Result<Range<Lsn>>
    where
        P: Into<Payload<'a>>,
    {
        // Collected first, because no user code may run after the reservation.
        let payloads = payloads.into_iter().map(Into::into).collect();
        let span = dispatch::append_batch(&self.core, payloads).await?;
        Ok(span.lsn..span.goal.end)
    }

    /// Appends a record, and resolves as soon as it has an LSN.
    ///
    /// The returned [`Ticket`] waits until the record is written or synced.
    ///
    /// # Errors
    ///
    /// As [`Wal::append`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: nothing is appended before the future resolves.
    pub async fn enqueue<'a>(&self, payload: impl Into<Payload<'a>>) -> Result<Ticket> {
        let span = dispatch::enqueue(&self.core, payload.into()).await?;
        Ok(Ticket::new(Arc::clone(&self.core), span))
    }

    /// As [`Wal::enqueue`], but does not wait for room.
    ///
    /// # Errors
    ///
    /// Those of [`Wal::append`], and [`Error::Full`] if the ring has no room now. A record larger
    /// than the ring always gets `Full`.
    pub fn try_enqueue<'a>(&self, payload: impl Into<Payload<'a>>) -> Result<Ticket> {
        let span = dispatch::try_enqueue(&self.core, payload.into())?;
        Ok(Ticket::new(Arc::clone(&self.core), span))
    }

    /// Syncs all records that have an LSN at the call, and returns their end.
    ///
    /// The log's I/O needs a free thread of its blocking pool. If all threads of that pool wait in
    /// `block_on` for the log, they wait forever. [`Options::io_handle`](crate::Options::io_handle)
    /// avoids that.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`], [`Error::Closed`], and [`Error::Indeterminate`] while the I/O stalls,
    /// with [`OnStall::FailWaiters`](crate::OnStall::FailWaiters).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future only ends the wait.
    pub async fn sync(&self) -> Result<Lsn> {
        dispatch::sync_all(&self.core).await
    }

    /// Syncs the record at `lsn` and all records before it.
    ///
    /// # Errors
    ///
    /// - [`Error::AboveEnd`] if `lsn` is at or above the end of the log.
    /// - [`Error::Indeterminate`], as [`Wal::sync`].
    /// - [`Error::Poisoned`], [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future only ends the wait.
    pub async fn sync_to(&self, lsn: Lsn) -> Result<()> {
        self.core.status().check_new()?;
        let goal = self.core.goal(|| lsn.plus(1));
        let end = self.core.records_end();
        if lsn >= end {
            return Err(Error::outside(lsn, self.core.beginning().first(), end));
        }
        let commit = self.core.measures().instruments.commit();
        dispatch::sync(&self.core, Span { lsn, goal }).await?;
        commit.done();
        Ok(())
    }

    /// Resolves when the record at `lsn` is synced, but starts no sync.
    ///
    /// The record need not exist yet.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`], [`Error::Closed`], and [`Error::Indeterminate`] as [`Wal::sync`]. Use
    /// [`Wal::watch`] for a wait that lasts through a stall.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: dropping the future only ends the wait.
    pub async fn wait_synced(&self, lsn: Lsn) -> Result<()> {
        let goal = self.core.goal(|| lsn.plus(1));
        reach_synced(&self.core, Span { lsn, goal }).await
    }

    /// Returns how far the log is written and synced.
    #[must_use]
    pub fn watermarks(&self) -> Watermarks {
        self.core.watermarks()
    }

    /// Reads the record at `lsn`.
    ///
    /// Waits until the record is written, but not until it is synced: [`Wal::sync_to`] waits for
    /// that.
    ///
    /// # Errors
    ///
    /// - [`Error::BelowFirst`], [`Error::AboveEnd`] if `lsn` is not within the log.
    /// - [`Error::NotABoundary`] if no record begins at `lsn`.
    /// - [`Error::Corrupt`] if the record is damaged.
    /// - [`Error::Poisoned`] if a failure lost the record before it was synced.
    /// - [`Error::RecordTooLarge`] if the record exceeds the limit with which the log was opened.
    /// - [`Error::UnsupportedCompression`], [`Error::Io`], [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the call only reads.
    pub async fn read(&self, lsn: Lsn) -> Result<Record> {
        let goal = self.core.goal(|| lsn.plus(1));
        let (first, end) = (self.core.beginning().readable_first(), self.core.records_end());
        if lsn < first || lsn >= end {
            return Err(Error::outside(lsn, first, end));
        }
        if !is_aligned(lsn) {
            return Err(Error::NotABoundary { lsn });
        }
        if self.core.written().get() < goal.end {
            // The append that published the record may be yielding, and may not be polled again.
            request_write(&self.core);
        }
        reach_written(&self.core, Span { lsn, goal }).await?;
        let (core, epoch) = (Arc::clone(&self.core), goal.epoch);
        let read = start(self.core.executor().as_ref(), move || read_record(&core, lsn, epoch));
        read.await.map_err(|_| Error::Closed { by: ClosedBy::RuntimeGone })?
    }

    /// Streams the written records of a range of LSNs, oldest first.
    ///
    /// The stream ends at the written mark of this call. The range starts at the LSN of a record.
    /// Without a start, it begins at the first record. It may end at any position. An excluded
    /// start may be a truncated record if no later record was truncated. A consumer that keeps
    /// [`Follow::position`] instead of an LSN does not depend on that.
    ///
    /// Records at or above `watermarks().synced` may be lost by a power loss. Replay `..synced` to
    /// read only durable records.
    pub fn replay(&self, range: impl RangeBounds<Lsn>) -> Replay {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        Replay::new(&self.core, range)
    }

    /// Streams the durable records from `from` on, and then each record that becomes durable.
    ///
    /// The stream has no gap and no duplicate. Each record is below the synced mark when it is
    /// yielded, so no crash removes it. Use it for replicas, consumers and materialized views.
    ///
    /// `from` is the LSN of a record, a mark, or a [`Follow::position`]. Pass `watermarks().first`
    /// for all records and `watermarks().reserved` for all future records. If `from` is above the
    /// synced mark, the stream begins when the mark reaches it. A consumer that keeps the LSN of
    /// the last record it has seen passes [`Start::After`].
    ///
    /// # Errors
    ///
    /// As the only item of the stream:
    ///
    /// - [`Error::BelowFirst`] if a record at or above `from` was truncated.
    /// - [`Error::AboveEnd`] if `from` is above the end of the log.
    /// - [`Error::NotABoundary`] if no record begins at `from`. This is known only when the mark
    ///   has passed `from`.
    /// - [`Error::Closed`].
    ///
    /// [`Follow`] lists the errors that end the stream later.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # use highwater::{Wal, storage::MemoryStorage};
    /// use futures::{FutureExt, TryStreamExt};
    ///
    /// # let wal = Wal::options().open_with(MemoryStorage::new()).await?;
    /// let mut follower = wal.follow(wal.watermarks().first);
    /// let lsn = wal.append("in the page cache").await?;
    /// assert!(follower.try_next().now_or_never().is_none());
    /// wal.sync().await?;
    /// assert_eq!(follower.try_next().await?.map(|record| record.lsn), Some(lsn));
    /// # Ok(()) }
    /// ```
    pub fn follow(&self, from: impl Into<Start>) -> Follow {
        Follow::new(&self.core, from.into(), Below::Synced)
    }

    /// As [`Wal::follow`], but yields each record as soon as the operating system has it.
    ///
    /// Records arrive one flush earlier. A power loss may remove yielded records, always as a
    /// suffix of the log. Use it only if the consumer can undo them, too: for caches or log
    /// viewers.
    ///
    /// # Errors
    ///
    /// As [`Wal::follow`].
    pub fn follow_written(&self, from: impl Into<Start>) -> Follow {
        Follow::new(&self.core, from.into(), Below::Written)
    }

    /// Returns counts and percentiles since the log was opened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(&self.core)
    }

    /// Closes the log: syncs all records, marks the end as clean and frees the lock.
    ///
    /// Other handles get [`Error::Closed`] from then on. Closing a closed log has no effect.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`] if the log has stopped before or stops during the close. The lock is
    /// freed in this case, too.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped while it waits for running appends, the log takes no new appends;
    /// call `close` again. If it is dropped later, the close completes by itself.
    pub async fn close(&self) -> Result<()> {
        close(&self.core).await
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("log", &self.core.storage().location())
            .field("watermarks", &self.watermarks())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;

    use super::*;
    use crate::{
        executor::{Executor, Task},
        options::Config,
        pipeline::Instruments,
        recovery::Opening,
        storage::MemoryStorage,
    };

    #[derive(Debug, Default)]
    struct Counting(AtomicUsize);

    impl Executor for Counting {
        fn spawn(&self, task: Task) {
            self.0.fetch_add(1, Ordering::Relaxed);
            task();
        }
    }

    /// A job of the pool takes a large part of a single commit's time.
    #[tokio::test]
    async fn commit_on_idle_log_is_one_job() {
        let (storage, executor) = (Arc::new(MemoryStorage::new()), Arc::new(Counting::default()));
        let opening = Opening::begin(storage, Config::default(), true).unwrap();
        let (start, report) = opening.finish(executor.clone()).unwrap();
        let wal = Wal::new(dispatch::start(start, Instruments::default()), report);
        for commits in 1..=10 {
            wal.append_and_sync(b"record").await.unwrap();
            assert_eq!(executor.0.load(Ordering::Relaxed), commits);
        }
    }

    /// Otherwise memory would grow with each `timeout` that a server puts around a wait.
    #[tokio::test]
    async fn dropped_wait_leaves_no_waiter() {
        let wal = Wal::options().open_with(MemoryStorage::new()).await.unwrap();
        for _ in 0..10 {
            assert!(wal.wait_synced(Lsn::new(1 << 20)).now_or_never().is_none());
        }
        assert_eq!(wal.core.synced().waiter_count(), 0);
    }

    /// Polls and wakes add no second waiter. Dropping a follower removes its waiter.
    #[tokio::test]
    async fn follower_has_one_waiter_in_the_queue() {
        use futures::StreamExt;
        let wal = Wal::options().open_with(MemoryStorage::new()).await.unwrap();
        let mut followers: Vec<_> = (0..10).map(|_| wal.follow(Lsn::ZERO)).collect();
        for _ in 0..100 {
            for follower in &mut followers {
                assert!(follower.next().now_or_never().is_none());
                assert!(follower.next().now_or_never().is_none());
            }
            assert_eq!(wal.core.synced().waiter_count(), 10);
            wal.append_and_sync(b"record").await.unwrap();
            for follower in &mut followers {
                follower.next().await.unwrap().unwrap();
            }
        }
        followers.iter_mut().for_each(|follower| drop(follower.next().now_or_never()));
        drop(followers);
        assert_eq!(wal.core.synced().waiter_count(), 0);
    }
}
