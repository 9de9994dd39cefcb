//! Reads entries of a group: from the cache if possible, else from the files.

use std::ops::Range;

use bytes::Bytes;

use crate::{
    lsn::Lsn,
    raft::{
        entry::Entry,
        error::{Error, Result},
        index::RecordPart,
        payloads::{SegmentLease, read_payloads},
        records::entries::EntriesRecord,
        store::{LockedGroup, Store},
    },
};

/// The maximum number of records in one read from the files.
const RECORDS_PER_READ: usize = 256;

/// The entries read so far.
struct Collected {
    entries: Vec<Entry>,
    bytes: u64,
    bytes_max: u64,
}

impl Collected {
    fn new(bytes_max: u64) -> Self {
        Collected { entries: Vec::new(), bytes: 0, bytes_max }
    }

    /// Adds the entries of one record. Returns false when `bytes_max` is reached.
    fn add(&mut self, part: &RecordPart, payload: Bytes) -> Result<bool> {
        let bad = |reason| Error::BadRecord { lsn: part.lsn, reason };
        let (_, record) = EntriesRecord::parse(payload).map_err(bad)?;
        for entry in record.entries() {
            let entry = entry.map_err(bad)?;
            if entry.index >= part.indexes.end {
                break;
            }
            if entry.index < part.indexes.start {
                continue;
            }
            let bytes = entry.payload.len() as u64;
            if !self.entries.is_empty() && self.bytes.saturating_add(bytes) > self.bytes_max {
                return Ok(false);
            }
            self.bytes = self.bytes.saturating_add(bytes);
            self.entries.push(entry);
        }
        Ok(self.bytes < self.bytes_max)
    }
}

/// The records that hold the next entries, looked up at one moment.
struct ReadPlan {
    /// Each record, with its payload if it is cached.
    parts: Vec<(RecordPart, Option<Bytes>)>,
    /// Keeps the segments of the records that are not cached.
    lease: Option<SegmentLease>,
    /// Unchanged as long as no index gets another entry.
    generation: u64,
}

/// Reads entries of `indexes` that are cached; see
/// [`RaftGroup::try_read`](crate::raft::RaftGroup::try_read).
pub(super) fn read_cached(
    store: &Store,
    group: &LockedGroup,
    indexes: Range<u64>,
    bytes_max: u64,
) -> Result<Option<Vec<Entry>>> {
    let mut collected = Collected::new(bytes_max);
    let mut generation = None;
    let mut from = indexes.start;
    while from < indexes.end {
        let plan = match plan(store, group, from..indexes.end, bytes_max, false) {
            Err(_) if !collected.entries.is_empty() => break,
            plan => plan?,
        };
        if plan.parts.is_empty() || *generation.get_or_insert(plan.generation) != plan.generation {
            break;
        }
        for (part, payload) in plan.parts {
            let Some(payload) = payload else {
                return Ok((!collected.entries.is_empty()).then_some(collected.entries));
            };
            if !collected.add(&part, payload)? {
                return Ok(Some(collected.entries));
            }
            from = part.indexes.end;
        }
    }
    Ok(Some(collected.entries))
}

/// Reads entries of `indexes`; see [`RaftGroup::read`](crate::raft::RaftGroup::read).
pub(super) async fn read(
    store: &Store,
    group: &LockedGroup,
    indexes: Range<u64>,
    bytes_max: u64,
) -> Result<Vec<Entry>> {
    let mut collected = Collected::new(bytes_max);
    let mut generation = None;
    let mut from = indexes.start;
    while from < indexes.end {
        let plan = match plan(store, group, from..indexes.end, bytes_max, true) {
            Err(_) if !collected.entries.is_empty() => break,
            plan => plan?,
        };
        if plan.parts.is_empty() || *generation.get_or_insert(plan.generation) != plan.generation {
            break;
        }
        for (part, payload) in load(store, plan).await? {
            if !collected.add(&part, payload)? {
                return Ok(collected.entries);
            }
            from = part.indexes.end;
        }
    }
    Ok(collected.entries)
}

/// Looks up the records of the next entries, and keeps the segments of uncached ones.
fn plan(
    store: &Store,
    group: &LockedGroup,
    indexes: Range<u64>,
    bytes_max: u64,
    keeps_segments: bool,
) -> Result<ReadPlan> {
    let state = group.lock();
    let mut plan = ReadPlan { parts: Vec::new(), lease: None, generation: state.generation };
    if indexes.is_empty() || indexes.start >= state.next {
        return Ok(plan);
    }
    if indexes.start < state.first {
        return Err(Error::Purged { group: group.id, index: indexes.start, first: state.first });
    }
    let end = indexes.end.min(state.next);
    let mut bytes = 0u64;
    let record_bytes = state.index.average_record_bytes();
    for part in state.index.parts(indexes.start..end).take(RECORDS_PER_READ) {
        let payload = store.cache.get(part.lsn);
        bytes = bytes.saturating_add(payload.as_ref().map_or(record_bytes, |p| p.len() as u64));
        plan.parts.push((part, payload));
        if bytes > bytes_max {
            break;
        }
    }
    let lowest = uncached(&plan).min().filter(|_| keeps_segments);
    // The lease is possible because the log never begins above a live entry, and the group is
    // locked.
    plan.lease = lowest.map(|lsn| SegmentLease::new(store.log(), lsn)).transpose()?;
    Ok(plan)
}

fn uncached(plan: &ReadPlan) -> impl Iterator<Item = Lsn> + '_ {
    plan.parts.iter().filter(|(_, payload)| payload.is_none()).map(|(part, _)| part.lsn)
}

/// Reads the payloads that are not cached.
async fn load(store: &Store, mut plan: ReadPlan) -> Result<Vec<(RecordPart, Bytes)>> {
    let lsns = uncached(&plan).collect();
    let mut read = read_payloads(store.log(), lsns, plan.lease.take()).await?.into_iter();
    let loaded = plan.parts.into_iter();
    Ok(loaded
        .filter_map(|(part, payload)| Some((part, payload.or_else(|| read.next())?)))
        .collect())
}
