//! Background upkeep: checkpoints, the removal of old segments, and rewriting old live entries.
//!
//! Upkeep never runs on a caller's task. The log begins at the segment with the older of two
//! positions: the oldest live entry, and the checkpoint that the newest durable header names. So
//! opening always finds that checkpoint and every record after it.
//!
//! A purge is a record, and the record that moves the log's beginning has a higher LSN. So no file
//! is removed before the purge is durable.

mod background;
pub(crate) mod progress;
mod remove_segments;
mod rewrite;
pub(crate) mod schedule;
mod write_checkpoint;
