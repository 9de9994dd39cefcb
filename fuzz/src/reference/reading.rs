//! The walk over the frames of a chain, and the evidence that it collects.

use crate::reference::{
    chain::Chain,
    frames::{Frame, Region, Seen},
    outcome::Outcome,
};

/// The evidence so far.
pub struct Reading {
    pub record_bytes_max: u64,
    /// The highest epoch in any header, and the highest epoch in the header of a segment.
    pub epochs_max: [u64; 2],
    /// The position at which the walk began.
    pub start: u64,
    /// X of `docs/DURABILITY.md`: the first position without a valid unit.
    pub end: u64,
    /// S of `docs/DURABILITY.md`: the highest commitment.
    pub committed: u64,
    /// The highest `first` in a control record.
    pub first: u64,
    pub was_closed: bool,
    pub is_cut_short: bool,
    /// True if any bytes after the end are not zero.
    pub is_used_past_end: bool,
    /// The positions at which units begin.
    pub boundaries: Vec<u64>,
}

impl Reading {
    pub fn new(record_bytes_max: u64) -> Self {
        Reading {
            record_bytes_max,
            epochs_max: [0; 2],
            start: 0,
            end: 0,
            committed: 0,
            first: 0,
            was_closed: false,
            is_cut_short: false,
            is_used_past_end: false,
            boundaries: Vec::new(),
        }
    }

    pub fn commit(&mut self, frames: &[Frame]) {
        for frame in frames {
            self.committed = self.committed.max(frame.commitment.unwrap_or(0));
        }
    }

    pub fn search(&mut self, region: &Region<'_>, from: u64) {
        if region.is_used_from(from) {
            self.is_used_past_end = true;
            self.commit(&region.search(from));
        }
    }

    /// Walks to the first position without a valid unit, and searches all bytes after it.
    pub fn walk(&mut self, chain: &Chain) -> Result<(), Outcome> {
        let members = &chain.members;
        let bases: Vec<u64> = members.iter().map(|file| file.header.unwrap().base).collect();
        let newest = members.last().unwrap().header.unwrap();
        self.start = newest.synced.max(bases[0]).max(chain.first);
        self.end = self.start;
        loop {
            let at = bases.partition_point(|&base| base <= self.end) - 1;
            let next = bases.get(at + 1).copied();
            let region = members[at].region(next);
            let stop = match region.unit_at(self.end, self.record_bytes_max) {
                Seen::Unit(frames) => {
                    self.boundaries.push(self.end);
                    self.commit(&frames);
                    let first = frames.iter().filter_map(Frame::recorded_first).max();
                    self.first = self.first.max(first.unwrap_or(0));
                    let last = frames.last().unwrap();
                    self.was_closed = last.is_clean_close();
                    self.end = last.end;
                    continue;
                }
                Seen::Unsupported => return Err(Outcome::Unsupported),
                Seen::TooLarge => return Err(Outcome::TooLarge),
                stop => stop,
            };
            if matches!(stop, Seen::End) && next == Some(self.end) {
                self.was_closed = false;
                continue;
            }
            let created = members[at].header.unwrap().file_bytes;
            let is_short = (members[at].bytes.len() as u64) < created;
            self.is_cut_short = is_short && !matches!(stop, Seen::Blank);
            self.search(&region, self.end);
            for later in at + 1..members.len() {
                let region = members[later].region(bases.get(later + 1).copied());
                self.search(&region, region.base);
            }
            return Ok(());
        }
    }
}
