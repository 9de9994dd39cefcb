//! One node: a log, a state machine, openraft between them, and two listeners.

mod client_server;
mod doctored;
mod frames;
mod keys;
mod medium;
mod peer_server;
mod peers;
mod snapshot_file;
pub(crate) mod state_machine;

use std::{error::Error, io, path::PathBuf, sync::Arc, thread, time::Duration};

use openraft::{Config, SnapshotPolicy, async_runtime::WatchReceiver};
use tokio::net::TcpListener;
use tracing::info;

pub(crate) use self::medium::Medium;
use self::{
    client_server::Service, doctored::AcknowledgesEarly, peers::Peers, state_machine::StateMachine,
};
use crate::types::Raft;

/// Mistakes on purpose, which the chaos test must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sabotage {
    /// The log says that entries are durable before they are
    AckEarly,
    /// A node answers reads from what it has, without asking whether that is all
    StaleReads,
    /// A command that a client sends twice is applied twice
    ApplyTwice,
    /// A leader that starts again leads on at once, as it does by openraft's default
    RestoreLeader,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NodeOptions {
    #[arg(long)]
    pub(crate) id: u64,
    /// Where the log and the snapshot are kept
    #[arg(long)]
    pub(crate) directory: PathBuf,
    /// The address to listen at for other nodes
    #[arg(long)]
    pub(crate) peers: String,
    /// The address to listen at for clients
    #[arg(long)]
    pub(crate) clients: String,
    /// Reach a node at another address than the membership has: <id>=<address>
    #[arg(long = "route", value_parser = route)]
    pub(crate) routes: Vec<(u64, String)>,
    /// How often the leader is heard of; it is replaced after four to eight times that
    #[arg(long, default_value_t = 150)]
    pub(crate) heartbeat_ms: u64,
    /// Make a snapshot after so many entries
    #[arg(long, default_value_t = 5_000)]
    pub(crate) snapshot_after: u64,
    /// Keep so many entries that are in a snapshot, for nodes that lag
    #[arg(long, default_value_t = 1_000)]
    pub(crate) keep_entries: u64,
    #[command(flatten)]
    pub(crate) medium: Medium,
    #[arg(long)]
    pub(crate) sabotage: Option<Sabotage>,
    /// End when the standard input does, as it does when the process that started this one ends
    #[arg(long)]
    pub(crate) end_with_input: bool,
    /// End after so many seconds in any case
    #[arg(long)]
    pub(crate) lifetime_seconds: Option<u64>,
}

fn route(text: &str) -> Result<(u64, String), String> {
    let (id, address) = text.split_once('=').ok_or("it is not <id>=<address>")?;
    Ok((id.parse().map_err(|_| "the id is not a number")?, address.to_owned()))
}

/// Runs a node until it is told to stop: by an interrupt, or by openraft, which stops at the first
/// failure of a disk.
pub(crate) async fn run(options: NodeOptions) -> Result<(), Box<dyn Error>> {
    end_with_parent(&options);
    let peer_listener = listen(&options.peers).await?;
    let client_listener = listen(&options.clients).await?;

    let (store, snapshots) = options.medium.open(&options.directory).await?;
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
    let service = Service { raft: raft.clone(), keys, peers, reads_stale };
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
        why = failed => Some(why),
        stop = tokio::signal::ctrl_c() => stop.err().map(|e| e.to_string()),
    };
    // In this order: the log calls its last callbacks when it is closed.
    raft.shutdown().await?;
    store.close().await?;
    failure.map_or(Ok(()), |why| Err(why.into()))
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
        // What is committed is not synced by itself: a node that starts again may know less of it than
        // was answered to clients. If it led on in its old term, without an election, nothing would
        // tell it, and reads at its index would be stale. The chaos test has shown that.
        enable_leader_restore: Some(options.sabotage == Some(Sabotage::RestoreLeader)),
        ..Config::default()
    }
}

/// The node that had the address before may have been killed a moment ago.
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

/// No node outlives the demonstration or the test that started it, however that ended.
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
