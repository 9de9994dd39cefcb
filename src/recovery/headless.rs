//! Segments whose header can't be read, neither it nor its copy: prepared and never begun, begun by
//! a recovery that was interrupted, or damaged. What they hold is searched all the same, as their
//! base follows from their neighbours.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    format::{
        frame::{FRAME_HEADER_BYTES_U64, FrameHeader, Seed},
        header::{FILE_BYTES_MAX, SEGMENT_HEADER_BYTES},
        scan::{Place, Stop},
    },
    lsn::Lsn,
    recovery::{
        chain::{Chain, Member},
        scan::{Scan, search_frames},
        survey::Found,
    },
    segments::{SegmentFile, SegmentReader},
};

/// How many epochs above the highest known one a segment without a header may be of.
pub(super) const EPOCHS_TRIED: u64 = 256;

/// How far below S a truncation of the end is looked for whose header is gone, and how many positions
/// and epochs are tried together: seconds, at worst.
const CUT_SOUGHT_BYTES: u64 = 1 << 30;
const CUT_CHECKS_MAX: u64 = 1 << 28;

impl Scan<'_> {
    pub(super) fn all_zero(&self, unplaced: &[&Found]) -> Result<bool> {
        for found in unplaced {
            if !found.is_blank || self.used_bytes(found)? > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The bytes behind the header's block, up to the last that isn't zero.
    pub(super) fn used_bytes(&self, found: &Found) -> Result<u64> {
        let reader = self.reader_at(found, Lsn::ZERO, Seed::new([0; 16], 0))?;
        Ok(reader.used_end(Lsn::ZERO, reader.place.end)?.as_u64())
    }

    fn reader_at(&self, found: &Found, base: Lsn, seed: Seed) -> Result<SegmentReader> {
        let bytes = found.bytes.min(FILE_BYTES_MAX).saturating_sub(SEGMENT_HEADER_BYTES);
        let record_bytes_max = self.config.record_bytes_max;
        let place = Place { seed, end: base.plus(bytes), record_bytes_max };
        let file = Arc::new(SegmentFile::open(self.storage, found.sequence)?);
        Ok(SegmentReader { file, base, place })
    }

    /// Finds out what each segment without a header is. Refuses if one of them was committed.
    pub(super) fn search_unplaced(
        &mut self,
        unplaced: &[&Found],
        chain: &Chain,
        hanging: &[Member],
    ) -> Result<()> {
        let mut unknown = Vec::new();
        for found in unplaced {
            let used_bytes = self.used_bytes(found)?;
            if used_bytes > 0 && !self.search_rotated(found, used_bytes, chain, hanging)? {
                unknown.push((found, used_bytes));
            }
        }
        // Last, as it takes the highest commitment of all the others.
        for (found, used_bytes) in unknown {
            self.search_interrupted(found, used_bytes, chain)?;
        }
        Ok(())
    }

    /// A segment that was rotated into: its frames have its predecessor's epoch and go on where that
    /// ends. Says whether it holds any.
    fn search_rotated(
        &mut self,
        found: &Found,
        used_bytes: u64,
        chain: &Chain,
        hanging: &[Member],
    ) -> Result<bool> {
        let before = chain.members.iter().rfind(|member| member.sequence < found.sequence);
        let Some(before) = before.or(chain.members.first()) else { return Ok(false) };
        let seed = Seed::new(before.header.log_id, before.header.epoch);
        let successors = hanging.iter().filter(|member| member.sequence > found.sequence);
        let successor = successors.min_by_key(|member| member.sequence);
        let named = successor.and_then(|member| member.header.previous);
        let base = match named {
            Some(link) => link.base,
            None => self.find_base(found, seed, before)?.unwrap_or(self.end),
        };
        let reader = self.reader_at(found, base, seed)?;
        let frames = search_frames(&reader, base, base.plus(used_bytes))?;
        if frames.count == 0 {
            return Ok(false);
        }
        self.valid_after_count += frames.count;
        self.record_after_count += frames.record_count;
        self.commit(frames.commitment);
        self.keep(found, used_bytes);
        if self.commitment > base {
            // Something in it was synced, so its header had been.
            self.stop = Stop::BadHeader;
        }
        Ok(true)
    }

    /// A recovery that was interrupted: frames of the next epoch, written anew from the commitment
    /// on, none of which claims more than that. What they hold is still where it was. If one does
    /// claim more, the epoch had been committed.
    fn search_interrupted(&mut self, found: &Found, used_bytes: u64, chain: &Chain) -> Result<()> {
        let base = self.commitment;
        let log_id = chain.members.last().map_or([0; 16], |member| member.header.log_id);
        let next = Seed::new(log_id, self.epoch_max.saturating_add(1));
        let mut reader = self.reader_at(found, base, next)?;
        let mut is_placed = false;
        for epoch in self.epochs_tried(EPOCHS_TRIED) {
            let place = Place { seed: Seed::new(log_id, epoch), ..reader.place };
            let candidate = SegmentReader { place, ..reader.clone() };
            if candidate.is_intact(base)? {
                (reader, is_placed) = (candidate, true);
                break;
            }
        }
        if !is_placed {
            self.refuse_cut(found, chain, log_id)?;
        }
        let frames = search_frames(&reader, base, base.plus(used_bytes))?;
        if frames.commitment > base {
            return Err(Error::Corrupt {
                lsn: base,
                segment: found.sequence.file_name(),
                offset: 0,
                synced: frames.commitment,
                reason: "neither the segment's header nor its copy is readable".to_owned(),
            });
        }
        if frames.count == 0 || !found.is_blank {
            self.keep(found, used_bytes);
        }
        Ok(())
    }

    /// So many epochs above those that are known: usually it is the next one; more if later recoveries
    /// or cuts replaced what earlier ones had begun. Above those of the segments too, as what an
    /// earlier cut left may name any.
    fn epochs_tried(&self, count: u64) -> impl Iterator<Item = u64> + use<> {
        let (own, all) = (self.own_epoch_max, self.epoch_max);
        let from = [Some(all), Some(own).filter(|own| *own != all)];
        let above = move |from: u64| (1..=count).map(move |by| from.saturating_add(by));
        from.into_iter().flatten().flat_map(above)
    }

    /// Refuses if the first frame belongs below S in a higher epoch: a recovery begins at S, so that
    /// is a truncation of the end, which was committed before anything was appended behind it.
    fn refuse_cut(&self, found: &Found, chain: &Chain, log_id: [u8; 16]) -> Result<()> {
        let committed = self.commitment.as_u64();
        let lowest = chain.first.as_u64().max(committed.saturating_sub(CUT_SOUGHT_BYTES));
        let mut reader = self.reader_at(found, Lsn::new(lowest), Seed::new(log_id, 0))?;
        let capacity = reader.place.end.since(reader.base);
        let header = reader.read(reader.base, FRAME_HEADER_BYTES_U64)?;
        let Some(header) = header.first_chunk() else { return Ok(()) };
        let header = FrameHeader::parse(*header);
        if header.frame_bytes() > capacity {
            return Ok(());
        }
        let positions = committed.saturating_sub(lowest) / 8;
        let epochs = (CUT_CHECKS_MAX / positions.max(1)).clamp(1, EPOCHS_TRIED);
        for epoch in self.epochs_tried(epochs) {
            let seed = Seed::new(log_id, epoch);
            for base in (0..positions).map(|position| Lsn::new(lowest + position * 8)) {
                if !header.header_holds(seed, base) {
                    continue;
                }
                // The file's end moves along with its base.
                let place = Place { seed, end: base.plus(capacity), ..reader.place };
                reader = SegmentReader { base, place, ..reader };
                if reader.is_intact(base)? {
                    return Err(Error::Corrupt {
                        lsn: base,
                        segment: found.sequence.file_name(),
                        offset: 0,
                        synced: self.commitment,
                        reason: "the log was truncated to here, and neither this segment's header \
                                 nor its copy is readable"
                            .to_owned(),
                    });
                }
            }
        }
        Ok(())
    }

    pub(super) fn keep(&mut self, found: &Found, used_bytes: u64) {
        self.cut_bytes += used_bytes;
        self.scanned_bytes += used_bytes;
        self.kept_in.push(found.sequence);
    }

    /// The base of the newest segment, if its first frame is intact: the end of what comes before,
    /// or, if that is damaged too, whichever position the frame was sealed for.
    fn find_base(&self, found: &Found, seed: Seed, before: &Member) -> Result<Option<Lsn>> {
        let mut base = self.end;
        let mut reader = self.reader_at(found, base, seed)?;
        let header = reader.read(base, FRAME_HEADER_BYTES_U64)?;
        let Some(header) = header.first_chunk() else { return Ok(None) };
        let header = FrameHeader::parse(*header);
        let capacity = reader.place.end.since(base);
        while base <= before.file_end() {
            if header.header_holds(seed, base) && header.frame_bytes() <= capacity {
                // The file's end moves along with its base.
                let place = Place { end: base.plus(capacity), ..reader.place };
                reader = SegmentReader { base, place, ..reader };
                if reader.is_intact(base)? {
                    return Ok(Some(base));
                }
            }
            base = base.plus(8);
        }
        Ok(None)
    }
}
