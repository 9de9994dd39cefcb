//! Standing orders: a sync after each `n` records. Checked after a write, never by an append.

use crate::sync::{AtomicU64, LockAlways, Mutex, Ordering};

#[derive(Debug)]
pub(crate) struct SyncOrders {
    /// The interval of each order, in records.
    orders: Mutex<Vec<u64>>,
    /// The shortest interval; `u64::MAX` if there is no order.
    strictest: AtomicU64,
    /// The number of records for which a sync was requested, by an order or a caller.
    requested_count: AtomicU64,
}

impl SyncOrders {
    pub(crate) fn new() -> Self {
        SyncOrders {
            orders: Mutex::default(),
            strictest: AtomicU64::new(u64::MAX),
            requested_count: AtomicU64::new(0),
        }
    }

    pub(crate) fn add(&self, record_count: u64) {
        self.change(|orders| orders.push(record_count));
    }

    pub(crate) fn remove(&self, record_count: u64) {
        self.change(|orders| {
            if let Some(at) = orders.iter().position(|order| *order == record_count) {
                orders.swap_remove(at);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Vec<u64>)) {
        let mut orders = self.orders.lock_always();
        change(&mut orders);
        let strictest = orders.iter().copied().min().unwrap_or(u64::MAX);
        self.strictest.store(strictest, Ordering::Relaxed);
    }

    /// Notes that a sync of the first `record_count` records was requested.
    pub(crate) fn note_requested(&self, record_count: u64) {
        self.requested_count.fetch_max(record_count, Ordering::Relaxed);
    }

    /// Returns whether an order is due. True once for each time. `written_record_count` is called
    /// only if there is an order.
    pub(crate) fn is_due(&self, written_record_count: impl FnOnce() -> u64) -> bool {
        let strictest = self.strictest.load(Ordering::Relaxed);
        if strictest == u64::MAX {
            return false;
        }
        let record_count = written_record_count();
        let requested = self.requested_count.load(Ordering::Relaxed);
        let is_due = record_count.saturating_sub(requested) >= strictest;
        if is_due {
            self.note_requested(record_count);
        }
        is_due
    }
}
