//! The rules of fencing and of epochs, each with the mistakes that leave it out.

use super::node::NODES;
use crate::{check::bound, line::Epoch};

/// A mistake that must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mistake {
    None,
    /// A follower takes records from a leader of a lower term.
    AcceptLowerTerm,
    /// A promise is lost in a crash.
    PromiseUnsynced,
    /// The header of the new term's epoch is lost in a crash.
    HeaderUnsynced,
    /// Two promotions to one term have the same epoch.
    NoTag,
    /// A recovery raises the same number as a promotion, and the epochs have tags.
    RecoveryRaisesTerm,
    /// Recoveries and promotions take the highest epoch plus one, without tags.
    PlainNumbers,
    /// A promotion needs one promise less.
    TooFewPromises,
    /// The end alone decides which node has the highest position.
    HighestByEnd,
    /// A node compares terms alone, so it follows both leaders of one term.
    IgnoreTag,
    /// A leader counts followers that do not have its epoch yet.
    CountOlderLines,
    /// The epoch of the last record, and not the line, decides which position is the highest.
    HighestByRecord,
    /// A node that has restarted returns its last claim as its position. Its last record is not
    /// claimed.
    ClaimedPosition,
    /// A candidate reads the positions of the others before they promise.
    ReadFirst,
    /// A follower cuts its log before it has the records of the new epoch.
    CutFirst,
    /// A copy of a log is opened for appends in the epoch of the original.
    CopyInPlace,
}

#[derive(Clone, Debug)]
pub(super) struct Promotion {
    pub(super) mistake: Mistake,
    /// Of two lines of one term, a node stays with the first that it has promised. By default it
    /// follows the one with the higher tag.
    pub(super) is_first_come: bool,
    /// The number of followers that must have a record before it is acknowledged.
    pub(super) k: usize,
    /// Whether a leader or a candidate may stand again, for a higher term.
    pub(super) stands_again: bool,
    pub(super) lsns: usize,
    pub(super) ids: u8,
    pub(super) term_max: u8,
    pub(super) crashes: u8,
}

impl Promotion {
    pub(super) fn new(k: usize, mistake: Mistake) -> Self {
        let (is_first_come, stands_again) = (false, false);
        let (crashes, term_max) = (bound(1, 2), if k == 1 { 3 } else { bound(2, 3) });
        Self { mistake, is_first_come, k, stands_again, lsns: 2, ids: 3, term_max, crashes }
    }

    /// Returns whether a node that made `promise` follows a leader of `line`.
    pub(super) fn accepts(&self, promise: Epoch, line: Epoch) -> bool {
        match self.mistake {
            Mistake::AcceptLowerTerm => true,
            Mistake::IgnoreTag => line.term >= promise.term,
            _ if self.is_first_come => line.term > promise.term || line == promise,
            _ => line >= promise,
        }
    }

    /// Returns the number of nodes that must promise. Each set of `k + 1` nodes has one of them.
    pub(super) fn quorum(&self) -> usize {
        let quorum = NODES - self.k;
        if self.mistake == Mistake::TooFewPromises { quorum - 1 } else { quorum }
    }

    pub(super) fn tag(&self, node: usize) -> u8 {
        let is_untagged = matches!(self.mistake, Mistake::NoTag | Mistake::PlainNumbers);
        if is_untagged { 0 } else { u8::try_from(node).unwrap_or(u8::MAX) + 1 }
    }

    /// Returns the epoch that a recovery of `node` begins.
    pub(super) fn recovered(&self, epoch: Epoch, node: usize) -> Epoch {
        match self.mistake {
            Mistake::RecoveryRaisesTerm | Mistake::PlainNumbers => {
                Epoch { term: epoch.term + 1, tag: self.tag(node), cuts: 0 }
            }
            _ => Epoch { cuts: epoch.cuts + 1, ..epoch },
        }
    }
}
