//! [`Wal::at_time`]: finds a position by its time.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    error::{ClosedBy, Error, Result},
    executor::start,
    format::{control::Control, extension::TimeMark, header::ParsedHeader, scan::WalkBounds},
    lsn::Lsn,
    options::RECORD_BYTES_LIMIT,
    pipeline::Core,
    recovery::read_header,
    segments::{SegmentInfo, SegmentReader},
    wal::handle::Wal,
};

const CHUNK_BYTES: u64 = 1 << 20;

impl Wal {
    /// Returns a position from which on all records are that were appended at `time` or later.
    ///
    /// Every record whose append began at `time` or later is at or above the position. Older
    /// records come first: those of up to two intervals of
    /// [`Options::time_marks`](crate::Options::time_marks), or more if the log was idle. Without
    /// time marks, the position is the first one of the log.
    ///
    /// The log's time never goes back. If the system's clock does, the log's time stays the same
    /// until the clock has caught up, and all records of that period count as appended then.
    ///
    /// The log reads the clock only for a flush or a new segment. If the clock jumps ahead and back
    /// between two reads, the log does not notice: records that were appended meanwhile count as
    /// appended between the times of these two reads. So a `time` within the jump can give a
    /// position above these records.
    ///
    /// Reads a few headers, and one or two segments.
    ///
    /// # Errors
    ///
    /// - [`Error::Corrupt`], [`Error::Io`] if a segment can't be read.
    /// - [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: the call only reads.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # use highwater::{Wal, storage::MemoryStorage};
    /// use std::time::{Duration, SystemTime};
    ///
    /// let options = Wal::options().time_marks(Duration::from_secs(1));
    /// let wal = options.open_with(MemoryStorage::new()).await?;
    /// let since = SystemTime::now();
    /// let lsn = wal.append_and_sync("after that").await?;
    /// assert!(wal.at_time(since).await? <= lsn);
    /// # Ok(()) }
    /// ```
    pub async fn at_time(&self, time: SystemTime) -> Result<Lsn> {
        let core = self.core();
        core.status().check_read()?;
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let live = Arc::clone(core);
        let found = start(core.executor().as_ref(), move || find(&live, unix_ms));
        found.await.map_err(|_| Error::Closed { by: ClosedBy::RuntimeGone })?
    }
}

/// Returns the position of the newest but one mark below `unix_ms`, at least `first`.
///
/// The newest one does not suffice: a record below it may have got its position after the clock was
/// read for the mark. It had its position before the clock was read for the next mark.
fn find(core: &Core, unix_ms: u64) -> Result<Lsn> {
    let first = core.beginning().first();
    let written = core.written().get();
    let segments = core.segments().holding(first, written);
    // The number of segments before which a mark is below the time.
    let mut begun = 0;
    let mut end = segments.len();
    while begun < end {
        let middle = begun + (end - begun) / 2;
        let mark = match segments.get(middle) {
            Some(segment) => mark_before(core, segment)?,
            None => None,
        };
        // A segment without a mark before it is among the oldest.
        match mark.is_none_or(|mark| mark.unix_ms < unix_ms) {
            true => begun = middle + 1,
            false => end = middle,
        }
    }
    // In this segment, and in those before it, are the marks below the time.
    let mut below = Vec::new();
    let mut at = begun;
    while at > 0 && below.len() < 2 {
        at -= 1;
        let Some(segment) = segments.get(at) else { break };
        let until = segments.get(at + 1).map_or(written, |next| next.base).min(written);
        let mut marks = marks_in(core, segment, until)?;
        marks.retain(|mark| mark.unix_ms < unix_ms);
        below.extend(marks.into_iter().rev());
    }
    Ok(below.get(1).map_or(first, |mark| mark.lsn.max(first)))
}

/// Returns the newest mark before a segment, from its header.
fn mark_before(core: &Core, segment: &SegmentInfo) -> Result<Option<TimeMark>> {
    let file = core.segments().open(segment.sequence)?;
    Ok(match read_header(&file)?.parsed {
        ParsedHeader::Valid(header) => header.extension.time,
        _ => None,
    })
}

/// Returns the marks of a segment, oldest first.
fn marks_in(core: &Core, segment: &SegmentInfo, until: Lsn) -> Result<Vec<TimeMark>> {
    let place = WalkBounds { seed: segment.seed, end: until, record_bytes_max: RECORD_BYTES_LIMIT };
    let file = core.segments().open(segment.sequence)?;
    let reader = SegmentReader { file, base: segment.base, place };
    let mut marks = Vec::new();
    let mut at = segment.base;
    while at < until {
        let chunk = reader.read_chunk(at, until, CHUNK_BYTES)?;
        for frame in &chunk.frames {
            if let Some(Control::Time(unix_ms)) = frame.control {
                marks.push(TimeMark { unix_ms, lsn: frame.lsn });
            }
        }
        if chunk.next == at {
            break;
        }
        at = chunk.next;
    }
    Ok(marks)
}
