//! The newest records of entries, of all groups, up to a bound of bytes.
//!
//! By LSN and for the whole log, so the bound is exact whatever groups there are, and neither a purge
//! nor a truncation has anything to do here: what they drop is asked for by nobody, and ages out.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::lsn::Lsn;

/// What a record costs besides its bytes.
const OVERHEAD_BYTES: u64 = 64;

#[derive(Debug)]
pub(super) struct TailCache {
    bytes_max: u64,
    records: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    by_lsn: VecDeque<(Lsn, Bytes)>,
    bytes: u64,
}

impl TailCache {
    pub(super) fn new(bytes_max: u64) -> Self {
        TailCache { bytes_max, records: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, lsn: Lsn, payload: Bytes) {
        let mut dead = Vec::new();
        let mut records = self.lock();
        records.bytes += payload.len() as u64 + OVERHEAD_BYTES;
        // Groups publish beside each other: what comes late is a few places from the end.
        let behind = records.by_lsn.iter().rev().take_while(|(other, _)| *other > lsn).count();
        let place = records.by_lsn.len() - behind;
        records.by_lsn.insert(place, (lsn, payload));
        while records.bytes > self.bytes_max {
            let Some((_, oldest)) = records.by_lsn.pop_front() else { break };
            records.bytes -= oldest.len() as u64 + OVERHEAD_BYTES;
            dead.push(oldest);
        }
        drop(records);
    }

    pub(super) fn get(&self, lsn: Lsn) -> Option<Bytes> {
        let records = self.lock();
        let place = records.by_lsn.binary_search_by_key(&lsn, |(at, _)| *at).ok()?;
        records.by_lsn.get(place).map(|(_, payload)| payload.clone())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.lock().bytes
    }
}
