//! Checks if a truncation of the end removed records that a follower has yielded.
//!
//! A recovery seals the frames above the commitment again, at the same LSNs. So the position where
//! a cut *begins* does not show which records it removed. Therefore this file compares the records
//! of the old and the new view. The replaced files keep their bytes while they are open.

use bytes::Bytes;

use crate::{
    error::Result, format::frame::Kind, lsn::Lsn, reader::source::OpenView, segments::Chunk,
};

const CHUNK_BYTES: u64 = 256 << 10;

/// Returns the first position in `from..until` where `new` lacks a record of `old`.
///
/// The position is the beginning of the unit. `None` if all records are there.
pub(super) fn first_difference(
    old: &OpenView,
    new: &OpenView,
    from: Lsn,
    until: Lsn,
) -> Result<Option<Lsn>> {
    let mut before = Units::new(old, from, until);
    let mut after = Units::new(new, from, until.min(new.view.end));
    loop {
        let (unit, lsn, payload) = match before.next() {
            Ok(Some(record)) => record,
            Ok(None) if before.next >= until => return Ok(None),
            // A record that cannot be read any more may be removed, too.
            Ok(None) | Err(_) => return Ok(Some(before.next)),
        };
        match after.next()? {
            Some((_, same_lsn, same)) if same_lsn == lsn && same == payload => {}
            _ => return Ok(Some(unit)),
        }
    }
}

/// Yields the records of a range, each with the beginning of its unit.
struct Units<'a> {
    open_view: &'a OpenView,
    next: Lsn,
    until: Lsn,
    chunk: Option<Chunk>,
    frame_index: usize,
    unit: Lsn,
    is_within: bool,
}

impl<'a> Units<'a> {
    fn new(open_view: &'a OpenView, from: Lsn, until: Lsn) -> Self {
        let (chunk, frame_index, is_within) = (None, 0, false);
        Units { open_view, next: from, until, chunk, frame_index, unit: from, is_within }
    }

    fn next(&mut self) -> Result<Option<(Lsn, Lsn, Bytes)>> {
        loop {
            let at = self.chunk.as_ref().and_then(|chunk| chunk.frames.get(self.frame_index));
            if let (Some(chunk), Some(frame)) = (&self.chunk, at) {
                self.frame_index += 1;
                if !self.is_within {
                    self.unit = frame.lsn;
                }
                self.is_within = frame.kind == Kind::BatchPart;
                if frame.kind != Kind::Control {
                    let end = frame.payload_start + frame.payload_bytes;
                    let payload = chunk.bytes.slice(frame.payload_start..end);
                    return Ok(Some((self.unit, frame.lsn, payload)));
                }
                continue;
            }
            if self.next >= self.until {
                return Ok(None);
            }
            let reader = self.open_view.reader(self.next, self.until)?;
            let chunk = reader.read_chunk(self.next, self.until, CHUNK_BYTES)?;
            if chunk.next == self.next {
                return Ok(None);
            }
            self.next = chunk.next;
            self.frame_index = 0;
            self.chunk = Some(chunk);
        }
    }
}
