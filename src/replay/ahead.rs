//! Chunks read ahead of whoever takes them: by one job at a time, which goes on while there is room.
//!
//! A trip to the pool costs as much as reading a chunk that is cached. So the job doesn't end with
//! each chunk, it fills a window; the window begins with one chunk, for those who want no more, and
//! doubles with each that is taken. Buffers that nobody holds any more are read into again: fresh
//! ones would be zeroed first, and their pages touched for the first time.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::{
    error::{Error, Result},
    executor::Executor,
    lsn::Lsn,
    replay::{CHUNK_BYTES, ChunkSource, read_chunk},
    segments::{Buffers, Chunk},
    sync::{Mutex, MutexGuard},
};

/// So much is read ahead at most, and a chunk whatever its size.
const WINDOW_BYTES_MAX: u64 = 3 * CHUNK_BYTES;

/// After so many chunks a job hands over to a new one, so that it never holds up a shutdown.
const CHUNKS_PER_JOB: u32 = 32;

/// So many buffers that were given back are kept: those of a window, and the reader's own.
const SPARES_MAX: usize = 5;

/// Larger ones aren't kept.
const SPARE_BYTES_MAX: u64 = 2 * CHUNK_BYTES;

/// The chunks of a range, in order.
#[derive(Debug)]
pub(super) struct ReadAhead {
    source: Arc<dyn ChunkSource>,
    executor: Arc<dyn Executor>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Where the next read begins, and where the last one ends.
    next: Lsn,
    until: Lsn,
    /// What begins here or later isn't wanted, so nothing is read for it.
    stop_at: Lsn,
    ready: VecDeque<Result<Chunk>>,
    ready_bytes: u64,
    window_bytes: u64,
    /// Whether a job is at it.
    is_reading: bool,
    waker: Option<Waker>,
    spares: Vec<Buffers>,
}

impl State {
    /// Whether a job would find something to read and room for it.
    fn wants_reading(&self) -> bool {
        let has_room = self.ready.is_empty() || self.ready_bytes < self.window_bytes;
        self.next < self.until.min(self.stop_at) && has_room
    }

    /// Buffers of which nobody has a part any more, or new ones.
    fn take_buffers(&mut self) -> Buffers {
        let free = self.spares.iter().position(|spare| spare.bytes.is_unique());
        free.map(|place| self.spares.swap_remove(place)).unwrap_or_default()
    }
}

impl Shared {
    /// No user code and no I/O runs under this lock.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadAhead {
    pub(super) fn new(
        source: Arc<dyn ChunkSource>,
        executor: Arc<dyn Executor>,
        from: Lsn,
        until: Lsn,
    ) -> Self {
        let state = State {
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
        ReadAhead { source, executor, shared: Arc::new(Shared(Mutex::new(state))) }
    }

    pub(super) fn source(&self) -> &Arc<dyn ChunkSource> {
        &self.source
    }

    pub(super) fn executor(&self) -> &dyn Executor {
        self.executor.as_ref()
    }

    /// Where it ends.
    pub(super) fn until(&self) -> Lsn {
        self.shared.state().until
    }

    /// Goes on with another range, once the one before has been taken.
    pub(super) fn go_on(&self, from: Lsn, until: Lsn) {
        let mut state = self.shared.state();
        state.next = from;
        state.until = until;
    }

    /// Records that begin here or later aren't wanted.
    pub(super) fn stop_at(&self, lsn: Lsn) {
        self.shared.state().stop_at = lsn;
    }

    /// Ends it: what was read is dropped, and nothing more is.
    pub(super) fn stop(&self) {
        let mut state = self.shared.state();
        state.next = state.until;
        let unwanted = mem::take(&mut state.ready);
        state.ready_bytes = 0;
        drop(state);
        drop(unwanted);
    }

    /// Takes back a chunk whose records have been yielded; some of them may still be held. A large one
    /// isn't kept: it would be much to hold for nothing, and a small record in it would hold all of it.
    pub(super) fn give_back(&self, chunk: Chunk) {
        if chunk.bytes.len() as u64 > SPARE_BYTES_MAX {
            return;
        }
        let mut state = self.shared.state();
        if state.spares.len() == SPARES_MAX {
            // Held for longer than all the others: by somebody who keeps records.
            drop(state.spares.remove(0));
        }
        state.spares.push(chunk.into_buffers());
    }

    /// The next chunk, `None` at the end. An error ends it.
    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<Chunk>>> {
        let mut taken = None;
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
                Reading::new(self).spawn(Arc::clone(&self.executor));
                if taken.is_none() {
                    // Run in place, it is there already.
                    continue;
                }
                return Poll::Ready(taken);
            }
            if taken.is_none() && state.is_reading {
                match &mut state.waker {
                    Some(waker) if waker.will_wake(context.waker()) => {}
                    waker => *waker = Some(context.waker().clone()),
                }
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

/// A job that reads, and a promise: if it is dropped unfinished (its runtime was shut down, it
/// panicked), whoever waits for its chunks is told.
struct Reading {
    source: Arc<dyn ChunkSource>,
    shared: Arc<Shared>,
    is_done: bool,
}

impl Reading {
    fn new(ahead: &ReadAhead) -> Self {
        let (source, shared) = (Arc::clone(&ahead.source), Arc::clone(&ahead.shared));
        Reading { source, shared, is_done: false }
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
                    // Nobody waits, but for who stopped it and asks whether there is more.
                    let waker = state.waker.take();
                    drop(state);
                    waker.into_iter().for_each(Waker::wake);
                    return;
                }
                (state.next, state.until, state.take_buffers())
            };
            let chunk = read_chunk(self.source.as_ref(), from, until, buffers);
            let mut state = self.shared.state();
            if state.next != from {
                // Stopped meanwhile: nobody wants it.
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
            waker.into_iter().for_each(Waker::wake);
        }
        self.is_done = true;
        let (source, shared) = (Arc::clone(&self.source), Arc::clone(&self.shared));
        Reading { source, shared, is_done: false }.spawn(executor);
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let mut state = self.shared.state();
        state.is_reading = false;
        // Nobody misses what isn't wanted.
        if state.next < state.until.min(state.stop_at) {
            state.ready.push_back(Err(pool_is_gone()));
        }
        state.next = state.until;
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

pub(super) fn pool_is_gone() -> Error {
    Error::Closed { reason: "the runtime that runs its I/O is gone" }
}
