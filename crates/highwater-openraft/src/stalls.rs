//! A leader whose disk hangs gives its leadership away.

use std::time::Duration;

use highwater::{Error, Health, HealthWatch};
use openraft::{
    Raft, RaftTypeConfig, ServerState, async_runtime::WatchReceiver, storage::RaftStateMachine,
    type_config::TypeConfigExt,
};

use crate::{codec::Codec, store::LogStore};

impl<C: RaftTypeConfig, K: Codec<C>> LogStore<C, K> {
    /// Returns the health of the store's log.
    ///
    /// Use it to stop a node whose log has failed, or to report a disk that hangs.
    #[must_use]
    pub fn health(&self) -> HealthWatch {
        self.group().log().wal().health()
    }

    /// Gives the leadership of `raft` away whenever the disk of this store hangs.
    ///
    /// Spawn it beside the node. Without it, a leader whose disk hangs remains the leader until
    /// its memory is full, because its heartbeats need no disk. With it:
    ///
    /// - The leader sends no heartbeats during a stall, so its followers elect another leader
    ///   after their timeout.
    /// - It also transfers the leadership to the voter that has most of the log, and to the next
    ///   one if that does not succeed. That needs [`transfer_leader`] of the network.
    /// - When the disk is back, the node continues as a follower, without a restart. Callbacks of
    ///   entries are called late, and never with a success before the flush.
    ///
    /// The log's [`stall_after`](highwater::Options::stall_after) decides when a stall begins.
    /// Keep [`OnStall::Report`](highwater::OnStall::Report), the default. With another policy
    /// openraft gets an error for its entries, and stops the node until it is created again.
    ///
    /// Resolves with the reason when the log has stopped.
    ///
    /// [`transfer_leader`]: openraft::network::RaftNetworkV2::transfer_leader
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe. If the future is dropped during a stall, heartbeats are enabled again.
    pub async fn step_down_while_stalled<SM>(&self, raft: &Raft<C, SM>) -> Error
    where
        SM: RaftStateMachine<C>,
    {
        let mut health = self.health();
        loop {
            if let Err(stopped) = health.wait_for(Health::is_stalled).await {
                return stopped;
            }
            let _silent = Silent::begin(raft);
            let pause = Duration::from_millis(raft.config().election_timeout_max);
            for attempt in 0.. {
                if !health.get().is_stalled() {
                    break;
                }
                if let Some(next) = next_leader(raft, attempt) {
                    // If openraft has stopped, there is no leadership.
                    let _ = raft.trigger().transfer_leader(next).await;
                }
                C::sleep(pause).await;
            }
        }
    }
}

/// Suppresses the heartbeats of a node until it is dropped.
struct Silent<'a, C: RaftTypeConfig, SM: RaftStateMachine<C>>(&'a Raft<C, SM>);

impl<'a, C: RaftTypeConfig, SM: RaftStateMachine<C>> Silent<'a, C, SM> {
    fn begin(raft: &'a Raft<C, SM>) -> Self {
        raft.runtime_config().heartbeat(false);
        Silent(raft)
    }
}

impl<C: RaftTypeConfig, SM: RaftStateMachine<C>> Drop for Silent<'_, C, SM> {
    fn drop(&mut self) {
        self.0.runtime_config().heartbeat(self.0.config().enable_heartbeat);
    }
}

/// Returns the voter to transfer the leadership to: first the one with most of the log. `None` if
/// this node is not the leader, or the only voter.
fn next_leader<C, SM>(raft: &Raft<C, SM>, attempt: usize) -> Option<C::NodeId>
where
    C: RaftTypeConfig,
    SM: RaftStateMachine<C>,
{
    let metrics = raft.metrics().borrow_watched().clone();
    if metrics.state != ServerState::Leader {
        return None;
    }
    let replication = metrics.replication?;
    let voters = metrics.membership_config.membership().voter_ids();
    let others = voters.filter(|id| *id != metrics.id);
    let mut others: Vec<_> = others
        .map(|id| (replication.get(&id).cloned().flatten().map(|log| log.index), id))
        .collect();
    others.sort_by_key(|other| std::cmp::Reverse(other.0));
    let place = attempt.checked_rem(others.len())?;
    others.into_iter().nth(place).map(|(_, id)| id)
}
