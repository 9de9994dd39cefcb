//! Reads the unsynced end of the log and gathers the evidence on which it is judged.

use std::sync::Arc;

use crate::{
    error::Result,
    format::{
        control::Control,
        frame::{Kind, Seed, frame_bytes},
        scan::{FrameAt, Place, Stop},
        search::{Found as FoundFrame, search},
    },
    lsn::Lsn,
    options::Config,
    pipeline::{CONTROL_FRAME_BYTES, FIRST_FRAME_BYTES},
    recovery::chain::{Chain, Member},
    replay::damage,
    segments::{Region, SegmentFile, SegmentReader, Sequence},
    storage::Storage,
};

pub(super) const CHUNK_BYTES: u64 = 1 << 20;

/// What a search came upon.
pub(super) struct Frames {
    pub(super) count: u64,
    /// Records among them.
    pub(super) record_count: u64,
    /// The highest position that any of them claims was synced.
    pub(super) commitment: Lsn,
}

/// The intact frames that begin in `from..used_end`.
pub(super) fn search_frames(reader: &SegmentReader, from: Lsn, used_end: Lsn) -> Result<Frames> {
    let mut frames = Frames { count: 0, record_count: 0, commitment: Lsn::ZERO };
    let region = (used_end.since(from), reader.place.end.since(from));
    let mut source = Region { reader, start: from };
    search(&mut source, from, region, reader.place.seed, &mut |found: FoundFrame| {
        frames.count += 1;
        frames.record_count += u64::from(found.is_record);
        frames.commitment = frames.commitment.max(found.commitment.unwrap_or(Lsn::ZERO));
    })?;
    Ok(frames)
}

/// A close vouches for all before it, and for nothing less.
fn is_clean_close(frame: &FrameAt) -> bool {
    frame.control == Some(Control::Close) && frame.commitment == Some(frame.lsn)
}

/// What the control record right before a close says of the beginning of the log, if it is one that
/// does: a log that is closed notes it there unless its newest header knows.
fn first_before(reader: &SegmentReader, close: Lsn) -> Result<Lsn> {
    let at = Lsn::new(close.as_u64().saturating_sub(FIRST_FRAME_BYTES));
    if at < reader.base {
        return Ok(Lsn::ZERO);
    }
    let frame = reader.read_frame(at, close, FIRST_FRAME_BYTES)?;
    Ok(frame.map_or(Lsn::ZERO, |(frame, _)| first_told_by(&frame)))
}

/// Where a frame says that the log begins: never above what it knows to be synced.
pub(crate) fn first_told_by(frame: &FrameAt) -> Lsn {
    match frame.control {
        Some(Control::First(first)) if frame.commitment >= Some(first) => first,
        _ => Lsn::ZERO,
    }
}

/// What has been read so far, and what it says.
pub(super) struct Scan<'a> {
    pub(super) storage: &'a dyn Storage,
    pub(super) config: &'a Config,
    pub(super) commitment: Lsn,
    /// The highest first LSN that a control record tells.
    pub(super) first: Lsn,
    /// Where the walk began, and where it is.
    pub(super) start: Lsn,
    pub(super) end: Lsn,
    pub(super) stop: Stop,
    pub(super) stopped_in: Option<SegmentReader>,
    /// The walk stopped where a file has lost its end.
    pub(super) is_cut_short: bool,
    /// The end of the last record or batch.
    pub(super) records_end: Lsn,
    pub(super) closed: bool,
    pub(super) valid_after_count: u64,
    pub(super) record_after_count: u64,
    /// Bytes past the end that aren't zero, and the files that hold them.
    pub(super) cut_bytes: u64,
    pub(super) kept_in: Vec<Sequence>,
    pub(super) dirty_padding_count: u64,
    pub(super) scanned_bytes: u64,
    /// The highest epoch that any file names, those that are kept of earlier cuts included.
    pub(super) epoch_max: u64,
    /// The highest that a segment's header names.
    pub(super) own_epoch_max: u64,
}

impl<'a> Scan<'a> {
    pub(super) fn new(storage: &'a dyn Storage, config: &'a Config) -> Self {
        Scan {
            storage,
            config,
            commitment: Lsn::ZERO,
            first: Lsn::ZERO,
            start: Lsn::ZERO,
            end: Lsn::ZERO,
            stop: Stop::Blank,
            stopped_in: None,
            is_cut_short: false,
            records_end: Lsn::ZERO,
            closed: false,
            valid_after_count: 0,
            record_after_count: 0,
            cut_bytes: 0,
            kept_in: Vec::new(),
            dirty_padding_count: 0,
            scanned_bytes: 0,
            epoch_max: 0,
            own_epoch_max: 0,
        }
    }

    pub(super) fn commit(&mut self, synced: Lsn) {
        self.commitment = self.commitment.max(synced);
    }

    pub(super) fn reader(&self, member: &Member, end: Option<Lsn>) -> Result<SegmentReader> {
        let file_end = member.file_end();
        let place = Place {
            seed: Seed::new(member.header.log_id, member.header.epoch),
            end: end.map_or(file_end, |end| end.min(file_end)),
            record_bytes_max: self.config.record_bytes_max,
        };
        let file = Arc::new(SegmentFile::open(self.storage, member.sequence)?);
        Ok(SegmentReader { file, base: member.header.base, place })
    }

    /// The end of a log whose last bytes are a clean close: found by reading back over the zeros
    /// behind it, without a look at what comes before, which the close says is synced.
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
            self.scanned_bytes += CONTROL_FRAME_BYTES;
            self.first = self.first.max(first_before(&reader, close)?);
        }
        Ok(is_close.then_some(used_end))
    }

    /// Where control records say that the log of these members begins.
    pub(super) fn told_first(&self, chain: &Chain) -> Result<Lsn> {
        let mut ahead = Scan::new(self.storage, self.config);
        if let Some(newest) = chain.members.last() {
            if ahead.clean_end(newest)?.is_none() {
                ahead.walk_members(chain)?;
            }
        }
        Ok(ahead.first)
    }

    /// Walks the members from the newest header's synced mark on, and searches past where the walk
    /// stops.
    pub(super) fn walk_members(&mut self, chain: &Chain) -> Result<()> {
        let oldest = chain.members.first().map_or(Lsn::ZERO, |member| member.header.base);
        let newest = chain.members.last().map_or(Lsn::ZERO, |member| member.header.synced);
        self.walk_from(chain, newest.max(oldest).max(chain.first))
    }

    /// As [`walk_members`](Scan::walk_members), from a place of one's own.
    pub(super) fn walk_from(&mut self, chain: &Chain, start: Lsn) -> Result<()> {
        self.end = start;
        self.start = start;
        let successors = chain.members.iter().skip(1).map(|next| Some(next.header.base));
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
            if stop != Stop::SegmentEnd || successor != Some(self.end) {
                is_past = true;
                self.stop = stop;
                self.is_cut_short = member.is_cut_short() && stop != Stop::Blank;
                self.search_region(&reader, self.end)?;
                self.stopped_in = Some(reader);
            }
        }
        Ok(())
    }

    fn walk(&mut self, reader: &SegmentReader) -> Result<Stop> {
        self.closed = false;
        loop {
            let chunk = reader.read_chunk(self.end, reader.place.end, CHUNK_BYTES)?;
            self.scanned_bytes += chunk.next.since(self.end);
            self.dirty_padding_count += chunk.dirty_padding_count;
            for frame in &chunk.frames {
                self.commitment = self.commitment.max(frame.commitment.unwrap_or(Lsn::ZERO));
                self.first = self.first.max(first_told_by(frame));
                if frame.kind != Kind::Control {
                    self.records_end = frame.lsn.plus(frame_bytes(frame.payload_bytes as u64));
                }
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
                    return if error.is_corrupt() { Ok(Stop::BadChecksum) } else { Err(error) };
                }
                Some(stop) => return Ok(stop),
            }
        }
    }

    /// Whether a unit begins at the commitment, from which on all is written anew: no release claims
    /// any other position.
    pub(super) fn commitment_is_boundary(&self, chain: &Chain) -> Result<bool> {
        let lsn = self.commitment;
        if lsn == self.start || lsn >= self.end {
            return Ok(true);
        }
        let after = chain.members.partition_point(|member| member.header.base <= lsn);
        let Some(member) = after.checked_sub(1).and_then(|at| chain.members.get(at)) else {
            return Ok(false);
        };
        let end = chain.members.get(after).map_or(self.end, |next| next.header.base);
        let reader = self.reader(member, Some(end))?;
        match reader.read_frame(lsn, end, CONTROL_FRAME_BYTES)? {
            Ok((frame, _)) if !matches!(frame.kind, Kind::BatchPart | Kind::BatchEnd) => Ok(true),
            Err(_) => Ok(false),
            // The first of its batch, or one of the others?
            Ok(_) => {
                let mut at = self.start.max(reader.base);
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

    /// Looks for intact frames, and whatever else isn't zero, from `from` to the segment's end.
    pub(super) fn search_region(&mut self, reader: &SegmentReader, from: Lsn) -> Result<()> {
        let used_end = reader.used_end(from, reader.place.end)?;
        let region_bytes = used_end.since(from);
        if region_bytes == 0 {
            return Ok(());
        }
        self.cut_bytes += region_bytes;
        self.scanned_bytes += region_bytes;
        self.kept_in.push(reader.file.sequence());
        let found = search_frames(reader, from, used_end)?;
        self.valid_after_count += found.count;
        self.record_after_count += found.record_count;
        self.commit(found.commitment);
        Ok(())
    }

    pub(super) fn search_members(&mut self, hanging: &[Member]) -> Result<()> {
        for member in hanging {
            let reader = self.reader(member, None)?;
            self.search_region(&reader, reader.base)?;
        }
        Ok(())
    }
}
