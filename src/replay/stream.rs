//! [`Replay`]: the records of a range of LSNs, as a stream.

use std::{
    fmt,
    ops::{Bound, RangeBounds},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{Stream, ready};

use crate::{
    error::{Error, Result},
    executor::Executor,
    lsn::Lsn,
    pipeline::Core,
    record::Record,
    replay::{ChunkSource, LiveSource, Records},
};

/// The stream that [`Wal::replay`](crate::Wal::replay) gives: a range of records, oldest first.
///
/// It ends at what was written when it was made. An error ends it: damage is
/// [`Error::Corrupt`], a failing device [`Error::Io`], a record compressed with what this build has
/// no codec for [`Error::UnsupportedCompression`]; what comes before was given, also of its batch.
/// [`Error::Truncated`] if what comes next was dropped by
/// [`Wal::truncate_after`](crate::Wal::truncate_after) since. It reads ahead: it holds about
/// 1.5 MiB at most, or two records if they are larger.
#[must_use = "streams do nothing unless polled"]
pub struct Replay {
    records: Records,
    range: (Bound<Lsn>, Bound<Lsn>),
    /// An error to begin and end with.
    refused: Option<Error>,
}

impl Replay {
    pub(crate) fn new(core: &Arc<Core>, range: (Bound<Lsn>, Bound<Lsn>)) -> Self {
        let goal = core.goal(|| core.written.get());
        let end = goal.end;
        let from = match range.0 {
            Bound::Included(lsn) | Bound::Excluded(lsn) => lsn,
            Bound::Unbounded => core.purge.first(),
        };
        let mut refused = core.status.check_read().err();
        let first = core.purge.readable_first();
        if from < first || from > end {
            refused = refused.or(Some(Error::OutOfRange { lsn: from, first, end }));
        } else if from.as_u64() % 8 != 0 {
            refused = refused.or(Some(Error::NotABoundary { lsn: from }));
        }
        let source = Arc::new(LiveSource::new(core, from, goal.epoch));
        Self::of(source, Arc::clone(&core.executor), (from, end), range, refused)
    }

    /// Of what lies between two positions, or of an error.
    pub(crate) fn of(
        source: Arc<dyn ChunkSource>,
        executor: Arc<dyn Executor>,
        (from, end): (Lsn, Lsn),
        range: (Bound<Lsn>, Bound<Lsn>),
        refused: Option<Error>,
    ) -> Self {
        let until = if refused.is_some() { from } else { end };
        let records = Records::new(source, executor, from, until);
        match range.1 {
            Bound::Included(last) => records.stop_at(last.plus(1)),
            Bound::Excluded(end) => records.stop_at(end),
            Bound::Unbounded => {}
        }
        Replay { records, range, refused }
    }
}

impl Stream for Replay {
    type Item = Result<Record>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(error) = self.refused.take() {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            let Some(item) = ready!(self.records.poll(context)) else {
                return Poll::Ready(None);
            };
            let record = match item {
                Ok(record) => record,
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            if self.range.contains(&record.lsn) {
                return Poll::Ready(Some(Ok(record)));
            }
            let is_past = match self.range.1 {
                Bound::Included(last) => record.lsn > last,
                Bound::Excluded(end) => record.lsn >= end,
                Bound::Unbounded => false,
            };
            if is_past {
                self.records.stop();
                return Poll::Ready(None);
            }
        }
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("after", &self.records.yielded_end())
            .field("until", &self.records.until())
            .finish_non_exhaustive()
    }
}
