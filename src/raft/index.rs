//! Maps the entries of a group to the records that hold them. Pure.
//!
//! The map takes eight bytes per record. Records are grouped in runs, which snapshots share.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use crate::{
    lsn::Lsn,
    raft::records::varint::{Cursor, put},
};

/// The maximum number of records in a run. Copying a shared run must be cheap.
const RECORDS_PER_RUN: usize = 1024;

/// A record of entries, relative to its run. `lsn` counts units of eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RunRecord {
    index: u32,
    lsn: u32,
}

/// Records with ascending indexes at ascending LSNs.
///
/// A record holds the entries up to the first index of the next one; the last record holds those
/// up to `end`. Later entries in a record are dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexRun {
    first: u64,
    end: u64,
    lsn: Lsn,
    /// The size of its records, dead entries included.
    bytes: u64,
    records: Vec<RunRecord>,
}

/// A range of entries that one record holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecordPart {
    pub(super) lsn: Lsn,
    pub(super) indexes: Range<u64>,
}

impl IndexRun {
    fn new(first: u64, end: u64, lsn: Lsn, bytes: u64) -> Self {
        IndexRun { first, end, lsn, bytes, records: vec![RunRecord { index: 0, lsn: 0 }] }
    }

    /// Adds a record. Returns false if it does not fit into the run.
    fn push(&mut self, first: u64, end: u64, lsn: Lsn, bytes: u64) -> bool {
        let last = self.records.last().map_or(0, |record| record.lsn);
        let record = u32::try_from(first - self.first).ok().zip(
            lsn.as_u64().checked_sub(self.lsn.as_u64()).and_then(|at| u32::try_from(at / 8).ok()),
        );
        match record {
            Some((index, lsn)) if self.records.len() < RECORDS_PER_RUN && lsn > last => {
                self.records.push(RunRecord { index, lsn });
                self.end = end;
                self.bytes = self.bytes.saturating_add(bytes);
                true
            }
            _ => false,
        }
    }

    fn part(&self, at: usize) -> Option<RecordPart> {
        let record = self.records.get(at)?;
        let next = self.records.get(at + 1);
        let end = next.map_or(self.end, |next| self.first + u64::from(next.index));
        let lsn = self.lsn.plus(u64::from(record.lsn) * 8);
        Some(RecordPart { lsn, indexes: self.first + u64::from(record.index)..end })
    }

    /// Returns the position of the record that holds `index`. The run must contain `index`.
    fn find(&self, index: u64) -> usize {
        let after = self.records.partition_point(|b| self.first + u64::from(b.index) <= index);
        after.saturating_sub(1)
    }

    /// Drops the entries from `next` on. `next` must be in the run and not its first index.
    fn truncate(&mut self, next: u64) {
        let kept = self.records.partition_point(|b| self.first + u64::from(b.index) < next);
        let all = self.records.len().max(1) as u64;
        self.records.truncate(kept);
        self.bytes = self.bytes / all * kept as u64;
        self.end = next;
    }

    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        for value in [self.first, self.end - self.first, self.lsn.as_u64() / 8, self.bytes] {
            put(to, value);
        }
        put(to, self.records.len() as u64);
        let mut before = RunRecord { index: 0, lsn: 0 };
        for record in &self.records {
            put(to, u64::from(record.index - before.index));
            put(to, u64::from(record.lsn - before.lsn));
            before = *record;
        }
    }

    pub(super) fn decode(cursor: &mut Cursor) -> Option<IndexRun> {
        let first = cursor.varint()?;
        let end = first.checked_add(cursor.varint()?)?;
        let lsn = Lsn::new(cursor.varint()?.checked_mul(8)?);
        let bytes = cursor.varint()?;
        let count = cursor.varint()?;
        let mut records: Vec<RunRecord> = Vec::new();
        let mut before = RunRecord { index: 0, lsn: 0 };
        for number in 0..count {
            let index = before.index.checked_add(u32::try_from(cursor.varint()?).ok()?)?;
            let lsn = before.lsn.checked_add(u32::try_from(cursor.varint()?).ok()?)?;
            let record = RunRecord { index, lsn };
            let follows = index > before.index && lsn > before.lsn;
            let is_sound = if number == 0 { index == 0 && lsn == 0 } else { follows };
            if !is_sound || records.len() >= RECORDS_PER_RUN {
                return None;
            }
            records.push(record);
            before = record;
        }
        let last = first.checked_add(u64::from(records.last()?.index))?;
        (last < end).then_some(IndexRun { first, end, lsn, bytes, records })
    }
}

/// The records that hold the entries of a group. The runs have no gaps between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    runs: VecDeque<Arc<IndexRun>>,
}

impl Index {
    /// Adds a record of entries after all others.
    pub(super) fn push(&mut self, indexes: Range<u64>, lsn: Lsn, bytes: u64) {
        if let Some(last) = self.runs.back_mut() {
            if Arc::make_mut(last).push(indexes.start, indexes.end, lsn, bytes) {
                return;
            }
        }
        self.runs.push_back(Arc::new(IndexRun::new(indexes.start, indexes.end, lsn, bytes)));
    }

    /// Drops the entries from `next` on.
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

    /// Removes the runs that are entirely below `first` and returns them to be dropped elsewhere.
    pub(super) fn purge(&mut self, first: u64) -> Vec<Arc<IndexRun>> {
        let dead = self.runs.partition_point(|run| run.end <= first);
        self.runs.drain(..dead).collect()
    }

    /// Returns the records that hold entries of `indexes`, in order.
    pub(super) fn parts(&self, indexes: Range<u64>) -> impl Iterator<Item = RecordPart> + '_ {
        let from = self.runs.partition_point(|run| run.end <= indexes.start);
        let start = indexes.start;
        let runs = self.runs.iter().skip(from).take_while(move |run| run.first < indexes.end);
        runs.flat_map(move |run| {
            let at = run.find(start);
            (at..run.records.len()).filter_map(move |at| run.part(at))
        })
        .skip_while(move |part| part.indexes.end <= indexes.start)
        .take_while(move |part| part.indexes.start < indexes.end)
        .map(move |part| RecordPart {
            lsn: part.lsn,
            indexes: part.indexes.start.max(indexes.start)..part.indexes.end.min(indexes.end),
        })
    }

    /// Returns the lowest LSN of a record that holds entries from `first` on.
    pub(super) fn lowest(&self, first: u64) -> Option<Lsn> {
        let mut live = self.runs.iter().skip_while(|run| run.end <= first);
        let front = live.next().and_then(|run| run.part(run.find(first)));
        live.map(|run| run.lsn).chain(front.map(|part| part.lsn)).min()
    }

    /// Estimates the size of a record in the log.
    pub(super) fn average_record_bytes(&self) -> u64 {
        self.runs.back().map_or(0, |run| run.bytes / run.records.len().max(1) as u64)
    }

    /// Estimates the size of the entries from `first` on.
    pub(super) fn live_bytes(&self, first: u64) -> u64 {
        let share = |run: &IndexRun| {
            let all = (run.end - run.first).max(1);
            let alive = run.end.saturating_sub(first.max(run.first));
            run.bytes / all * alive
        };
        self.runs.iter().map(|run| share(run)).sum()
    }

    /// Records that `indexes` were written again at `lsn`. One record must have held all of them.
    pub(super) fn relocate(&mut self, indexes: Range<u64>, lsn: Lsn, bytes: u64) {
        let at = self.runs.partition_point(|run| run.end <= indexes.start);
        let Some(run) = self.runs.get(at).cloned() else { return };
        if run.first > indexes.start || run.end < indexes.end {
            return;
        }
        let mut rewritten: Vec<IndexRun> = Vec::new();
        let mut push = |part: RecordPart, bytes: u64| {
            let Range { start, end } = part.indexes;
            if start < end
                && !rewritten.last_mut().is_some_and(|run| run.push(start, end, part.lsn, bytes))
            {
                rewritten.push(IndexRun::new(start, end, part.lsn, bytes));
            }
        };
        let average = run.bytes / run.records.len().max(1) as u64;
        let mut is_moved = false;
        for part in (0..run.records.len()).filter_map(|at| run.part(at)) {
            let Range { start, end } = part.indexes;
            push(RecordPart { lsn: part.lsn, indexes: start..end.min(indexes.start) }, average);
            if end > indexes.start && !is_moved {
                push(RecordPart { lsn, indexes: indexes.clone() }, bytes);
                is_moved = true;
            }
            push(RecordPart { lsn: part.lsn, indexes: start.max(indexes.end)..end }, average);
        }
        // A rewritten record often follows the one before it. Then they share a run.
        let tail = self.runs.split_off(at);
        for run in rewritten {
            let joined = match self.runs.back_mut() {
                Some(last) if run.records.len() == 1 => {
                    Arc::make_mut(last).push(run.first, run.end, run.lsn, run.bytes)
                }
                _ => false,
            };
            if !joined {
                self.runs.push_back(Arc::new(run));
            }
        }
        self.runs.extend(tail.into_iter().skip(1));
    }

    /// Returns a snapshot. It copies one pointer per run.
    pub(super) fn runs(&self) -> Vec<Arc<IndexRun>> {
        self.runs.iter().cloned().collect()
    }

    /// Adds a run of a snapshot. Returns false if it does not follow the last run.
    pub(super) fn add(&mut self, run: IndexRun) -> bool {
        let follows = self.runs.back().is_none_or(|last| last.end == run.first);
        if follows {
            self.runs.push_back(Arc::new(run));
        }
        follows
    }

    /// Returns the indexes that the runs cover.
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

    /// Maps each entry to the LSN of its record.
    fn flat(index: &Index, live: Range<u64>) -> BTreeMap<u64, Lsn> {
        let parts = index.parts(live);
        parts.flat_map(|part| part.indexes.map(move |index| (index, part.lsn))).collect()
    }

    #[test]
    fn index_matches_a_map_of_entries() {
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
                        // One of the records is written again.
                        let parts: Vec<_> = index.parts(first..next).collect();
                        let part = &parts[random.below(parts.len())];
                        index.relocate(part.indexes.clone(), Lsn::new(lsn), 10);
                        map.extend(part.indexes.clone().map(|index| (index, Lsn::new(lsn))));
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
                assert!(again.add(IndexRun::decode(&mut Cursor::new(bytes.into())).unwrap()));
            }
            assert_eq!(again, index);
        }
    }
}
