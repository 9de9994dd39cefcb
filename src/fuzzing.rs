//! The entry points of `fuzz/`: invariants of the pure functions in `format`, for any bytes.
//!
//! Compiled only under `--cfg fuzzing`, which `cargo fuzz` sets. Each function panics if an
//! invariant is violated; the targets only produce bytes.

use crate::{
    format::{
        compression::Codec,
        frame::{FRAME_ALIGN, FRAME_HEADER_BYTES, FRAME_HEADER_BYTES_U64, FrameHeader, Seed},
        header::{ParsedHeader, SegmentHeader, VERSION},
        scan::{FrameAt, FrameCheck, Pause, Stop, WalkBounds, frame_at, to_usize, walk},
        search::{FoundFrame, Source, search},
    },
    lsn::Lsn,
};

/// The position for which frames are sealed.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// The log's id.
    pub log_id: [u8; 16],
    /// The epoch.
    pub epoch: u64,
    /// The LSN of the first byte.
    pub lsn: u64,
    /// The largest payload that is checked.
    pub record_bytes_max: u64,
}

impl Spot {
    fn seed(&self) -> Seed {
        Seed::new(self.log_id, self.epoch)
    }

    fn place(&self, region_bytes: usize) -> WalkBounds {
        let end = Lsn::new(self.lsn).plus(region_bytes as u64);
        WalkBounds { seed: self.seed(), end, record_bytes_max: self.record_bytes_max }
    }
}

/// An intact frame, as the format's reader returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its LSN.
    pub lsn: u64,
    /// Its kind.
    pub kind: u8,
    /// The LSN up to which it claims that the log was synced.
    pub commitment: Option<u64>,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Frame {
    fn new(frame: &FrameAt, bytes: &[u8]) -> Self {
        let payload = frame.payload_start..frame.payload_start + frame.payload_bytes;
        let payload = bytes.get(payload).map(<[u8]>::to_vec);
        assert!(payload.is_some(), "a payload within the bytes");
        Frame {
            lsn: frame.lsn.as_u64(),
            kind: frame.kind.code(),
            commitment: frame.commitment.map(Lsn::as_u64),
            payload: payload.unwrap_or_default(),
        }
    }
}

/// Decodes the frame that `bytes` begin with.
///
/// # Panics
///
/// If the frame is intact but sealing it again gives other bytes.
#[must_use]
pub fn decode_frame(bytes: &[u8], spot: &Spot) -> Option<Frame> {
    let lsn = Lsn::new(spot.lsn);
    if let Some(first) = bytes.first_chunk::<FRAME_HEADER_BYTES>() {
        let header = FrameHeader::parse(*first);
        assert_eq!(header.to_bytes(), *first, "a header survives the round trip");
        let shape = FrameHeader::shape_of_word(header.to_words().0);
        assert_eq!(shape, (u64::from(header.payload_bytes), header.kind()));
        assert!(header.commitment(lsn).is_none_or(|synced| synced <= lsn));
    }
    let FrameCheck::Frame { frame, frame_bytes, .. } =
        frame_at(bytes, lsn, &spot.place(bytes.len()))
    else {
        return None;
    };
    assert!(frame_bytes % FRAME_ALIGN == 0 && frame_bytes <= bytes.len() as u64);
    assert!(frame.payload_bytes as u64 <= spot.record_bytes_max.max(16));
    let decoded = Frame::new(&frame, bytes);
    if let Some(synced) = frame.commitment {
        let crc = crc32c::crc32c(&decoded.payload);
        let payload_bytes = u32::try_from(decoded.payload.len()).unwrap_or(u32::MAX);
        let kind = (frame.kind, frame.codec.map_or(0, Codec::flags));
        let sealed = FrameHeader::seal_flagged(spot.seed(), lsn, kind, payload_bytes, crc, synced);
        assert!(
            bytes.starts_with(&sealed.to_bytes()),
            "sealing an intact frame again changes nothing"
        );
    }
    Some(decoded)
}

/// Parses the header of a segment. Returns whether it is valid.
///
/// # Panics
///
/// If the header is valid but writing it again gives other bytes.
#[must_use]
pub fn parse_header(block: &[u8]) -> bool {
    match SegmentHeader::parse(block) {
        ParsedHeader::Valid(header) => {
            let written = header.block();
            assert_eq!(SegmentHeader::parse(&written), ParsedHeader::Valid(header));
            let (encoded, copy) = written.split_at(written.len().min(2048));
            assert!(encoded.starts_with(copy), "both copies are the same");
            // Without a predecessor the base has no meaning, so it may be anything.
            let is_there = block.starts_with(copy)
                || block.get(2048..).is_some_and(|block| block.starts_with(copy));
            assert!(
                is_there || header.previous.is_none(),
                "a valid header is written again unchanged"
            );
            true
        }
        ParsedHeader::Blank => {
            assert!(block.iter().all(|&byte| byte == 0));
            false
        }
        ParsedHeader::Newer { version } => {
            assert!(version > VERSION);
            false
        }
        ParsedHeader::UnknownFlags { flags } => {
            assert!(flags != 0);
            false
        }
        ParsedHeader::UnknownExtension { .. } => false,
        ParsedHeader::Misplaced(_) => unreachable!("a header belongs into the file it names"),
        ParsedHeader::Damaged => {
            assert!(block.iter().any(|&byte| byte != 0));
            false
        }
    }
}

/// Walks the units of a region and returns its frames.
///
/// Walks at once and in small chunks, and compares the results.
///
/// # Panics
///
/// If the frames are not in order, whole and within the region, or depend on the chunks.
#[must_use]
pub fn walk_segment(bytes: &[u8], spot: &Spot, chunk_bytes: usize) -> Vec<Frame> {
    let place = spot.place(bytes.len());
    let start = Lsn::new(spot.lsn);
    let mut frames = Vec::new();
    let walked = walk(bytes, start, &place, &mut frames);
    let Pause::Stop(stop) = walked.pause else {
        // The region ends where the segment ends, so a walk never needs more bytes.
        panic!("{walked:?} of {} bytes", bytes.len());
    };
    let mut at = start;
    for frame in &frames {
        assert_eq!(frame.lsn, at, "frames follow each other");
        let offset = to_usize(at.since(start));
        let here = Spot { lsn: at.as_u64(), ..*spot };
        let alone = decode_frame(bytes.get(offset..).unwrap_or_default(), &here);
        assert_eq!(alone, Some(Frame::new(frame, bytes)), "each is sealed for its place");
        let payload_end = (frame.payload_start + frame.payload_bytes) as u64;
        at = start.plus(payload_end.next_multiple_of(FRAME_ALIGN));
    }
    assert!(at == walked.next && at <= place.end, "a walk ends behind its last frame");
    let frames = frames.iter().map(|frame| Frame::new(frame, bytes)).collect();
    walk_in_chunks(bytes, start, &place, chunk_bytes, (&frames, walked.next, stop));
    frames
}

/// Walks in chunks, as a reader does. Reads a larger chunk if a unit does not fit.
fn walk_in_chunks(
    bytes: &[u8],
    start: Lsn,
    place: &WalkBounds,
    chunk_bytes: usize,
    (expected, expected_next, expected_stop): (&Vec<Frame>, Lsn, Stop),
) {
    let mut found = Vec::new();
    let mut at = start;
    let mut count = chunk_bytes;
    let stop = loop {
        let rest = bytes.get(to_usize(at.since(start))..).unwrap_or_default();
        let chunk = rest.get(..count.min(rest.len())).unwrap_or_default();
        let mut frames = Vec::new();
        let walked = walk(chunk, at, place, &mut frames);
        found.extend(frames.iter().map(|frame| Frame::new(frame, chunk)));
        match walked.pause {
            Pause::Stop(stop) => {
                at = walked.next;
                break stop;
            }
            Pause::NeedsBytes(needed) => {
                assert!(walked.next > at || needed > chunk.len() as u64, "it needs more bytes");
                assert!(needed <= place.end.since(walked.next), "but no more than there are");
                count = if walked.next > at { chunk_bytes } else { to_usize(needed) };
            }
        }
        at = walked.next;
    };
    assert_eq!((&found, at, stop), (expected, expected_next, expected_stop));
}

struct Slice<'a>(&'a [u8]);

impl Source for Slice<'_> {
    type Error = ();

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), ()> {
        let from = self.0.get(to_usize(offset)..).unwrap_or_default();
        assert!(buffer.len() <= from.len(), "a search stays in its region");
        for (to, from) in buffer.iter_mut().zip(from) {
            *to = *from;
        }
        Ok(())
    }
}

/// Searches a region for intact frames and returns their LSNs.
///
/// # Panics
///
/// If the plain search, which computes each checksum from scratch, finds other frames.
#[must_use]
pub fn search_region(bytes: &[u8], spot: &Spot) -> Vec<u64> {
    let start = Lsn::new(spot.lsn);
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last as u64 + 1);
    let region = (used, bytes.len() as u64);
    let mut found = Vec::new();
    let searched =
        search(&mut Slice(bytes), start, region, spot.seed(), &mut |frame| found.push(frame));
    assert_eq!(searched, Ok(()));
    assert_eq!(found, plain_search(bytes, start, spot.seed()));
    found.iter().map(|frame| frame.lsn.as_u64()).collect()
}

fn plain_search(bytes: &[u8], start: Lsn, seed: Seed) -> Vec<FoundFrame> {
    let mut found = Vec::new();
    let mut offset = 0;
    while let Some(rest) = bytes.get(offset..) {
        let Some(header) = rest.first_chunk::<FRAME_HEADER_BYTES>() else { break };
        let header = FrameHeader::parse(*header);
        let lsn = start.plus(offset as u64);
        let end = FRAME_HEADER_BYTES_U64 + u64::from(header.payload_bytes);
        let payload = rest.get(FRAME_HEADER_BYTES..to_usize(end));
        let is_intact = payload.is_some_and(|payload| {
            header.frame_bytes() <= rest.len() as u64
                && header.header_holds(seed, lsn)
                && header.payload_holds(seed, lsn, crc32c::crc32c(payload))
        });
        if is_intact {
            let is_record = header.is_record();
            let end = lsn.plus(header.frame_bytes());
            found.push(FoundFrame { lsn, end, commitment: header.commitment(lsn), is_record });
            offset += to_usize(header.frame_bytes());
        } else {
            offset += to_usize(FRAME_ALIGN);
        }
    }
    found
}
