//! Standing orders: a sync whenever so many records were written. Looked at after a write, never
//! by an append.

use std::sync::{Arc, PoisonError};

use crate::{
    lsn::Lsn,
    pipeline::core::Core,
    sync::{AtomicU64, Mutex, Ordering},
};

#[derive(Debug)]
pub(crate) struct Standing {
    /// How many records each order allows to be written and not asked to be synced.
    orders: Mutex<Vec<u64>>,
    /// The strictest of them; `u64::MAX` if there is none.
    strictest: AtomicU64,
    /// So many records have been asked for already, by an order or by anybody's sync.
    asked_count: AtomicU64,
}

impl Standing {
    pub(super) fn new() -> Self {
        Standing {
            orders: Mutex::default(),
            strictest: AtomicU64::new(u64::MAX),
            asked_count: AtomicU64::new(0),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<u64>)) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut orders);
        let strictest = orders.iter().copied().min().unwrap_or(u64::MAX);
        self.strictest.store(strictest, Ordering::Relaxed);
    }

    pub(super) fn asked(&self, record_count: u64) {
        self.asked_count.fetch_max(record_count, Ordering::Relaxed);
    }

    /// Whether an order is due, now that so many records are written. It is due once: what comes
    /// while its flush runs counts for the next. Without an order nothing is counted.
    fn is_due(&self, written_record_count: impl FnOnce() -> u64) -> bool {
        let strictest = self.strictest.load(Ordering::Relaxed);
        if strictest == u64::MAX {
            return false;
        }
        let record_count = written_record_count();
        let asked = self.asked_count.load(Ordering::Relaxed);
        let is_due = record_count.saturating_sub(asked) >= strictest;
        if is_due {
            self.asked(record_count);
        }
        is_due
    }
}

impl Core {
    /// From now on a flush is begun whenever `record_count` records were written since the last.
    pub(crate) fn add_order(self: &Arc<Self>, record_count: u64) {
        self.standing.change(|orders| orders.push(record_count));
        // What is written already counts.
        self.follow_orders(self.written.get());
        self.start_sync_if_wanted();
    }

    pub(crate) fn remove_order(&self, record_count: u64) {
        self.standing.change(|orders| {
            if let Some(at) = orders.iter().position(|order| *order == record_count) {
                orders.swap_remove(at);
            }
        });
    }

    /// Notes the demand of a standing order, if one is due; the caller starts the sync.
    pub(super) fn follow_orders(&self, written: Lsn) {
        if self.standing.is_due(|| self.written_record_count()) {
            self.sync_demand.fetch_max(written.as_u64(), Ordering::AcqRel);
        }
    }
}
