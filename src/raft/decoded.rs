//! Decoded values that the cache holds in place of the bytes of entries.
//!
//! A value is never stale, for these reasons:
//!
//! - A value is cached under the LSN of the record that holds its entries.
//! - A read looks up, under the group's lock, the LSNs of the entries that the group holds now.
//! - No LSN is ever used twice. Entries that were truncated, overwritten, purged or removed are no
//!   longer looked up, and an append that was refused or dropped has no LSN.
//!
//! Entries that were copied to the end of the log, or are no longer cached, are read from the
//! files.

use std::{any::Any, ops::Range, sync::Arc};

/// A decoded value of the caller.
pub(super) type DecodedValue = Arc<dyn Any + Send + Sync>;

/// The result of [`RaftGroup::decoded`](crate::raft::RaftGroup::decoded).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DecodedEntries {
    /// The part of the requested range that the group held.
    pub indexes: Range<u64>,
    /// The cached values, from `indexes.start` on, without a gap. They end at the first record
    /// that has no decoded value in the cache.
    pub parts: Vec<DecodedPart>,
}

/// The cached value of entries that were appended in one call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DecodedPart {
    /// The indexes for which the value is valid. The value may contain other entries of the same
    /// append. Ignore those, because the group may no longer hold them.
    pub indexes: Range<u64>,
    /// The value that [`Entries::cache_decoded`](crate::raft::Entries::cache_decoded) was given.
    pub value: Arc<dyn Any + Send + Sync>,
}
