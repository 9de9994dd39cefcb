//! What this application tells openraft of itself: its commands, their answers, its nodes.

use std::fmt;

use openraft::type_config::alias::{
    LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf,
};
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// The types of this application.
    pub(crate) Types: D = Command, R = Answer, NodeId = u64, Node = Addresses
);

pub(crate) type Raft = openraft::Raft<Types, crate::node::state_machine::StateMachine>;
pub(crate) type LogId = LogIdOf<Types>;
pub(crate) type Vote = VoteOf<Types>;
pub(crate) type Membership = StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = SnapshotMetaOf<Types>;
pub(crate) type Snapshot = SnapshotOf<Types, Vec<u8>>;

/// Where a node listens. It is part of the membership, so every node and every client that was sent
/// on by a node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) peers: String,
    pub(crate) clients: String,
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (clients: {})", self.peers, self.clients)
    }
}

/// One entry of the log. A client that has no answer sends it again, as it is: the session and the
/// number in it are how the state machine knows it again, and applies it once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command {
    pub(crate) session: u64,
    /// Counts up within the session.
    pub(crate) number: u64,
    pub(crate) change: Change,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    Put {
        key: String,
        value: String,
    },
    /// `value` if the key's value is `expected` (`None`: if there is none).
    Cas {
        key: String,
        expected: Option<String>,
        value: String,
    },
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Command { session, number, change } = self;
        write!(f, "{change:?}, number {number} of session {session}")
    }
}

/// What applying an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    /// A compare-and-set found another value than the one it expected.
    Mismatch(Option<String>),
    /// A later command of the same session was applied before.
    Stale,
}
