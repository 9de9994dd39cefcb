//! [`Wal`]: what users call.

use std::{
    fmt,
    ops::{Range, RangeBounds},
    path::Path,
    sync::Arc,
};

use tokio::sync::watch;

use crate::{
    error::{Error, Result},
    executor::start,
    follow::{Below, Follow},
    lsn::Lsn,
    pipeline::{OpenLog, Payload},
    record::Record,
    recovery::RecoveryReport,
    replay::{Replay, read_record},
    stats::Stats,
    wal::{
        options::{Options, RUNTIME_GONE},
        recover::Recovery,
        ticket::Ticket,
    },
    watermarks::Watermarks,
};

/// An open log. Clones are handles of the same log; all methods take `&self`, from any task.
///
/// What each call promises when it has returned `Ok`:
///
/// | call | the process is killed | the power is lost |
/// |---|---|---|
/// | [`append`](Wal::append) | kept | may be lost, always as a suffix of the log |
/// | [`enqueue`](Wal::enqueue) alone | may be lost, as a suffix | may be lost, as a suffix |
/// | [`sync`](Wal::sync), [`append_and_sync`](Wal::append_and_sync), [`Ticket::synced`] | kept | kept |
/// | [`append_batch`](Wal::append_batch) | all kept | all or none |
///
/// After a write or a sync has failed, nothing succeeds again on this log but reading: every call
/// and every waiter gets [`Error::Poisoned`]. Reopen it to learn what survived. When the last
/// handle is dropped without [`close`](Wal::close), what was appended is still written, and not
/// synced, and the directory's lock is freed when that is done; tickets and replays are handles in
/// this sense. A [`Follow`] ends then.
///
/// *Cancel-safe* means here: dropping a future before it resolves has either appended nothing or
/// the whole record or batch, and leaves neither a gap nor a waiter behind. Which of the two can be
/// told from the log alone; a record once ordered stays.
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

    /// Opens the log in `directory` with the default settings, creating both if they aren't there.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    ///
    /// # Cancel safety
    ///
    /// As [`Options::open`].
    pub async fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Options::default().open(directory).await
    }

    /// Settings to open a log with.
    pub fn options() -> Options {
        Options::default()
    }

    /// Opens the log in `directory` as a stream of all it holds, which ends as the log's writer.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn recover(directory: impl AsRef<Path>) -> Result<Recovery> {
        Options::default().recover(directory).await
    }

    /// What opening found and did.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.report
    }

    /// Appends a record; resolves when it is with the operating system.
    ///
    /// # Errors
    ///
    /// [`Error::RecordTooLarge`] and [`Error::NoSpace`]: nothing was appended.
    /// [`Error::Poisoned`], [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe. Dropped while it waits for room, it appends nothing; later, the record stays.
    pub async fn append<'a>(&self, payload: impl Into<Payload<'a>>) -> Result<Lsn> {
        let span = self.core.reserve_record(payload.into()).await?;
        self.core.write_and_reach(span.goal).await?;
        Ok(span.lsn)
    }

    /// Appends a record; resolves when it is on stable storage. Everybody who waits shares a flush.
    ///
    /// # Errors
    ///
    /// As [`Wal::append`].
    ///
    /// # Cancel safety
    ///
    /// As [`Wal::append`].
    pub async fn append_and_sync<'a>(&self, payload: impl Into<Payload<'a>>) -> Result<Lsn> {
        let span = self.core.reserve_record(payload.into()).await?;
        // The sync job writes it on its way: one trip to the pool for both.
        self.core.wait_synced(span.goal).await?;
        Ok(span.lsn)
    }

    /// Appends records that are kept together: after a crash all of them are there, or none.
    /// Resolves when they are with the operating system. The range holds their LSNs; it is empty
    /// for an empty batch, which appends nothing.
    ///
    /// # Errors
    ///
    /// As [`Wal::append`], and [`Error::BatchTooLarge`]: nothing was appended.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe. Dropped while it waits for room, it appends nothing; later, the batch stays.
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
        // Collected first: no code of users runs once something is reserved.
        let unit = self.core.unit(payloads.into_iter().map(Into::into).collect())?;
        let span = self.core.reserve_batch(unit).await?;
        self.core.write_and_reach(span.goal).await?;
        Ok(span.lsn..span.goal.end)
    }

    /// Orders a record and returns as soon as it has its place; the ticket tells the rest.
    ///
    /// # Errors
    ///
    /// As [`Wal::append`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: until it resolves, nothing is appended.
    pub async fn enqueue<'a>(&self, payload: impl Into<Payload<'a>>) -> Result<Ticket> {
        let span = self.core.reserve_record(payload.into()).await?;
        self.core.kick_writer();
        Ok(Ticket::new(Arc::clone(&self.core), span))
    }

    /// As [`Wal::enqueue`], without waiting for room.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] if there is no room in the ring now, which a record larger than the ring
    /// always gets; as [`Wal::append`].
    pub fn try_enqueue<'a>(&self, payload: impl Into<Payload<'a>>) -> Result<Ticket> {
        let span = self.core.try_reserve_record(payload.into())?;
        self.core.kick_writer();
        Ok(Ticket::new(Arc::clone(&self.core), span))
    }

    /// Has everything ordered before the call synced, and says up to where that is.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`], [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only ends the waiting.
    pub async fn sync(&self) -> Result<Lsn> {
        self.core.sync().await
    }

    /// Has the record at `lsn`, and all before it, synced.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`] if nothing has been ordered there; [`Error::Poisoned`],
    /// [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only ends the waiting.
    pub async fn sync_to(&self, lsn: Lsn) -> Result<()> {
        self.core.status.check_new()?;
        let goal = self.core.goal(|| lsn.plus(1));
        let end = self.core.records_end();
        if lsn >= end {
            return Err(Error::OutOfRange { lsn, first: self.core.purge.first(), end });
        }
        self.core.wait_synced(goal).await
    }

    /// Resolves when the record at `lsn` is synced, without asking for it. The record may still be
    /// to come.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`], [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only ends the waiting.
    pub async fn wait_synced(&self, lsn: Lsn) -> Result<()> {
        self.core.reach_synced(self.core.goal(|| lsn.plus(1))).await
    }

    /// How far the log has come.
    #[must_use]
    pub fn watermarks(&self) -> Watermarks {
        self.core.watermarks()
    }

    /// A receiver that always holds the newest watermarks, and is told when they change. Its
    /// `changed` fails once the log has stopped or is closed.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Watermarks> {
        self.core.subscribe()
    }

    /// Reads the record at `lsn`: one read, wherever it stands. Waits for a record that is still on
    /// its way to the file, and not until it is durable: [`Wal::sync_to`] does.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfRange`]; [`Error::NotABoundary`] if no record begins there;
    /// [`Error::Corrupt`]; [`Error::RecordTooLarge`] if it is above the limit that the log was
    /// opened with; [`Error::UnsupportedCompression`]; [`Error::Io`]; [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: it only reads.
    pub async fn read(&self, lsn: Lsn) -> Result<Record> {
        let goal = self.core.goal(|| lsn.plus(1));
        let (first, end) = (self.core.purge.readable_first(), self.core.records_end());
        if lsn < first || lsn >= end {
            return Err(Error::OutOfRange { lsn, first, end });
        }
        if lsn.as_u64() % 8 != 0 {
            return Err(Error::NotABoundary { lsn });
        }
        if self.core.written.get() < goal.end {
            // Whoever published it may be waiting to write for several, and never be polled again.
            self.core.kick_writer();
        }
        self.core.reach_written(goal).await?;
        let (core, epoch) = (Arc::clone(&self.core), goal.epoch);
        let read = start(self.core.executor.as_ref(), move || read_record(&core, lsn, epoch));
        read.await.map_err(|_| Error::Closed { reason: RUNTIME_GONE })?
    }

    /// Streams the records of a range of LSNs, oldest first, up to what is written now.
    ///
    /// The range begins at a record's LSN, or at `..` for the first; it may end anywhere. Records
    /// above `watermarks().synced` may still be lost with the power: replay `..synced` to see only
    /// what is durable.
    pub fn replay(&self, range: impl RangeBounds<Lsn>) -> Replay {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        Replay::new(&self.core, range)
    }

    /// Streams the durable records from `from` on, and goes on live with those that become durable,
    /// without a gap or a duplicate: each is below the synced mark when it is yielded, so no crash
    /// takes back what was seen. For replicas, consumers, materialized views.
    ///
    /// `from` is a record's LSN, a mark, or a [`Follow::position`]: `watermarks().first` for all,
    /// `watermarks().reserved` for what is ordered from now on. It may be above the mark; then it
    /// begins when the mark gets there.
    ///
    /// What is followed is chosen by the method, not by a setting of the stream: it can't be changed
    /// half way, and stands where the guarantee is relied on.
    ///
    /// # Errors
    ///
    /// As the stream's only item: [`Error::OutOfRange`] if `from` is below the log's first position
    /// or beyond its end; [`Error::NotABoundary`] if no record begins there, which can only be told
    /// when the mark has passed it; [`Error::Closed`]. How it ends later is in [`Follow`].
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
    pub fn follow(&self, from: Lsn) -> Follow {
        Follow::new(&self.core, from, Below::Synced)
    }

    /// As [`Wal::follow`], with each record as soon as it is written: earlier by a flush, and a loss
    /// of power may take back what was seen, always as a suffix of the log. For those who can take
    /// that back too: caches, tails for the eye.
    ///
    /// # Errors
    ///
    /// As [`Wal::follow`].
    pub fn follow_written(&self, from: Lsn) -> Follow {
        Follow::new(&self.core, from, Below::Written)
    }

    /// What the log has done since it was opened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(&self.core)
    }

    /// Ends the log: what was appended is synced, the end is marked as clean, the lock is freed.
    /// Other handles get [`Error::Closed`] from then on. Closing a closed log is fine.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`] if the log had stopped, or stops now; the lock is freed all the same.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future while it waits for appends in flight leaves a log that takes no new
    /// ones; call it again. Later, closing goes on by itself.
    pub async fn close(&self) -> Result<()> {
        self.core.close().await
    }
}

impl fmt::Debug for Wal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wal")
            .field("log", &self.core.storage.location())
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
        pipeline::Core,
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

    /// A trip to the pool is a good part of a lone commit's time.
    #[tokio::test]
    async fn a_commit_on_an_idle_log_is_one_job() {
        let (storage, executor) = (Arc::new(MemoryStorage::new()), Arc::new(Counting::default()));
        let opening = Opening::begin(storage, Config::default(), true).unwrap();
        let (start, report) = opening.finish(executor.clone()).unwrap();
        let wal = Wal::new(Core::start(start), report);
        for commits in 1..=10 {
            wal.append_and_sync(b"record").await.unwrap();
            assert_eq!(executor.0.load(Ordering::Relaxed), commits);
        }
    }

    /// Memory would grow with each `timeout` that a server puts around a wait.
    #[tokio::test]
    async fn a_wait_that_is_dropped_leaves_no_waiter() {
        let wal = Wal::options().open_with(MemoryStorage::new()).await.unwrap();
        for _ in 0..10 {
            assert!(wal.wait_synced(Lsn::new(1 << 20)).now_or_never().is_none());
        }
        assert_eq!(wal.core.synced.waiter_count(), 0);
    }

    /// However often it is polled and woken, a follower has one place in the queue, and none in the
    /// end.
    #[tokio::test]
    async fn a_follower_has_one_place_in_the_queue() {
        use futures::StreamExt;
        let wal = Wal::options().open_with(MemoryStorage::new()).await.unwrap();
        let mut followers: Vec<_> = (0..10).map(|_| wal.follow(Lsn::ZERO)).collect();
        for _ in 0..100 {
            for follower in &mut followers {
                assert!(follower.next().now_or_never().is_none());
                assert!(follower.next().now_or_never().is_none());
            }
            assert_eq!(wal.core.synced.waiter_count(), 10);
            wal.append_and_sync(b"record").await.unwrap();
            for follower in &mut followers {
                follower.next().await.unwrap().unwrap();
            }
        }
        followers.iter_mut().for_each(|follower| drop(follower.next().now_or_never()));
        drop(followers);
        assert_eq!(wal.core.synced.waiter_count(), 0);
    }
}
