//! Reads the unsynced end of the log and gathers the evidence on which it is judged.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    format::{
        control::Control,
        frame::Seed,
        header::SEGMENT_HEADER_BYTES,
        judge::{Evidence, Verdict, judge},
        scan::{FrameAt, Place, Stop},
        search::{Found as FoundFrame, search},
    },
    lsn::Lsn,
    options::Config,
    pipeline::CONTROL_FRAME_BYTES,
    recovery::{
        chain::{Chain, Member, link_up},
        report::{Cut, Warning},
        survey::{Found, Survey},
    },
    replay::damage,
    segments::{Region, SegmentFile, SegmentReader, Sequence},
    storage::Storage,
};

const CHUNK_BYTES: u64 = 1 << 20;

/// A log that exists, judged.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) chain: Chain,
    pub(crate) verdict: Verdict,
    /// The first place where no valid unit stands (X).
    pub(crate) end: Lsn,
    /// The highest position that anything claims was synced (S).
    pub(crate) commitment: Lsn,
    pub(crate) cut: Option<Cut>,
    /// Segment files that are no part of the log any more.
    pub(crate) leftovers: Vec<Leftover>,
    pub(crate) scanned_bytes: u64,
    pub(crate) warnings: Vec<Warning>,
    /// The highest epoch that any header names.
    pub(crate) epoch_max: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Leftover {
    pub(crate) sequence: Sequence,
    /// Whether it holds bytes that a cut did away with: they are kept.
    pub(crate) is_kept: bool,
}

/// Judges the log, or refuses: its durable part is damaged, or of a later release.
pub(crate) fn judge_log(storage: &dyn Storage, survey: &Survey, config: &Config) -> Result<Judged> {
    let mut scan = Scan::new(storage, config);
    let epochs = survey.segments.iter().filter_map(|found| found.header);
    scan.epoch_max = epochs.map(|header| header.epoch).max().unwrap_or(0);
    let valid = |found: &Found| {
        found.header.map(|header| Member {
            sequence: found.sequence,
            header,
            bytes: found.bytes,
        })
    };
    let mut candidates: Vec<Member> = survey.segments.iter().filter_map(valid).collect();
    // Newest parts whose predecessor is gone: above all that is committed they are a torn tail.
    let mut hanging: Vec<Member> = Vec::new();
    let mut broken = None;
    let chain = loop {
        let chain = link_up(&candidates);
        let Some(gap) = chain.broken else { break chain };
        for member in &chain.members {
            scan.commit(member.header.synced);
        }
        broken = Some((gap, chain.members.first().map(|member| member.sequence)));
        let lowest = chain
            .members
            .first()
            .map_or(Sequence(0), |member| member.sequence);
        hanging.extend(chain.members);
        candidates.retain(|member| member.sequence < lowest);
        if candidates.is_empty() || gap.is_foreign {
            return Err(missing(gap.base, gap.is_foreign, lowest, scan.commitment));
        }
    };
    let Some(newest) = chain.members.last().copied() else {
        return Err(headless(survey));
    };
    for member in &chain.members {
        scan.commit(member.header.synced);
    }
    let unplaced: Vec<&Found> = survey
        .segments
        .iter()
        .filter(|found| found.header.is_none())
        .collect();
    let is_whole = hanging.is_empty() && scan.all_zero(&unplaced)?;
    if is_whole {
        if let Some(end) = scan.clean_end(&newest)? {
            return Ok(scan.into_clean(chain, end, &unplaced));
        }
    }
    scan.walk_members(&chain)?;
    scan.search_members(&hanging)?;
    scan.search_unplaced(&unplaced, &chain, &hanging)?;
    scan.into_judged(chain, &hanging, &unplaced, broken.map(|(gap, _)| gap.base))
}

fn missing(base: Lsn, is_foreign: bool, before: Sequence, synced: Lsn) -> Error {
    let reason = if is_foreign {
        "a segment of another log stands among these"
    } else {
        "the segment that begins here is missing or its header is damaged"
    };
    Error::Corrupt {
        lsn: base,
        segment: format!("the one before {}", before.file_name()),
        offset: 0,
        synced,
        reason: reason.to_owned(),
    }
}

fn headless(survey: &Survey) -> Error {
    let segment = survey
        .segments
        .first()
        .map(|found| found.sequence.file_name());
    Error::Corrupt {
        lsn: Lsn::ZERO,
        segment: segment.unwrap_or_default(),
        offset: 0,
        synced: Lsn::ZERO,
        reason: "no segment has a readable header".to_owned(),
    }
}

/// A close vouches for all before it, and for nothing less.
fn is_clean_close(frame: &FrameAt) -> bool {
    frame.control == Some(Control::Close) && frame.commitment == Some(frame.lsn)
}

struct Scan<'a> {
    storage: &'a dyn Storage,
    config: &'a Config,
    commitment: Lsn,
    end: Lsn,
    stop: Stop,
    stopped_in: Option<SegmentReader>,
    closed: bool,
    valid_after_count: u64,
    /// Bytes past the end that aren't zero, and the files that hold them.
    cut_bytes: u64,
    kept_in: Vec<Sequence>,
    dirty_padding_count: u64,
    scanned_bytes: u64,
    epoch_max: u64,
}

impl<'a> Scan<'a> {
    fn new(storage: &'a dyn Storage, config: &'a Config) -> Self {
        Scan {
            storage,
            config,
            commitment: Lsn::ZERO,
            end: Lsn::ZERO,
            stop: Stop::Blank,
            stopped_in: None,
            closed: false,
            valid_after_count: 0,
            cut_bytes: 0,
            kept_in: Vec::new(),
            dirty_padding_count: 0,
            scanned_bytes: 0,
            epoch_max: 0,
        }
    }

    fn commit(&mut self, synced: Lsn) {
        self.commitment = self.commitment.max(synced);
    }

    fn reader(&self, member: &Member, end: Option<Lsn>) -> Result<SegmentReader> {
        let file_end = member
            .header
            .base
            .plus(member.bytes.saturating_sub(SEGMENT_HEADER_BYTES));
        let place = Place {
            seed: Seed::new(member.header.log_id, member.header.epoch),
            end: end.unwrap_or(file_end),
            record_bytes_max: self.config.record_bytes_max,
        };
        let file = Arc::new(SegmentFile::open(self.storage, member.sequence)?);
        Ok(SegmentReader {
            file,
            base: member.header.base,
            place,
        })
    }

    /// The end of a log whose last bytes are a clean close: found by reading back over the zeros
    /// behind it, without a look at what comes before, which the close says is synced.
    fn clean_end(&mut self, newest: &Member) -> Result<Option<Lsn>> {
        let reader = self.reader(newest, None)?;
        let used_end = reader.used_end(reader.base, reader.place.end)?;
        let Some(close) = used_end
            .as_u64()
            .checked_sub(CONTROL_FRAME_BYTES)
            .map(Lsn::new)
        else {
            return Ok(None);
        };
        if close < reader.base {
            return Ok(None);
        }
        let frame = reader.read_frame(close, used_end, CONTROL_FRAME_BYTES)?;
        let is_close = frame.is_ok_and(|(frame, _)| is_clean_close(&frame));
        if is_close {
            self.commit(close);
            self.scanned_bytes += CONTROL_FRAME_BYTES;
        }
        Ok(is_close.then_some(used_end))
    }

    /// Walks the members from the newest header's synced mark on, and searches past where the walk
    /// stops.
    fn walk_members(&mut self, chain: &Chain) -> Result<()> {
        let oldest = chain
            .members
            .first()
            .map_or(Lsn::ZERO, |member| member.header.base);
        let newest = chain
            .members
            .last()
            .map_or(Lsn::ZERO, |member| member.header.synced);
        self.end = newest.max(oldest).max(chain.first);
        let successors = chain
            .members
            .iter()
            .skip(1)
            .map(|next| Some(next.header.base));
        let mut is_past = false;
        for (member, successor) in chain.members.iter().zip(successors.chain([None])) {
            if successor.is_some_and(|next| next <= self.end) && !is_past {
                continue;
            }
            let reader = self.reader(member, successor)?;
            if is_past {
                self.search_region(&reader, reader.base)?;
                continue;
            }
            let stop = self.walk(&reader)?;
            if stop != Stop::SegmentEnd || successor.is_none() {
                is_past = true;
                self.stop = stop;
                self.search_region(&reader, self.end)?;
                self.stopped_in = Some(reader);
            }
        }
        Ok(())
    }

    fn walk(&mut self, reader: &SegmentReader) -> Result<Stop> {
        loop {
            let chunk = reader.read_chunk(self.end, reader.place.end, CHUNK_BYTES)?;
            self.scanned_bytes += chunk.next.since(self.end);
            self.dirty_padding_count += chunk.dirty_padding_count;
            for frame in &chunk.frames {
                self.commitment = self.commitment.max(frame.commitment.unwrap_or(Lsn::ZERO));
            }
            if let Some(last) = chunk.frames.last() {
                self.closed = is_clean_close(last);
            }
            self.end = chunk.next;
            match chunk.stop {
                None => {}
                Some(stop @ (Stop::Unsupported { .. } | Stop::AboveLimit { .. })) => {
                    let error = damage(reader, self.end, stop, self.commitment);
                    // Whole, and still not to be had: refused. Damaged: judged like all damage.
                    return if error.is_corrupt() {
                        Ok(Stop::BadChecksum)
                    } else {
                        Err(error)
                    };
                }
                Some(stop) => return Ok(stop),
            }
        }
    }

    /// Looks for intact frames, and whatever else isn't zero, from `from` to the segment's end.
    fn search_region(&mut self, reader: &SegmentReader, from: Lsn) -> Result<()> {
        let used_end = reader.used_end(from, reader.place.end)?;
        let region_bytes = used_end.since(from);
        if region_bytes == 0 {
            return Ok(());
        }
        self.cut_bytes += region_bytes;
        self.scanned_bytes += region_bytes;
        self.kept_in.push(reader.file.sequence());
        let (mut count, mut commitment) = (0, self.commitment);
        let mut source = Region {
            reader,
            start: from,
        };
        let region = (region_bytes, reader.place.end.since(from));
        search(
            &mut source,
            from,
            region,
            reader.place.seed,
            &mut |found: FoundFrame| {
                count += 1;
                commitment = commitment.max(found.commitment.unwrap_or(Lsn::ZERO));
            },
        )?;
        self.valid_after_count += count;
        self.commitment = commitment;
        Ok(())
    }

    fn search_members(&mut self, hanging: &[Member]) -> Result<()> {
        for member in hanging {
            let reader = self.reader(member, None)?;
            self.search_region(&reader, reader.base)?;
        }
        Ok(())
    }

    fn all_zero(&self, unplaced: &[&Found]) -> Result<bool> {
        for found in unplaced {
            if !found.is_blank || self.raw_used_end(found)? > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One past the last byte that isn't zero behind the header's block.
    fn raw_used_end(&self, found: &Found) -> Result<u64> {
        let reader = self.raw_reader(found, Lsn::ZERO, Seed::new([0; 16], 0))?;
        Ok(reader.used_end(Lsn::ZERO, reader.place.end)?.as_u64())
    }

    fn raw_reader(&self, found: &Found, base: Lsn, seed: Seed) -> Result<SegmentReader> {
        let end = base.plus(found.bytes.saturating_sub(SEGMENT_HEADER_BYTES));
        let place = Place {
            seed,
            end,
            record_bytes_max: self.config.record_bytes_max,
        };
        let file = Arc::new(SegmentFile::open(self.storage, found.sequence)?);
        Ok(SegmentReader { file, base, place })
    }

    /// Segments without a readable header: their base follows from their neighbours.
    fn search_unplaced(
        &mut self,
        unplaced: &[&Found],
        chain: &Chain,
        hanging: &[Member],
    ) -> Result<()> {
        for found in unplaced {
            if found.is_blank && self.raw_used_end(found)? == 0 {
                continue;
            }
            let before = chain
                .members
                .iter()
                .rfind(|member| member.sequence < found.sequence);
            let Some(before) = before.or(chain.members.first()) else {
                continue;
            };
            let next_seed = Seed::new(before.header.log_id, before.header.epoch.saturating_add(1));
            if self
                .find_base(found, next_seed, before.header.base, before)?
                .is_some()
            {
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
    fn find_base(
        &self,
        found: &Found,
        seed: Seed,
        from: Lsn,
        before: &Member,
    ) -> Result<Option<Lsn>> {
        let limit = before
            .header
            .base
            .plus(before.bytes.saturating_sub(SEGMENT_HEADER_BYTES));
        let mut base = from;
        let mut reader = self.raw_reader(found, base, seed)?;
        let header = reader.read(base, 16)?;
        let Some(header) = header.first_chunk::<16>() else {
            return Ok(None);
        };
        let header = crate::format::frame::FrameHeader::parse(*header);
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

    fn into_clean(self, chain: Chain, end: Lsn, unplaced: &[&Found]) -> Judged {
        let (leftovers, warnings) = leftovers(&chain, &[], unplaced, &self.kept_in);
        Judged {
            verdict: Verdict::CleanClose,
            end,
            commitment: self.commitment,
            cut: None,
            leftovers,
            scanned_bytes: self.scanned_bytes,
            warnings,
            epoch_max: self.epoch_max,
            chain,
        }
    }

    fn into_judged(
        self,
        chain: Chain,
        hanging: &[Member],
        unplaced: &[&Found],
        broken_at: Option<Lsn>,
    ) -> Result<Judged> {
        let verdict = judge(&Evidence {
            end: self.end,
            commitment: self.commitment,
            blank_from_end: self.cut_bytes == 0,
            valid_after_count: self.valid_after_count,
            closed: self.closed,
        });
        let segment = self
            .stopped_in
            .as_ref()
            .map(|reader| reader.file.name().to_owned());
        let segment = segment.unwrap_or_default();
        let offset = self
            .stopped_in
            .as_ref()
            .map_or(0, |reader| reader.offset(self.end));
        if verdict == Verdict::Corrupt {
            let reason = match broken_at.filter(|&base| base == self.end) {
                Some(_) => "the segment that begins here is missing or its header is damaged",
                None => self.stop.describe(),
            };
            let (lsn, synced) = (self.end, self.commitment);
            return Err(Error::Corrupt {
                lsn,
                segment,
                offset,
                synced,
                reason: reason.to_owned(),
            });
        }
        let (leftovers, mut warnings) = leftovers(&chain, hanging, unplaced, &self.kept_in);
        warnings.insert(0, Warning::UncleanShutdown);
        if self.dirty_padding_count > 0 {
            warnings.push(Warning::DirtyPadding {
                frame_count: self.dirty_padding_count,
            });
        }
        let cut = matches!(verdict, Verdict::TornTail { .. }).then(|| Cut {
            lsn: self.end,
            segment,
            offset,
            bytes: self.cut_bytes,
            valid_frame_count: self.valid_after_count,
            reason: self.stop.describe(),
            kept_in: Vec::new(),
        });
        Ok(Judged {
            verdict,
            end: self.end,
            commitment: self.commitment,
            cut,
            leftovers,
            scanned_bytes: self.scanned_bytes,
            warnings,
            epoch_max: self.epoch_max,
            chain,
        })
    }
}

fn leftovers(
    chain: &Chain,
    hanging: &[Member],
    unplaced: &[&Found],
    kept_in: &[Sequence],
) -> (Vec<Leftover>, Vec<Warning>) {
    let dead = chain
        .dead
        .iter()
        .map(|member| (member.sequence, "an earlier cut replaced it"));
    let hanging = hanging
        .iter()
        .map(|member| (member.sequence, "its predecessor never was"));
    let headless = unplaced.iter().map(|found| {
        (
            found.sequence,
            if found.is_blank {
                "prepared and not used"
            } else {
                "never begun"
            },
        )
    });
    let mut leftovers = Vec::new();
    let mut warnings = Vec::new();
    // A recovery that was interrupted after its commit point may not have kept yet what it cut.
    let was_cut = |sequence| {
        let mut dead = chain
            .dead
            .iter()
            .filter(|member| member.header.base >= chain.first);
        kept_in.contains(&sequence) || dead.any(|member| member.sequence == sequence)
    };
    for (sequence, what) in dead.chain(hanging).chain(headless) {
        leftovers.push(Leftover {
            sequence,
            is_kept: was_cut(sequence),
        });
        warnings.push(Warning::Leftover {
            name: sequence.file_name(),
            what,
        });
    }
    for found in unplaced.iter().filter(|found| !found.is_blank) {
        warnings.push(Warning::DamagedHeader {
            name: found.sequence.file_name(),
        });
    }
    (leftovers, warnings)
}
