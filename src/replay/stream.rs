//! [`Replay`]: a stream of the records in a range of LSNs.

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
    format::frame::is_aligned,
    lsn::{Lsn, Start},
    pipeline::Core,
    record::Record,
    replay::{
        after_seen::{AfterSeen, position_after_seen},
        live::LiveSource,
        records::Records,
        source::ChunkSource,
    },
};

/// The stream of [`Wal::replay`](crate::Wal::replay): the records of a range, oldest first.
///
/// The stream ends at the written mark of the call that made it. It reads ahead, and holds about
/// 1.5 MiB at most, or two records if they are larger.
///
/// # Errors
///
/// An error ends the stream. All records before it were yielded, including those of the same batch.
///
/// - [`Error::Corrupt`] if the next record is damaged.
/// - [`Error::BelowFirst`], [`Error::Truncated`] if the next record was truncated from the
///   beginning or the end of the log.
/// - [`Error::AboveEnd`] if the start of the range is above the end of the log.
/// - [`Error::NotABoundary`] if no record begins at the start of the range.
/// - [`Error::UnsupportedCompression`] if this build has no codec for the record.
/// - [`Error::Io`], [`Error::RecordTooLarge`], [`Error::Closed`].
#[must_use = "streams do nothing unless polled"]
pub struct Replay {
    records: Records,
    range: (Bound<Lsn>, Bound<Lsn>),
    /// The search for the start after a truncated record, and the end of the range.
    after_seen: Option<(AfterSeen, Lsn)>,
    /// An error that is the only item.
    refused: Option<Error>,
}

impl Replay {
    pub(crate) fn new(core: &Arc<Core>, range: (Bound<Lsn>, Bound<Lsn>)) -> Self {
        let goal = core.goal(|| core.written().get());
        let end = goal.end;
        let from = match range.0 {
            Bound::Included(lsn) | Bound::Excluded(lsn) => lsn,
            Bound::Unbounded => core.beginning().first(),
        };
        let mut refused = core.status().check_read().err();
        let first = core.beginning().readable_first();
        if let (Some(start), None) = (below(first, range.0), &refused) {
            let (live, executor) = (Arc::clone(core), Arc::clone(core.executor()));
            let after_seen = AfterSeen::new(&executor, move || position_after_seen(&live, start));
            let source = Arc::new(LiveSource::new(core, first, goal.epoch));
            return Self::after_seen(source, executor, after_seen, (first, end), range);
        }
        if from < first || from > end {
            refused = refused.or(Some(Error::outside(from, first, end)));
        } else if !is_aligned(from) {
            refused = refused.or(Some(Error::NotABoundary { lsn: from }));
        }
        let source = Arc::new(LiveSource::new(core, from, goal.epoch));
        Self::of(source, Arc::clone(core.executor()), (from, end), range, refused)
    }

    /// Returns a replay of `from..end`, or of an error.
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
        Replay { records, range, after_seen: None, refused }
    }

    /// Returns the position after the last yielded record, or the start of the range.
    ///
    /// Another stream can continue there.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.records.yielded_end()
    }

    /// Returns a replay after a truncated record, in a log that begins at `first`.
    pub(crate) fn after_seen(
        source: Arc<dyn ChunkSource>,
        executor: Arc<dyn Executor>,
        after_seen: AfterSeen,
        (first, end): (Lsn, Lsn),
        range: (Bound<Lsn>, Bound<Lsn>),
    ) -> Self {
        let nothing_yet = (first, first);
        let replay = Self::of(source, executor, nothing_yet, range, None);
        Replay { after_seen: Some((after_seen, end)), ..replay }
    }
}

/// Returns where a consumer starts, if that is below the beginning of the log.
pub(crate) fn below(first: Lsn, start: Bound<Lsn>) -> Option<Start> {
    let start = match start {
        Bound::Included(position) => Start::At(position),
        Bound::Excluded(seen) => Start::After(seen),
        Bound::Unbounded => return None,
    };
    (start.lsn() < first).then_some(start)
}

impl Stream for Replay {
    type Item = Result<Record>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(error) = self.refused.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some((after_seen, end)) = &mut self.after_seen {
            let (found, end) = (ready!(after_seen.poll(context)), *end);
            self.after_seen = None;
            match found {
                Ok(from) => self.records.continue_with(from, end.max(from)),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
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
