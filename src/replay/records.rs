//! The records of a range: sliced out of chunks, expanded if they are compressed.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{Future, ready};
use tokio::sync::oneshot;

use crate::{
    error::Result,
    executor::{Executor, start},
    format::{
        compression::real_bytes,
        frame::{Kind, frame_bytes},
        scan::FrameAt,
    },
    lsn::Lsn,
    record::Record,
    replay::{
        CHUNK_BYTES, ChunkSource,
        ahead::{ReadAhead, pool_is_gone},
    },
    segments::{Chunk, SegmentReader},
};

/// Compressed records above this are expanded by the pool: a reader's thread is never busy for long.
const EXPANDED_HERE_BYTES_MAX: u64 = CHUNK_BYTES;

/// The records of a range, oldest first, read ahead.
pub(crate) struct Records {
    ahead: ReadAhead,
    chunk: Option<Chunk>,
    frame_index: usize,
    /// A record that the pool expands.
    expanding: Option<oneshot::Receiver<Result<Record>>>,
    /// One past the frame of the record that was yielded last.
    yielded_end: Lsn,
}

/// What comes next in a chunk.
enum Next {
    Record(Record),
    /// The pool has been asked for it.
    Expanding,
    /// All of the chunk has been yielded.
    Nothing,
}

impl Records {
    pub(crate) fn new(
        source: Arc<dyn ChunkSource>,
        executor: Arc<dyn Executor>,
        from: Lsn,
        until: Lsn,
    ) -> Self {
        Records {
            ahead: ReadAhead::new(source, executor, from, until),
            chunk: None,
            frame_index: 0,
            expanding: None,
            yielded_end: from,
        }
    }

    /// One past the frame of the record that was yielded last, which its payload doesn't tell.
    pub(crate) fn yielded_end(&self) -> Lsn {
        self.yielded_end
    }

    /// Where it ends.
    pub(crate) fn until(&self) -> Lsn {
        self.ahead.until()
    }

    /// Goes on with another range, once the one before has been yielded.
    pub(crate) fn go_on(&mut self, from: Lsn, until: Lsn) {
        self.ahead.go_on(from, until);
    }

    /// Records that begin here or later aren't wanted.
    pub(super) fn stop_at(&self, lsn: Lsn) {
        self.ahead.stop_at(lsn);
    }

    fn next_in_chunk(&mut self) -> Next {
        let Some(chunk) = &self.chunk else { return Next::Nothing };
        while let Some(frame) = chunk.frames.get(self.frame_index) {
            self.frame_index += 1;
            if frame.kind == Kind::Control {
                continue;
            }
            let end = frame.payload_start + frame.payload_bytes;
            let stored = chunk.bytes.slice(frame.payload_start..end);
            self.yielded_end = frame.lsn.plus(frame_bytes(frame.payload_bytes as u64));
            if frame.codec.is_none() {
                return Next::Record(Record { lsn: frame.lsn, payload: stored });
            }
            // One at a time: a chunk of compressed records may hold any amount.
            if real_bytes(&stored).is_some_and(|bytes| bytes <= EXPANDED_HERE_BYTES_MAX) {
                if let Ok(payload) = chunk.reader.payload(frame, stored.clone()) {
                    return Next::Record(Record { lsn: frame.lsn, payload });
                }
            }
            let (reader, frame) = (chunk.reader.clone(), *frame);
            self.expand_in_pool(reader, frame, stored);
            return Next::Expanding;
        }
        self.chunk.take().into_iter().for_each(|chunk| self.ahead.give_back(chunk));
        Next::Nothing
    }

    /// Large ones, and those that can't be: to say why may take a look into the file.
    fn expand_in_pool(&mut self, reader: SegmentReader, frame: FrameAt, stored: Bytes) {
        let (source, until) = (Arc::clone(self.ahead.source()), self.ahead.until());
        let expanding =
            start(self.ahead.executor(), move || match reader.payload(&frame, stored) {
                Ok(payload) => Ok(Record { lsn: frame.lsn, payload }),
                Err(stop) => Err(source.explain(&reader, frame.lsn, until, stop)),
            });
        self.expanding = Some(expanding);
    }

    /// The record that the pool expands, if it is at one.
    fn poll_expanding(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Record>>> {
        let Some(expanding) = &mut self.expanding else { return Poll::Ready(None) };
        let expanded = ready!(Pin::new(expanding).poll(context));
        self.expanding = None;
        let expanded = expanded.unwrap_or_else(|_| Err(pool_is_gone()));
        if expanded.is_err() {
            self.stop();
        }
        Poll::Ready(Some(expanded))
    }

    /// Ends the stream here.
    pub(super) fn stop(&mut self) {
        self.chunk = None;
        self.expanding = None;
        self.ahead.stop();
    }

    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Record>>> {
        loop {
            if let Some(expanded) = ready!(self.poll_expanding(context)) {
                return Poll::Ready(Some(expanded));
            }
            match self.next_in_chunk() {
                Next::Record(record) => return Poll::Ready(Some(Ok(record))),
                Next::Expanding => continue,
                Next::Nothing => {}
            }
            match ready!(self.ahead.poll(context)) {
                None => return Poll::Ready(None),
                Some(Ok(chunk)) => {
                    self.chunk = Some(chunk);
                    self.frame_index = 0;
                }
                Some(Err(error)) => {
                    // An error ends the stream.
                    self.stop();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}
