//! The sizes of the logs, small so that each log has several segments.

pub const SEGMENT_BYTES: u64 = 8 << 10;
pub const RING_BYTES: u64 = 2 << 10;
