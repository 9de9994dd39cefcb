//! Reading what is left of a damaged log, and saying exactly what isn't.

mod extents;
mod forgiving;
mod walk;

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{Future, Stream, ready, stream::FusedStream};
use tokio::sync::oneshot;

use crate::{
    error::{Error, Result},
    executor::{Executor, start},
    lsn::Lsn,
    options::Config,
    reader::salvage::walk::Salvager,
    record::Record,
    storage::Storage,
    wal::RUNTIME_GONE,
};

/// A part of a log that can't be read: an item of [`Salvage`], in the place of what was there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
#[error(
    "{}: LSN {from}..{to} can't be read: {reason} ({bytes} bytes)",
    place(.segment.as_deref(), *.offset)
)]
#[non_exhaustive]
pub struct Gap {
    /// The file in which it lies; `None` if that is missing.
    pub segment: Option<String>,
    /// Where it begins in that file; 0 if the file is missing.
    pub offset: u64,
    /// Where it begins in the log.
    pub from: Lsn,
    /// Where it ends, exclusive: what comes next begins there.
    pub to: Lsn,
    /// How many bytes of the file it takes; of the log, where the file is missing.
    pub bytes: u64,
    /// Whether something intact claims that its beginning was synced: then records are lost. If not,
    /// it may be a torn tail, of which nobody was told that it is durable.
    pub is_committed: bool,
    /// What stands there.
    pub reason: String,
}

fn place(segment: Option<&str>, offset: u64) -> String {
    match segment {
        Some(segment) => format!("segment {segment}, offset {offset}"),
        None => "a missing segment".to_owned(),
    }
}

/// The stream that [`ReaderOptions::salvage`](super::ReaderOptions::salvage) gives: every record of
/// a log that is still whole, oldest first, and a [`Gap`] as an error item in the place of what isn't.
/// It goes on after each, and ends where the log does.
///
/// It is for the hour in which opening refuses with [`Error::Corrupt`] and there is no replica: what
/// it gives has holes, so whether the rest makes sense is for its user to judge. It changes nothing
/// and takes no lock, as a [`Reader`](crate::Reader). It shows the log as it stood at one moment.
///
/// - A record counts if its frame holds at its place, under the log's id and its segment's epoch.
///   The next one is found also where a length is damaged: every position is tried.
/// - A **batch** counts whole or not at all: with one frame damaged, all of it is a gap. A batch that
///   directly follows damage of which not even the length can be trusted is part of the gap too,
///   unless something near claims that its beginning was synced: it can't be told from the end of a
///   longer one.
/// - What a cut replaced, and what lies before the log's beginning, is none of the log and isn't given.
/// - A segment that is **missing**, or of which neither header can be read, is a gap. If the frames
///   of one without a header can be placed by its neighbours, they are given, and the gap is empty
///   (`from == to`) and tells of the header.
/// - A sector that can't be read is damage; a record of which it is no part isn't touched by it.
/// - What isn't committed is given as well, if it is whole, also past a torn tail.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// use futures::StreamExt;
/// use highwater::{Reader, Wal};
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("log");
/// # let wal = Wal::open(&path).await?;
/// # wal.append_and_sync(b"still there").await?;
/// # wal.close().await?;
/// let mut salvage = Reader::options().salvage(&path).await?;
/// while let Some(item) = salvage.next().await {
///     match item {
///         Ok(record) => println!("{}: {} bytes", record.lsn, record.payload.len()),
///         Err(gap) => eprintln!("{gap}"),
///     }
/// }
/// # Ok(()) }
/// ```
///
/// # Cancel safety
///
/// Cancel-safe: what a future such as `next()` hasn't given, the next one will.
#[must_use = "streams do nothing unless polled"]
pub struct Salvage {
    executor: Arc<dyn Executor>,
    /// `None` while it is reading, and at the end.
    salvager: Option<Box<Salvager>>,
    reading: Option<oneshot::Receiver<(Box<Salvager>, Items)>>,
    items: Items,
}

type Items = VecDeque<Result<Record, Gap>>;

impl Salvage {
    pub(super) async fn begin(
        executor: Arc<dyn Executor>,
        config: Config,
        storage: impl FnOnce() -> Result<Arc<dyn Storage>> + Send + 'static,
    ) -> Result<Self> {
        let begun = start(executor.as_ref(), move || Salvager::begin(storage()?, config));
        let salvager = begun.await.map_err(|_| Error::Closed { reason: RUNTIME_GONE })??;
        let salvager = Some(Box::new(salvager));
        Ok(Salvage { executor, salvager, reading: None, items: Items::new() })
    }
}

impl Stream for Salvage {
    type Item = Result<Record, Gap>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(item) = this.items.pop_front() {
                return Poll::Ready(Some(item));
            }
            if let Some(reading) = &mut this.reading {
                let read = ready!(Pin::new(reading).poll(context));
                this.reading = None;
                // Without a runtime there is no more to be had.
                let Ok((salvager, items)) = read else { return Poll::Ready(None) };
                this.salvager = (!items.is_empty()).then_some(salvager);
                this.items = items;
                continue;
            }
            let Some(mut salvager) = this.salvager.take() else { return Poll::Ready(None) };
            this.reading = Some(start(this.executor.as_ref(), move || {
                let items = salvager.read_some();
                (salvager, items)
            }));
        }
    }
}

impl FusedStream for Salvage {
    fn is_terminated(&self) -> bool {
        self.items.is_empty() && self.reading.is_none() && self.salvager.is_none()
    }
}

impl fmt::Debug for Salvage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Salvage").finish_non_exhaustive()
    }
}
