//! [`Salvage`]: a stream of the intact records of a damaged log.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{Future, Stream, ready, stream::FusedStream};
use tokio::sync::oneshot;

use crate::{
    error::{ClosedBy, Error, Result},
    executor::{Executor, start},
    options::Config,
    reader::salvage::{
        gap::{Items, SalvageError},
        walk::Salvager,
    },
    record::Record,
    storage::Storage,
};

/// The stream of [`ReaderOptions::salvage`](crate::reader::ReaderOptions::salvage): all intact
/// records of a log.
///
/// Records are yielded oldest first. Each part of the log that cannot be read is an error item, a
/// [`Gap`](crate::reader::Gap). The stream continues after each gap, and ends at the end of the
/// log.
///
/// Use it if opening refuses the log with [`Error::Corrupt`] and there is no replica. The
/// application must judge if the records make sense without the missing ones. Like a
/// [`Reader`](crate::Reader), it changes nothing and takes no lock. It shows the log at one moment.
///
/// - A record is intact if its frame is valid at its position, for the id of the log and the epoch
///   of its segment. The next record is found even after a damaged length, because every position
///   is tried.
/// - A **batch** is yielded as a whole or not at all. If one of its frames is damaged, all of it is
///   a gap. A batch that directly follows damage without a valid length may be the end of a longer
///   batch. It is part of the gap unless a nearby frame claims that a unit begins there.
/// - Records that a cut replaced, and records before the beginning of the log, are not yielded.
/// - A **missing segment**, or one without a readable header, is a gap. If the neighbours of a
///   headless segment show where its frames belong, its records are yielded. The gap is then empty
///   (`from == to`) and reports the header.
/// - An unreadable sector is damage. It does not affect records outside of it.
/// - All records that opening would keep are yielded, also with
///   [`OnDamage::TruncateAtDamage`](crate::OnDamage). No header that opening rejects hides any of
///   them.
/// - Intact records that are not committed are yielded, too, even after a torn tail.
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
///         Err(gap_or_end) => eprintln!("{gap_or_end}"),
///     }
/// }
/// # Ok(()) }
/// ```
///
/// # Cancel safety
///
/// Cancel-safe: the next future continues after the last yielded item.
#[must_use = "streams do nothing unless polled"]
pub struct Salvage {
    executor: Arc<dyn Executor>,
    /// `None` while a job reads, and at the end.
    salvager: Option<Box<Salvager>>,
    reading: Option<oneshot::Receiver<(Box<Salvager>, Items)>>,
    items: Items,
}

impl Salvage {
    pub(in crate::reader) async fn begin(
        executor: Arc<dyn Executor>,
        config: Config,
        storage: impl FnOnce() -> Result<Arc<dyn Storage>> + Send + 'static,
    ) -> Result<Self> {
        let begun = start(executor.as_ref(), move || Salvager::begin(storage()?, config));
        let salvager = begun.await.map_err(|_| Error::Closed { by: ClosedBy::RuntimeGone })??;
        let salvager = Some(Box::new(salvager));
        Ok(Salvage { executor, salvager, reading: None, items: Items::new() })
    }
}

impl Stream for Salvage {
    type Item = Result<Record, SalvageError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(item) = this.items.pop_front() {
                return Poll::Ready(Some(item));
            }
            if let Some(reading) = &mut this.reading {
                let read = ready!(Pin::new(reading).poll(context));
                this.reading = None;
                let Ok((salvager, items)) = read else {
                    let closed = Error::Closed { by: ClosedBy::RuntimeGone };
                    return Poll::Ready(Some(Err(SalvageError::Stopped(closed))));
                };
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
