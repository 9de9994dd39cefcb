//! Which record holds an entry: eight bytes a record, in runs that are shared with whoever takes a
//! picture of them. Pure.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use crate::{
    lsn::Lsn,
    raft::varint::{Cursor, put},
};

/// Records to a run: so small that copying one that is shared costs nothing that is noticed, and so
/// large that there are few.
const BLOCKS_PER_RUN: usize = 1024;

/// A record of entries: relative to its run, the LSN in units of eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    index: u32,
    lsn: u32,
}

/// Records with growing indexes at growing LSNs. Each holds the entries up to the next one's first,
/// the last those up to the run's end; entries behind that in a record are dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    first: u64,
    end: u64,
    lsn: Lsn,
    /// What its records hold, dead entries included.
    bytes: u64,
    blocks: Vec<Block>,
}

/// A part of what one record holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) lsn: Lsn,
    pub(super) indexes: Range<u64>,
}

impl Run {
    fn new(first: u64, end: u64, lsn: Lsn, bytes: u64) -> Self {
        Run { first, end, lsn, bytes, blocks: vec![Block { index: 0, lsn: 0 }] }
    }

    /// Adds a record, if it fits.
    fn push(&mut self, first: u64, end: u64, lsn: Lsn, bytes: u64) -> bool {
        let last = self.blocks.last().map_or(0, |block| block.lsn);
        let block = u32::try_from(first - self.first).ok().zip(
            lsn.as_u64().checked_sub(self.lsn.as_u64()).and_then(|at| u32::try_from(at / 8).ok()),
        );
        match block {
            Some((index, lsn)) if self.blocks.len() < BLOCKS_PER_RUN && lsn > last => {
                self.blocks.push(Block { index, lsn });
                self.end = end;
                self.bytes = self.bytes.saturating_add(bytes);
                true
            }
            _ => false,
        }
    }

    fn place(&self, at: usize) -> Option<Place> {
        let block = self.blocks.get(at)?;
        let next = self.blocks.get(at + 1);
        let end = next.map_or(self.end, |next| self.first + u64::from(next.index));
        let lsn = self.lsn.plus(u64::from(block.lsn) * 8);
        Some(Place { lsn, indexes: self.first + u64::from(block.index)..end })
    }

    /// The record that holds `index`, which is in the run.
    fn find(&self, index: u64) -> usize {
        let after = self.blocks.partition_point(|b| self.first + u64::from(b.index) <= index);
        after.saturating_sub(1)
    }

    /// Drops what stands from `next` on, which is in the run and not its first.
    fn truncate(&mut self, next: u64) {
        let kept = self.blocks.partition_point(|b| self.first + u64::from(b.index) < next);
        let all = self.blocks.len().max(1) as u64;
        self.blocks.truncate(kept);
        self.bytes = self.bytes / all * kept as u64;
        self.end = next;
    }

    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        for value in [self.first, self.end - self.first, self.lsn.as_u64() / 8, self.bytes] {
            put(to, value);
        }
        put(to, self.blocks.len() as u64);
        let mut before = Block { index: 0, lsn: 0 };
        for block in &self.blocks {
            put(to, u64::from(block.index - before.index));
            put(to, u64::from(block.lsn - before.lsn));
            before = *block;
        }
    }

    pub(super) fn decode(cursor: &mut Cursor) -> Option<Run> {
        let first = cursor.varint()?;
        let end = first.checked_add(cursor.varint()?)?;
        let lsn = Lsn::new(cursor.varint()?.checked_mul(8)?);
        let bytes = cursor.varint()?;
        let count = cursor.varint()?;
        let mut blocks: Vec<Block> = Vec::new();
        let mut before = Block { index: 0, lsn: 0 };
        for number in 0..count {
            let index = before.index.checked_add(u32::try_from(cursor.varint()?).ok()?)?;
            let lsn = before.lsn.checked_add(u32::try_from(cursor.varint()?).ok()?)?;
            let block = Block { index, lsn };
            let follows = index > before.index && lsn > before.lsn;
            let is_sound = if number == 0 { index == 0 && lsn == 0 } else { follows };
            if !is_sound || blocks.len() >= BLOCKS_PER_RUN {
                return None;
            }
            blocks.push(block);
            before = block;
        }
        let last = first.checked_add(u64::from(blocks.last()?.index))?;
        (last < end).then_some(Run { first, end, lsn, bytes, blocks })
    }
}

/// Where the entries of a group stand. Its runs follow each other without a gap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    runs: VecDeque<Arc<Run>>,
}

impl Index {
    /// A record of entries behind all others.
    pub(super) fn push(&mut self, indexes: Range<u64>, lsn: Lsn, bytes: u64) {
        if let Some(last) = self.runs.back_mut() {
            if Arc::make_mut(last).push(indexes.start, indexes.end, lsn, bytes) {
                return;
            }
        }
        self.runs.push_back(Arc::new(Run::new(indexes.start, indexes.end, lsn, bytes)));
    }

    /// Drops what stands from `next` on.
    pub(super) fn truncate(&mut self, next: u64) {
        while self.runs.back().is_some_and(|run| run.first >= next) {
            self.runs.pop_back();
        }
        if let Some(last) = self.runs.back_mut() {
            if last.end > next {
                Arc::make_mut(last).truncate(next);
            }
        }
    }

    /// Lets go of runs that stand below `first` as a whole, and gives them to be dropped elsewhere.
    pub(super) fn purge(&mut self, first: u64) -> Vec<Arc<Run>> {
        let dead = self.runs.partition_point(|run| run.end <= first);
        self.runs.drain(..dead).collect()
    }

    /// The records that hold entries of `indexes`, in order.
    pub(super) fn places(&self, indexes: Range<u64>) -> impl Iterator<Item = Place> + '_ {
        let from = self.runs.partition_point(|run| run.end <= indexes.start);
        let start = indexes.start;
        let runs = self.runs.iter().skip(from).take_while(move |run| run.first < indexes.end);
        runs.flat_map(move |run| {
            let at = run.find(start);
            (at..run.blocks.len()).filter_map(move |at| run.place(at))
        })
        .skip_while(move |place| place.indexes.end <= indexes.start)
        .take_while(move |place| place.indexes.start < indexes.end)
        .map(move |place| Place {
            lsn: place.lsn,
            indexes: place.indexes.start.max(indexes.start)..place.indexes.end.min(indexes.end),
        })
    }

    /// The lowest LSN at which entries from `first` on stand.
    pub(super) fn lowest(&self, first: u64) -> Option<Lsn> {
        let mut live = self.runs.iter().skip_while(|run| run.end <= first);
        let front = live.next().and_then(|run| run.place(run.find(first)));
        live.map(|run| run.lsn).chain(front.map(|place| place.lsn)).min()
    }

    /// What a record takes in the log, about.
    pub(super) fn average_record_bytes(&self) -> u64 {
        self.runs.back().map_or(0, |run| run.bytes / run.blocks.len().max(1) as u64)
    }

    /// About how many bytes the records hold of which entries from `first` on are alive.
    pub(super) fn live_bytes(&self, first: u64) -> u64 {
        let share = |run: &Run| {
            let all = (run.end - run.first).max(1);
            let alive = run.end.saturating_sub(first.max(run.first));
            run.bytes / all * alive
        };
        self.runs.iter().map(|run| share(run)).sum()
    }

    /// The entries of a record stand at another LSN now, written again. They are a part of what one
    /// record held; nothing else changes.
    pub(super) fn relocate(&mut self, indexes: Range<u64>, lsn: Lsn, bytes: u64) {
        let at = self.runs.partition_point(|run| run.end <= indexes.start);
        let Some(run) = self.runs.get(at).cloned() else { return };
        if run.first > indexes.start || run.end < indexes.end {
            return;
        }
        let mut parts: Vec<Run> = Vec::new();
        let mut push = |place: Place, bytes: u64| {
            let Range { start, end } = place.indexes;
            if start < end
                && !parts.last_mut().is_some_and(|run| run.push(start, end, place.lsn, bytes))
            {
                parts.push(Run::new(start, end, place.lsn, bytes));
            }
        };
        let average = run.bytes / run.blocks.len().max(1) as u64;
        let mut is_moved = false;
        for place in (0..run.blocks.len()).filter_map(|at| run.place(at)) {
            let Range { start, end } = place.indexes;
            push(Place { lsn: place.lsn, indexes: start..end.min(indexes.start) }, average);
            if end > indexes.start && !is_moved {
                push(Place { lsn, indexes: indexes.clone() }, bytes);
                is_moved = true;
            }
            push(Place { lsn: place.lsn, indexes: start.max(indexes.end)..end }, average);
        }
        // A record written again often follows the one before it: then they share a run.
        let tail = self.runs.split_off(at);
        for part in parts {
            let joined = match self.runs.back_mut() {
                Some(last) if part.blocks.len() == 1 => {
                    Arc::make_mut(last).push(part.first, part.end, part.lsn, part.bytes)
                }
                _ => false,
            };
            if !joined {
                self.runs.push_back(Arc::new(part));
            }
        }
        self.runs.extend(tail.into_iter().skip(1));
    }

    /// A picture of it, which costs a pointer a run.
    pub(super) fn runs(&self) -> Vec<Arc<Run>> {
        self.runs.iter().cloned().collect()
    }

    /// Adds a run as it was pictured; whether it follows what is there.
    pub(super) fn add(&mut self, run: Run) -> bool {
        let follows = self.runs.back().is_none_or(|last| last.end == run.first);
        if follows {
            self.runs.push_back(Arc::new(run));
        }
        follows
    }

    /// Which indexes it covers.
    pub(super) fn covers(&self) -> Option<Range<u64>> {
        Some(self.runs.front()?.first..self.runs.back()?.end)
    }
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::simulation::Random;

    /// Every entry and the record it stands in.
    fn flat(index: &Index, live: Range<u64>) -> BTreeMap<u64, Lsn> {
        let places = index.places(live);
        places.flat_map(|place| place.indexes.map(move |index| (index, place.lsn))).collect()
    }

    #[test]
    fn an_index_is_what_a_map_of_entries_is() {
        for seed in 0..12 {
            let mut random = Random::new(seed);
            let (mut index, mut map) = (Index::default(), BTreeMap::new());
            let (mut first, mut next, mut lsn) = (0u64, 0u64, 8u64);
            for _ in 0..200 {
                let bits = random.below(32);
                lsn += 8 * (1 + random.below(1 << bits) as u64);
                match random.below(10) {
                    0 => {
                        next -= random.below((next - first).min(9) as usize + 1) as u64;
                        index.truncate(next);
                        map.retain(|index, _| *index < next);
                    }
                    1 => {
                        first += random.below((next - first).min(9) as usize + 1) as u64;
                        drop(index.purge(first));
                        map = map.split_off(&first);
                    }
                    2 if first < next => {
                        // One of the places is written again.
                        let places: Vec<_> = index.places(first..next).collect();
                        let place = &places[random.below(places.len())];
                        index.relocate(place.indexes.clone(), Lsn::new(lsn), 10);
                        map.extend(place.indexes.clone().map(|index| (index, Lsn::new(lsn))));
                    }
                    _ => {
                        let end = next + 1 + random.below(5) as u64;
                        index.push(next..end, Lsn::new(lsn), 10);
                        map.extend((next..end).map(|index| (index, Lsn::new(lsn))));
                        next = end;
                    }
                }
                assert_eq!(flat(&index, first..next), map, "seed {seed}");
                assert_eq!(index.lowest(first), map.values().min().copied(), "seed {seed}");
                let (low, high) = (first + (next - first) / 3, next - (next - first) / 3);
                let part: BTreeMap<_, _> = map.range(low..high).map(|(i, l)| (*i, *l)).collect();
                assert_eq!(flat(&index, low..high), part);
            }
            let mut again = Index::default();
            for run in index.runs() {
                let mut bytes = Vec::new();
                run.encode(&mut bytes);
                assert!(again.add(Run::decode(&mut Cursor::new(bytes.into())).unwrap()));
            }
            assert_eq!(again, index);
        }
    }
}
