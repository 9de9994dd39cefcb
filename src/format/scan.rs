//! Walks the frames of a segment by whole units, and returns why it stopped.
//!
//! A unit is read back whole or not at all. It is a record, a control record or a batch.

use crate::{
    format::{
        compression::{Codec, Unexpandable},
        control::{CONTROL_PAYLOAD_BYTES_MAX, Control, FIRST_PAYLOAD_BYTES},
        frame::{FRAME_HEADER_BYTES, FrameHeader, Kind, Seed, frame_bytes},
    },
    lsn::Lsn,
    steps,
};

/// An intact frame, and the place of its payload in the walked bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameAt {
    pub(crate) lsn: Lsn,
    pub(crate) kind: Kind,
    pub(crate) payload_start: usize,
    pub(crate) payload_bytes: usize,
    /// The codec of a compressed payload.
    pub(crate) codec: Option<Codec>,
    pub(crate) control: Option<Control>,
    pub(crate) commitment: Option<Lsn>,
}

impl FrameAt {
    /// Returns the position after the frame.
    pub(crate) fn end(&self) -> Lsn {
        self.lsn.plus(frame_bytes(self.payload_bytes as u64))
    }
}

/// The reason why a walk ended at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The segment has no more space.
    SegmentEnd,
    /// Zeros instead of a frame: nothing was written here.
    Blank,
    /// The segment ends within a frame header.
    PartialHeader,
    /// The header's check fails: these are other bytes, or a frame of another position.
    BadHeader,
    /// The header is intact, but its length reaches past the segment's end.
    TooLong { payload_bytes: u32 },
    /// The header is intact, but the payload is not.
    BadChecksum,
    /// A batch is followed by a frame that does not continue it.
    OpenBatch,
    /// An intact frame with a kind or with flags of a later release.
    Unsupported { lsn: Lsn, kind: u8, flags: u8 },
    /// The header is intact; the payload is above the limit and was not checked.
    AboveLimit { lsn: Lsn, payload_bytes: u32 },
    /// An intact frame whose payload cannot be expanded. A walk does not stop there; a reader does.
    Unexpandable(Unexpandable),
}

impl Stop {
    /// Returns the reason as text.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Stop::SegmentEnd => "the segment ends",
            Stop::Blank => "zeros instead of a frame",
            Stop::PartialHeader => "the file ends within a frame header",
            Stop::BadHeader => "no intact frame header",
            Stop::TooLong { .. } => "a frame's length reaches past the end of the segment",
            Stop::BadChecksum => "the payload does not match its checksum",
            Stop::OpenBatch => "a batch without its end",
            Stop::Unsupported { .. } => "an intact frame of an unknown kind",
            Stop::AboveLimit { .. } => "a record above record_bytes_max",
            Stop::Unexpandable(why) => why.describe(),
        }
    }
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// The bytes end within a unit. The unit at `next` needs at least this many bytes.
    NeedsBytes(u64),
    Stop(Stop),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Walk {
    /// The end of the last whole unit.
    pub(crate) next: Lsn,
    pub(crate) pause: Pause,
    /// The number of frames with non-zero padding, which is harmless but worth a warning.
    pub(crate) dirty_padding_count: u64,
}

/// The limits of a walk in one segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WalkBounds {
    pub(crate) seed: Seed,
    /// The base of the segment's successor, or the end of its file.
    pub(crate) end: Lsn,
    /// Larger payloads are not checked, unless they are as short as a control record's.
    pub(crate) record_bytes_max: u64,
}

impl WalkBounds {
    /// Returns the length up to which the payload of a frame is checked.
    fn payload_bytes_max(&self, header: &FrameHeader) -> u64 {
        let least = match header.is_record() {
            true => FIRST_PAYLOAD_BYTES as u64,
            false => CONTROL_PAYLOAD_BYTES_MAX,
        };
        self.record_bytes_max.max(least)
    }
}

/// Walks whole units from `start`, the position of `bytes`, and adds their frames to `frames`.
pub(crate) fn walk(
    bytes: &[u8],
    start: Lsn,
    place: &WalkBounds,
    frames: &mut Vec<FrameAt>,
) -> Walk {
    let mut walk = Walk { next: start, pause: Pause::NeedsBytes(0), dirty_padding_count: 0 };
    let mut at = start;
    let mut whole_count = frames.len();
    let mut in_batch = false;
    let pause = loop {
        let offset = to_usize(at.since(start));
        match frame_at(bytes.get(offset..).unwrap_or_default(), at, place) {
            FrameCheck::Frame { frame, frame_bytes, padding_is_zero } => {
                let part = matches!(frame.kind, Kind::BatchPart);
                let batched = part || matches!(frame.kind, Kind::BatchEnd);
                if in_batch && !batched {
                    break Pause::Stop(Stop::OpenBatch);
                }
                walk.dirty_padding_count += u64::from(!padding_is_zero);
                frames.push(FrameAt { payload_start: offset + frame.payload_start, ..frame });
                at = at.plus(frame_bytes);
                in_batch = part;
                if !in_batch {
                    walk.next = at;
                    whole_count = frames.len();
                }
            }
            FrameCheck::NeedsBytes(count) => break Pause::NeedsBytes(at.since(walk.next) + count),
            FrameCheck::Stop(stop) if in_batch && !matches!(stop, Stop::Unsupported { .. }) => {
                break Pause::Stop(match stop {
                    Stop::AboveLimit { .. } => stop,
                    _ => Stop::OpenBatch,
                });
            }
            FrameCheck::Stop(stop) => break Pause::Stop(stop),
        }
    };
    steps::count(frames.len() as u64);
    frames.truncate(whole_count);
    walk.pause = pause;
    walk
}

/// The result of checking one frame.
pub(crate) enum FrameCheck {
    Frame { frame: FrameAt, frame_bytes: u64, padding_is_zero: bool },
    NeedsBytes(u64),
    Stop(Stop),
}

/// Checks the frame at `lsn`, the position of `bytes`. `payload_start` counts from the start of
/// `bytes`.
///
/// Inlined, because the result is large, and a walk takes it apart at once.
#[inline(always)]
pub(crate) fn frame_at(bytes: &[u8], lsn: Lsn, place: &WalkBounds) -> FrameCheck {
    let room = place.end.since(lsn);
    if room == 0 {
        return FrameCheck::Stop(Stop::SegmentEnd);
    }
    let Some(header) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
        if room >= FRAME_HEADER_BYTES as u64 {
            return FrameCheck::NeedsBytes(FRAME_HEADER_BYTES as u64);
        }
        if (bytes.len() as u64) < room {
            return FrameCheck::NeedsBytes(room);
        }
        let blank = bytes.iter().all(|&byte| byte == 0);
        return FrameCheck::Stop(if blank { Stop::Blank } else { Stop::PartialHeader });
    };
    let header = FrameHeader::parse(*header);
    if header.to_words().0 == 0 {
        return FrameCheck::Stop(Stop::Blank);
    }
    let Some(covered) = header.intact(place.seed, lsn) else {
        return FrameCheck::Stop(Stop::BadHeader);
    };
    let frame_bytes = header.frame_bytes();
    let payload_bytes = header.payload_bytes;
    if frame_bytes > room {
        return FrameCheck::Stop(Stop::TooLong { payload_bytes });
    }
    // The limit on records does not apply to the log's own control records.
    if u64::from(payload_bytes) > place.payload_bytes_max(&header) {
        return FrameCheck::Stop(Stop::AboveLimit { lsn, payload_bytes });
    }
    let Some(frame) = bytes.get(FRAME_HEADER_BYTES..to_usize(frame_bytes)) else {
        return FrameCheck::NeedsBytes(frame_bytes);
    };
    let (payload, padding) = frame.split_at(to_usize(u64::from(payload_bytes)));
    if !header.payload_holds_after(covered, crc32c::crc32c(payload)) {
        return FrameCheck::Stop(Stop::BadChecksum);
    }
    let Some((kind, codec, control)) = known(&header, payload) else {
        let (kind, flags) = (header.kind_code, header.flags);
        return FrameCheck::Stop(Stop::Unsupported { lsn, kind, flags });
    };
    let frame = FrameAt {
        lsn,
        kind,
        payload_start: FRAME_HEADER_BYTES,
        payload_bytes: payload.len(),
        codec,
        control,
        commitment: header.commitment(lsn),
    };
    let padding_is_zero = padding.iter().all(|&byte| byte == 0);
    FrameCheck::Frame { frame, frame_bytes, padding_is_zero }
}

/// Returns kind, codec and control record of an intact frame; `None` if one is unknown.
fn known(header: &FrameHeader, payload: &[u8]) -> Option<(Kind, Option<Codec>, Option<Control>)> {
    match (header.kind()?, Codec::from_flags(header.flags).ok()?) {
        // Control records are never compressed.
        (Kind::Control, Some(_)) => None,
        (Kind::Control, None) => Some((Kind::Control, None, Some(Control::parse(payload)?))),
        (kind, codec) => Some((kind, codec, None)),
    }
}

/// Converts a length to an index. It fits, because lengths here are bounded by a slice or a record;
/// a 32-bit target saturates.
pub(crate) fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn seed() -> Seed {
        Seed::new([1; 16], 1)
    }

    /// Appends one frame to `log`, whose first byte is `base`.
    pub(crate) fn push(log: &mut Vec<u8>, base: Lsn, kind: Kind, payload: &[u8], synced: Lsn) {
        let lsn = base.plus(log.len() as u64);
        let bytes = u32::try_from(payload.len()).unwrap();
        let crc = crc32c::crc32c(payload);
        let header = FrameHeader::seal(seed(), lsn, kind, bytes, crc, synced);
        let end = log.len() as u64 + frame_bytes(payload.len() as u64);
        log.extend_from_slice(&header.to_bytes());
        log.extend_from_slice(payload);
        log.resize(to_usize(end), 0);
    }

    fn place(end: u64) -> WalkBounds {
        WalkBounds { seed: seed(), end: Lsn::new(end), record_bytes_max: 1 << 20 }
    }

    fn three() -> Vec<u8> {
        let mut log = Vec::new();
        push(&mut log, Lsn::ZERO, Kind::Record, b"first", Lsn::ZERO);
        push(&mut log, Lsn::ZERO, Kind::BatchPart, b"second", Lsn::ZERO);
        push(&mut log, Lsn::ZERO, Kind::BatchEnd, b"", Lsn::ZERO);
        log
    }

    #[test]
    fn walks_records_and_whole_batches() {
        let log = three();
        let mut frames = Vec::new();
        let walked = walk(&log, Lsn::ZERO, &place(log.len() as u64), &mut frames);
        assert_eq!(walked.pause, Pause::Stop(Stop::SegmentEnd));
        assert_eq!(walked.next, Lsn::new(log.len() as u64));
        let payloads: Vec<_> = frames
            .iter()
            .map(|f| &log[f.payload_start..f.payload_start + f.payload_bytes])
            .collect();
        assert_eq!(payloads, [b"first".as_slice(), b"second", b""]);
    }

    #[test]
    fn prefix_needs_more_bytes_and_yields_whole_units() {
        let log = three();
        for length in 0..log.len() {
            let mut frames = Vec::new();
            let walked = walk(&log[..length], Lsn::ZERO, &place(log.len() as u64), &mut frames);
            assert!(matches!(walked.pause, Pause::NeedsBytes(n) if n > 0), "{length}: {walked:?}");
            assert_eq!(frames.len(), usize::from(length >= 24), "{length}");
        }
    }

    #[test]
    fn unfinished_batch_ends_walk_at_its_first_frame() {
        let mut log = Vec::new();
        push(&mut log, Lsn::ZERO, Kind::BatchPart, b"part", Lsn::ZERO);
        push(&mut log, Lsn::ZERO, Kind::Record, b"record", Lsn::ZERO);
        let mut frames = Vec::new();
        let walked = walk(&log, Lsn::ZERO, &place(4096), &mut frames);
        assert_eq!((walked.next, walked.pause), (Lsn::ZERO, Pause::Stop(Stop::OpenBatch)));
        assert_eq!(frames, []);
    }

    #[test]
    fn length_above_segment_or_limit_stops_walk() {
        let crc = crc32c::crc32c(b"");
        for (bytes, stop) in [
            (u32::MAX, Stop::TooLong { payload_bytes: u32::MAX }),
            (2 << 20, Stop::AboveLimit { lsn: Lsn::ZERO, payload_bytes: 2 << 20 }),
        ] {
            let header = FrameHeader::seal(seed(), Lsn::ZERO, Kind::Record, bytes, crc, Lsn::ZERO);
            let walked = walk(&header.to_bytes(), Lsn::ZERO, &place(4 << 20), &mut Vec::new());
            assert_eq!(walked.pause, Pause::Stop(stop));
        }
    }

    #[test]
    fn intact_frame_of_unknown_kind_is_unsupported() {
        let mut log = three();
        let at = log.len();
        push(&mut log, Lsn::ZERO, Kind::Control, &[9; 8], Lsn::ZERO);
        let walked = walk(&log, Lsn::ZERO, &place(4096), &mut Vec::new());
        let lsn = Lsn::new(at as u64);
        assert_eq!(walked.pause, Pause::Stop(Stop::Unsupported { lsn, kind: 4, flags: 0 }));
    }
}
