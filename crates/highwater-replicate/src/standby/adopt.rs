//! Compares the records of a copy with those of a segment that replaces them.

use std::collections::VecDeque;

use highwater::{
    Lsn,
    shipping::{Frame, Frames, Header, Pause},
};

use crate::{
    error::Result,
    positions::bytes_between,
    standby::{
        disk::{Disk, OpenFile},
        receiving::Receiving,
        survey::{CHUNK_BYTES, Local},
    },
};

/// The frames of one file, in order.
struct Cursor<'a> {
    file: &'a OpenFile,
    header: &'a Header,
    frames: Frames,
    end: Lsn,
    buffer: Vec<u8>,
    ready: VecDeque<Frame>,
    has_stopped: bool,
}

impl<'a> Cursor<'a> {
    fn new(file: &'a OpenFile, header: &'a Header, from: Lsn, end: Lsn) -> Self {
        let frames = Frames::new(header, from, u64::from(u32::MAX));
        let (buffer, ready) = (Vec::new(), VecDeque::new());
        Cursor { file, header, frames, end, buffer, ready, has_stopped: false }
    }

    /// Returns the next frame, or `None` at the end or where no intact frame follows.
    fn next(&mut self) -> Result<Option<Frame>> {
        let mut wanted = CHUNK_BYTES;
        while self.ready.is_empty() && !self.has_stopped {
            let at = self.frames.next();
            let left = bytes_between(at, self.end);
            self.buffer.resize(wanted.min(left), 0);
            let read = self.file.read_at(&mut self.buffer, self.header.offset(at))?;
            self.buffer.truncate(read);
            let ready = &mut self.ready;
            let any = Lsn::new(u64::MAX);
            match self.frames.accept(&self.buffer, any, |frame| ready.push_back(frame)).pause {
                Pause::NeedsBytes(_) if read < left && !self.ready.is_empty() => {}
                Pause::NeedsBytes(count) if read < left => {
                    wanted = usize::try_from(count).unwrap_or(usize::MAX).max(wanted);
                }
                _ => self.has_stopped = true,
            }
        }
        Ok(self.ready.pop_front())
    }

    fn payload(&self, frame: &Frame) -> &[u8] {
        self.buffer.get(frame.payload.clone()).unwrap_or_default()
    }
}

/// Returns the ranges of the segments of a copy that ends at `end`, from `from` on.
fn ranges(segments: &[Local], from: Lsn, end: Lsn) -> Vec<(&Local, Lsn, Lsn)> {
    let successors = segments.iter().skip(1).map(|next| next.header.base()).chain([end]);
    let ranges = segments.iter().zip(successors).map(|(local, until)| {
        let until = until.min(end);
        (local, local.header.base().max(from), until)
    });
    ranges.filter(|(_, from, until)| from < until).collect()
}

/// Returns the first record of the copy in `received.header.base()..end` that the received segment
/// does not have with equal bytes at the equal position.
pub(crate) fn first_missing(
    disk: &Disk,
    segments: &[Local],
    end: Lsn,
    received: &Receiving,
) -> Result<Option<Lsn>> {
    let base = received.header.base();
    let mut new = Cursor::new(&received.file, &received.header, base, received.end());
    let mut ahead = new.next()?;
    for (local, from, until) in ranges(segments, base, end) {
        let file = disk.open(&local.name())?;
        let mut old = Cursor::new(&file, &local.header, from, until);
        while let Some(frame) = old.next()? {
            if !frame.is_record {
                continue;
            }
            while ahead.as_ref().is_some_and(|ahead| ahead.lsn < frame.lsn) {
                ahead = new.next()?;
            }
            let is_same = ahead.as_ref().is_some_and(|ahead| {
                (ahead.lsn, ahead.shape) == (frame.lsn, frame.shape)
                    && new.payload(ahead) == old.payload(&frame)
            });
            if !is_same {
                return Ok(Some(frame.lsn));
            }
        }
    }
    Ok(None)
}

/// Returns the position of the first record in these segments.
pub(crate) fn first_record(disk: &Disk, segments: &[Local], end: Lsn) -> Result<Option<Lsn>> {
    for (local, from, until) in ranges(segments, Lsn::ZERO, end) {
        let file = disk.open(&local.name())?;
        let mut cursor = Cursor::new(&file, &local.header, from, until);
        while let Some(frame) = cursor.next()? {
            if frame.is_record {
                return Ok(Some(frame.lsn));
            }
        }
    }
    Ok(None)
}
