//! One entry of a group.

use bytes::Bytes;

/// An entry of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its index in the group.
    pub index: u64,
    /// Its term; 0 if the caller does not use terms.
    pub term: u64,
    /// Its bytes. They share a buffer with neighbouring entries: copy them to keep them for long.
    pub payload: Bytes,
}
