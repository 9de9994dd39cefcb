//! [`Source`]: the durable bytes of an open log, segment by segment.

use std::sync::Arc;

use crate::{
    error::{ClosedBy, Error, Result},
    executor::start,
    format::{
        header::{SEGMENT_HEADER_BYTES, file_offset},
        scan::to_usize,
    },
    lsn::Lsn,
    pipeline::Core,
    segments::{SegmentInfo, Sequence},
    shipping::header::Header,
    wal::Wal,
};

/// The durable bytes of an open log. It holds neither the log nor its segments: a slot must keep
/// back truncations.
#[derive(Clone, Debug)]
pub struct Source {
    core: Arc<Core>,
}

/// The identity of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// The position of its first frame.
    pub base: Lsn,
    /// Its epoch.
    pub epoch: u64,
    /// The random number of this use of a file.
    pub incarnation: u64,
}

/// A position in the log, with its segment and the marks of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The epoch of the log.
    pub epoch: u64,
    /// The synced mark of the log.
    pub synced: Lsn,
    /// The segment of the position.
    pub segment: SegmentId,
    /// The number of that segment.
    pub sequence: u64,
    /// The base of the next segment, if there is one.
    pub end: Option<Lsn>,
}

impl Source {
    /// Returns the bytes of this log.
    #[must_use]
    pub fn new(wal: &Wal) -> Self {
        Source { core: Arc::clone(wal.core()) }
    }

    /// Returns the id of the log.
    #[must_use]
    pub fn log_id(&self) -> [u8; 16] {
        self.core.log_id()
    }

    /// Returns the epoch of the log.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.core.epoch()
    }

    /// Returns the synced mark. Unlike that of the log's watermarks, it covers control records.
    #[must_use]
    pub fn synced(&self) -> Lsn {
        self.core.synced().get()
    }

    /// Returns the lowest position at which the open log was cut after `epoch`.
    #[must_use]
    pub fn cut_since(&self, epoch: u64) -> Option<Lsn> {
        self.core.epochs().cut_since(epoch)
    }

    /// Returns the segments of the log, oldest first, and the synced mark of the same epoch.
    #[must_use]
    pub fn segments(&self) -> (Vec<SegmentId>, Lsn) {
        self.in_one_epoch(|_| {
            let segments = self.core.segments().list().iter().map(id).collect();
            (segments, self.core.synced().get())
        })
    }

    /// Returns the segment that holds `position`, or the newest one that begins there.
    ///
    /// # Errors
    ///
    /// [`Error::BelowFirst`] if the segment was removed.
    pub fn place(&self, position: Lsn) -> Result<Place> {
        let found = self.in_one_epoch(|epoch| {
            // Read first: a later segment may begin above it, and no earlier one is then active.
            let synced = self.core.synced().get();
            let (info, end) = self.core.segments().find(position)?;
            let sequence = info.sequence.0;
            Some(Place { epoch, synced, segment: id(&info), sequence, end })
        });
        found.ok_or_else(|| {
            Error::outside(position, self.core.beginning().first(), self.core.written().get())
        })
    }

    /// Reads the header of a segment.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the header is damaged; [`Error::Io`], also if the segment was removed.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the call only reads.
    pub async fn header(&self, sequence: u64) -> Result<Header> {
        let core = Arc::clone(&self.core);
        self.blocking(move || {
            let file = core.segments().open(Sequence(sequence))?;
            let mut block = vec![0; to_usize(SEGMENT_HEADER_BYTES)];
            let read = file.read_at(&mut block, 0)?;
            let header = Header::parse(block.get(..read).unwrap_or_default());
            header.map_err(|reason| damaged(&core, Sequence(sequence), 0, reason))
        })
        .await
    }

    /// Reads at most `bytes_max` bytes of the segment of `place` from `from` on, into `buffer`.
    /// They end at a position that is durable, within a frame or after one.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the file is shorter than its frames; [`Error::Io`], also if the
    /// segment was removed.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the call only reads.
    pub async fn read(
        &self,
        place: Place,
        from: Lsn,
        bytes_max: usize,
        mut buffer: Vec<u8>,
    ) -> Result<Vec<u8>> {
        let core = Arc::clone(&self.core);
        self.blocking(move || {
            let until = place.end.map_or(place.synced, |end| end.min(place.synced));
            let bytes = to_usize(until.since(from.min(until))).min(bytes_max);
            let file = core.segments().open(Sequence(place.sequence))?;
            buffer.resize(bytes, 0);
            let offset = file_offset(place.segment.base, from);
            if file.read_at(&mut buffer, offset)? < bytes {
                let reason = "the file is shorter than its frames";
                return Err(damaged(&core, Sequence(place.sequence), offset, reason));
            }
            Ok(buffer)
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.core.status().check_read()?;
        let started = start(self.core.executor().as_ref(), work);
        started.await.map_err(|_| Error::Closed { by: ClosedBy::RuntimeGone })?
    }

    /// Calls `read` again until no cut came between its reads.
    fn in_one_epoch<T>(&self, read: impl Fn(u64) -> T) -> T {
        loop {
            let epoch = self.core.epoch();
            let value = read(epoch);
            if self.core.epochs().current() == epoch {
                return value;
            }
        }
    }
}

fn id(info: &SegmentInfo) -> SegmentId {
    SegmentId { base: info.base, epoch: info.epoch, incarnation: info.incarnation }
}

fn damaged(core: &Core, sequence: Sequence, offset: u64, reason: &str) -> Error {
    Error::Corrupt {
        directory: core.storage().location(),
        lsn: core.beginning().first(),
        segment: sequence.file_name(),
        offset,
        synced: core.synced().get(),
        reason: reason.to_owned(),
    }
}
