//! The newest records of entries, of all groups, up to a bound of bytes.
//!
//! By LSN and for the whole log, so the bound is exact whatever groups there are, and neither a purge
//! nor a truncation has anything to do here: what they drop is asked for by nobody, and ages out.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{
    lsn::Lsn,
    raft::{
        index::Place,
        kept::{KeptPart, Value},
    },
};

/// What a record costs besides its bytes.
const OVERHEAD_BYTES: u64 = 64;

#[derive(Debug)]
pub(super) struct TailCache {
    bytes_max: u64,
    records: Mutex<Records>,
}

/// A record as it is cached: in its bytes, or in what the user has given in their place.
#[derive(Clone, Debug)]
pub(super) enum Cached {
    Bytes(Bytes),
    Kept(Value),
}

/// A cached record.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) cached: Cached,
    /// Those of the record.
    pub(super) payload_bytes: u64,
    /// What it takes besides.
    pub(super) more_bytes: u64,
}

impl Slot {
    fn cost_bytes(&self) -> u64 {
        self.payload_bytes.saturating_add(self.more_bytes).saturating_add(OVERHEAD_BYTES)
    }
}

#[derive(Debug, Default)]
struct Records {
    by_lsn: VecDeque<(Lsn, Slot)>,
    bytes: u64,
}

impl Records {
    /// Where a record is. It is looked for at `guess` first: records that are read together mostly
    /// stand together.
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

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a record in, and what has no room any more to `dead`: dropping it may take time.
    pub(super) fn insert(&self, lsn: Lsn, slot: Slot, dead: &mut Vec<Slot>) {
        let mut records = self.lock();
        records.bytes = records.bytes.saturating_add(slot.cost_bytes());
        // Groups publish beside each other: what comes late is a few places from the end.
        let behind = records.by_lsn.iter().rev().take_while(|(other, _)| *other > lsn).count();
        let place = records.by_lsn.len() - behind;
        records.by_lsn.insert(place, (lsn, slot));
        while records.bytes > self.bytes_max {
            let Some((_, oldest)) = records.by_lsn.pop_front() else { break };
            records.bytes = records.bytes.saturating_sub(oldest.cost_bytes());
            dead.push(oldest);
        }
    }

    /// The bytes of a record, if it is they that are cached.
    pub(super) fn get(&self, lsn: Lsn) -> Option<Bytes> {
        let records = self.lock();
        match &records.by_lsn.get(records.find(lsn, usize::MAX)?)?.1.cached {
            Cached::Bytes(bytes) => Some(bytes.clone()),
            Cached::Kept(_) => None,
        }
    }

    /// What the user has given in place of these records, up to the first for which there is
    /// nothing, and until they have so many bytes.
    pub(super) fn kept(
        &self,
        places: impl Iterator<Item = Place>,
        bytes_max: u64,
    ) -> Vec<KeptPart> {
        let mut parts: Vec<KeptPart> = Vec::new();
        let (mut bytes, mut guess) = (0u64, usize::MAX);
        let records = self.lock();
        for Place { lsn, indexes } in places {
            if !parts.is_empty() && bytes >= bytes_max {
                break;
            }
            let found = records.find(lsn, guess);
            let slot = found.and_then(|at| records.by_lsn.get(at)).map(|(_, slot)| slot);
            let Some(Slot { cached: Cached::Kept(value), payload_bytes, .. }) = slot else { break };
            match parts.last_mut().filter(|last| Arc::ptr_eq(&last.value, value)) {
                Some(last) => last.indexes.end = indexes.end,
                None => parts.push(KeptPart { indexes, value: Arc::clone(value) }),
            }
            bytes = bytes.saturating_add(*payload_bytes);
            guess = found.map_or(usize::MAX, |at| at.saturating_add(1));
        }
        parts
    }

    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }
}
