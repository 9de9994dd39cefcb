//! Segments whose header can't be read: prepared and never begun, or damaged. What they hold is
//! searched all the same, as their base follows from their neighbours.

use std::sync::Arc;

use crate::{
    error::Result,
    format::{
        frame::{FrameHeader, Seed},
        header::SEGMENT_HEADER_BYTES,
        scan::{Place, Stop},
    },
    lsn::Lsn,
    recovery::{
        chain::{Chain, Member},
        scan::{CHUNK_BYTES, Scan},
        survey::Found,
    },
    segments::{SegmentFile, SegmentReader},
};

impl Scan<'_> {
    pub(super) fn all_zero(&self, unplaced: &[&Found]) -> Result<bool> {
        for found in unplaced {
            if !found.is_blank || self.raw_used_end(found)? > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One past the last byte that isn't zero behind the header's block.
    pub(super) fn raw_used_end(&self, found: &Found) -> Result<u64> {
        let reader = self.raw_reader(found, Lsn::ZERO, Seed::new([0; 16], 0))?;
        Ok(reader.used_end(Lsn::ZERO, reader.place.end)?.as_u64())
    }

    pub(super) fn raw_reader(&self, found: &Found, base: Lsn, seed: Seed) -> Result<SegmentReader> {
        let end = base.plus(found.bytes.saturating_sub(SEGMENT_HEADER_BYTES));
        let place = Place { seed, end, record_bytes_max: self.config.record_bytes_max };
        let file = Arc::new(SegmentFile::open(self.storage, found.sequence)?);
        Ok(SegmentReader { file, base, place })
    }

    /// Segments without a readable header: their base follows from their neighbours.
    pub(super) fn search_unplaced(
        &mut self,
        unplaced: &[&Found],
        chain: &Chain,
        hanging: &[Member],
    ) -> Result<()> {
        for found in unplaced {
            if found.is_blank && self.raw_used_end(found)? == 0 {
                continue;
            }
            let before = chain.members.iter().rfind(|member| member.sequence < found.sequence);
            let Some(before) = before.or(chain.members.first()) else {
                continue;
            };
            let next_seed = Seed::new(before.header.log_id, before.header.epoch.saturating_add(1));
            if self.find_base(found, next_seed, before.header.base, before)?.is_some() {
                // A recovery that was interrupted before its commit point: all of it is still here.
                continue;
            }
            let seed = Seed::new(before.header.log_id, before.header.epoch);
            let named = hanging
                .iter()
                .filter(|member| member.sequence > found.sequence)
                .min_by_key(|member| member.sequence)
                .and_then(|member| member.header.previous)
                .map(|link| link.base);
            let base = match named {
                Some(base) => Some(base),
                None => self.find_base(found, seed, self.end, before)?,
            };
            match base {
                Some(base) => {
                    let reader = self.raw_reader(found, base, seed)?;
                    self.search_region(&reader, base)?;
                    if self.commitment > base {
                        // Something in it was synced, so its header had been.
                        self.stop = Stop::BadHeader;
                    }
                }
                None => {
                    self.cut_bytes += self.raw_used_end(found)?;
                    self.kept_in.push(found.sequence);
                }
            }
        }
        Ok(())
    }

    /// The base of the newest segment, if its first frame is intact: the end of what comes before,
    /// or, if that is damaged too, whichever position the frame was sealed for.
    pub(super) fn find_base(
        &self,
        found: &Found,
        seed: Seed,
        from: Lsn,
        before: &Member,
    ) -> Result<Option<Lsn>> {
        let limit = before.header.base.plus(before.bytes.saturating_sub(SEGMENT_HEADER_BYTES));
        let mut base = from;
        let mut reader = self.raw_reader(found, base, seed)?;
        let header = reader.read(base, 16)?;
        let Some(header) = header.first_chunk::<16>() else {
            return Ok(None);
        };
        let header = FrameHeader::parse(*header);
        while base <= limit {
            if header.header_holds(seed, base) {
                reader.place.end = base.plus(found.bytes.saturating_sub(SEGMENT_HEADER_BYTES));
                reader.base = base;
                let frame = reader.read_frame(base, reader.place.end, CHUNK_BYTES)?;
                if frame.is_ok() {
                    return Ok(Some(base));
                }
            }
            base = base.plus(8);
        }
        Ok(None)
    }
}
