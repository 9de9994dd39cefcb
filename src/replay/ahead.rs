//! Reads chunks ahead of the consumer, one job at a time.
//!
//! Starting a job costs as much as reading a cached chunk. So a job does not end with each chunk,
//! but fills a window. The window begins with one chunk, because some consumers need no more, and
//! doubles with each chunk that is taken. Buffers are reused when no record refers to them any
//! more. A fresh buffer costs more, because it must be zeroed and its pages are touched for the
//! first time.

use std::{
    collections::VecDeque,
    mem,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::{
    error::{ClosedBy, Error, Result},
    executor::Executor,
    lsn::Lsn,
    pipeline::wake_each,
    replay::source::{CHUNK_BYTES, ChunkSource, read_chunk},
    segments::{Buffers, Chunk},
    sync::{LockAlways, Mutex, MutexGuard},
};

/// The maximum number of bytes that are read ahead. One chunk of any size is always allowed.
const WINDOW_BYTES_MAX: u64 = 3 * CHUNK_BYTES;

/// The number of chunks after which a job starts a new one. A longer job would delay a shutdown.
const CHUNKS_PER_JOB: u32 = 32;

/// The maximum number of buffers kept for reuse: those of a window, and the consumer's.
const SPARES_MAX: usize = 5;

/// The largest buffer that is kept for reuse.
const SPARE_BYTES_MAX: u64 = 2 * CHUNK_BYTES;

/// Yields the chunks of a range in order.
#[derive(Debug)]
pub(super) struct ReadAhead {
    source: Arc<dyn ChunkSource>,
    executor: Arc<dyn Executor>,
    shared: Arc<SharedWindow>,
}

#[derive(Debug)]
struct SharedWindow(Mutex<WindowState>);

#[derive(Debug)]
struct WindowState {
    /// The next read begins at `next`, and the last one ends at `until`.
    next: Lsn,
    until: Lsn,
    /// Records that begin here or later are not needed, so nothing is read for them.
    stop_at: Lsn,
    ready: VecDeque<Result<Chunk>>,
    ready_bytes: u64,
    window_bytes: u64,
    /// The "job is running" flag.
    is_reading: bool,
    waker: Option<Waker>,
    spares: Vec<Buffers>,
}

impl WindowState {
    /// Returns whether the range has unread bytes and the window has room.
    fn wants_reading(&self) -> bool {
        let has_room = self.ready.is_empty() || self.ready_bytes < self.window_bytes;
        self.next < self.until.min(self.stop_at) && has_room
    }

    /// Returns buffers to which no record refers any more, or new ones.
    fn take_buffers(&mut self) -> Buffers {
        let free = self.spares.iter().position(|spare| spare.bytes.is_unique());
        free.map(|place| self.spares.swap_remove(place)).unwrap_or_default()
    }
}

impl SharedWindow {
    /// No user code and no I/O may run under this lock.
    fn state(&self) -> MutexGuard<'_, WindowState> {
        self.0.lock_always()
    }
}

impl ReadAhead {
    pub(super) fn new(
        source: Arc<dyn ChunkSource>,
        executor: Arc<dyn Executor>,
        from: Lsn,
        until: Lsn,
    ) -> Self {
        let state = WindowState {
            next: from,
            until,
            stop_at: Lsn::new(u64::MAX),
            ready: VecDeque::new(),
            ready_bytes: 0,
            window_bytes: CHUNK_BYTES,
            is_reading: false,
            waker: None,
            spares: Vec::new(),
        };
        ReadAhead { source, executor, shared: Arc::new(SharedWindow(Mutex::new(state))) }
    }

    pub(super) fn source(&self) -> &Arc<dyn ChunkSource> {
        &self.source
    }

    pub(super) fn executor(&self) -> &dyn Executor {
        self.executor.as_ref()
    }

    /// Returns the end of the range.
    pub(super) fn until(&self) -> Lsn {
        self.shared.state().until
    }

    /// Continues with another range. All chunks of the previous one must have been taken.
    pub(super) fn continue_with(&self, from: Lsn, until: Lsn) {
        let mut state = self.shared.state();
        state.next = from;
        state.until = until;
    }

    /// Prevents reads for records that begin at `lsn` or later.
    pub(super) fn stop_at(&self, lsn: Lsn) {
        self.shared.state().stop_at = lsn;
    }

    /// Drops all chunks that were read ahead, and reads no more.
    pub(super) fn stop(&self) {
        let mut state = self.shared.state();
        state.next = state.until;
        let unwanted = mem::take(&mut state.ready);
        state.ready_bytes = 0;
        drop(state);
        drop(unwanted);
    }

    /// Takes back a chunk whose records were yielded, to reuse its buffers.
    ///
    /// Records may still refer to the buffers. A large buffer is not kept, because a small record
    /// would keep the whole buffer in memory.
    pub(super) fn give_back(&self, chunk: Chunk) {
        if chunk.bytes.len() as u64 > SPARE_BYTES_MAX {
            return;
        }
        // The segment's file may be user code, so it is closed without the lock.
        let buffers = chunk.into_buffers();
        let mut state = self.shared.state();
        // The consumer probably keeps records of the oldest buffer.
        let oldest = (state.spares.len() == SPARES_MAX).then(|| state.spares.remove(0));
        state.spares.push(buffers);
        drop(state);
        drop(oldest);
    }

    /// Returns the next chunk, or `None` at the end. An error ends the range.
    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<Chunk>>> {
        let mut taken = None;
        let mut mine = None;
        loop {
            let mut state = self.shared.state();
            if taken.is_none() {
                taken = state.ready.pop_front();
                if let Some(Ok(chunk)) = &taken {
                    state.ready_bytes -= chunk.bytes.len() as u64;
                    state.window_bytes = (state.window_bytes * 2).min(WINDOW_BYTES_MAX);
                }
            }
            if !state.is_reading && state.wants_reading() {
                state.is_reading = true;
                drop(state);
                ReadJob::new(self).spawn(Arc::clone(&self.executor));
                if taken.is_none() {
                    // A job that ran in place has read the chunk already.
                    continue;
                }
                return Poll::Ready(taken);
            }
            if taken.is_none() && state.is_reading {
                let known = state.waker.as_ref();
                if known.is_some_and(|known| known.will_wake(context.waker())) {
                    return Poll::Pending;
                }
                // Wakers are user code, so they are cloned and dropped without the lock.
                let Some(mine) = mine.take() else {
                    drop(state);
                    mine = Some(context.waker().clone());
                    continue;
                };
                let replaced = state.waker.replace(mine);
                drop(state);
                drop(replaced);
                return Poll::Pending;
            }
            return Poll::Ready(taken);
        }
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A job that reads chunks.
///
/// If the job is dropped before its end (a shutdown of its runtime, a panic), the consumer gets an
/// error.
struct ReadJob {
    source: Arc<dyn ChunkSource>,
    shared: Arc<SharedWindow>,
    is_done: bool,
}

impl ReadJob {
    fn new(ahead: &ReadAhead) -> Self {
        let (source, shared) = (Arc::clone(&ahead.source), Arc::clone(&ahead.shared));
        ReadJob { source, shared, is_done: false }
    }

    fn spawn(self, executor: Arc<dyn Executor>) {
        let next = Arc::clone(&executor);
        executor.spawn(Box::new(move || self.run(next)));
    }

    fn run(mut self, executor: Arc<dyn Executor>) {
        let turns = if executor.runs_in_place() { u32::MAX } else { CHUNKS_PER_JOB };
        for _ in 0..turns {
            let (from, until, buffers) = {
                let mut state = self.shared.state();
                if !state.wants_reading() {
                    state.is_reading = false;
                    self.is_done = true;
                    // Only a consumer that called `stop` and polls again can be waiting here.
                    let waker = state.waker.take();
                    drop(state);
                    wake_each(waker);
                    return;
                }
                (state.next, state.until, state.take_buffers())
            };
            let chunk = read_chunk(self.source.as_ref(), from, until, buffers);
            let mut state = self.shared.state();
            if state.next != from {
                // The range was stopped during the read, so the chunk is dropped.
                continue;
            }
            match &chunk {
                Ok(chunk) => {
                    state.next = chunk.next;
                    state.ready_bytes += chunk.bytes.len() as u64;
                }
                Err(_) => state.next = until,
            }
            state.ready.push_back(chunk);
            let waker = state.waker.take();
            drop(state);
            wake_each(waker);
        }
        self.is_done = true;
        let (source, shared) = (Arc::clone(&self.source), Arc::clone(&self.shared));
        ReadJob { source, shared, is_done: false }.spawn(executor);
    }
}

impl Drop for ReadJob {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let mut state = self.shared.state();
        state.is_reading = false;
        // An error is only needed if the consumer still expects a chunk.
        if state.next < state.until.min(state.stop_at) {
            state.ready.push_back(Err(runtime_gone()));
        }
        state.next = state.until;
        let waker = state.waker.take();
        drop(state);
        wake_each(waker);
    }
}

pub(super) fn runtime_gone() -> Error {
    Error::Closed { by: ClosedBy::RuntimeGone }
}
