//! Recovery as a stream: every record in one pass, and then the writer at its end.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{Stream, ready};

use crate::{
    error::{Error, Result},
    executor::{Executor, start},
    pipeline::Core,
    record::Record,
    recovery::{Cut, Opening, RecoveryReport, Warning},
    replay::Records,
    wal::{handle::Wal, options::RUNTIME_GONE},
};

/// What recovery comes upon, in this order: warnings, records, the cut if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Recovered {
    /// Something suspicious that does no harm.
    Warning(Warning),
    /// A record of the log, oldest first.
    Record(Record),
    /// The torn tail that ended the log.
    Cut(Cut),
}

/// A log being recovered: a stream of all it holds, which ends as the log's writer.
///
/// Until [`into_wal`](Recovery::into_wal) nothing is changed. It need not be read to its end
/// before. Reading is ahead by one chunk and holds two chunks of about 256 KiB at most, or two
/// records if they are larger.
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
    warnings: VecDeque<Warning>,
    records: Records,
    cut: Option<Cut>,
    failed: Option<Error>,
}

impl Recovery {
    pub(crate) fn new(opening: Opening, executor: Arc<dyn Executor>) -> Self {
        let (source, from, until) = opening.source();
        Recovery {
            warnings: opening.report.warnings.iter().cloned().collect(),
            cut: opening.report.cut.clone(),
            records: Records::new(source, Arc::clone(&executor), from, until),
            opening,
            executor,
            failed: None,
        }
    }

    /// What was found. What is done about it is in [`Wal::recovery`].
    #[must_use]
    pub fn report(&self) -> &RecoveryReport {
        &self.opening.report
    }

    /// Makes the log writable, from its end on.
    ///
    /// # Errors
    ///
    /// The error that the stream ended with, if it did; [`Error::NoSpace`], [`Error::Io`]. The log
    /// is as it was then, or recovered.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves a log that can be opened again, as soon as the step that was
    /// running has ended.
    pub async fn into_wal(self) -> Result<Wal> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let (opening, executor) = (self.opening, Arc::clone(&self.executor));
        drop(self.records);
        let finished = start(self.executor.as_ref(), move || {
            let (start, report) = opening.finish(executor)?;
            let needs_mark = start.needs_mark;
            let core = Core::start(start);
            if needs_mark {
                core.leave_mark();
            }
            Ok((core, report))
        });
        let (core, report) =
            finished.await.map_err(|_| Error::Closed { reason: RUNTIME_GONE })??;
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
