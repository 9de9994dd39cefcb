//! openraft clusters of three nodes in one process: what their log store makes of the clients' writes.
//!
//! The network is a function call and the state machine counts, so that little but the log store is
//! left to measure. The three nodes share one disk: on three, each would have it for itself.

mod cluster;
mod groups;
mod load;
mod stores;

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
    what: What,
    /// Seconds a measurement
    #[arg(long, global = true, default_value_t = 5.0)]
    seconds: f64,
    /// How often all is measured, in turns
    #[arg(long, global = true, default_value_t = 3)]
    rounds: u32,
    /// Bytes of an entry's payload
    #[arg(long, global = true, default_value_t = 100)]
    payload: usize,
    /// Where the logs go: on the disk that is to be measured. A new directory in it is removed at the
    /// end
    #[arg(long, global = true, default_value = ".")]
    directory: PathBuf,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Three nodes, on each store, with each number of clients
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
    /// Groups that commit one entry after the other: on one log, and on a log each
    Groups {
        #[arg(long, value_delimiter = ',', default_value = "1,10,1000")]
        groups: Vec<u64>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StoreName {
    Highwater,
    /// With its default: it waits a millisecond for more before each flush
    RaftLog,
    /// With `flush_batch_wait = 0`
    RaftLogNoWait,
    /// With its defaults, and a flush of its log before each callback
    #[cfg(feature = "rocksdb")]
    RocksDb,
    /// No log at all: a map
    Memory,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let duration = Duration::from_secs_f64(arguments.seconds);
    let directory =
        tempfile::Builder::new().prefix("raft-bench-").tempdir_in(&arguments.directory)?;
    match &arguments.what {
        What::Clusters { clients, stores } => {
            measure_clusters(&arguments, directory.path(), clients, stores, duration).await
        }
        What::Groups { groups } => {
            measure_groups(&arguments, directory.path(), groups, duration).await
        }
    }
}

fn print_header(what: &str, count: &str) {
    let (rate, syncs, bytes) = ("ops/s", "syncs/entry", "bytes/entry");
    let (p50, p99) = ("p50 us", "p99 us");
    println!("{what:<18} {count:>7} {rate:>10} {p50:>9} {p99:>9} {syncs:>12} {bytes:>12}");
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
