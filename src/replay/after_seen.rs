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
    format::{
        frame::Kind,
        scan::{Stop, WalkBounds},
    },
    lsn::{Lsn, Start},
    pipeline::{Core, Goal},
    replay::{
        ahead::runtime_gone,
        live::{GUESS_BYTES, LiveSource},
        source::{CHUNK_BYTES, ChunkSource, read_chunk},
    },
    segments::{Buffers, Chunk, SegmentReader},
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
/// written. A position within a record counts as followed by a record. Blocking.
///
/// # Errors
///
/// `Truncated` if the end of the log was truncated below that. `Corrupt` or `Io` with the place if
/// a frame in between can't be read: it may be a record, or not.
pub(crate) fn no_record_between(core: &Arc<Core>, start: Start, goal: Goal) -> Result<bool> {
    loop {
        core.status().check_read()?;
        let from = match position_after_seen(core, start) {
            Ok(from) => from,
            Err(Error::BelowFirst { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        match live_holds_no_record(core, from, goal) {
            Ok(is_free) => {
                core.epochs().check(goal)?;
                return Ok(is_free);
            }
            Err(Error::NotABoundary { .. }) => return Ok(false),
            // The beginning of the log has passed the position meanwhile.
            Err(Error::BelowFirst { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns whether no record is between `from` and the end of `goal`.
fn live_holds_no_record(core: &Arc<Core>, from: Lsn, goal: Goal) -> Result<bool> {
    let source = LiveSource::new(core, from, goal.epoch);
    let mut at = from;
    while at < goal.end {
        let chunk = read_chunk(&source, at, goal.end, Buffers::default())?;
        if has_record(&chunk, goal.end) {
            return Ok(false);
        }
        if chunk.next == at {
            let stop = chunk.stop.unwrap_or(Stop::SegmentEnd);
            return Err(source.explain(&chunk.reader, at, goal.end, stop));
        }
        at = chunk.next;
    }
    Ok(at == goal.end)
}

/// Returns whether a record of the chunk begins below `until`.
fn has_record(chunk: &Chunk, until: Lsn) -> bool {
    let mut frames = chunk.frames.iter();
    frames.any(|frame| frame.lsn < until && frame.kind != Kind::Control)
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
        if has_record(&chunk, until) {
            return false;
        }
        at = chunk.next;
    }
    at == until
}
