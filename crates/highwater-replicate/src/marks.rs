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
    /// The positions that the copy reports to its leader.
    pub(crate) report: Reported,
}

/// The positions that a leader may count.
///
/// They are below those of the copy while a newer segment of the leader has not yet replaced the
/// end of the copy. They stay empty until the first copy is complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reported {
    pub(crate) written: Lsn,
    pub(crate) synced: Lsn,
    /// Whether the first copy is complete.
    pub(crate) is_whole: bool,
}

impl Marks {
    /// Returns the rank of the copy for a promotion: the line of its newest epoch, and its durable
    /// end.
    ///
    /// Compare the ranks that [`Replica::promise`](crate::Replica::promise) returned. The copy with
    /// the highest one has each record that the others have. Before its first copy is complete, a
    /// copy has the lowest rank: it can't be promoted, and no record was acknowledged because of
    /// it.
    #[must_use]
    pub fn rank(&self) -> (u64, Lsn) {
        match self.report.is_whole {
            true => (shipping::line_of(self.epoch), self.synced),
            false => (0, Lsn::ZERO),
        }
    }
}
