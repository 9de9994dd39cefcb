//! Whether a cut took what a follower has given: what stood there before, held against what stands
//! there now.
//!
//! A recovery frames what it keeps above the commitment anew, at the same LSNs, so that a cut
//! *begins* at some position says little. The files it replaced keep their bytes for as long as they
//! are open.

use bytes::Bytes;

use crate::{error::Result, format::frame::Kind, lsn::Lsn, reader::source::Held, segments::Chunk};

const CHUNK_BYTES: u64 = 256 << 10;

/// The first position in `from..until` at which `new` doesn't hold the record that `old` holds: the
/// beginning of its unit. `None` if all of them are there.
pub(super) fn first_difference(
    old: &Held,
    new: &Held,
    from: Lsn,
    until: Lsn,
) -> Result<Option<Lsn>> {
    let mut before = Units::new(old, from, until);
    let mut after = Units::new(new, from, until.min(new.view.end));
    loop {
        let (unit, lsn, payload) = match before.next() {
            Ok(Some(record)) => record,
            Ok(None) if before.next >= until => return Ok(None),
            // What can't be read any more may be gone as well.
            Ok(None) | Err(_) => return Ok(Some(before.next)),
        };
        match after.next()? {
            Some((_, same_lsn, same)) if same_lsn == lsn && same == payload => {}
            _ => return Ok(Some(unit)),
        }
    }
}

/// The records of a range, each with the beginning of its unit.
struct Units<'a> {
    held: &'a Held,
    next: Lsn,
    until: Lsn,
    chunk: Option<Chunk>,
    frame_index: usize,
    unit: Lsn,
    is_within: bool,
}

impl<'a> Units<'a> {
    fn new(held: &'a Held, from: Lsn, until: Lsn) -> Self {
        let (chunk, frame_index, is_within) = (None, 0, false);
        Units { held, next: from, until, chunk, frame_index, unit: from, is_within }
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
            let reader = self.held.reader(self.next, self.until)?;
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
