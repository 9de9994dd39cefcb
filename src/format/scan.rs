//! Walks the frames of a segment, whole units at a time, and says why it stopped.
//!
//! A unit is what is read back whole or not at all: a record, a control record or a batch.

use crate::{
    format::{
        compression::{Codec, Unexpandable},
        control::{Control, FIRST_PAYLOAD_BYTES},
        frame::{FRAME_HEADER_BYTES, FrameHeader, Kind, Seed},
    },
    lsn::Lsn,
};

/// A frame that holds, and where its payload stands in the bytes that were walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameAt {
    pub(crate) lsn: Lsn,
    pub(crate) kind: Kind,
    pub(crate) payload_start: usize,
    pub(crate) payload_bytes: usize,
    /// How the payload was compressed, if it was.
    pub(crate) codec: Option<Codec>,
    pub(crate) control: Option<Control>,
    pub(crate) commitment: Option<Lsn>,
}

/// Why a walk stopped for good at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The segment is used to its end.
    SegmentEnd,
    /// Zeros where a frame would begin: nothing was written here.
    Blank,
    /// The segment ends within a frame header.
    PartialHeader,
    /// The header's check does not hold: other bytes, or those of another place.
    BadHeader,
    /// The header holds, but its length reaches past the segment's end.
    TooLong { payload_bytes: u32 },
    /// The header holds, the payload does not.
    BadChecksum,
    /// A batch goes on with something that is none of its frames.
    OpenBatch,
    /// An intact frame of a kind or with flags of a later release.
    Unsupported { lsn: Lsn, kind: u8, flags: u8 },
    /// The header holds; the payload is above the limit, so it was not looked at.
    AboveLimit { lsn: Lsn, payload_bytes: u32 },
    /// An intact frame whose payload can't be had. No walk stops there: a reader does.
    Unexpandable(Unexpandable),
}

impl Stop {
    /// The reason as a person reads it.
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
    /// The bytes ended first; the unit at `next` needs at least this many.
    NeedsBytes(u64),
    Stop(Stop),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Walk {
    /// One past the last whole unit.
    pub(crate) next: Lsn,
    pub(crate) pause: Pause,
    /// Frames whose padding isn't zero: harmless, and worth a warning.
    pub(crate) dirty_padding_count: u64,
}

/// What a walk knows of the segment it is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) seed: Seed,
    /// Where the segment ends: its successor's base, or the end of its file.
    pub(crate) end: Lsn,
    /// Payloads above this are not looked at, unless they are as short as a control record's.
    pub(crate) record_bytes_max: u64,
}

/// Walks whole units from `start`, where `bytes` begins, and adds their frames to `frames`.
pub(crate) fn walk(bytes: &[u8], start: Lsn, place: &Place, frames: &mut Vec<FrameAt>) -> Walk {
    let mut walk = Walk { next: start, pause: Pause::NeedsBytes(0), dirty_padding_count: 0 };
    let mut at = start;
    let mut whole_count = frames.len();
    let mut in_batch = false;
    let pause = loop {
        let offset = to_usize(at.since(start));
        match frame_at(bytes.get(offset..).unwrap_or_default(), at, place) {
            Looked::Frame { frame, frame_bytes, padding_is_zero } => {
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
            Looked::NeedsBytes(count) => break Pause::NeedsBytes(at.since(walk.next) + count),
            Looked::Stop(stop) if in_batch && !matches!(stop, Stop::Unsupported { .. }) => {
                break Pause::Stop(match stop {
                    Stop::AboveLimit { .. } => stop,
                    _ => Stop::OpenBatch,
                });
            }
            Looked::Stop(stop) => break Pause::Stop(stop),
        }
    };
    frames.truncate(whole_count);
    walk.pause = pause;
    walk
}

/// One frame, by itself.
pub(crate) enum Looked {
    Frame { frame: FrameAt, frame_bytes: u64, padding_is_zero: bool },
    NeedsBytes(u64),
    Stop(Stop),
}

/// Looks at the frame at `lsn`, where `bytes` begins. `payload_start` counts from there.
pub(crate) fn frame_at(bytes: &[u8], lsn: Lsn, place: &Place) -> Looked {
    let room = place.end.since(lsn);
    if room == 0 {
        return Looked::Stop(Stop::SegmentEnd);
    }
    let Some(header) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
        if room >= FRAME_HEADER_BYTES as u64 {
            return Looked::NeedsBytes(FRAME_HEADER_BYTES as u64);
        }
        if (bytes.len() as u64) < room {
            return Looked::NeedsBytes(room);
        }
        let blank = bytes.iter().all(|&byte| byte == 0);
        return Looked::Stop(if blank { Stop::Blank } else { Stop::PartialHeader });
    };
    let header = FrameHeader::parse(*header);
    if header.to_words().0 == 0 {
        return Looked::Stop(Stop::Blank);
    }
    if !header.header_holds(place.seed, lsn) {
        return Looked::Stop(Stop::BadHeader);
    }
    let frame_bytes = header.frame_bytes();
    let payload_bytes = header.payload_bytes;
    if frame_bytes > room {
        return Looked::Stop(Stop::TooLong { payload_bytes });
    }
    // A limit on records is none on what the log writes for itself.
    if u64::from(payload_bytes) > place.record_bytes_max.max(FIRST_PAYLOAD_BYTES as u64) {
        return Looked::Stop(Stop::AboveLimit { lsn, payload_bytes });
    }
    let Some(frame) = bytes.get(FRAME_HEADER_BYTES..to_usize(frame_bytes)) else {
        return Looked::NeedsBytes(frame_bytes);
    };
    let (payload, padding) = frame.split_at(to_usize(u64::from(payload_bytes)));
    if !header.payload_holds(place.seed, lsn, crc32c::crc32c(payload)) {
        return Looked::Stop(Stop::BadChecksum);
    }
    let Some((kind, codec, control)) = known(&header, payload) else {
        let (kind, flags) = (header.kind_code, header.flags);
        return Looked::Stop(Stop::Unsupported { lsn, kind, flags });
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
    Looked::Frame { frame, frame_bytes, padding_is_zero }
}

/// The kind of an intact frame, if this release knows all of it.
fn known(header: &FrameHeader, payload: &[u8]) -> Option<(Kind, Option<Codec>, Option<Control>)> {
    match (header.kind()?, Codec::from_flags(header.flags).ok()?) {
        // What the log notes for itself is never compressed.
        (Kind::Control, Some(_)) => None,
        (Kind::Control, None) => Some((Kind::Control, None, Some(Control::parse(payload)?))),
        (kind, codec) => Some((kind, codec, None)),
    }
}

/// Lengths here are bounded by a slice or by a record, so they fit; a 32-bit target saturates.
pub(crate) fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::format::frame::frame_bytes;

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

    fn place(end: u64) -> Place {
        Place { seed: seed(), end: Lsn::new(end), record_bytes_max: 1 << 20 }
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
    fn every_prefix_asks_for_more_and_never_yields_part_of_a_batch() {
        let log = three();
        for length in 0..log.len() {
            let mut frames = Vec::new();
            let walked = walk(&log[..length], Lsn::ZERO, &place(log.len() as u64), &mut frames);
            assert!(matches!(walked.pause, Pause::NeedsBytes(n) if n > 0), "{length}: {walked:?}");
            assert_eq!(frames.len(), usize::from(length >= 24), "{length}");
        }
    }

    #[test]
    fn a_batch_that_breaks_off_ends_the_walk_at_its_first_frame() {
        let mut log = Vec::new();
        push(&mut log, Lsn::ZERO, Kind::BatchPart, b"part", Lsn::ZERO);
        push(&mut log, Lsn::ZERO, Kind::Record, b"record", Lsn::ZERO);
        let mut frames = Vec::new();
        let walked = walk(&log, Lsn::ZERO, &place(4096), &mut frames);
        assert_eq!((walked.next, walked.pause), (Lsn::ZERO, Pause::Stop(Stop::OpenBatch)));
        assert_eq!(frames, []);
    }

    #[test]
    fn a_length_never_asks_for_more_than_the_segment_or_the_limit() {
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
    fn an_intact_frame_of_an_unknown_kind_is_unsupported_and_not_damaged() {
        let mut log = three();
        let at = log.len();
        push(&mut log, Lsn::ZERO, Kind::Control, &[9; 8], Lsn::ZERO);
        let walked = walk(&log, Lsn::ZERO, &place(4096), &mut Vec::new());
        let lsn = Lsn::new(at as u64);
        assert_eq!(walked.pause, Pause::Stop(Stop::Unsupported { lsn, kind: 4, flags: 0 }));
    }
}
