//! Following a log by polling its files.

use std::{
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
    reader::{
        clock::Clock,
        cut::first_difference,
        shown,
        source::{Held, ViewSource},
        view::Tracker,
    },
    record::Record,
    replay::Records,
    wal::RUNTIME_GONE,
};

/// The stream that [`Reader::follow`](super::Reader::follow) gives: the records from a position on,
/// oldest first, those of the past and then those to come, each once.
///
/// When it has given all there is, it looks for more at the end of each
/// [interval](super::ReaderOptions::poll_interval), for as long as it is polled; a small thread that
/// all followers of a [`Reader`](super::Reader) share keeps the time, so it works on any runtime. It
/// has no end of its own: it goes on across rotations, and across the writer's close, its crash and
/// the next opening. It holds two chunks of about 256 KiB at most, or two units if they are larger.
///
/// # Errors
///
/// - [`Error::Truncated`] once, if records that it has given were cut: by a recovery after a crash,
///   as may happen to what wasn't committed, or by the log's owner. **It goes on then**, from `to`.
/// - [`Error::OutOfRange`], with where the log begins now, if what comes next was truncated; or if
///   `from` lies past what is shown. It ends.
/// - [`Error::NotABoundary`], [`Error::Corrupt`], [`Error::Io`], [`Error::UnsupportedVersion`] and
///   [`Error::UnsupportedFrame`], [`Error::RecordTooLarge`], [`Error::Closed`] if another log stands
///   in the directory or the runtime is gone. It ends.
///
/// # Cancel safety
///
/// Cancel-safe: what a future such as `next()` hasn't given, the next one will.
/// [`Tail::position`] is where another one goes on.
#[must_use = "streams do nothing unless polled"]
pub struct Tail {
    /// `None` once it has ended.
    live: Option<Live>,
    position: Lsn,
}

struct Live {
    executor: Arc<dyn Executor>,
    clock: Arc<Clock>,
    /// `None` while a look is under way.
    tracker: Option<Tracker>,
    source: Arc<ViewSource>,
    records: Records,
    shows_written: bool,
    step: Step,
    /// Where the last record ends that was given; the position may be past control records.
    given: Lsn,
    /// It hasn't been asked yet whether the log holds the position that it begins with.
    is_new: bool,
    /// What reading ended with, if a look can still explain it.
    failed: Option<Error>,
}

enum Step {
    Read,
    Look(oneshot::Receiver<(Tracker, Result<Change>)>),
    /// For the end of the interval that began when so many had ended.
    Wait(u64),
}

/// What a look has found.
struct Change {
    held: Arc<Held>,
    truncated_to: Option<Lsn>,
}

impl Tail {
    pub(super) fn new(
        (executor, clock): (Arc<dyn Executor>, Arc<Clock>),
        tracker: Tracker,
        held: Arc<Held>,
        from: Lsn,
        shows_written: bool,
    ) -> Self {
        let source = Arc::new(ViewSource::moving(held, from));
        let chunks = Arc::<ViewSource>::clone(&source);
        let live = Live {
            records: Records::new(chunks, Arc::clone(&executor), from, from),
            executor,
            clock,
            tracker: Some(tracker),
            source,
            shows_written,
            step: Step::Read,
            given: from,
            is_new: true,
            failed: None,
        };
        Tail { live: Some(live), position: from }
    }

    /// Where it goes on: one past all that it has given.
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

impl Live {
    fn poll(&mut self, position: &mut Lsn, context: &mut Context<'_>) -> Poll<Result<Record>> {
        loop {
            match &mut self.step {
                Step::Read => match ready!(self.records.poll(context)) {
                    Some(Ok(record)) => {
                        *position = self.records.yielded_end();
                        self.given = *position;
                        return Poll::Ready(Ok(record));
                    }
                    Some(Err(error)) => {
                        // Gone while it was read? The next look tells.
                        self.failed = Some(error);
                        self.start_looking();
                    }
                    None => {
                        *position = self.records.until();
                        self.start_looking();
                    }
                },
                Step::Look(looking) => {
                    let Ok((tracker, found)) = ready!(Pin::new(looking).poll(context)) else {
                        return Poll::Ready(Err(Error::Closed { reason: RUNTIME_GONE }));
                    };
                    self.tracker = Some(tracker);
                    if let Some(error) = self.take(found?, position)? {
                        return Poll::Ready(Err(error));
                    }
                    if !matches!(self.step, Step::Read) {
                        self.step = Step::Wait(self.clock.register(context.waker())?);
                    }
                }
                Step::Wait(since) if self.clock.tick_count() > *since => self.start_looking(),
                Step::Wait(_) => {
                    // Perhaps with another waker than before.
                    self.clock.register(context.waker())?;
                    return Poll::Pending;
                }
            }
        }
    }

    fn start_looking(&mut self) {
        let Some(mut tracker) = self.tracker.take() else { return };
        let (old, given) = (self.source.held(), self.given);
        let looking = start(self.executor.as_ref(), move || {
            let found = look(&mut tracker, &old, given);
            (tracker, found)
        });
        self.step = Step::Look(looking);
    }

    /// Takes what a look has found, and says what is to be told of it. Reads on if there is more.
    fn take(&mut self, change: Change, position: &mut Lsn) -> Result<Option<Error>> {
        let failed = self.failed.take();
        let is_other = !Arc::ptr_eq(&self.source.held(), &change.held);
        let view = &change.held.view;
        let (first, end) = (view.first, shown(view, self.shows_written));
        self.source.take(Arc::clone(&change.held));
        if let Some(to) = change.truncated_to {
            *position = to;
            self.given = to;
            self.records.go_on(to, to);
            self.step = Step::Read;
            return Ok(Some(Error::Truncated { to }));
        }
        let is_past = self.is_new && *position > end.max(first);
        if *position < first || is_past {
            return Err(Error::OutOfRange { lsn: *position, first, end });
        }
        if position.as_u64() % 8 != 0 {
            return Err(Error::NotABoundary { lsn: *position });
        }
        self.is_new = false;
        match failed {
            // The files are others now: what was missing may stand there.
            Some(Error::Io { source, .. })
                if is_other && source.kind() == std::io::ErrorKind::NotFound => {}
            Some(error) => return Err(error),
            None => {}
        }
        if *position < end {
            self.records.go_on(*position, end);
            self.step = Step::Read;
        }
        Ok(None)
    }
}

/// Looks, and finds out whether what was given up to `given` is still there. Blocks.
fn look(tracker: &mut Tracker, old: &Arc<Held>, given: Lsn) -> Result<Change> {
    let replaced = tracker.advance()?;
    if tracker.view == old.view {
        return Ok(Change { held: Arc::clone(old), truncated_to: None });
    }
    let view = tracker.view.clone();
    let held = Arc::new(old.successor(&tracker.storage, &tracker.config, view));
    let truncated_to = match replaced.filter(|&from| from < given) {
        Some(from) => first_difference(old, &held, from, given)?,
        None => None,
    };
    Ok(Change { held, truncated_to })
}
