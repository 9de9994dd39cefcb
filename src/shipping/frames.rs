//! [`Frames`]: verifies frames in the order in which they arrive.

use std::ops::Range;

use crate::{
    format::{
        frame::{Kind, Seed},
        scan::{FrameCheck, Stop, WalkBounds, frame_at, to_usize},
    },
    lsn::Lsn,
    shipping::header::Header,
};

/// Verifies the frames of one segment, from a boundary of units on.
///
/// A frame counts only if its checksums hold for its position in this log and epoch, so bytes of
/// another log, of another epoch or of another place are refused.
#[derive(Clone, Debug)]
pub struct Frames {
    place: WalkBounds,
    next: Lsn,
    unit_end: Lsn,
    is_in_batch: bool,
}

/// A verified frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its position.
    pub lsn: Lsn,
    /// True for a record of a user, alone or in a batch.
    pub is_record: bool,
    /// Kind and flags, as in the frame.
    pub shape: (u8, u8),
    /// The place of the payload in the given bytes.
    pub payload: Range<usize>,
}

/// The result of [`Frames::accept`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// How many of the bytes are whole, verified frames.
    pub bytes: usize,
    /// The reason why no more were taken.
    pub pause: Pause,
}

/// The reason why [`Frames::accept`] took no more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// The next frame needs this many bytes in total.
    NeedsBytes(u64),
    /// The next frame claims that everything below this position is synced.
    Claims(Lsn),
    /// The segment has no more room.
    SegmentEnd,
    /// The next bytes are zero.
    Blank,
    /// No intact frame follows.
    Refused(&'static str),
}

impl Frames {
    /// Verifies the frames of this segment from `from` on, which is a boundary of units. Refuses
    /// records above `record_bytes_max` bytes before it needs their bytes.
    #[must_use]
    pub fn new(header: &Header, from: Lsn, record_bytes_max: u64) -> Self {
        let place = WalkBounds {
            seed: Seed::new(header.log_id(), header.epoch()),
            end: header.room_end(),
            record_bytes_max,
        };
        Frames { place, next: from, unit_end: from, is_in_batch: false }
    }

    /// Returns the position of the next frame.
    #[must_use]
    pub fn next(&self) -> Lsn {
        self.next
    }

    /// Returns the end of the last whole unit.
    #[must_use]
    pub fn unit_end(&self) -> Lsn {
        self.unit_end
    }

    /// Takes whole frames from the start of `bytes`, which are at [`next`](Frames::next). Stops
    /// before a frame that claims more than `claim_max`. Calls `each` for each frame.
    pub fn accept(
        &mut self,
        bytes: &[u8],
        claim_max: Lsn,
        mut each: impl FnMut(Frame),
    ) -> Accepted {
        let start = self.next;
        loop {
            let offset = to_usize(self.next.since(start));
            let accepted = |pause| Accepted { bytes: offset, pause };
            let rest = bytes.get(offset..).unwrap_or_default();
            let (frame, frame_bytes) = match frame_at(rest, self.next, &self.place) {
                FrameCheck::Frame { frame, frame_bytes, padding_is_zero: true } => {
                    (frame, frame_bytes)
                }
                FrameCheck::Frame { .. } => {
                    return accepted(Pause::Refused("the padding of a frame is not zero"));
                }
                FrameCheck::NeedsBytes(count) => return accepted(Pause::NeedsBytes(count)),
                FrameCheck::Stop(Stop::SegmentEnd) => return accepted(Pause::SegmentEnd),
                FrameCheck::Stop(Stop::Blank) => return accepted(Pause::Blank),
                FrameCheck::Stop(stop) => return accepted(Pause::Refused(stop.describe())),
            };
            if let Some(claim) = frame.commitment.filter(|claim| *claim > claim_max) {
                return accepted(Pause::Claims(claim));
            }
            let is_part = frame.kind == Kind::BatchPart;
            if self.is_in_batch && !is_part && frame.kind != Kind::BatchEnd {
                return accepted(Pause::Refused(Stop::OpenBatch.describe()));
            }
            let payload = offset + frame.payload_start;
            let flags = frame.codec.map_or(0, |codec| codec.flags());
            each(Frame {
                lsn: frame.lsn,
                is_record: frame.kind != Kind::Control,
                shape: (frame.kind.code(), flags),
                payload: payload..payload + frame.payload_bytes,
            });
            self.next = self.next.plus(frame_bytes);
            self.is_in_batch = is_part;
            if !is_part {
                self.unit_end = self.next;
            }
        }
    }
}
