//! Reads the unsynced end of a log and collects the evidence for the verdict.

use std::sync::Arc;

use crate::{
    error::Result,
    format::{
        control::Control,
        extension::TimeMark,
        frame::{CONTROL_FRAME_BYTES, FIRST_FRAME_BYTES, Kind, Seed},
        header::{FILE_BYTES_MAX, file_end},
        scan::{FrameAt, Stop, WalkBounds},
        search::{FoundFrame, search},
        slots::{self, Entry},
    },
    lsn::Lsn,
    options::Config,
    recovery::{
        chain::{Chain, Member},
        survey::SurveyedSegment,
    },
    replay::damage,
    segments::{Chunk, Region, SegmentFile, SegmentReader, Sequence},
    storage::Storage,
};

pub(super) const CHUNK_BYTES: u64 = 1 << 20;

/// The intact frames that a search found.
pub(super) struct IntactFrames {
    pub(super) count: u64,
    /// Records among them.
    pub(super) record_count: u64,
    /// Frames among them that claim anything.
    pub(super) claim_count: u64,
    /// The highest position that any of them claims was synced.
    pub(super) commitment: Lsn,
    /// The end of the last of them.
    pub(super) end: Lsn,
}

/// Searches for intact frames that begin in `from..used_end`.
pub(super) fn search_frames(
    reader: &SegmentReader,
    from: Lsn,
    used_end: Lsn,
) -> Result<IntactFrames> {
    let (count, record_count, claim_count) = (0, 0, 0);
    let mut frames =
        IntactFrames { count, record_count, claim_count, commitment: Lsn::ZERO, end: from };
    let region = (used_end.since(from), reader.place.end.since(from));
    let mut source = Region { reader, start: from };
    search(&mut source, from, region, reader.place.seed, &mut |found: FoundFrame| {
        frames.count += 1;
        frames.record_count += u64::from(found.is_record);
        frames.claim_count += u64::from(found.commitment.is_some());
        frames.commitment = frames.commitment.max(found.commitment.unwrap_or(Lsn::ZERO));
        frames.end = frames.end.max(found.end);
    })?;
    Ok(frames)
}

/// Returns whether the frame is a close that claims that everything before it is synced.
fn is_clean_close(frame: &FrameAt) -> bool {
    frame.control == Some(Control::Close) && frame.commitment == Some(frame.lsn)
}

/// Returns the `first` in the control record before a close, or zero without one.
///
/// Closing a log writes that record unless the newest header has the same `first`.
fn first_before(reader: &SegmentReader, close: Lsn) -> Result<Lsn> {
    let at = Lsn::new(close.as_u64().saturating_sub(FIRST_FRAME_BYTES));
    if at < reader.base {
        return Ok(Lsn::ZERO);
    }
    let frame = reader.read_frame(at, close, FIRST_FRAME_BYTES)?;
    Ok(frame.map_or(Lsn::ZERO, |(frame, _)| first_recorded_in(&frame)))
}

/// Returns the `first` that a control record holds, or zero for any other frame.
///
/// A `first` above the frame's own commitment does not count.
pub(crate) fn first_recorded_in(frame: &FrameAt) -> Lsn {
    match frame.control {
        Some(Control::First(first)) if frame.commitment >= Some(first) => first,
        _ => Lsn::ZERO,
    }
}

/// A slots record that the walk has met.
#[derive(Clone, Debug)]
pub(super) struct SlotsAt {
    pub(super) lsn: Lsn,
    pub(super) end: Lsn,
    pub(super) entries: Vec<Entry>,
}

/// Returns the newest time mark of a chunk.
pub(super) fn time_in(chunk: &Chunk) -> Option<TimeMark> {
    chunk.frames.iter().rev().find_map(|frame| match frame.control {
        Some(Control::Time(unix_ms)) => Some(TimeMark { unix_ms, lsn: frame.lsn }),
        _ => None,
    })
}

/// Returns the slots records of a chunk.
pub(super) fn slots_in(chunk: &Chunk) -> impl Iterator<Item = SlotsAt> {
    let records = chunk.frames.iter().filter(|frame| frame.control == Some(Control::Slots));
    records.filter_map(|frame| {
        let payload_end = frame.payload_start + frame.payload_bytes;
        let payload = chunk.bytes.get(frame.payload_start..payload_end)?;
        let (entries, _) = slots::parse(payload)?;
        Some(SlotsAt { lsn: frame.lsn, end: frame.end(), entries })
    })
}

/// The start and the stop of the walk over the frames of the chain.
pub(super) struct ChainWalk {
    pub(super) start: Lsn,
    /// The first position without a valid unit (X).
    pub(super) end: Lsn,
    pub(super) stop: Stop,
    /// `None` if the walk reached the end of the chain.
    pub(super) stopped_in: Option<SegmentReader>,
    /// True if the walk stopped in a file that has lost its end.
    pub(super) is_cut_short: bool,
    /// The end of the last record or batch.
    pub(super) records_end: Lsn,
    /// True if the last frame is a clean close.
    pub(super) is_closed: bool,
}

impl ChainWalk {
    fn from(start: Lsn) -> Self {
        ChainWalk {
            start,
            end: start,
            stop: Stop::Blank,
            stopped_in: None,
            is_cut_short: false,
            records_end: Lsn::ZERO,
            is_closed: false,
        }
    }
}

/// The bytes past the end of the walk.
#[derive(Default)]
pub(super) struct PastEnd {
    /// The bytes that are not zero, and those between them.
    pub(super) bytes: u64,
    /// Intact frames.
    pub(super) frame_count: u64,
    /// Intact records among them.
    pub(super) record_count: u64,
    /// The segments that hold the bytes.
    pub(super) segments: Vec<Sequence>,
}

/// The evidence that a scan has collected.
pub(super) struct Findings {
    /// The highest position that any header, frame or note claims was synced (S).
    pub(super) commitment: Lsn,
    /// The highest `first` that a control record holds.
    pub(super) first: Lsn,
    pub(super) walk: ChainWalk,
    pub(super) past_end: PastEnd,
    pub(super) scanned_bytes: u64,
    pub(super) dirty_padding_count: u64,
    /// True if a file without a header holds frames of a recovery that was interrupted.
    pub(super) has_interrupted: bool,
    /// The slots records that the walk has met.
    pub(super) slots: Vec<SlotsAt>,
    /// The newest time mark that the walk has met.
    pub(super) time: Option<TimeMark>,
}

/// Reads a log and collects evidence. Only the methods in this file change the evidence.
pub(super) struct Scan<'a> {
    storage: &'a dyn Storage,
    config: &'a Config,
    found: Findings,
}

impl<'a> Scan<'a> {
    pub(super) fn new(storage: &'a dyn Storage, config: &'a Config) -> Self {
        let found = Findings {
            commitment: Lsn::ZERO,
            first: Lsn::ZERO,
            walk: ChainWalk::from(Lsn::ZERO),
            past_end: PastEnd::default(),
            scanned_bytes: 0,
            dirty_padding_count: 0,
            has_interrupted: false,
            slots: Vec::new(),
            time: None,
        };
        Scan { storage, config, found }
    }

    /// Returns the evidence so far.
    pub(super) fn found(&self) -> &Findings {
        &self.found
    }

    /// Ends the scan and returns its evidence.
    pub(super) fn finish(self) -> Findings {
        self.found
    }

    /// Notes that something claims that the log was synced up to `synced`.
    pub(super) fn commit(&mut self, synced: Lsn) {
        self.found.commitment = self.found.commitment.max(synced);
    }

    /// Replaces the end of the walk by `end`.
    pub(super) fn end_at(&mut self, end: Lsn) {
        self.found.walk.end = end;
    }

    /// Notes that a segment's missing header is the reason why the walk stopped.
    pub(super) fn stop_at_bad_header(&mut self) {
        self.found.walk.stop = Stop::BadHeader;
    }

    /// Notes that a headless file holds frames of a recovery that was interrupted.
    pub(super) fn note_interrupted(&mut self) {
        self.found.has_interrupted = true;
    }

    /// Notes that a segment holds bytes past the end, without counting the bytes.
    pub(super) fn note_segment(&mut self, sequence: Sequence) {
        self.found.past_end.segments.push(sequence);
    }

    /// Notes that a segment holds `bytes` past the end.
    pub(super) fn note_bytes(&mut self, sequence: Sequence, bytes: u64) {
        self.found.past_end.bytes += bytes;
        self.found.scanned_bytes += bytes;
        self.note_segment(sequence);
    }

    /// Counts intact frames past the end, and notes their commitment.
    pub(super) fn note_frames(&mut self, frames: &IntactFrames) {
        self.found.past_end.frame_count += frames.count;
        self.found.past_end.record_count += frames.record_count;
        self.commit(frames.commitment);
    }

    pub(super) fn reader(&self, member: &Member, end: Option<Lsn>) -> Result<SegmentReader> {
        let file_end = member.file_end();
        let place = WalkBounds {
            seed: Seed::new(member.header.log_id, member.header.epoch),
            end: end.map_or(file_end, |end| end.min(file_end)),
            record_bytes_max: self.config.record_bytes_max,
        };
        let file = Arc::new(SegmentFile::open(self.storage, member.sequence)?);
        Ok(SegmentReader { file, base: member.header.base, place })
    }

    /// Returns a reader of a segment without a header, for an assumed base and epoch.
    pub(super) fn headless_reader(
        &self,
        segment: &SurveyedSegment,
        base: Lsn,
        seed: Seed,
    ) -> Result<SegmentReader> {
        let end = file_end(base, segment.bytes.min(FILE_BYTES_MAX));
        let record_bytes_max = self.config.record_bytes_max;
        let place = WalkBounds { seed, end, record_bytes_max };
        let file = Arc::new(SegmentFile::open(self.storage, segment.sequence)?);
        Ok(SegmentReader { file, base, place })
    }

    /// Returns the number of bytes after the header block, without the zeros at the end.
    pub(super) fn used_bytes(&self, segment: &SurveyedSegment) -> Result<u64> {
        let reader = self.headless_reader(segment, Lsn::ZERO, Seed::new([0; 16], 0))?;
        Ok(reader.used_end(Lsn::ZERO, reader.place.end)?.as_u64())
    }

    /// Returns the end of the log if its last bytes are a clean close.
    ///
    /// Skips the zeros at the end of the file. Reads at most one control record before the close,
    /// because the close claims that all earlier bytes are synced.
    pub(super) fn clean_end(&mut self, newest: &Member) -> Result<Option<Lsn>> {
        let reader = self.reader(newest, None)?;
        let used_end = reader.used_end(reader.base, reader.place.end)?;
        let Some(close) = used_end.as_u64().checked_sub(CONTROL_FRAME_BYTES).map(Lsn::new) else {
            return Ok(None);
        };
        if close < reader.base {
            return Ok(None);
        }
        let frame = reader.read_frame(close, used_end, CONTROL_FRAME_BYTES)?;
        let is_close = frame.is_ok_and(|(frame, _)| is_clean_close(&frame));
        if is_close {
            self.commit(close);
            self.found.scanned_bytes += CONTROL_FRAME_BYTES;
            self.found.first = self.found.first.max(first_before(&reader, close)?);
        }
        Ok(is_close.then_some(used_end))
    }

    /// Returns the highest `first` that the control records of a chain hold. Changes no evidence.
    pub(super) fn recorded_first(&self, chain: &Chain) -> Result<Lsn> {
        let mut ahead = Scan::new(self.storage, self.config);
        if let Some(newest) = chain.members.last() {
            if ahead.clean_end(newest)?.is_none() {
                ahead.walk_members(chain)?;
            }
        }
        Ok(ahead.found.first)
    }

    /// Walks the members from the newest header's `synced` on.
    ///
    /// Then searches the bytes after the stop for intact frames.
    pub(super) fn walk_members(&mut self, chain: &Chain) -> Result<()> {
        let oldest = chain.members.first().map_or(Lsn::ZERO, |member| member.header.base);
        let newest = chain.members.last().map_or(Lsn::ZERO, |member| member.header.synced);
        self.walk_from(chain, newest.max(oldest).max(chain.first))
    }

    /// As [`walk_members`](Scan::walk_members), from `start` on.
    pub(super) fn walk_from(&mut self, chain: &Chain, start: Lsn) -> Result<()> {
        self.found.walk = ChainWalk::from(start);
        self.found.slots.clear();
        let successors = chain.members.iter().skip(1).map(|next| Some(next.header.base));
        let mut is_past = false;
        for (member, successor) in chain.members.iter().zip(successors.chain([None])) {
            if successor.is_some_and(|next| next <= self.found.walk.end) && !is_past {
                continue;
            }
            let reader = self.reader(member, successor)?;
            if is_past {
                self.search_region(&reader, reader.base)?;
                continue;
            }
            let stop = self.walk(&reader)?;
            if stop != Stop::SegmentEnd || successor != Some(self.found.walk.end) {
                is_past = true;
                self.found.walk.stop = stop;
                self.found.walk.is_cut_short = member.is_cut_short() && stop != Stop::Blank;
                self.search_region(&reader, self.found.walk.end)?;
                self.found.walk.stopped_in = Some(reader);
            }
        }
        Ok(())
    }

    fn walk(&mut self, reader: &SegmentReader) -> Result<Stop> {
        let found = &mut self.found;
        found.walk.is_closed = false;
        loop {
            let chunk = reader.read_chunk(found.walk.end, reader.place.end, CHUNK_BYTES)?;
            found.scanned_bytes += chunk.next.since(found.walk.end);
            found.dirty_padding_count += chunk.dirty_padding_count;
            found.slots.extend(slots_in(&chunk));
            found.time = time_in(&chunk).or(found.time);
            for frame in &chunk.frames {
                found.commitment = found.commitment.max(frame.commitment.unwrap_or(Lsn::ZERO));
                found.first = found.first.max(first_recorded_in(frame));
                if frame.kind != Kind::Control {
                    found.walk.records_end = frame.end();
                }
            }
            if let Some(last) = chunk.frames.last() {
                found.walk.is_closed = is_clean_close(last);
            }
            found.walk.end = chunk.next;
            match chunk.stop {
                None => {}
                Some(stop @ (Stop::Unsupported { .. } | Stop::AboveLimit { .. })) => {
                    let error = damage(reader, found.walk.end, stop, found.commitment);
                    // An intact frame that this release or these options cannot read is refused.
                    // A damaged one is judged like any other damage.
                    return if error.is_corrupt() { Ok(Stop::BadChecksum) } else { Err(error) };
                }
                Some(stop) => return Ok(stop),
            }
        }
    }

    /// Returns whether a unit begins at the commitment. Recovery writes all frames from there on
    /// again.
    ///
    /// No release claims any other position.
    pub(super) fn commitment_is_boundary(&self, chain: &Chain) -> Result<bool> {
        let Findings { commitment: lsn, walk, .. } = &self.found;
        let lsn = *lsn;
        if lsn == walk.start || lsn >= walk.end {
            return Ok(true);
        }
        let after = chain.members.partition_point(|member| member.header.base <= lsn);
        let Some(member) = after.checked_sub(1).and_then(|at| chain.members.get(at)) else {
            return Ok(false);
        };
        let end = chain.members.get(after).map_or(walk.end, |next| next.header.base);
        let reader = self.reader(member, Some(end))?;
        match reader.read_frame(lsn, end, CONTROL_FRAME_BYTES)? {
            Ok((frame, _)) if !matches!(frame.kind, Kind::BatchPart | Kind::BatchEnd) => Ok(true),
            Err(_) => Ok(false),
            // Only a walk can show whether the frame is the first of its batch.
            Ok(_) => {
                let mut at = walk.start.max(reader.base);
                while at < lsn {
                    let chunk = reader.read_chunk(at, lsn, CHUNK_BYTES)?;
                    if chunk.next == at {
                        return Ok(false);
                    }
                    at = chunk.next;
                }
                Ok(true)
            }
        }
    }

    /// Searches for intact frames and nonzero bytes, from `from` to the segment's end.
    pub(super) fn search_region(&mut self, reader: &SegmentReader, from: Lsn) -> Result<()> {
        let used_end = reader.used_end(from, reader.place.end)?;
        let region_bytes = used_end.since(from);
        if region_bytes == 0 {
            return Ok(());
        }
        self.note_bytes(reader.file.sequence(), region_bytes);
        self.note_frames(&search_frames(reader, from, used_end)?);
        Ok(())
    }
}
