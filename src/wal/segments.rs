//! [`LogSegment`]: a segment of a log, described without reading it.

use std::time::{Duration, SystemTime};

use crate::{lsn::Lsn, segments::SegmentInfo, wal::handle::Wal};

/// A segment of a log; made by [`Wal::segments`] and [`Reader::segments`](crate::Reader::segments).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// # use highwater::{Wal, storage::MemoryStorage};
/// let options = Wal::options().segment_bytes(16 << 10);
/// let wal = options.open_with(MemoryStorage::new()).await?;
/// for _ in 0..10 {
///     wal.append(vec![0; 4000]).await?;
/// }
/// let segments = wal.segments();
/// assert_eq!(segments[0].start, wal.watermarks().first);
/// assert!(segments[0].is_sealed && !segments.last().unwrap().is_sealed);
/// let disk_bytes: u64 = segments.iter().map(|segment| segment.file_bytes).sum();
/// assert!(disk_bytes >= 40_000);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LogSegment {
    /// The name of its file in the log's directory.
    pub name: String,
    /// The position of its first frame. The log may begin later, within the oldest segment.
    pub start: Lsn,
    /// The end of its frames: the start of the next segment, or the end of the written log.
    pub end: Lsn,
    /// The length of its file, in bytes. The header and the unused end are part of it.
    pub file_bytes: u64,
    /// When the segment was begun, by the clock of the system.
    pub created: SystemTime,
    /// True if another segment follows it, so that it does not change any more.
    pub is_sealed: bool,
}

impl LogSegment {
    /// Returns the time since the segment was begun; zero if the clock was set back since.
    ///
    /// All its records are at most that old.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.created.elapsed().unwrap_or_default()
    }

    /// Describes the segments, which are in order. The last one ends at `end`.
    pub(crate) fn describe(infos: &[SegmentInfo], end: Lsn) -> Vec<LogSegment> {
        let successors = infos.iter().skip(1).map(|next| Some(next.base));
        let described = infos.iter().zip(successors.chain([None])).map(|(info, next)| LogSegment {
            name: info.sequence.file_name(),
            start: info.base,
            end: next.unwrap_or(end.max(info.base)),
            file_bytes: info.file_bytes,
            created: SystemTime::UNIX_EPOCH + Duration::from_millis(info.created_unix_ms),
            is_sealed: next.is_some(),
        });
        described.collect()
    }
}

impl Wal {
    /// Returns the segments of the log, oldest first. Reads no file.
    ///
    /// A segment that a truncation has dropped is listed until its file is removed. It stays while
    /// a lease holds it.
    #[must_use]
    pub fn segments(&self) -> Vec<LogSegment> {
        // Read first: the newest segment begins at or below a later mark.
        let infos = self.core().segments().list();
        LogSegment::describe(&infos, self.core().written().get())
    }
}
