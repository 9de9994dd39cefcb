//! Reads a segment in chunks of whole units. Recovery and replay read segments only through this
//! file.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    error::{Error, Result},
    format::{
        compression::expand,
        frame::{FRAME_ALIGN, FRAME_HEADER_BYTES_U64, FrameHeader, Kind, payload_lsn},
        header::file_offset,
        scan::{FrameAt, FrameCheck, Pause, Stop, WalkBounds, frame_at, to_usize, walk},
        sealed_at::Unplaced,
        search::Source,
    },
    lsn::Lsn,
    segments::file::SegmentFile,
};

/// A part of the log: whole units in one buffer, which their payloads share.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) reader: SegmentReader,
    pub(crate) bytes: Bytes,
    /// How many of the bytes were read. The rest is left over from an earlier use of the buffer.
    pub(crate) read_bytes: usize,
    pub(crate) frames: Vec<FrameAt>,
    /// The start of the next chunk.
    pub(crate) next: Lsn,
    /// The reason why no unit follows; `None` if one may.
    pub(crate) stop: Option<Stop>,
    pub(crate) dirty_padding_count: u64,
}

/// The buffers of a chunk, for reuse.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub(crate) bytes: Bytes,
    frames: Vec<FrameAt>,
}

impl Chunk {
    pub(crate) fn into_buffers(self) -> Buffers {
        Buffers { bytes: self.bytes, frames: self.frames }
    }
}

/// The last record of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastRecord {
    At(Lsn),
    None,
    /// The segment can't be read to its end.
    Unknown,
}

/// A segment that is being read.
#[derive(Clone, Debug)]
pub(crate) struct SegmentReader {
    pub(crate) file: Arc<SegmentFile>,
    pub(crate) base: Lsn,
    pub(crate) place: WalkBounds,
}

impl SegmentReader {
    /// Returns the file offset of an LSN of this segment.
    pub(crate) fn offset(&self, lsn: Lsn) -> u64 {
        file_offset(self.base, lsn)
    }

    /// Reads about `wanted_bytes` bytes of whole units from `from`. Reads more if the first unit is
    /// larger, and never past `until`.
    ///
    /// Never allocates more bytes than the segment has left.
    pub(crate) fn read_chunk(&self, from: Lsn, until: Lsn, wanted_bytes: u64) -> Result<Chunk> {
        let mut chunk = self.read_chunk_into(Buffers::default(), from, until, wanted_bytes)?;
        let end = chunk.read_bytes;
        chunk.bytes.truncate(end);
        Ok(chunk)
    }

    /// Finds the last record of the segment. Reads all of it.
    pub(crate) fn last_record(&self) -> LastRecord {
        const CHUNK_BYTES: u64 = 1 << 20;
        let (mut at, mut last) = (self.base, None);
        while at < self.place.end {
            let Ok(chunk) = self.read_chunk(at, self.place.end, CHUNK_BYTES) else {
                return LastRecord::Unknown;
            };
            let records = chunk.frames.iter().filter(|frame| frame.kind != Kind::Control);
            last = records.map(|frame| frame.lsn).next_back().or(last);
            if chunk.next == at {
                return LastRecord::Unknown;
            }
            at = chunk.next;
        }
        last.map_or(LastRecord::None, LastRecord::At)
    }

    /// As [`SegmentReader::read_chunk`], but reuses buffers. Only the first `read_bytes` bytes
    /// belong to the chunk.
    pub(crate) fn read_chunk_into(
        &self,
        buffers: Buffers,
        from: Lsn,
        until: Lsn,
        wanted_bytes: u64,
    ) -> Result<Chunk> {
        let Buffers { bytes, mut frames } = buffers;
        frames.clear();
        // This conversion does not copy, because no payload shares the buffer any more.
        let mut buffer = Vec::from(bytes);
        let room = until.min(self.place.end).since(from);
        let mut count = wanted_bytes.min(room);
        loop {
            let wanted = to_usize(count);
            if buffer.len() < wanted {
                // A new buffer saves moving the old contents and allocating more than `wanted`.
                buffer = vec![0; wanted];
            }
            let piece = buffer.get_mut(..wanted).unwrap_or_default();
            let read_bytes = self.file.read_at(piece, self.offset(from))?;
            let file_ended = read_bytes < wanted;
            let bytes = buffer.get(..read_bytes).unwrap_or_default();
            let walked = walk(bytes, from, &self.place, &mut frames);
            let stop = match walked.pause {
                Pause::Stop(stop) => Some(stop),
                Pause::NeedsBytes(_) if walked.next > from => None,
                // A walk may need more bytes at `until`. If it needs more at the end of the
                // segment, the file is shorter than its frames claim.
                Pause::NeedsBytes(_) if room == 0 => None,
                Pause::NeedsBytes(_) if count >= room || file_ended => Some(Stop::PartialHeader),
                Pause::NeedsBytes(needed) => {
                    count = needed.max(count.saturating_mul(2)).min(room);
                    continue;
                }
            };
            return Ok(Chunk {
                reader: self.clone(),
                bytes: Bytes::from(buffer),
                read_bytes,
                frames,
                next: walked.next,
                stop,
                dirty_padding_count: walked.dirty_padding_count,
            });
        }
    }

    /// Reads the frame at `lsn`, or returns why there is no intact one.
    pub(crate) fn read_frame(
        &self,
        lsn: Lsn,
        until: Lsn,
        wanted_bytes: u64,
    ) -> Result<Result<(FrameAt, Bytes), Stop>> {
        let room = until.min(self.place.end).since(lsn);
        let mut count = wanted_bytes.min(room);
        loop {
            let bytes = self.read(lsn, count)?;
            match frame_at(&bytes, lsn, &self.place) {
                FrameCheck::Frame { frame, .. } => return Ok(Ok((frame, Bytes::from(bytes)))),
                FrameCheck::Stop(stop) => return Ok(Err(stop)),
                FrameCheck::NeedsBytes(needed) if needed <= room && bytes.len() as u64 == count => {
                    count = needed;
                }
                FrameCheck::NeedsBytes(_) => return Ok(Err(Stop::PartialHeader)),
            }
        }
    }

    /// Returns the payload of an intact frame, expanded from its stored bytes.
    pub(crate) fn payload(&self, frame: &FrameAt, stored: Bytes) -> Result<Bytes, Stop> {
        let Some(codec) = frame.codec else { return Ok(stored) };
        let payload = expand(codec, &stored, self.place.record_bytes_max);
        payload.map(Bytes::from).map_err(Stop::Unexpandable)
    }

    /// Returns whether the frame at `lsn` is intact, whatever its size.
    pub(crate) fn is_intact(&self, lsn: Lsn) -> Result<bool> {
        let Some(header) = self.read(lsn, FRAME_HEADER_BYTES_U64)?.first_chunk().copied() else {
            return Ok(false);
        };
        let header = FrameHeader::parse(header);
        let room = self.place.end.since(lsn);
        if !header.header_holds(self.place.seed, lsn) || header.frame_bytes() > room {
            return Ok(false);
        }
        let crc = self.payload_crc(lsn, &header)?;
        Ok(crc.is_some_and(|crc| header.payload_holds(self.place.seed, lsn, crc)))
    }

    /// Returns the first frame of the segment; `None` if it does not fit into the file. The frame's
    /// LSN may differ from the reader's `base`.
    pub(crate) fn first_frame(&self) -> Result<Option<Unplaced>> {
        let header = self.read(self.base, FRAME_HEADER_BYTES_U64)?;
        let header = header.first_chunk().map(|bytes| FrameHeader::parse(*bytes));
        let room = self.place.end.since(self.base);
        let fits = |header: &FrameHeader| header.kind_code != 0 && header.frame_bytes() <= room;
        let Some(header) = header.filter(fits) else { return Ok(None) };
        let crc = self.payload_crc(self.base, &header)?;
        Ok(crc.map(|crc| Unplaced::new(header, crc)))
    }

    /// Computes the CRC-32C of the payload of the frame at `lsn`, in pieces. `None` if the file
    /// ends within it.
    fn payload_crc(&self, lsn: Lsn, header: &FrameHeader) -> Result<Option<u32>> {
        const PIECE_BYTES: u64 = 1 << 20;
        let mut crc = 0;
        let mut at = payload_lsn(lsn);
        let end = at.plus(u64::from(header.payload_bytes));
        while at < end {
            let piece = self.read(at, end.since(at).min(PIECE_BYTES))?;
            if piece.is_empty() {
                return Ok(None);
            }
            crc = crc32c::crc32c_append(crc, &piece);
            at = at.plus(piece.len() as u64);
        }
        Ok(Some(crc))
    }

    pub(crate) fn read(&self, from: Lsn, count: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; to_usize(count)];
        let read = self.file.read_at(&mut bytes, self.offset(from))?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Returns the end of the non-zero bytes in `from..until`, rounded up to the alignment of
    /// frames. Reads backwards, so that a segment with a short used part costs one pass over its
    /// zeros.
    pub(crate) fn used_end(&self, from: Lsn, until: Lsn) -> Result<Lsn> {
        const PIECE_BYTES: u64 = 256 << 10;
        let mut buffer = vec![0; to_usize(PIECE_BYTES.min(until.since(from)))];
        let mut end = until;
        while end > from {
            let start = from
                .plus(end.since(from).saturating_sub(PIECE_BYTES).next_multiple_of(FRAME_ALIGN));
            let piece = buffer.get_mut(..to_usize(end.since(start))).unwrap_or_default();
            let read = self.file.read_at(piece, self.offset(start))?;
            if let Some(used) = used_bytes(piece.get(..read).unwrap_or_default()) {
                return Ok(start.plus(used).min(until));
            }
            end = start;
        }
        Ok(from)
    }
}

/// Returns the end of the last non-zero word; `None` if all bytes are zero. Tests whole blocks
/// first, without an early exit within a block, because that runs at the speed of memory.
fn used_bytes(bytes: &[u8]) -> Option<u64> {
    const BLOCK_BYTES: usize = 512;
    let is_used = |part: &[u8]| part.iter().fold(0, |all, byte| all | byte) != 0;
    let block = bytes.chunks(BLOCK_BYTES).rposition(is_used)?;
    let words = bytes.chunks(BLOCK_BYTES).nth(block)?.chunks(8);
    let word = words.clone().rposition(is_used)?;
    Some((block * BLOCK_BYTES + (word + 1) * 8) as u64)
}

/// A region of a segment, for the search past damage. Reads as zeros past the end of the file.
pub(crate) struct Region<'a> {
    pub(crate) reader: &'a SegmentReader,
    pub(crate) start: Lsn,
}

impl Source for Region<'_> {
    type Error = Error;

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let at = self.reader.offset(self.start.plus(offset));
        let read = self.reader.file.read_at(buffer, at)?;
        buffer.iter_mut().skip(read).for_each(|byte| *byte = 0);
        Ok(())
    }
}
