//! [`Marks`]: how far a copy is.

use highwater::{Lsn, shipping};

/// How far a copy is, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Marks {
    /// The epoch of the newest segment.
    pub epoch: u64,
    /// The operating system has everything below.
    pub written: Lsn,
    /// Everything below survives a loss of power of this node.
    pub synced: Lsn,
    /// The end of the copy. It is above `synced` while bytes are written and not flushed.
    pub end: Lsn,
}

impl Marks {
    /// Returns the rank of the copy for a promotion: the line of its newest epoch, and its durable
    /// end.
    ///
    /// Compare the ranks that [`Replica::promise`](crate::Replica::promise) returned. The copy with
    /// the highest one has each
    /// record that the others have.
    #[must_use]
    pub fn rank(&self) -> (u64, Lsn) {
        (shipping::line_of(self.epoch), self.synced)
    }
}
