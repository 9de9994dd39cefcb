//! Yields the records of a range: slices them out of chunks, and expands compressed ones.

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
    format::{compression::real_bytes, frame::Kind, scan::FrameAt},
    lsn::Lsn,
    record::Record,
    replay::{
        ahead::{ReadAhead, runtime_gone},
        source::{CHUNK_BYTES, ChunkSource},
    },
    segments::{Chunk, SegmentReader},
};

/// The largest record that is expanded without the pool. Expanding a larger one would keep a
/// runtime thread busy for long.
const EXPANDED_HERE_BYTES_MAX: u64 = CHUNK_BYTES;

/// Yields the records of a range, oldest first, and reads ahead.
pub(crate) struct Records {
    ahead: ReadAhead,
    chunk: Option<Chunk>,
    frame_index: usize,
    /// The record that a job of the pool expands.
    expanding: Option<oneshot::Receiver<Result<Record>>>,
    /// The end of the frame of the last yielded record.
    yielded_end: Lsn,
}

/// The next item of a chunk.
enum NextInChunk {
    Record(Record),
    /// A job of the pool expands the record.
    Expanding,
    /// The whole chunk was yielded.
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

    /// Returns the end of the frame of the last yielded record.
    pub(crate) fn yielded_end(&self) -> Lsn {
        self.yielded_end
    }

    /// Returns the end of the range.
    pub(crate) fn until(&self) -> Lsn {
        self.ahead.until()
    }

    /// Continues with another range. All records of the previous one must have been yielded.
    pub(crate) fn continue_with(&mut self, from: Lsn, until: Lsn) {
        self.ahead.continue_with(from, until);
    }

    /// Prevents reads for records that begin at `lsn` or later.
    pub(super) fn stop_at(&self, lsn: Lsn) {
        self.ahead.stop_at(lsn);
    }

    fn next_in_chunk(&mut self) -> NextInChunk {
        let Some(chunk) = &self.chunk else { return NextInChunk::Nothing };
        while let Some(frame) = chunk.frames.get(self.frame_index) {
            self.frame_index += 1;
            if frame.kind == Kind::Control {
                continue;
            }
            let end = frame.payload_start + frame.payload_bytes;
            let stored = chunk.bytes.slice(frame.payload_start..end);
            self.yielded_end = frame.end();
            if frame.codec.is_none() {
                return NextInChunk::Record(Record {
                    lsn: frame.lsn,
                    end: frame.end(),
                    payload: stored,
                });
            }
            // One at a time, because a chunk of compressed records may expand to any size.
            if real_bytes(&stored).is_some_and(|bytes| bytes <= EXPANDED_HERE_BYTES_MAX) {
                if let Ok(payload) = chunk.reader.payload(frame, stored.clone()) {
                    return NextInChunk::Record(Record {
                        lsn: frame.lsn,
                        end: frame.end(),
                        payload,
                    });
                }
            }
            let (reader, frame) = (chunk.reader.clone(), *frame);
            self.expand_in_pool(reader, frame, stored);
            return NextInChunk::Expanding;
        }
        self.chunk.take().into_iter().for_each(|chunk| self.ahead.give_back(chunk));
        NextInChunk::Nothing
    }

    /// Starts a job that expands a large record, or that explains an error.
    ///
    /// The explanation may read the file.
    fn expand_in_pool(&mut self, reader: SegmentReader, frame: FrameAt, stored: Bytes) {
        let (source, until) = (Arc::clone(self.ahead.source()), self.ahead.until());
        let expanding =
            start(self.ahead.executor(), move || match reader.payload(&frame, stored) {
                Ok(payload) => Ok(Record { lsn: frame.lsn, end: frame.end(), payload }),
                Err(stop) => Err(source.explain(&reader, frame.lsn, until, stop)),
            });
        self.expanding = Some(expanding);
    }

    /// Returns the record that a job of the pool expands; `None` without a job.
    fn poll_expanding(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Record>>> {
        let Some(expanding) = &mut self.expanding else { return Poll::Ready(None) };
        let expanded = ready!(Pin::new(expanding).poll(context));
        self.expanding = None;
        let expanded = expanded.unwrap_or_else(|_| Err(runtime_gone()));
        if expanded.is_err() {
            self.stop();
        }
        Poll::Ready(Some(expanded))
    }

    /// Ends the stream.
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
                NextInChunk::Record(record) => return Poll::Ready(Some(Ok(record))),
                NextInChunk::Expanding => continue,
                NextInChunk::Nothing => {}
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
