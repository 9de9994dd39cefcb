//! Reads a segment in chunks of whole units. Recovery and replay read through here alone.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    error::{Error, Result},
    format::{
        compression::expand,
        frame::{FRAME_HEADER_BYTES_U64, FrameHeader},
        header::SEGMENT_HEADER_BYTES,
        scan::{FrameAt, Looked, Pause, Place, Stop, frame_at, to_usize, walk},
        search::Source,
    },
    lsn::Lsn,
    segments::file::SegmentFile,
};

/// A part of the log: whole units, in one buffer that their payloads share.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) reader: SegmentReader,
    pub(crate) bytes: Bytes,
    /// So many of the bytes were read; what follows is left of what the buffer held before.
    pub(crate) read_bytes: usize,
    pub(crate) frames: Vec<FrameAt>,
    /// Where the next chunk begins.
    pub(crate) next: Lsn,
    /// Why nothing follows; `None` if more does.
    pub(crate) stop: Option<Stop>,
    pub(crate) dirty_padding_count: u64,
}

/// What a chunk was read into, to be used again.
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

/// A segment, as its reader sees it.
#[derive(Clone, Debug)]
pub(crate) struct SegmentReader {
    pub(crate) file: Arc<SegmentFile>,
    pub(crate) base: Lsn,
    pub(crate) place: Place,
}

impl SegmentReader {
    /// The file offset of an LSN of this segment.
    pub(crate) fn offset(&self, lsn: Lsn) -> u64 {
        lsn.since(self.base).saturating_add(SEGMENT_HEADER_BYTES)
    }

    /// Reads about `wanted_bytes` bytes of whole units from `from` on, more if the first unit is
    /// larger, and never past `until`.
    ///
    /// Never allocates more than the segment still holds.
    pub(crate) fn read_chunk(&self, from: Lsn, until: Lsn, wanted_bytes: u64) -> Result<Chunk> {
        let mut chunk = self.read_chunk_into(Buffers::default(), from, until, wanted_bytes)?;
        let end = chunk.read_bytes;
        chunk.bytes.truncate(end);
        Ok(chunk)
    }

    /// As [`SegmentReader::read_chunk`], into buffers that were used before. Of the chunk's bytes
    /// only the first `read_bytes` are this chunk's.
    pub(crate) fn read_chunk_into(
        &self,
        buffers: Buffers,
        from: Lsn,
        until: Lsn,
        wanted_bytes: u64,
    ) -> Result<Chunk> {
        let Buffers { bytes, mut frames } = buffers;
        frames.clear();
        // No copy, as nobody else has a part of it.
        let mut buffer = Vec::from(bytes);
        let room = until.min(self.place.end).since(from);
        let mut count = wanted_bytes.min(room);
        loop {
            let wanted = to_usize(count);
            if buffer.len() < wanted {
                // What it held needn't move, and what is new needn't be more than this.
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
                // At a bound that isn't the segment's end a walk may pause, at the end it may not:
                // then the file is shorter than its frames say.
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

    /// Reads the frame at `lsn` alone, or says why there is none.
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
                Looked::Frame { frame, .. } => return Ok(Ok((frame, Bytes::from(bytes)))),
                Looked::Stop(stop) => return Ok(Err(stop)),
                Looked::NeedsBytes(needed) if needed <= room && bytes.len() as u64 == count => {
                    count = needed;
                }
                Looked::NeedsBytes(_) => return Ok(Err(Stop::PartialHeader)),
            }
        }
    }

    /// The payload of a frame that holds, of which this is stored.
    pub(crate) fn payload(&self, frame: &FrameAt, stored: Bytes) -> Result<Bytes, Stop> {
        let Some(codec) = frame.codec else { return Ok(stored) };
        let payload = expand(codec, &stored, self.place.record_bytes_max);
        payload.map(Bytes::from).map_err(Stop::Unexpandable)
    }

    /// Whether the frame at `lsn` is intact, however large it is: read in pieces.
    pub(crate) fn is_intact(&self, lsn: Lsn) -> Result<bool> {
        const PIECE_BYTES: u64 = 1 << 20;
        let Some(header) = self.read(lsn, FRAME_HEADER_BYTES_U64)?.first_chunk().copied() else {
            return Ok(false);
        };
        let header = FrameHeader::parse(header);
        let room = self.place.end.since(lsn);
        if !header.header_holds(self.place.seed, lsn) || header.frame_bytes() > room {
            return Ok(false);
        }
        let mut crc = 0;
        let mut at = lsn.plus(FRAME_HEADER_BYTES_U64);
        let end = at.plus(u64::from(header.payload_bytes));
        while at < end {
            let piece = self.read(at, end.since(at).min(PIECE_BYTES))?;
            if piece.is_empty() {
                return Ok(false);
            }
            crc = crc32c::crc32c_append(crc, &piece);
            at = at.plus(piece.len() as u64);
        }
        Ok(header.payload_holds(self.place.seed, lsn, crc))
    }

    pub(crate) fn read(&self, from: Lsn, count: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; to_usize(count)];
        let read = self.file.read_at(&mut bytes, self.offset(from))?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// The end of what isn't zero in `from..until`, on an 8-byte boundary: read backwards, so that
    /// a segment with a short used part in front costs one pass over its zeros.
    pub(crate) fn used_end(&self, from: Lsn, until: Lsn) -> Result<Lsn> {
        const PIECE_BYTES: u64 = 256 << 10;
        let mut buffer = vec![0; to_usize(PIECE_BYTES.min(until.since(from)))];
        let mut end = until;
        while end > from {
            let start = from.plus(end.since(from).saturating_sub(PIECE_BYTES).next_multiple_of(8));
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

/// One past the last non-zero word; `None` if all are zero. Blocks first, without an early exit in
/// them, so that the common case runs at the speed of memory.
fn used_bytes(bytes: &[u8]) -> Option<u64> {
    const BLOCK_BYTES: usize = 512;
    let is_used = |part: &[u8]| part.iter().fold(0, |all, byte| all | byte) != 0;
    let block = bytes.chunks(BLOCK_BYTES).rposition(is_used)?;
    let words = bytes.chunks(BLOCK_BYTES).nth(block)?.chunks(8);
    let word = words.clone().rposition(is_used)?;
    Some((block * BLOCK_BYTES + (word + 1) * 8) as u64)
}

/// A region of a segment, for the search past damage. It reads as zeros past the file's end.
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
