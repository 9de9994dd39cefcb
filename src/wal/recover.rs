//! [`Recovery`]: reads every record in one pass and then becomes the writer.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{Stream, ready};

use crate::{
    error::{ClosedBy, Error, Result},
    executor::{Executor, start},
    pipeline::{Instruments, LogName, dispatch, mark_frame::leave_mark},
    record::Record,
    recovery::{Cut, Opening, RecoveryReport, Warning},
    replay::Records,
    wal::handle::Wal,
};

/// An item of [`Recovery`]: the warnings first, then the records, then the cut.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovered {
    /// A suspicious finding.
    Warning(Warning),
    /// A record of the log, oldest first.
    Record(Record),
    /// The cut of a torn tail, or of damage. It is the last item.
    Cut(Cut),
}

/// A stream of all records of a log, which then becomes the writer.
///
/// Nothing is changed before [`into_wal`](Recovery::into_wal), which may be called before the end
/// of the stream. The stream reads ahead and holds about 1.5 MiB at most, or two records if they
/// are larger.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// use futures::TryStreamExt;
/// use highwater::{Recovered, Wal};
/// # let storage = highwater::storage::MemoryStorage::new();
/// # let options = Wal::options();
/// let mut recovery = options.recover_with(storage).await?;
/// while let Some(recovered) = recovery.try_next().await? {
///     if let Recovered::Record(record) = recovered {
///         // apply(record)
/// #       drop(record);
///     }
/// }
/// let wal = recovery.into_wal().await?;
/// # wal.close().await }
/// ```
#[must_use = "streams do nothing unless polled"]
pub struct Recovery {
    opening: Opening,
    executor: Arc<dyn Executor>,
    log_name: LogName,
    warnings: VecDeque<Warning>,
    records: Records,
    cut: Option<Cut>,
    failed: Option<Error>,
}

impl Recovery {
    pub(crate) fn new(opening: Opening, executor: Arc<dyn Executor>, log_name: LogName) -> Self {
        let (source, from, until) = opening.source();
        Recovery {
            warnings: opening.report.warnings.iter().cloned().collect(),
            cut: opening.report.cut.clone(),
            records: Records::new(source, Arc::clone(&executor), from, until),
            opening,
            executor,
            log_name,
            failed: None,
        }
    }

    /// Returns the report of reading the log. [`Wal::recovery`] also reports the changes.
    #[must_use]
    pub fn report(&self) -> &RecoveryReport {
        &self.opening.report
    }

    /// Makes the log writable and returns its handle.
    ///
    /// # Errors
    ///
    /// The error with which the stream ended, if any; [`Error::NoSpace`], [`Error::Io`]. The log is
    /// then either unchanged or recovered.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the log can be opened again as soon as the running step has ended.
    pub async fn into_wal(self) -> Result<Wal> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let (opening, executor) = (self.opening, Arc::clone(&self.executor));
        drop(self.records);
        // On the thread of the caller, which may have a recorder for this thread.
        let instruments = Instruments::new(&self.log_name, || opening.location());
        let finished = start(self.executor.as_ref(), move || {
            let (start, report) = opening.finish(executor)?;
            let needs_mark = start.needs_mark;
            let core = dispatch::start(start, instruments);
            if needs_mark {
                leave_mark(&core);
            }
            Ok((core, report))
        });
        let (core, report) =
            finished.await.map_err(|_| Error::Closed { by: ClosedBy::RuntimeGone })??;
        Ok(Wal::new(core, report))
    }
}

impl Stream for Recovery {
    type Item = Result<Recovered>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(warning) = self.warnings.pop_front() {
            return Poll::Ready(Some(Ok(Recovered::Warning(warning))));
        }
        Poll::Ready(match ready!(self.records.poll(context)) {
            Some(Ok(record)) => Some(Ok(Recovered::Record(record))),
            Some(Err(error)) => {
                self.failed = Some(error.clone());
                self.cut = None;
                Some(Err(error))
            }
            None => self.cut.take().map(|cut| Ok(Recovered::Cut(cut))),
        })
    }
}

impl fmt::Debug for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recovery").field("report", self.report()).finish_non_exhaustive()
    }
}
