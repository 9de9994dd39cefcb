//! Finds positions by their time, from the time marks of a log.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{
    error::Result,
    format::{control::Control, extension::TimeMark, header::ParsedHeader, scan::WalkBounds},
    lsn::Lsn,
    options::RECORD_BYTES_LIMIT,
    recovery::survey::read_header,
    sabotage::{self, Sabotage},
    segments::{SegmentInfo, SegmentReader, SegmentSet},
};

const CHUNK_BYTES: u64 = 1 << 20;

/// Returns a time as time marks store it. A time before 1970 counts as 1970.
pub(crate) fn unix_ms_of(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the position of the newest but one mark below `unix_ms`, at least `first`. Blocking.
///
/// The newest one does not suffice: a record below it may have got its position after the clock was
/// read for the mark. It had its position before the clock was read for the next mark.
///
/// A mark that can't be read any more makes the position lower, never higher.
pub(crate) fn position_at_time(
    set: &SegmentSet,
    first: Lsn,
    end: Lsn,
    unix_ms: u64,
) -> Result<Lsn> {
    let segments = set.holding(first, end);
    // The number of segments before which a mark is below the time.
    let mut begun = 0;
    let mut after = segments.len();
    while begun < after {
        let middle = begun + (after - begun) / 2;
        let mark = match segments.get(middle) {
            Some(segment) => mark_before(set, segment)?,
            None => None,
        };
        // A segment without a mark before it is among the oldest.
        match mark.is_none_or(|mark| mark.unix_ms < unix_ms) {
            true => begun = middle + 1,
            false => after = middle,
        }
    }
    // In this segment, and in those before it, are the marks below the time.
    let mut below = Vec::new();
    let mut at = begun;
    while at > 0 && below.len() < 2 {
        at -= 1;
        let Some(segment) = segments.get(at) else { break };
        let until = segments.get(at + 1).map_or(end, |next| next.base).min(end);
        let mut marks = marks_in(set, segment, until)?;
        marks.retain(|mark| mark.unix_ms < unix_ms);
        below.extend(marks.into_iter().rev());
    }
    let skipped_count = usize::from(!sabotage::is_on(Sabotage::TrustNewestMark));
    Ok(below.get(skipped_count).map_or(first, |mark| mark.lsn.max(first)))
}

/// Returns the newest mark below `end`, also one that was truncated. Blocking.
///
/// Reads the newest segment, whose header names the newest mark before it.
pub(crate) fn newest_time_mark(set: &SegmentSet, first: Lsn, end: Lsn) -> Result<Option<TimeMark>> {
    let Some(newest) = set.holding(first, end).last().copied() else { return Ok(None) };
    match marks_in(set, &newest, end)?.pop() {
        Some(mark) => Ok(Some(mark)),
        None => mark_before(set, &newest),
    }
}

/// Returns the newest mark before a segment, from its header.
fn mark_before(set: &SegmentSet, segment: &SegmentInfo) -> Result<Option<TimeMark>> {
    let file = set.open(segment.sequence)?;
    Ok(match read_header(&file)?.parsed {
        ParsedHeader::Valid(header) => header.extension.time,
        _ => None,
    })
}

/// Returns the marks of a segment, oldest first.
fn marks_in(set: &SegmentSet, segment: &SegmentInfo, until: Lsn) -> Result<Vec<TimeMark>> {
    let place = WalkBounds { seed: segment.seed, end: until, record_bytes_max: RECORD_BYTES_LIMIT };
    let file = set.open(segment.sequence)?;
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
