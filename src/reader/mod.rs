//! Reading a log beside its writer, in this process or another: no lock, no byte changed.
//!
//! [`Reader`] shows what is committed, [`Tail`] follows it by polling, [`Salvage`] reads what is
//! left of a damaged log.

mod clock;
mod cut;
mod options;
mod salvage;
mod source;
mod tail;
mod view;

use std::{
    fmt,
    ops::{Bound, RangeBounds},
    path::Path,
    sync::{Arc, PoisonError},
};

pub use options::ReaderOptions;
pub use salvage::{Gap, Salvage};
pub use tail::Tail;

use crate::{
    error::{Error, Result},
    executor::{Executor, start},
    lsn::Lsn,
    options::Config,
    reader::{
        clock::Clock,
        source::{Held, ViewSource},
        view::{Tracker, View},
    },
    recovery::RecoveryReport,
    replay::Replay,
    sabotage::{self, Sabotage},
    storage::Storage,
    sync::Mutex,
    turn::lock_over_io,
    wal::RUNTIME_GONE,
};

/// A log, open for reading alone: beside a live writer in this or another process, or beside none.
///
/// It takes no lock, creates no file, changes no byte and cuts nothing: the right to read the files
/// is all it needs, and a file system that is mounted read-only is as good as any. No writer waits
/// for a reader or knows of it; so none holds anything back for it either.
///
/// # What it shows
///
/// **By default what is committed**: all below the highest position that something intact in the log
/// claims was synced. A segment's header claims that, and each frame does, at the time it was made;
/// so a group that was synced is shown once the frame behind it is written, be it the next record
/// or the mark that the log leaves when it falls idle. What is shown so survives a loss of power, and
/// goes only if the log's owner truncates it.
///
/// A log whose owner never syncs has nothing to show.
/// [`ReaderOptions::written`] shows also what is intact beyond: all that the writer has written by
/// now. **Such records may vanish in a crash**, and others may take their places.
///
/// A unit that is being written right now isn't there yet; so is a segment whose header is. Only
/// damage below what is committed is [`Error::Corrupt`], and only after it was looked at again, as
/// what it looks like may be a race with the writer.
///
/// # When it looks
///
/// [`open`](Reader::open) looks once, as opening a log does: a header per segment and the unsynced
/// end. [`refresh`](Reader::refresh) looks again, [`replay`](Reader::replay) shows what the last look
/// found, [`follow`](Reader::follow) looks by itself.
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
    shared: Arc<Shared>,
}

/// What makes reading possible, and where it is done.
type Means = (Arc<dyn Storage>, Config, Arc<dyn Executor>);

struct Shared {
    storage: Arc<dyn Storage>,
    config: Config,
    executor: Arc<dyn Executor>,
    clock: Arc<Clock>,
    shows_written: bool,
    tracker: Mutex<Tracker>,
    held: Mutex<Arc<Held>>,
    report: RecoveryReport,
}

impl Shared {
    fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Up to where a view is shown.
fn shown(view: &View, shows_written: bool) -> Lsn {
    let is_all = shows_written || sabotage::is_on(Sabotage::FollowUnsynced);
    if is_all { view.end } else { view.committed }
}

impl Reader {
    fn new(
        options: &ReaderOptions,
        (storage, config, executor): Means,
        view: View,
        report: RecoveryReport,
    ) -> Self {
        let held = Arc::new(Held::new(&storage, &config, view.clone()));
        let tracker = Mutex::new(Tracker::new(Arc::clone(&storage), config, view));
        let shared = Shared {
            storage,
            config,
            executor,
            clock: Arc::new(Clock::new(options.interval)),
            shows_written: options.shows_written,
            tracker,
            held: Mutex::new(held),
            report,
        };
        Reader { shared: Arc::new(shared) }
    }

    /// Opens the log in `directory` for reading, with the default settings. A directory without
    /// files is a log that doesn't exist yet: it shows nothing, and follows see it begin.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where [`Wal::open`](crate::Wal::open) would refuse too (use
    /// [`ReaderOptions::salvage`]); [`Error::NotALog`], [`Error::UnsupportedVersion`],
    /// [`Error::UnsupportedFrame`], [`Error::RecordTooLarge`], [`Error::Io`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn open(directory: impl AsRef<Path>) -> Result<Self> {
        ReaderOptions::default().open(directory).await
    }

    /// Settings to open a reader with.
    pub fn options() -> ReaderOptions {
        ReaderOptions::default()
    }

    /// What [`Wal::open`](crate::Wal::open) would have found and done when this was opened: nothing
    /// of it was done.
    #[must_use]
    pub fn report(&self) -> &RecoveryReport {
        &self.shared.report
    }

    /// Where the log begins, as of the last look.
    #[must_use]
    pub fn first(&self) -> Lsn {
        self.shared.held().view.first
    }

    /// Where what is shown ends, as of the last look: [`committed`](Reader::committed), or
    /// [`written`](Reader::written) if that is asked for.
    #[must_use]
    pub fn end(&self) -> Lsn {
        shown(&self.shared.held().view, self.shared.shows_written)
    }

    /// The highest position that is known to be synced, as of the last look.
    #[must_use]
    pub fn committed(&self) -> Lsn {
        self.shared.held().view.committed
    }

    /// The first place where no intact unit stands, as of the last look.
    #[must_use]
    pub fn written(&self) -> Lsn {
        self.shared.held().view.end
    }

    /// Where each segment begins of which something is shown, oldest first, as of the last look: places
    /// at which a replay can begin, for who wants the last records, or reads with many hands.
    #[must_use]
    pub fn segment_starts(&self) -> Vec<Lsn> {
        let (held, end) = (self.shared.held(), self.end());
        let first = held.view.first;
        let bases = held.view.members.iter().map(|member| member.header.base.max(first));
        bases.filter(|&start| start < end).collect()
    }

    /// Looks again: at what is new since the last look.
    ///
    /// # Errors
    ///
    /// As [`Reader::open`]; [`Error::Closed`] if another log stands in the directory. What was shown
    /// before still is.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves what was shown before, or what was found.
    pub async fn refresh(&self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let looked = start(self.shared.executor.as_ref(), move || {
            let mut tracker = lock_over_io(&shared.tracker).unwrap_or_else(PoisonError::into_inner);
            tracker.advance()?;
            let held = Held::new(&shared.storage, &shared.config, tracker.view.clone());
            *shared.held.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(held);
            Ok(())
        });
        looked.await.map_err(|_| Error::Closed { reason: RUNTIME_GONE })?
    }

    /// The records of a range as the last look found them, oldest first.
    ///
    /// An error ends it: [`Error::Corrupt`], [`Error::Io`], [`Error::OutOfRange`] with where the log
    /// begins now if it is truncated under it, [`Error::Truncated`] if a cut took what it had still
    /// to give, [`Error::NotABoundary`].
    pub fn replay(&self, range: impl RangeBounds<Lsn>) -> Replay {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        let held = self.shared.held();
        let (first, end) = (held.view.first, shown(&held.view, self.shared.shows_written));
        let from = match range.0 {
            Bound::Included(lsn) | Bound::Excluded(lsn) => lsn,
            Bound::Unbounded => first,
        };
        let mut refused = None;
        // What is committed may end before where the log begins now.
        if from < first || from > end.max(first) {
            refused = Some(Error::OutOfRange { lsn: from, first, end });
        } else if from.as_u64() % 8 != 0 {
            refused = Some(Error::NotABoundary { lsn: from });
        }
        let tracker = self.tracker(&held);
        let source = Arc::new(ViewSource::fixed(held, from, tracker));
        Replay::of(source, Arc::clone(&self.shared.executor), (from, end), range, refused)
    }

    /// The records from `from` on, and then whatever comes, for as long as it is polled.
    pub fn follow(&self, from: Lsn) -> Tail {
        let held = self.shared.held();
        let tracker = self.tracker(&held);
        let Shared { executor, clock, shows_written, .. } = self.shared.as_ref();
        let means = (Arc::clone(executor), Arc::clone(clock));
        Tail::new(means, tracker, held, from, *shows_written)
    }

    fn tracker(&self, held: &Held) -> Tracker {
        Tracker::new(Arc::clone(&self.shared.storage), self.shared.config, held.view.clone())
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
