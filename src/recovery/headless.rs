//! Classifies segments without a readable header, in either copy.
//!
//! Such a segment was prepared and never begun, or was begun by a recovery that was interrupted, or
//! is damaged. The base of such a segment follows from its neighbours, so its frames can still be
//! found.

use crate::{
    error::{Error, Result},
    format::{
        frame::{FRAME_ALIGN, Seed},
        sealed_at::Unplaced,
    },
    lsn::Lsn,
    recovery::{
        chain::{Chain, Member},
        scan::{Scan, search_frames},
        survey::{Survey, SurveyedSegment},
    },
};

/// The number of epochs above the highest known one that a search tries.
pub(super) const EPOCHS_TRIED: u64 = 256;

/// The distance below S that is searched for a truncation whose header is unreadable.
const CUT_SOUGHT_BYTES: u64 = 1 << 30;

/// The maximum number of pairs of position and epoch tried for such a truncation.
///
/// A frame of another place matches one pair in 2^32 by chance, so more attempts could report a
/// false cut.
const CUT_CHECKS_MAX: u64 = 1 << 28;

/// Returns whether all bytes of the segments are zero.
pub(super) fn are_blank(scan: &Scan<'_>, headless: &[&SurveyedSegment]) -> Result<bool> {
    for segment in headless {
        if !segment.is_blank || scan.used_bytes(segment)? > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The search of the headless segments, with all that determines their base and epoch.
pub(super) struct HeadlessSearch<'s, 'a> {
    pub(super) scan: &'s mut Scan<'a>,
    pub(super) chain: &'s Chain,
    /// Segments with a header that a gap separates from the chain.
    pub(super) above_gap: &'s [Member],
    pub(super) survey: &'s Survey,
}

impl HeadlessSearch<'_, '_> {
    /// Adds the contents of the segments to the evidence. Fails if one of them was committed.
    pub(super) fn search(mut self, headless: &[&SurveyedSegment]) -> Result<()> {
        let mut unknown = Vec::new();
        for segment in headless {
            let used_bytes = self.scan.used_bytes(segment)?;
            if used_bytes > 0 && !self.search_rotated(segment, used_bytes)? {
                unknown.push((segment, used_bytes));
            }
        }
        // Last, because this search needs the highest commitment of all other segments.
        for (segment, used_bytes) in unknown {
            self.search_interrupted(segment, used_bytes)?;
        }
        Ok(())
    }

    /// Searches a segment that a rotation began. Returns whether the segment holds frames.
    ///
    /// The frames continue those of the predecessor, in the same epoch.
    fn search_rotated(&mut self, segment: &SurveyedSegment, used_bytes: u64) -> Result<bool> {
        let members = &self.chain.members;
        let before = members.iter().rfind(|member| member.sequence < segment.sequence);
        let Some(before) = before.or(members.first()) else { return Ok(false) };
        let seed = Seed::new(before.header.log_id, before.header.epoch);
        let successors = self.above_gap.iter().filter(|next| next.sequence > segment.sequence);
        let successor = successors.min_by_key(|member| member.sequence);
        let named = successor.and_then(|member| member.header.previous);
        let base = match named {
            Some(link) => link.base,
            None => self.find_base(segment, seed, before)?.unwrap_or(self.scan.found().walk.end),
        };
        let reader = self.scan.headless_reader(segment, base, seed)?;
        let frames = search_frames(&reader, base, base.plus(used_bytes))?;
        if frames.count == 0 {
            return Ok(false);
        }
        self.scan.note_frames(&frames);
        self.scan.note_bytes(segment.sequence, used_bytes);
        if self.scan.found().commitment > base {
            // Part of the segment was synced, so its header was synced before.
            self.scan.stop_at_bad_header();
        }
        Ok(true)
    }

    /// Searches a segment that an interrupted recovery began.
    ///
    /// Its frames are of the next epoch, written again from the commitment on, and none claims more
    /// than the commitment. The originals are still in place. If a frame claims more, the epoch had
    /// been committed, so the log is refused.
    fn search_interrupted(&mut self, segment: &SurveyedSegment, used_bytes: u64) -> Result<()> {
        let base = self.scan.found().commitment;
        let log_id = self.chain.members.last().map_or([0; 16], |member| member.header.log_id);
        let next = Seed::new(log_id, self.survey.epoch_max.saturating_add(1));
        let mut reader = self.scan.headless_reader(segment, base, next)?;
        if let Some(frame) = reader.first_frame()? {
            let mut seeds = self.seeds_tried(log_id, EPOCHS_TRIED);
            match seeds.find(|seed| frame.holds_at(*seed, base)) {
                Some(seed) => reader.place.seed = seed,
                None if self.is_uncommitted_cut(segment, log_id, &frame, used_bytes)? => {
                    self.scan.note_interrupted();
                    if !segment.is_blank {
                        self.scan.note_bytes(segment.sequence, used_bytes);
                    }
                    return Ok(());
                }
                None => {}
            }
        }
        let frames = search_frames(&reader, base, base.plus(used_bytes))?;
        if frames.commitment > base {
            return Err(Error::Corrupt {
                directory: String::new(),
                lsn: base,
                segment: segment.sequence.file_name(),
                offset: 0,
                synced: frames.commitment,
                reason: "neither the segment's header nor its copy is readable".to_owned(),
            });
        }
        if frames.count > 0 {
            self.scan.note_interrupted();
        }
        if frames.count == 0 || !segment.is_blank {
            self.scan.note_bytes(segment.sequence, used_bytes);
        }
        Ok(())
    }

    /// Returns the seeds of `count` epochs above the known ones.
    ///
    /// Usually the next epoch is the right one. More are needed if later recoveries or cuts
    /// replaced what earlier ones had begun. The epochs above those of the segments are tried, too,
    /// because the files that an earlier cut set aside may have any epoch.
    fn seeds_tried(&self, log_id: [u8; 16], count: u64) -> impl Iterator<Item = Seed> + use<> {
        let (own, all) = (self.survey.header_epoch_max(), self.survey.epoch_max);
        let from = [Some(all), Some(own).filter(|own| *own != all)];
        let above = move |from: u64| (1..=count).map(move |by| from.saturating_add(by));
        from.into_iter().flatten().flat_map(above).map(move |epoch| Seed::new(log_id, epoch))
    }

    /// Returns whether the first frame belongs below S, in a higher epoch, and no frame claims
    /// anything: a truncation of the end had written slots, and was not committed.
    ///
    /// Fails if a frame there has a claim. It proves a truncation of the end, because a recovery
    /// begins at S, and the truncation was committed before anything was appended after it.
    fn is_uncommitted_cut(
        &self,
        segment: &SurveyedSegment,
        log_id: [u8; 16],
        frame: &Unplaced,
        used_bytes: u64,
    ) -> Result<bool> {
        let commitment = self.scan.found().commitment;
        let committed = commitment.as_u64();
        let lowest = self.chain.first.as_u64().max(committed.saturating_sub(CUT_SOUGHT_BYTES));
        let positions = committed.saturating_sub(lowest) / FRAME_ALIGN;
        let Some(last) = positions.checked_sub(1) else { return Ok(false) };
        let (lowest, highest) = (Lsn::new(lowest), Lsn::new(lowest + last * FRAME_ALIGN));
        let epochs = (CUT_CHECKS_MAX / positions).clamp(1, EPOCHS_TRIED);
        let mut seeds = self.seeds_tried(log_id, epochs);
        let placed = seeds.find_map(|seed| Some((seed, frame.within(seed, lowest, highest)?)));
        let Some((seed, base)) = placed else { return Ok(false) };
        if !frame.has_claim() {
            let reader = self.scan.headless_reader(segment, base, seed)?;
            let frames = search_frames(&reader, base, base.plus(used_bytes))?;
            if frames.claim_count == 0 {
                return Ok(true);
            }
        }
        Err(Error::Corrupt {
            directory: String::new(),
            lsn: base,
            segment: segment.sequence.file_name(),
            offset: 0,
            synced: commitment,
            reason: "the log was truncated to here, and neither this segment's header nor its \
                     copy is readable"
                .to_owned(),
        })
    }

    /// Returns the base of the newest segment if its first frame is intact.
    ///
    /// That is the end of the walk, or, if the walk stopped early, the position in the
    /// predecessor's file for which the frame was sealed.
    fn find_base(
        &self,
        segment: &SurveyedSegment,
        seed: Seed,
        before: &Member,
    ) -> Result<Option<Lsn>> {
        let end = self.scan.found().walk.end;
        let frame = self.scan.headless_reader(segment, end, seed)?.first_frame()?;
        let lowest = end.max(before.header.base);
        Ok(frame.and_then(|frame| frame.within(seed, lowest, before.file_end())))
    }
}
