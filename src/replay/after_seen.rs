//! Finds the position at which a consumer continues, if the log begins later now.
//!
//! A consumer keeps the end of the last record that it has seen, or that record's LSN. If the log
//! begins later now, the consumer has missed a record if and only if one was in between.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{Future, ready};
use tokio::sync::oneshot;

use crate::{
    error::{Error, Result},
    executor::{Executor, start},
    format::{frame::Kind, scan::WalkBounds},
    lsn::{Lsn, Start},
    pipeline::{Core, Goal},
    replay::{ahead::runtime_gone, live::GUESS_BYTES, source::CHUNK_BYTES},
    segments::SegmentReader,
};

type FindPosition = Box<dyn FnOnce() -> Result<Lsn> + Send>;

/// Finds the position at which a consumer continues that has seen a truncated part of the log.
pub(crate) struct AfterSeen {
    executor: Arc<dyn Executor>,
    find: Option<FindPosition>,
    found: Option<oneshot::Receiver<Result<Lsn>>>,
}

impl AfterSeen {
    /// Creates the search. `find` blocks, and returns the beginning of the log or `BelowFirst`.
    pub(crate) fn new(
        executor: &Arc<dyn Executor>,
        find: impl FnOnce() -> Result<Lsn> + Send + 'static,
    ) -> Self {
        let executor = Arc::clone(executor);
        AfterSeen { executor, find: Some(Box::new(find)), found: None }
    }

    /// Returns the position at which the consumer continues.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Lsn>> {
        if let Some(find) = self.find.take() {
            self.found = Some(start(self.executor.as_ref(), find));
        }
        let Some(found) = &mut self.found else { return Poll::Ready(Err(runtime_gone())) };
        let found = ready!(Pin::new(found).poll(context));
        self.found = None;
        Poll::Ready(found.unwrap_or_else(|_| Err(runtime_gone())))
    }
}

/// Returns the position at which a consumer continues. Blocking.
///
/// # Errors
///
/// `BelowFirst` if the consumer has missed a record.
pub(crate) fn position_after_seen(core: &Core, start: Start) -> Result<Lsn> {
    let first = core.beginning().readable_first();
    if start.lsn() >= first {
        return Ok(start.lsn());
    }
    let reader_at = |lsn| {
        let (info, successor) = core.segments().find(lsn)?;
        let file = core.segments().open(info.sequence).ok()?;
        let (end, record_bytes_max) = (successor.unwrap_or(first), core.config().record_bytes_max);
        let place = WalkBounds { seed: info.seed, end, record_bytes_max };
        Some(SegmentReader { file, base: info.base, place })
    };
    let is_last = has_seen_all(start, first, reader_at)
        || core.beginning().base_behind(start).is_some_and(|base| {
            // The segment that holds the last seen record was removed.
            holds_no_record(base, first, reader_at)
        });
    // The log may have been truncated further during the search.
    let now = core.beginning().readable_first();
    match is_last && now == first {
        true => Ok(first),
        false => Err(Error::BelowFirst { lsn: start.lsn(), first: now }),
    }
}

/// Returns whether no record is between what a consumer has seen and the end of `goal`, which is
/// written. Blocking.
///
/// # Errors
///
/// `Truncated` if the end of the log was truncated below that; those of reading.
pub(crate) fn no_record_between(core: &Core, start: Start, goal: Goal) -> Result<bool> {
    core.status().check_read()?;
    let from = match position_after_seen(core, start) {
        Ok(from) => from,
        Err(Error::BelowFirst { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    let record_bytes_max = core.config().record_bytes_max;
    let reader_at = |lsn| {
        let (info, successor) = core.segments().find(lsn)?;
        let file = core.segments().open(info.sequence).ok()?;
        let place =
            WalkBounds { seed: info.seed, end: successor.unwrap_or(goal.end), record_bytes_max };
        Some(SegmentReader { file, base: info.base, place })
    };
    let is_free = holds_no_record(from, goal.end, reader_at);
    core.epochs().check(goal)?;
    Ok(is_free)
}

/// Returns whether no record is between what a consumer has seen and `first`, as the files show.
pub(crate) fn has_seen_all(
    start: Start,
    first: Lsn,
    reader_at: impl Fn(Lsn) -> Option<SegmentReader> + Copy,
) -> bool {
    let behind = match start {
        Start::At(position) => Some(position),
        Start::After(seen) => end_of_record(seen, first, reader_at),
    };
    behind.is_some_and(|behind| holds_no_record(behind, first, reader_at))
}

/// Returns the end of the record at `lsn`; `None` without an intact record.
fn end_of_record(
    lsn: Lsn,
    until: Lsn,
    reader_at: impl Fn(Lsn) -> Option<SegmentReader>,
) -> Option<Lsn> {
    let reader = reader_at(lsn)?;
    let (frame, _) = reader.read_frame(lsn, until, GUESS_BYTES).ok()?.ok()?;
    let is_record = frame.kind != Kind::Control;
    is_record.then(|| frame.end())
}

/// Returns whether `from..until` is intact and holds no record.
fn holds_no_record(
    from: Lsn,
    until: Lsn,
    reader_at: impl Fn(Lsn) -> Option<SegmentReader>,
) -> bool {
    let mut at = from;
    while at < until {
        let chunk = reader_at(at).and_then(|reader| reader.read_chunk(at, until, CHUNK_BYTES).ok());
        let Some(chunk) = chunk.filter(|chunk| chunk.next > at) else { return false };
        let is_record = |kind| kind != Kind::Control;
        if chunk.frames.iter().any(|frame| frame.lsn < until && is_record(frame.kind)) {
            return false;
        }
        at = chunk.next;
    }
    at == until
}
