//! [`Reader`]: the handle.

use std::{
    fmt,
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use crate::{
    error::{ClosedBy, Error, Result},
    executor::{Executor, start},
    format::frame::is_aligned,
    lsn::{Lsn, Start},
    options::Config,
    reader::{
        clock::Clock,
        source::{OpenView, ViewSource},
        tail::Tail,
        view::{Tracker, View},
    },
    recovery::{Member, RecoveryReport},
    replay::{AfterSeen, Replay, below},
    storage::Storage,
    sync::{LockAlways, Mutex},
    turn::lock_always_over_io,
    wal::LogSegment,
};

/// A log opened only for reading, while this or another process may write it.
///
/// A reader takes no lock, creates no file and changes no byte. It needs only the permission to
/// read the files, so a file system that is mounted read-only is sufficient. A writer neither waits
/// for a reader nor knows of it. So a reader does not prevent the removal of segments.
///
/// # Shown records
///
/// **By default, a reader shows the committed records.** These are all records below the highest
/// position that an intact header or frame claims was synced. Each header and each frame claims the
/// position that was synced when it was made. So a synced group is shown when the next frame is
/// written. That is the next record, or the mark that the log writes when it becomes idle.
/// Committed records survive a power loss. Only a truncation by the log's owner removes them.
///
/// A log whose owner never syncs shows no record.
/// [`ReaderOptions::written`](crate::reader::ReaderOptions::written) also shows the intact records
/// above that position. **Such records may vanish in a crash**, and others may take their
/// positions.
///
/// A unit or a header that is being written is not shown yet. Only damage below the committed
/// position is [`Error::Corrupt`], and only after several looks, because apparent damage may be a
/// race with the writer.
///
/// # Reads of the files
///
/// [`open`](Reader::open) reads the files once, as opening a log does: a header per segment and the
/// unsynced end. [`refresh`](Reader::refresh) reads again. [`replay`](Reader::replay) shows the
/// state of the last read. [`follow`](Reader::follow) reads at an interval.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// use futures::TryStreamExt;
/// use highwater::{Reader, Wal};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("log");
/// let wal = Wal::open(&path).await?;
/// wal.append_and_sync(b"one").await?;
/// wal.append_and_sync(b"two").await?;
///
/// // Here or in another process.
/// let reader = Reader::open(&path).await?;
/// let records: Vec<_> = reader.replay(..).try_collect().await?;
/// assert_eq!(records[0].payload, "one");
///
/// wal.close().await?;
/// reader.refresh().await?;
/// let records: Vec<_> = reader.replay(..).try_collect().await?;
/// assert_eq!(records[1].payload, "two");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Reader {
    shared: Arc<ReaderShared>,
}

/// The number of attempts of a read, because the writer may remove segments meanwhile.
const READ_ATTEMPTS: u32 = 4;

/// The storage, the settings, and the executor of the reads.
pub(super) type Means = (Arc<dyn Storage>, Config, Arc<dyn Executor>);

struct ReaderShared {
    storage: Arc<dyn Storage>,
    config: Config,
    executor: Arc<dyn Executor>,
    clock: Arc<Clock>,
    shows_written: bool,
    tracker: Mutex<Tracker>,
    open_view: Mutex<Arc<OpenView>>,
    report: RecoveryReport,
}

impl ReaderShared {
    fn open_view(&self) -> Arc<OpenView> {
        Arc::clone(&self.open_view.lock_always())
    }
}

impl Reader {
    pub(super) fn new(
        (storage, config, executor): Means,
        clock: Clock,
        shows_written: bool,
        view: View,
        report: RecoveryReport,
    ) -> Self {
        let open_view = Arc::new(OpenView::new(&storage, &config, view.clone()));
        let tracker = Mutex::new(Tracker::new(Arc::clone(&storage), config, view));
        let shared = ReaderShared {
            storage,
            config,
            executor,
            clock: Arc::new(clock),
            shows_written,
            tracker,
            open_view: Mutex::new(open_view),
            report,
        };
        Reader { shared: Arc::new(shared) }
    }

    /// Returns the report that [`Wal::open`](crate::Wal::open) would have made.
    ///
    /// The report is of the moment when the reader was opened. The reader has changed nothing.
    #[must_use]
    pub fn report(&self) -> &RecoveryReport {
        &self.shared.report
    }

    /// Returns the beginning of the log at the last look.
    #[must_use]
    pub fn first(&self) -> Lsn {
        self.shared.open_view().view.first
    }

    /// Returns the end of the shown records at the last look.
    ///
    /// That is [`committed`](Reader::committed), or [`written`](Reader::written) with
    /// [`ReaderOptions::written`](crate::reader::ReaderOptions::written).
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.shared.open_view().view.shown_end(self.shared.shows_written)
    }

    /// Returns the highest position that was known to be synced at the last look.
    #[must_use]
    pub fn committed(&self) -> Lsn {
        self.shared.open_view().view.committed
    }

    /// Returns the first position without an intact unit at the last look.
    #[must_use]
    pub fn written(&self) -> Lsn {
        self.shared.open_view().view.end
    }

    /// Returns the beginning of each segment with shown records at the last look, oldest first.
    ///
    /// A replay can begin at each of them. Use them to read only the newest records, or to read
    /// with several tasks.
    #[must_use]
    pub fn segment_starts(&self) -> Vec<Lsn> {
        let (open_view, end) = (self.shared.open_view(), self.end());
        let first = open_view.view.first;
        let bases = open_view.view.members.iter().map(|member| member.header.base.max(first));
        bases.filter(|&start| start < end).collect()
    }

    /// Returns the segments of the log at the last look, oldest first.
    #[must_use]
    pub fn segments(&self) -> Vec<LogSegment> {
        let open_view = self.shared.open_view();
        let infos: Vec<_> = open_view.view.members.iter().map(Member::info).collect();
        LogSegment::describe(&infos, open_view.view.end)
    }

    /// Reads the records that are new since the last look.
    ///
    /// # Errors
    ///
    /// Those of [`Reader::open`], and [`Error::Closed`] if another log is in the directory. An
    /// error does not change what the reader shows.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the reader then shows either the state before or the new one.
    pub async fn refresh(&self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let looked = start(self.shared.executor.as_ref(), move || {
            let mut tracker = lock_always_over_io(&shared.tracker);
            tracker.advance()?;
            let view = tracker.view.clone();
            let open_view = shared.open_view().successor(&shared.storage, &shared.config, view);
            *shared.open_view.lock_always() = Arc::new(open_view);
            Ok(())
        });
        looked.await.map_err(|_| Error::Closed { by: ClosedBy::RuntimeGone })?
    }

    /// Streams the records of a range as of the last look, oldest first.
    ///
    /// An error ends the stream:
    ///
    /// - [`Error::Corrupt`], [`Error::Io`].
    /// - [`Error::BelowFirst`] with the current beginning of the log, if the next record was
    ///   truncated. [`Error::AboveEnd`] if the range begins above the shown records.
    /// - [`Error::Truncated`] if the end of the log was truncated below the next record.
    /// - [`Error::NotABoundary`] if no record begins at the start of the range.
    pub fn replay(&self, range: impl RangeBounds<Lsn>) -> Replay {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        let open_view = self.shared.open_view();
        let (first, end) =
            (open_view.view.first, open_view.view.shown_end(self.shared.shows_written));
        let from = match range.0 {
            Bound::Included(lsn) | Bound::Excluded(lsn) => lsn,
            Bound::Unbounded => first,
        };
        if let Some(start) = below(first, range.0) {
            let executor = Arc::clone(&self.shared.executor);
            let past = Arc::clone(&open_view);
            let after_seen =
                AfterSeen::new(&executor, move || past.position_after_seen(start, None));
            let tracker = self.tracker(&open_view);
            let source = Arc::new(ViewSource::fixed(open_view, first, tracker));
            return Replay::after_seen(source, executor, after_seen, (first, end), range);
        }
        let mut refused = None;
        // The committed position may be below the current beginning of the log.
        if from < first || from > end.max(first) {
            refused = Some(Error::outside(from, first, end));
        } else if !is_aligned(from) {
            refused = Some(Error::NotABoundary { lsn: from });
        }
        let tracker = self.tracker(&open_view);
        let source = Arc::new(ViewSource::fixed(open_view, from, tracker));
        Replay::of(source, Arc::clone(&self.shared.executor), (from, end), range, refused)
    }

    /// Streams the existing records from `from` on, and then each new record.
    ///
    /// The stream reads the files only while it is polled.
    ///
    /// A consumer that keeps the LSN of the last record it has seen passes [`Start::After`].
    pub fn follow(&self, from: impl Into<Start>) -> Tail {
        let open_view = self.shared.open_view();
        let tracker = self.tracker(&open_view);
        let ReaderShared { executor, clock, shows_written, .. } = self.shared.as_ref();
        let means = (Arc::clone(executor), Arc::clone(clock));
        Tail::new(means, tracker, open_view, from.into(), *shows_written)
    }

    /// Runs a read on the executor, with the view of the last look and whether the reader shows
    /// unsynced records.
    ///
    /// If a segment was removed since, judges the log again for this read only.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl Fn(&OpenView, bool) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut open_view = self.shared.open_view();
        let mut tracker = self.tracker(&open_view);
        let (config, shows_written) = (self.shared.config, self.shared.shows_written);
        let done = start(self.shared.executor.as_ref(), move || {
            for _ in 1..READ_ATTEMPTS {
                match read(&open_view, shows_written) {
                    Err(gone) if gone.is_not_found() => tracker.rejudge()?,
                    result => return result,
                };
                let view = tracker.view.clone();
                open_view = Arc::new(OpenView::new(&tracker.storage, &config, view));
            }
            read(&open_view, shows_written)
        });
        done.await.map_err(|_| Error::Closed { by: ClosedBy::RuntimeGone })?
    }

    fn tracker(&self, open_view: &OpenView) -> Tracker {
        Tracker::new(Arc::clone(&self.shared.storage), self.shared.config, open_view.view.clone())
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("location", &self.shared.storage.location())
            .field("first", &self.first())
            .field("end", &self.end())
            .finish_non_exhaustive()
    }
}
