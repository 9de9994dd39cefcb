//! The segments that nothing is appended to any more, as a stream: for archives and backups.

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
    error::{Error, Result},
    executor::start,
    format::header::SEGMENT_HEADER_BYTES,
    lsn::Lsn,
    pipeline::{Core, WaiterId},
    segments::{SegmentInfo, Sequence},
    wal::options::RUNTIME_GONE,
};

/// One read of a checksum takes about this much.
const CHUNK_BYTES: u64 = 1 << 20;

/// Holds back the removal of files, without being a handle of the log.
struct Hold {
    core: Arc<Core>,
    lsn: Lsn,
}

impl Hold {
    /// From a later position on, while this one still holds.
    fn further(&self, lsn: Lsn) -> Hold {
        self.core.lease_further(lsn);
        Hold { core: Arc::clone(&self.core), lsn }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.core.release_lease(self.lsn);
    }
}

/// A segment that is sealed and durable: its bytes don't change any more, and its file stays where
/// it is for as long as this value does and the log is open, whatever is truncated.
///
/// Part of the log is what [`lsns`](SealedSegment::lsns) says, which is a prefix of the file. A cut
/// of the log's end may end a segment sooner that was given here before; what follows it then has a
/// higher [`epoch`](SealedSegment::epoch). So an archive of these files follows the rule of the log
/// itself: whatever stands at or above the beginning of a segment of a higher epoch is no more.
#[must_use = "the file may go when this is dropped"]
pub struct SealedSegment {
    hold: Hold,
    sequence: Sequence,
    lsns: Range<Lsn>,
    epoch: u64,
}

impl SealedSegment {
    /// The positions that it holds: from its first frame to where the next segment begins.
    #[must_use]
    pub fn lsns(&self) -> Range<Lsn> {
        self.lsns.clone()
    }

    /// The epoch of its frames: the same until a cut, which begins the next.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The file's name, which an archive has to keep: it is the segment's place in the log.
    #[must_use]
    pub fn name(&self) -> String {
        self.sequence.file_name()
    }

    /// Where the file is; `None` if the log isn't kept in a file system. Link it or copy it; whoever
    /// writes to it destroys the log.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        self.hold.core.storage.path_of(&self.name())
    }

    /// How many of the file's bytes are in use, from its start: the header's block and the frames.
    /// What is behind them is of no use.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        SEGMENT_HEADER_BYTES + self.lsns.end.since(self.lsns.start)
    }

    /// The CRC-32C of the [used](SealedSegment::used_bytes) bytes of the file, read when it is asked
    /// for: nothing is computed for those who don't.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::Corrupt`] if the file is shorter; [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: it only reads.
    pub async fn checksum(&self) -> Result<u32> {
        let core = &self.hold.core;
        let (mut offset, mut crc, end) = (0, 0, self.used_bytes());
        while offset < end {
            core.status.check_read()?;
            let (core, sequence) = (Arc::clone(core), self.sequence);
            let bytes = (end - offset).min(CHUNK_BYTES);
            let executor = Arc::clone(&core.executor);
            let read = start(executor.as_ref(), move || read(&core, sequence, offset, bytes));
            let read = read.await.map_err(|_| Error::Closed { reason: RUNTIME_GONE })??;
            crc = crc32c::crc32c_append(crc, &read);
            offset += bytes;
        }
        Ok(crc)
    }
}

fn read(core: &Core, sequence: Sequence, offset: u64, bytes: u64) -> Result<Vec<u8>> {
    let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    let file = core.segments.open(sequence)?;
    if file.read_at(&mut buffer, offset)? < buffer.len() {
        return Err(Error::Corrupt {
            lsn: core.purge.first(),
            segment: file.name().to_owned(),
            offset,
            synced: core.synced.get(),
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

/// The stream that [`Wal::sealed_segments`](crate::Wal::sealed_segments) gives: the segments that
/// hold something at or after a position and that are sealed and durable, oldest first, those there
/// are and then each as soon as it is, every one once.
///
/// It holds back the removal of files from its position on, so that it never misses one: a
/// truncation of the log's beginning counts at once for readers that begin anew, and frees space
/// when this stream has got past it, or is dropped. [`Stats`](crate::Stats) counts it as a lease.
/// Each item holds its own file as long as it lives.
///
/// It is woken when something was synced, by whoever did it; there is no timer. It never asks for
/// a sync or a rotation. It ends as a [`Follow`](crate::Follow) does: cleanly when the log is
/// closed or its last handle is gone, with [`Error::Poisoned`] if it failed, after all that was
/// sealed and durable by then. It is no handle of the log. The newest segment is never sealed:
/// [`Wal::copy_to`](crate::Wal::copy_to) copies that one too.
///
/// # Cancel safety
///
/// Cancel-safe: what a future such as `next()` hasn't yielded, the next one will.
#[must_use = "streams do nothing unless polled"]
pub struct SealedSegments {
    /// `None` once it has ended: it holds nothing of the log then.
    hold: Option<Hold>,
    refused: Option<Error>,
    last: Option<Sequence>,
    position: Lsn,
    /// What was cut since this is gone.
    epoch: u64,
    waiter: Option<WaiterId>,
    target: Lsn,
}

impl SealedSegments {
    pub(crate) fn new(core: &Arc<Core>, from: Lsn) -> Self {
        let epoch = core.epoch();
        let (hold, refused) = match core.lease(from) {
            Ok(()) => (Some(Hold { core: Arc::clone(core), lsn: from }), None),
            Err(error) => (None, Some(error)),
        };
        let (last, waiter, target) = (None, None, from);
        SealedSegments { hold, refused, last, position: from, epoch, waiter, target }
    }

    /// Where it goes on: one past all that it has yielded.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.position
    }

    fn leave_queue(&mut self) {
        if let (Some(waiter), Some(hold)) = (self.waiter.take(), &self.hold) {
            hold.core.synced.cancel(waiter);
        }
    }

    /// Lets go of the log.
    fn end(&mut self) {
        self.leave_queue();
        self.hold = None;
    }

    /// Whether the log was cut since the last look: then what follows the cut is told too, and held.
    fn look_for_cuts(&mut self, core: &Arc<Core>) -> Result<bool> {
        if core.epochs.current() == self.epoch {
            return Ok(false);
        }
        let epoch = core.epoch();
        let cut = core.epochs.cut_since(self.epoch).filter(|cut| *cut < self.position);
        self.epoch = epoch;
        if let Some(cut) = cut {
            self.leave_queue();
            core.lease(cut)?;
            self.hold = Some(Hold { core: Arc::clone(core), lsn: cut });
            self.position = cut;
        }
        Ok(true)
    }

    /// The next that is sealed and durable, or the mark that there has to be first.
    fn look(core: &Core, last: Option<Sequence>, from: Lsn) -> Result<(SegmentInfo, Lsn), Lsn> {
        // Before the segments: what is sealed later makes the mark pass this.
        let synced = core.synced.get();
        match core.segments.sealed_after(last, from) {
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
            let looked = Self::look(core, self.last, self.position);
            // After the look: what it found is of the epoch whose mark it took.
            match self.look_for_cuts(core) {
                Ok(false) => {}
                Ok(true) => continue,
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            let target = match looked {
                Ok(sealed) => return Poll::Ready(Some(Ok(sealed))),
                Err(target) => target,
            };
            if target != self.target {
                self.leave_queue();
                self.target = target;
            }
            if core.synced.register_reader(target, &mut self.waiter, context.waker()) {
                continue;
            }
            // After registering: what comes later wakes us.
            let end = match core.status.check() {
                _ if core.epochs.current() != self.epoch => continue,
                Err(_) if core.was_closed() => None,
                Err(error) => Some(Err(error)),
                Ok(()) if core.status.is_abandoned() => None,
                Ok(()) => return Poll::Pending,
            };
            // Before the end came there may have been one more.
            return Poll::Ready(match Self::look(core, self.last, self.position) {
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
        let Some(core) = this.hold.as_ref().map(|hold| Arc::clone(&hold.core)) else {
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
        let Some(hold) = this.hold.take() else { return Poll::Ready(None) };
        // First what holds the file, then what holds the rest: at no moment nothing does.
        let item = SealedSegment {
            hold: hold.further(info.base.max(hold.lsn)),
            sequence: info.sequence,
            lsns: info.base..end,
            epoch: info.epoch,
        };
        this.hold = Some(hold.further(end));
        this.last = Some(info.sequence);
        this.position = end;
        Poll::Ready(Some(Ok(item)))
    }
}

impl FusedStream for SealedSegments {
    fn is_terminated(&self) -> bool {
        self.hold.is_none() && self.refused.is_none()
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
