//! The intake: the ring, its permits, and the unit that is too large for it.

use std::sync::Arc;

use crate::pipeline::state::{permits::Permits, ring::Ring, unit::OversizedSlot};

/// The memory that takes the frames of appends.
#[derive(Debug)]
pub(in crate::pipeline) struct Intake {
    pub(in crate::pipeline) ring: Arc<Ring>,
    pub(in crate::pipeline) permits: Permits,
    pub(in crate::pipeline) oversized: OversizedSlot,
}

impl Intake {
    pub(super) fn new(ring: Arc<Ring>, ring_bytes: u64) -> Self {
        Intake { ring, permits: Permits::new(ring_bytes), oversized: OversizedSlot::new() }
    }
}
