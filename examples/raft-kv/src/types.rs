//! The types that this application gives to openraft: its commands, their outcomes and its nodes.

use std::fmt;

use openraft::type_config::alias::{
    LogIdOf, SnapshotMetaOf, SnapshotOf, StoredMembershipOf, VoteOf,
};
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// The types of this application.
    pub(crate) Types: D = Command, R = CommandOutcome, NodeId = u64, Node = Addresses
);

pub(crate) type LogId = LogIdOf<Types>;
pub(crate) type Vote = VoteOf<Types>;
pub(crate) type Membership = StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = SnapshotMetaOf<Types>;
pub(crate) type Snapshot = SnapshotOf<Types, Vec<u8>>;

/// The addresses of a node. They are part of the membership, so every node knows them and can name
/// the leader to a client.
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

/// A command, the payload of a log entry.
///
/// A client without a reply sends the same command again. The state machine recognizes it by its
/// session and number, and applies it once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command {
    pub(crate) session: u64,
    /// Increases within the session.
    pub(crate) number: u64,
    pub(crate) change: Change,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    Put {
        key: String,
        value: String,
    },
    /// Sets `value` if the key's value is `expected`; `None` means that the key has no value.
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

/// The outcome of applying a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CommandOutcome {
    Done,
    /// A compare-and-set found this value instead of the expected one.
    Mismatch(Option<String>),
    /// A later command of the same session has already been applied.
    Stale,
}
