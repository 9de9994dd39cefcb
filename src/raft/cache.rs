//! Caches the newest records of entries, of all groups, up to a byte limit.
//!
//! One cache, keyed by LSN, serves the whole log. So its size limit is exact for any number of
//! groups. Purges and truncations need not update the cache, because the records that they drop are
//! no longer looked up and age out.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;

use crate::{
    lsn::Lsn,
    raft::{
        decoded::{DecodedPart, DecodedValue},
        index::RecordPart,
    },
    sync::LockAlways,
};

/// The fixed cost of a cached record.
const OVERHEAD_BYTES: u64 = 64;

#[derive(Debug)]
pub(super) struct TailCache {
    bytes_max: u64,
    records: Mutex<CachedRecords>,
}

/// The bytes of a record, or the caller's decoded value in their place.
#[derive(Clone, Debug)]
pub(super) enum CachedContent {
    Bytes(Bytes),
    Decoded(DecodedValue),
}

/// A cached record.
#[derive(Clone, Debug)]
pub(super) struct CachedRecord {
    pub(super) content: CachedContent,
    /// The length of the record, even if its bytes are not cached.
    pub(super) payload_bytes: u64,
    /// Memory that a decoded value takes in addition.
    pub(super) extra_bytes: u64,
}

impl CachedRecord {
    fn cost_bytes(&self) -> u64 {
        self.payload_bytes.saturating_add(self.extra_bytes).saturating_add(OVERHEAD_BYTES)
    }
}

#[derive(Debug, Default)]
struct CachedRecords {
    by_lsn: VecDeque<(Lsn, CachedRecord)>,
    bytes: u64,
}

impl CachedRecords {
    /// Returns the position of a record. Looks at `guess` first, because records that are read
    /// together are mostly adjacent.
    fn find(&self, lsn: Lsn, guess: usize) -> Option<usize> {
        let is_there = self.by_lsn.get(guess).is_some_and(|(at, _)| *at == lsn);
        let search = || self.by_lsn.binary_search_by_key(&lsn, |(at, _)| *at).ok();
        is_there.then_some(guess).or_else(search)
    }
}

impl TailCache {
    pub(super) fn new(bytes_max: u64) -> Self {
        TailCache { bytes_max, records: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, CachedRecords> {
        self.records.lock_always()
    }

    /// Inserts a record and moves the evicted records to `evicted`.
    ///
    /// The caller drops them without a lock, because that may take long.
    pub(super) fn insert(&self, lsn: Lsn, record: CachedRecord, evicted: &mut Vec<CachedRecord>) {
        let mut records = self.lock();
        records.bytes = records.bytes.saturating_add(record.cost_bytes());
        // Groups publish concurrently, so a late record belongs a few places before the end.
        let later = records.by_lsn.iter().rev().take_while(|(other, _)| *other > lsn).count();
        let place = records.by_lsn.len() - later;
        records.by_lsn.insert(place, (lsn, record));
        while records.bytes > self.bytes_max {
            let Some((_, oldest)) = records.by_lsn.pop_front() else { break };
            records.bytes = records.bytes.saturating_sub(oldest.cost_bytes());
            evicted.push(oldest);
        }
    }

    /// Returns the bytes of a record, if they are cached.
    pub(super) fn get(&self, lsn: Lsn) -> Option<Bytes> {
        let records = self.lock();
        match &records.by_lsn.get(records.find(lsn, usize::MAX)?)?.1.content {
            CachedContent::Bytes(bytes) => Some(bytes.clone()),
            CachedContent::Decoded(_) => None,
        }
    }

    /// Returns the decoded values of the given records.
    ///
    /// Ends before the first record without a decoded value, and after the record with which the
    /// payloads reach `bytes_max`.
    pub(super) fn decoded(
        &self,
        parts: impl Iterator<Item = RecordPart>,
        bytes_max: u64,
    ) -> Vec<DecodedPart> {
        let mut found: Vec<DecodedPart> = Vec::new();
        let (mut bytes, mut guess) = (0u64, usize::MAX);
        let records = self.lock();
        for RecordPart { lsn, indexes } in parts {
            if !found.is_empty() && bytes >= bytes_max {
                break;
            }
            let at = records.find(lsn, guess);
            let record = at.and_then(|at| records.by_lsn.get(at)).map(|(_, record)| record);
            let Some(CachedRecord {
                content: CachedContent::Decoded(value), payload_bytes, ..
            }) = record
            else {
                break;
            };
            match found.last_mut().filter(|last| Arc::ptr_eq(&last.value, value)) {
                Some(last) => last.indexes.end = indexes.end,
                None => found.push(DecodedPart { indexes, value: Arc::clone(value) }),
            }
            bytes = bytes.saturating_add(*payload_bytes);
            guess = at.map_or(usize::MAX, |at| at.saturating_add(1));
        }
        found
    }

    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }
}
