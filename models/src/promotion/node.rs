//! A node: its log, its promise, and its role.

use crate::line::{Epoch, Log};

pub(super) const NODES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Follower,
    /// Collects promises for the term that it has promised to itself.
    Candidate {
        /// The nodes that have promised, as bits.
        promised: u8,
        /// The nodes with a higher position when the candidate read it, as bits. Set by a mistake
        /// alone, because the right time is the promise.
        above: u8,
    },
    Leader,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) log: Log,
    pub(super) role: Role,
    /// The highest term that the node has accepted, with its tag. The node refuses lower ones.
    pub(super) promise: Epoch,
    /// A leader's followers: how far each has reported that it is synced.
    pub(super) marks: [usize; NODES],
    /// The base of an epoch whose header a crash would lose. Set by a mistake alone.
    pub(super) unsynced_header: Option<usize>,
    /// The records that the node does not include in its position. Set by a mistake alone.
    pub(super) unclaimed: usize,
}

impl Node {
    pub(super) fn begun(line: Epoch) -> Self {
        Self {
            log: Log::begun(line),
            role: Role::Follower,
            promise: line,
            marks: [0; NODES],
            unsynced_header: None,
            unclaimed: 0,
        }
    }

    /// Returns the term and the tag of the log's newest epoch.
    pub(super) fn line(&self) -> Epoch {
        Epoch { cuts: 0, ..self.log.epoch() }
    }

    /// Returns the line and the end, which decide on the node to promote.
    ///
    /// Without the cuts of the epoch: a node with the header of a recovery's epoch, which may begin
    /// below acknowledged records, is not above a node with these records.
    pub(super) fn position(&self) -> (Epoch, usize) {
        (self.line(), self.log.end().saturating_sub(self.unclaimed))
    }

    /// Promises `line`, and is a follower from here on.
    pub(super) fn follow(&mut self, line: Epoch) {
        if self.promise != line || self.role == Role::Leader {
            self.role = Role::Follower;
            self.marks = [0; NODES];
        }
        self.promise = line;
    }
}
