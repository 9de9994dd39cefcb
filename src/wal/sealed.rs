//! [`SealedSegments`]: streams the segments that are complete, for archives and backups.

use std::{
    fmt,
    ops::Range,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{Stream, ready, stream::FusedStream};

use crate::{
    error::{ClosedBy, Error, Result},
    executor::start,
    format::header::file_offset,
    lsn::Lsn,
    pipeline::{
        Core, WaiterId,
        removal::{lease, release_lease},
    },
    segments::{SegmentInfo, Sequence},
};

/// The bytes of one read of a checksum.
const CHUNK_BYTES: u64 = 1 << 20;

/// Prevents the removal of segments from an LSN on. It is not a handle of the log.
struct SegmentLease {
    core: Arc<Core>,
    lsn: Lsn,
}

impl SegmentLease {
    /// Returns a lease from a later LSN on. This lease stays in force.
    fn at(&self, lsn: Lsn) -> SegmentLease {
        self.core.beginning().lease_further(lsn);
        SegmentLease { core: Arc::clone(&self.core), lsn }
    }
}

impl Drop for SegmentLease {
    fn drop(&mut self) {
        release_lease(&self.core, self.lsn);
    }
}

/// A segment that is sealed and durable. Its bytes do not change any more.
///
/// The file stays in place while this value lives and the log is open, even if the log is
/// truncated.
///
/// The frames of the range [`lsns`](SealedSegment::lsns) are at the start of the file. A truncation
/// of the log's end may later shorten this range. The segment that follows then has a higher
/// [`epoch`](SealedSegment::epoch). So an archive of these files needs one rule: a segment replaces
/// all positions at or above its beginning in segments of a lower epoch.
#[must_use = "the file may go when this is dropped"]
pub struct SealedSegment {
    lease: SegmentLease,
    sequence: Sequence,
    lsns: Range<Lsn>,
    epoch: u64,
}

impl SealedSegment {
    /// Returns the positions in the segment, up to the beginning of the next one.
    #[must_use]
    pub fn lsns(&self) -> Range<Lsn> {
        self.lsns.clone()
    }

    /// Returns the epoch of the segment. Each truncation of the end begins the next epoch.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the name of the file. An archive must keep the name, because it holds the segment's
    /// number.
    #[must_use]
    pub fn name(&self) -> String {
        self.sequence.file_name()
    }

    /// Returns the path of the file; `None` if the storage is no file system.
    ///
    /// Link or copy the file. Writing to it destroys the log.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        self.lease.core.storage().path_of(&self.name())
    }

    /// Returns the length of the used part of the file: header block and frames.
    ///
    /// The bytes after them are not part of the log.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        file_offset(self.lsns.start, self.lsns.end)
    }

    /// Reads the [used](SealedSegment::used_bytes) bytes of the file, and returns their CRC-32C.
    ///
    /// # Errors
    ///
    /// - [`Error::Corrupt`] if the file is shorter than its used bytes.
    /// - [`Error::Io`], [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the call only reads.
    pub async fn checksum(&self) -> Result<u32> {
        let core = &self.lease.core;
        let (mut offset, mut crc, end) = (0, 0, self.used_bytes());
        while offset < end {
            core.status().check_read()?;
            let (core, sequence) = (Arc::clone(core), self.sequence);
            let bytes = (end - offset).min(CHUNK_BYTES);
            let executor = Arc::clone(core.executor());
            let read = start(executor.as_ref(), move || read(&core, sequence, offset, bytes));
            let read = read.await.map_err(|_| Error::Closed { by: ClosedBy::RuntimeGone })??;
            crc = crc32c::crc32c_append(crc, &read);
            offset += bytes;
        }
        Ok(crc)
    }
}

fn read(core: &Core, sequence: Sequence, offset: u64, bytes: u64) -> Result<Vec<u8>> {
    let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    let file = core.segments().open(sequence)?;
    if file.read_at(&mut buffer, offset)? < buffer.len() {
        return Err(Error::Corrupt {
            directory: file.directory().to_owned(),
            lsn: core.beginning().first(),
            segment: file.name().to_owned(),
            offset,
            synced: core.synced().get(),
            reason: "the file is shorter than it was made".to_owned(),
        });
    }
    Ok(buffer)
}

impl fmt::Debug for SealedSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedSegment")
            .field("name", &self.name())
            .field("lsns", &self.lsns)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// The stream of [`Wal::sealed_segments`](crate::Wal::sealed_segments): sealed and durable
/// segments.
///
/// It yields the segments with positions at or above the start, oldest first, and then each new
/// one. Each segment is yielded once. The newest segment is never sealed:
/// [`Wal::copy_to`](crate::Wal::copy_to) also copies that one.
///
/// The stream prevents the removal of files from its position on, so that it never misses one. A
/// truncation of the log's beginning applies immediately to new readers. It frees space only when
/// this stream has passed the new beginning or is dropped. [`Stats`](crate::Stats) counts the
/// stream as a lease. Each item keeps its own file while the item lives.
///
/// Each sync wakes the stream; there is no timer. The stream starts no sync and no rotation. It
/// ends like a [`Follow`](crate::Follow), after all segments that were sealed and durable. It ends
/// without an error when the log is closed or its last handle is gone. If the log failed, the last
/// item is [`Error::Poisoned`]. The stream is not a handle of the log.
///
/// # Cancel safety
///
/// Cancel-safe: the next future continues after the last yielded segment.
#[must_use = "streams do nothing unless polled"]
pub struct SealedSegments {
    /// `None` after the end of the stream, which then does not hold the log.
    lease: Option<SegmentLease>,
    refused: Option<Error>,
    last: Option<Sequence>,
    position: Lsn,
    /// The epoch up to which truncations of the end were handled.
    epoch: u64,
    waiter: Option<WaiterId>,
    target: Lsn,
}

impl SealedSegments {
    pub(crate) fn new(core: &Arc<Core>, from: Lsn) -> Self {
        let epoch = core.epoch();
        let (lease, refused) = match lease(core, from) {
            Ok(()) => (Some(SegmentLease { core: Arc::clone(core), lsn: from }), None),
            Err(error) => (None, Some(error)),
        };
        let (last, waiter, target) = (None, None, from);
        SealedSegments { lease, refused, last, position: from, epoch, waiter, target }
    }

    /// Returns the end of the last yielded segment, where another stream can continue.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.position
    }

    fn leave_queue(&mut self) {
        if let (Some(waiter), Some(lease)) = (self.waiter.take(), &self.lease) {
            lease.core.synced().cancel(waiter);
        }
    }

    /// Ends the stream and releases the log.
    fn end(&mut self) {
        self.leave_queue();
        self.lease = None;
    }

    /// Returns whether the log's end was truncated since the last call.
    ///
    /// If the truncation is below the position, the stream moves back to it.
    fn check_for_cuts(&mut self, core: &Arc<Core>) -> Result<bool> {
        if core.epochs().current() == self.epoch {
            return Ok(false);
        }
        let epoch = core.epoch();
        let cut = core.epochs().cut_since(self.epoch).filter(|cut| *cut < self.position);
        self.epoch = epoch;
        if let Some(cut) = cut {
            self.leave_queue();
            lease(core, cut)?;
            self.lease = Some(SegmentLease { core: Arc::clone(core), lsn: cut });
            self.position = cut;
        }
        Ok(true)
    }

    /// Returns the next sealed and durable segment, or the mark to wait for.
    fn next_sealed(
        core: &Core,
        last: Option<Sequence>,
        from: Lsn,
    ) -> Result<(SegmentInfo, Lsn), Lsn> {
        // Read before the segments: if a segment is sealed later, the mark passes this value.
        let synced = core.synced().get();
        match core.segments().sealed_after(last, from) {
            Some((info, end)) if end <= synced => Ok((info, end)),
            Some((_, end)) => Err(end),
            None => Err(synced.plus(1)),
        }
    }

    fn poll_sealed(
        &mut self,
        core: &Arc<Core>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<(SegmentInfo, Lsn)>>> {
        loop {
            let sealed = Self::next_sealed(core, self.last, self.position);
            // Checked afterwards, so that the segment and the mark are of the same epoch.
            match self.check_for_cuts(core) {
                Ok(false) => {}
                Ok(true) => continue,
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            let target = match sealed {
                Ok(sealed) => return Poll::Ready(Some(Ok(sealed))),
                Err(target) => target,
            };
            if target != self.target {
                self.leave_queue();
                self.target = target;
            }
            if core.synced().register_reader(target, &mut self.waiter, context.waker()) {
                continue;
            }
            // Checked after registering, because later changes wake this task.
            let end = match core.status().check() {
                _ if core.epochs().current() != self.epoch => continue,
                Err(_) if core.status().was_closed() => None,
                Err(error) => Some(Err(error)),
                Ok(()) if core.status().is_abandoned() => None,
                Ok(()) => return Poll::Pending,
            };
            // One more segment may have been sealed before the end.
            return Poll::Ready(match Self::next_sealed(core, self.last, self.position) {
                Ok(sealed) => Some(Ok(sealed)),
                Err(_) => end,
            });
        }
    }
}

impl Stream for SealedSegments {
    type Item = Result<SealedSegment>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(error) = this.refused.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let Some(core) = this.lease.as_ref().map(|lease| Arc::clone(&lease.core)) else {
            return Poll::Ready(None);
        };
        let (info, end) = match ready!(this.poll_sealed(&core, context)) {
            Some(Ok(sealed)) => sealed,
            Some(Err(error)) => {
                this.end();
                return Poll::Ready(Some(Err(error)));
            }
            None => {
                this.end();
                return Poll::Ready(None);
            }
        };
        let Some(lease) = this.lease.take() else { return Poll::Ready(None) };
        // The lease of the item begins before the old one ends, so the file is always kept.
        let item = SealedSegment {
            lease: lease.at(info.base.max(lease.lsn)),
            sequence: info.sequence,
            lsns: info.base..end,
            epoch: info.epoch,
        };
        this.lease = Some(lease.at(end));
        this.last = Some(info.sequence);
        this.position = end;
        Poll::Ready(Some(Ok(item)))
    }
}

impl FusedStream for SealedSegments {
    fn is_terminated(&self) -> bool {
        self.lease.is_none() && self.refused.is_none()
    }
}

impl Drop for SealedSegments {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for SealedSegments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedSegments").field("position", &self.position).finish_non_exhaustive()
    }
}
