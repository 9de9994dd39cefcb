//! Streams the records of segments: reads chunks ahead and slices payloads out of them.

mod after_seen;
mod ahead;
mod live;
#[cfg(feature = "raft")]
mod many;
mod records;
mod source;
mod stream;

pub(crate) use after_seen::{AfterSeen, has_seen_all, no_record_between, position_after_seen};
pub(crate) use live::{
    LiveSource, end_of_unit, explain_named, is_boundary, read_record, start_of_unit,
};
#[cfg(feature = "raft")]
pub(crate) use many::read_records;
pub(crate) use records::Records;
pub(crate) use source::{ChunkSource, damage};
pub use stream::Replay;
pub(crate) use stream::below;
