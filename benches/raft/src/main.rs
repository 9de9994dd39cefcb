//! Measures the throughput and latency of openraft clusters with different log stores.
//!
//! A cluster has three nodes in one process. Its network is a function call and its state machine
//! does almost nothing, so that the log store dominates the result. The three nodes share one disk,
//! unlike nodes on three machines.

mod cluster;
mod groups;
mod load;
mod stores;
mod types;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    cluster::Cluster,
    stores::{highwater::HighwaterMedium, memory::MemoryMedium, raft_log::RaftLogMedium},
};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// The length of a measurement in seconds
    #[arg(long, global = true, default_value_t = 5.0)]
    seconds: f64,
    /// The number of rounds; each round measures all stores in turn
    #[arg(long, global = true, default_value_t = 3)]
    rounds: u32,
    /// The payload bytes of an entry
    #[arg(long, global = true, default_value_t = 100)]
    payload: usize,
    /// The directory for the logs, on the disk to be measured. They are removed at the end
    #[arg(long, global = true, default_value = ".")]
    directory: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure clusters of three nodes, for each store and each number of clients
    Clusters {
        #[arg(long, value_delimiter = ',', default_value = "1,16,256,1024")]
        clients: Vec<usize>,
        #[arg(
            long,
            value_delimiter = ',',
            default_value = "highwater,raft-log,raft-log-no-wait,memory"
        )]
        stores: Vec<StoreName>,
    },
    /// Measure Raft groups that commit one entry after the other, on one log and on one log per
    /// group
    Groups {
        #[arg(long, value_delimiter = ',', default_value = "1,10,1000")]
        groups: Vec<u64>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StoreName {
    Highwater,
    /// With its defaults: before each flush it waits 1 ms for more entries
    RaftLog,
    /// With `flush_batch_wait = 0`
    RaftLogNoWait,
    /// With its defaults, and a flush of its log before each callback
    #[cfg(feature = "rocksdb")]
    RocksDb,
    /// A map in memory, without a log
    Memory,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let duration = Duration::from_secs_f64(arguments.seconds);
    let directory =
        tempfile::Builder::new().prefix("raft-bench-").tempdir_in(&arguments.directory)?;
    match &arguments.command {
        Command::Clusters { clients, stores } => {
            measure_clusters(&arguments, directory.path(), clients, stores, duration).await
        }
        Command::Groups { groups } => {
            measure_groups(&arguments, directory.path(), groups, duration).await
        }
    }
}

fn print_header(subject: &str, count: &str) {
    let (rate, syncs, bytes) = ("ops/s", "syncs/entry", "bytes/entry");
    let (p50, p99) = ("p50 us", "p99 us");
    println!("{subject:<18} {count:>7} {rate:>10} {p50:>9} {p99:>9} {syncs:>12} {bytes:>12}");
}

async fn measure_clusters(
    arguments: &Arguments,
    directory: &Path,
    clients: &[usize],
    stores: &[StoreName],
    duration: Duration,
) -> io::Result<()> {
    print_header("store", "clients");
    for clients in clients {
        for _ in 0..arguments.rounds {
            for store in stores {
                let at = tempfile::tempdir_in(directory)?;
                let cluster = start(*store, at.path()).await?;
                let measured = load::run(&cluster, *clients, arguments.payload, duration).await;
                let name = store.to_possible_value().map(|value| value.get_name().to_owned());
                println!("{:<18} {clients:>7} {measured}", name.unwrap_or_default());
                cluster.stop().await?;
            }
        }
    }
    Ok(())
}

async fn measure_groups(
    arguments: &Arguments,
    directory: &Path,
    groups: &[u64],
    duration: Duration,
) -> io::Result<()> {
    print_header("logs", "groups");
    for count in groups {
        for _ in 0..arguments.rounds {
            for shared in [true, false] {
                let at = tempfile::tempdir_in(directory)?;
                let payload = arguments.payload;
                let measured = groups::run(at.path(), *count, shared, payload, duration).await?;
                let name = if shared { "one log" } else { "a log each" };
                println!("{name:<18} {count:>7} {measured}");
            }
        }
    }
    Ok(())
}

async fn start(store: StoreName, at: &Path) -> io::Result<Cluster> {
    match store {
        StoreName::Highwater => Cluster::start::<HighwaterMedium>(at, ()).await,
        StoreName::RaftLog => Cluster::start::<RaftLogMedium>(at, None).await,
        StoreName::RaftLogNoWait => Cluster::start::<RaftLogMedium>(at, Some(Duration::ZERO)).await,
        #[cfg(feature = "rocksdb")]
        StoreName::RocksDb => Cluster::start::<stores::rocks_db::RocksDbMedium>(at, ()).await,
        StoreName::Memory => Cluster::start::<MemoryMedium>(at, ()).await,
    }
}
