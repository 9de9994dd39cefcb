//! The metrics of a log, through the facade of the crate `metrics`.
//!
//! `on` and `off` have the same interface. Without the feature `metrics`, the types of `off` are
//! empty and its functions do nothing, so the log has no code and no data for metrics. This file
//! is the only place that chooses between them.
//!
//! A recorder is code of the user. So no function here may be called with a lock of the log held.
//! [`PayloadBytes`] is the exception: it only counts.

#[cfg(not(feature = "metrics"))]
mod off;
#[cfg(feature = "metrics")]
mod on;

#[cfg(not(feature = "metrics"))]
pub(crate) use off::{Instruments, LogName, PayloadBytes, PayloadTotal};
#[cfg(feature = "metrics")]
pub(crate) use on::{Instruments, LogName, PayloadBytes, PayloadTotal};

use std::sync::Arc;

use crate::{health::Health, watermarks::Watermarks};

/// The values that change with each flush.
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "no metric reads them"))]
pub(crate) struct Flow {
    pub(crate) marks: Watermarks,
    pub(crate) record_count: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) written_bytes: u64,
    pub(crate) write_count: u64,
    pub(crate) flush_count: u64,
    pub(crate) ring_used_bytes: u64,
}

/// The values of one slot.
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "no metric reads them"))]
pub(crate) struct SlotValues {
    pub(crate) name: Arc<str>,
    pub(crate) lag_bytes: u64,
    pub(crate) held_bytes: u64,
}

/// The values that change with a segment, a lease or the health.
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "no metric reads them"))]
pub(crate) struct Holdings {
    pub(crate) rotation_count: u64,
    pub(crate) removed_count: u64,
    pub(crate) recycled_count: u64,
    pub(crate) stall_count: u64,
    pub(crate) refusal_count: u64,
    pub(crate) segment_count: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) ring_bytes: u64,
    pub(crate) lease_count: u64,
    pub(crate) leased_bytes: u64,
    pub(crate) health: Health,
}
