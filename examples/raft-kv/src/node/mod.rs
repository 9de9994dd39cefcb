//! A node: a log and a state machine, connected by openraft, with two TCP listeners.

mod client_server;
mod early_ack;
mod frames;
mod freezer;
mod keys;
mod medium;
mod peer_server;
mod peers;
mod snapshot_file;
mod state_machine;

use std::{error::Error, io, path::PathBuf, sync::Arc, thread, time::Duration};

use openraft::{Config, SnapshotPolicy, async_runtime::WatchReceiver};
use tokio::net::TcpListener;
use tracing::info;

pub(crate) use self::medium::Medium;
use self::{
    client_server::Service,
    early_ack::AcknowledgesEarly,
    freezer::Freezer,
    peers::Peers,
    state_machine::{Raft, StateMachine},
};

/// A mistake on purpose, which the chaos test must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sabotage {
    /// The log acknowledges entries before they are durable
    AckEarly,
    /// A node reads its local state, without checking that it is current
    StaleReads,
    /// A command that a client sends twice is applied twice
    ApplyTwice,
    /// A restarted leader continues as the leader at once, as by openraft's default
    RestoreLeader,
    /// A leader whose disk hangs does not give its leadership away
    KeepLeading,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NodeOptions {
    /// The node's ID in the cluster
    #[arg(long)]
    pub(crate) id: u64,
    /// The directory of the log and the snapshot
    #[arg(long)]
    pub(crate) directory: PathBuf,
    /// The address to listen on for other nodes
    #[arg(long)]
    pub(crate) peers: String,
    /// The address to listen on for clients
    #[arg(long)]
    pub(crate) clients: String,
    /// Connect to a node at another address than in the membership: <id>=<address>
    #[arg(long = "route", value_parser = route)]
    pub(crate) routes: Vec<(u64, String)>,
    /// The heartbeat interval of the leader; an election follows after 4 to 8 missed heartbeats
    #[arg(long, default_value_t = 150)]
    pub(crate) heartbeat_ms: u64,
    /// The number of entries between two snapshots
    #[arg(long, default_value_t = 5_000)]
    pub(crate) snapshot_after: u64,
    /// The number of entries to keep although a snapshot has them, for nodes that lag behind
    #[arg(long, default_value_t = 1_000)]
    pub(crate) keep_entries: u64,
    #[command(flatten)]
    pub(crate) medium: Medium,
    /// Make a mistake on purpose
    #[arg(long)]
    pub(crate) sabotage: Option<Sabotage>,
    /// End when the standard input ends, which happens when the parent process ends
    #[arg(long)]
    pub(crate) end_with_input: bool,
    /// End after this number of seconds in any case
    #[arg(long)]
    pub(crate) lifetime_seconds: Option<u64>,
}

fn route(text: &str) -> Result<(u64, String), String> {
    let (id, address) = text.split_once('=').ok_or("expected <id>=<address>")?;
    Ok((id.parse().map_err(|_| "the ID is not a number")?, address.to_owned()))
}

/// Runs a node until an interrupt, or until openraft stops at the first failure of the disk.
pub(crate) async fn run(options: NodeOptions) -> Result<(), Box<dyn Error>> {
    end_with_parent(&options);
    let peer_listener = listen(&options.peers).await?;
    let client_listener = listen(&options.clients).await?;

    let freezer = Freezer::new();
    let (store, snapshots) = options.medium.open(&options.directory, &freezer).await?;
    let keys = StateMachine::new(snapshots, options.sabotage == Some(Sabotage::ApplyTwice));
    let peers = Peers::new(options.routes.iter().cloned().collect());
    let config = Arc::new(config(&options).validate()?);
    let (id, log, machine) = (options.id, store.clone(), keys.clone());
    let raft = match options.sabotage {
        Some(Sabotage::AckEarly) => {
            let log = AcknowledgesEarly::new(log);
            Raft::new(id, config, peers.clone(), log, machine).await?
        }
        _ => Raft::new(id, config, peers.clone(), log, machine).await?,
    };
    info!(id, peers = options.peers, clients = options.clients, "the node runs");

    let reads_stale = options.sabotage == Some(Sabotage::StaleReads);
    let service = Service { raft: raft.clone(), keys, peers, freezer, reads_stale };
    let steps_down = options.sabotage != Some(Sabotage::KeepLeading);
    let mut metrics = raft.metrics();
    let failed = async {
        loop {
            if let Err(fatal) = &metrics.borrow_watched().running_state {
                return fatal.to_string();
            }
            if metrics.changed().await.is_err() {
                return "openraft has ended".to_owned();
            }
        }
    };
    let failure: Option<String> = tokio::select! {
        ended = peer_server::serve(peer_listener, raft.clone()) => ended.err().map(|e| e.to_string()),
        ended = client_server::serve(client_listener, service) => ended.err().map(|e| e.to_string()),
        reason = failed => Some(reason),
        stopped = store.step_down_while_stalled(&raft), if steps_down => Some(format!("{stopped:#}")),
        stop = tokio::signal::ctrl_c() => stop.err().map(|e| e.to_string()),
    };
    // In this order, because the log calls its last callbacks when it is closed.
    raft.shutdown().await?;
    store.close().await?;
    failure.map_or(Ok(()), |reason| Err(reason.into()))
}

fn config(options: &NodeOptions) -> Config {
    Config {
        cluster_name: "raft-kv".to_owned(),
        heartbeat_interval: options.heartbeat_ms,
        election_timeout_min: 4 * options.heartbeat_ms,
        election_timeout_max: 8 * options.heartbeat_ms,
        install_snapshot_timeout: 3_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.snapshot_after),
        max_in_snapshot_log_to_keep: options.keep_entries,
        // The commit index is not synced by itself, so a restarted node may have an older one than
        // it had when it replied to clients. If it continued as the leader in its old term, reads
        // at its index would be stale. An election prevents that. The chaos test has found this
        // case.
        enable_leader_restore: Some(options.sabotage == Some(Sabotage::RestoreLeader)),
        ..Config::default()
    }
}

/// Binds an address. Retries for 5 s, because the address may belong to a node that was just
/// killed.
async fn listen(address: &str) -> io::Result<TcpListener> {
    let mut attempts = 0;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts < 50 => {
                attempts += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            bound => return bound,
        }
    }
}

/// Ends this process with its parent, even if the parent is killed.
fn end_with_parent(options: &NodeOptions) {
    if options.end_with_input {
        thread::spawn(|| {
            let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            std::process::exit(0);
        });
    }
    if let Some(seconds) = options.lifetime_seconds {
        thread::spawn(move || {
            thread::sleep(Duration::from_secs(seconds));
            std::process::exit(0);
        });
    }
}
