//! [`Tail`]: follows a log by polling its files.

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
    format::frame::is_aligned,
    lsn::{Lsn, Start},
    reader::{
        clock::Clock,
        cut::first_difference,
        source::{OpenView, ViewSource},
        view::Tracker,
    },
    record::Record,
    replay::Records,
};

/// The stream of [`Reader::follow`](super::Reader::follow): the records from a position on, then
/// new ones.
///
/// It yields each record once, oldest first. When it has yielded all records, it reads the files at
/// the end of each [interval](super::ReaderOptions::poll_interval), while it is polled. A thread
/// that all followers of a [`Reader`](super::Reader) share measures the intervals, so a tail works
/// on any runtime. The thread measures real time, also while tokio's clock is paused: see
/// [`runtime_clock`](super::ReaderOptions::runtime_clock).
///
/// The stream has no end. It continues across rotations, and across the writer's close, crash and
/// next opening. It holds about 1.5 MiB at most, or two units if they are larger.
///
/// # Errors
///
/// - [`Error::Truncated`], once, if the log's owner truncated yielded records. A recovery after a
///   crash may also cut yielded records that were not committed. **The stream then continues** from
///   `to`.
/// - [`Error::BelowFirst`] with the current beginning of the log, if the next record was truncated.
///   [`Error::AboveEnd`] if `from` is above the shown records. The stream ends.
/// - [`Error::NotABoundary`], [`Error::Corrupt`], [`Error::Io`], [`Error::UnsupportedVersion`],
///   [`Error::UnsupportedFrame`], [`Error::RecordTooLarge`]. The stream ends.
/// - [`Error::Closed`] if another log is in the directory or the runtime was shut down. The stream
///   ends.
///
/// # Cancel safety
///
/// Cancel-safe: the next future continues after the last yielded record. Another stream can
/// continue at [`Tail::position`].
#[must_use = "streams do nothing unless polled"]
pub struct Tail {
    /// `None` after the end of the stream.
    live: Option<LiveTail>,
    position: Lsn,
}

struct LiveTail {
    executor: Arc<dyn Executor>,
    clock: Arc<Clock>,
    /// `None` while a look is in progress.
    tracker: Option<Tracker>,
    source: Arc<ViewSource>,
    records: Records,
    shows_written: bool,
    step: TailStep,
    /// The end of the last yielded record. `position` may be after control records.
    yielded_end: Lsn,
    /// The record that the consumer has seen, until the stream has passed it.
    seen: Option<Lsn>,
    /// True until the first look has checked that the log holds the start position.
    is_new: bool,
    /// The error with which reading ended, if a look may still explain it.
    failed: Option<Error>,
}

enum TailStep {
    Read,
    Look(oneshot::Receiver<(Tracker, Result<ViewChange>)>),
    /// Waits until more intervals have ended than this number.
    Wait(u64),
    /// Waits for the end of an interval of the runtime's clock.
    Sleep(Pin<Box<tokio::time::Sleep>>),
}

/// The result of a look.
struct ViewChange {
    open_view: Arc<OpenView>,
    truncated_to: Option<Lsn>,
    /// The beginning of the log, if no record is between it and what the consumer has seen.
    after_seen: Option<Lsn>,
}

impl Tail {
    pub(super) fn new(
        (executor, clock): (Arc<dyn Executor>, Arc<Clock>),
        tracker: Tracker,
        open_view: Arc<OpenView>,
        start: Start,
        shows_written: bool,
    ) -> Self {
        let (from, seen) = (start.lsn(), start.seen());
        let source = Arc::new(ViewSource::moving(open_view, from));
        let chunks = Arc::<ViewSource>::clone(&source);
        let live = LiveTail {
            records: Records::new(chunks, Arc::clone(&executor), from, from),
            executor,
            clock,
            tracker: Some(tracker),
            source,
            shows_written,
            step: TailStep::Read,
            yielded_end: from,
            seen,
            is_new: true,
            failed: None,
        };
        Tail { live: Some(live), position: from }
    }

    /// Returns the position after the last yielded record, where another stream can continue.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.position
    }
}

impl Stream for Tail {
    type Item = Result<Record>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(live) = &mut this.live else { return Poll::Ready(None) };
        let item = ready!(live.poll(&mut this.position, context));
        if !matches!(item, Ok(_) | Err(Error::Truncated { .. })) {
            this.live = None;
        }
        Poll::Ready(Some(item))
    }
}

impl FusedStream for Tail {
    fn is_terminated(&self) -> bool {
        self.live.is_none()
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").field("position", &self.position).finish_non_exhaustive()
    }
}

impl LiveTail {
    fn poll(&mut self, position: &mut Lsn, context: &mut Context<'_>) -> Poll<Result<Record>> {
        loop {
            match &mut self.step {
                TailStep::Read => match ready!(self.records.poll(context)) {
                    Some(Ok(record)) => {
                        *position = self.records.yielded_end();
                        self.yielded_end = *position;
                        if self.seen.take() == Some(record.lsn) {
                            continue;
                        }
                        return Poll::Ready(Ok(record));
                    }
                    Some(Err(error)) => {
                        // The file may have been removed during the read. The next look shows that.
                        self.failed = Some(error);
                        self.start_look();
                    }
                    None => {
                        *position = self.records.until();
                        self.start_look();
                    }
                },
                TailStep::Look(look) => {
                    let Ok((tracker, found)) = ready!(Pin::new(look).poll(context)) else {
                        return Poll::Ready(Err(Error::Closed { by: ClosedBy::RuntimeGone }));
                    };
                    self.tracker = Some(tracker);
                    if let Some(error) = self.apply(found?, position)? {
                        return Poll::Ready(Err(error));
                    }
                    if !matches!(self.step, TailStep::Read) {
                        self.step = match self.clock.sleep() {
                            Some(sleep) => TailStep::Sleep(Box::pin(sleep)),
                            None => TailStep::Wait(self.clock.register(context.waker())?),
                        };
                    }
                }
                TailStep::Sleep(sleep) => {
                    ready!(sleep.as_mut().poll(context));
                    self.start_look();
                }
                TailStep::Wait(since) if self.clock.tick_count() > *since => self.start_look(),
                TailStep::Wait(_) => {
                    // The task may have another waker than before.
                    self.clock.register(context.waker())?;
                    return Poll::Pending;
                }
            }
        }
    }

    fn start_look(&mut self) {
        let Some(mut tracker) = self.tracker.take() else { return };
        let (old, yielded_end, seen) = (self.source.open_view(), self.yielded_end, self.seen);
        let look = start(self.executor.as_ref(), move || {
            let found = advance(&mut tracker, &old, yielded_end).map(|change| {
                let start = seen.map_or(Start::At(yielded_end), Start::After);
                let view = &change.open_view;
                let after_seen = match start.lsn() < view.view.first {
                    true => view.position_after_seen(start, Some(&old)).ok(),
                    false => None,
                };
                ViewChange { after_seen, ..change }
            });
            (tracker, found)
        });
        self.step = TailStep::Look(look);
    }

    /// Applies the result of a look. Returns an error to yield, after which the stream continues.
    ///
    /// Continues to read if there are more records.
    fn apply(&mut self, change: ViewChange, position: &mut Lsn) -> Result<Option<Error>> {
        let mut failed = self.failed.take();
        let is_other = !Arc::ptr_eq(&self.source.open_view(), &change.open_view);
        let view = &change.open_view.view;
        let (first, end) = (view.first, view.shown_end(self.shows_written));
        self.source.replace(Arc::clone(&change.open_view));
        if let Some(to) = change.truncated_to {
            self.seen = None;
            *position = to;
            self.yielded_end = to;
            self.records.continue_with(to, to);
            self.step = TailStep::Read;
            return Ok(Some(Error::Truncated { to }));
        }
        if let Some(after_seen) = change.after_seen {
            self.seen = None;
            *position = after_seen;
            self.yielded_end = after_seen;
            self.records.continue_with(after_seen, after_seen);
            // The error came from reading a truncated record.
            failed = None;
        }
        let is_past = self.is_new && *position > end.max(first);
        if *position < first || is_past {
            return Err(Error::outside(*position, first, end));
        }
        if !is_aligned(*position) {
            return Err(Error::NotABoundary { lsn: *position });
        }
        self.is_new = false;
        match failed {
            // The files have changed, so the missing one may exist now.
            Some(Error::Io { source, .. })
                if is_other && source.kind() == std::io::ErrorKind::NotFound => {}
            Some(error) => return Err(error),
            None => {}
        }
        if *position < end {
            self.records.continue_with(*position, end);
            self.step = TailStep::Read;
        }
        Ok(None)
    }
}

/// Reads the changes of the log. Checks that the records up to `yielded_end` still exist. Blocking.
fn advance(tracker: &mut Tracker, old: &Arc<OpenView>, yielded_end: Lsn) -> Result<ViewChange> {
    let replaced = tracker.advance()?;
    if tracker.view == old.view {
        return Ok(ViewChange { open_view: Arc::clone(old), truncated_to: None, after_seen: None });
    }
    let view = tracker.view.clone();
    let open_view = Arc::new(old.successor(&tracker.storage, &tracker.config, view));
    let truncated_to = match replaced.filter(|&from| from < yielded_end) {
        Some(from) => first_difference(old, &open_view, from, yielded_end)?,
        None => None,
    };
    Ok(ViewChange { open_view, truncated_to, after_seen: None })
}
