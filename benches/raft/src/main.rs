//! Measures the throughput and latency of openraft clusters with different log stores.
//!
//! A cluster has three nodes in one process. Its network is a function call and its state machine
//! does almost nothing, so that the log store dominates the result. The three nodes share one disk,
//! unlike nodes on three machines. On simulated devices they do not.

mod cluster;
mod device;
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
        /// The flush time of a simulated device in µs. By default it is the median of a loop of
        /// writes and flushes in the directory, without a log
        #[arg(long)]
        flush_us: Option<u64>,
    },
    /// Measure Raft groups that commit one entry after the other, on one log and on one log per
    /// group
    Groups {
        #[arg(long, value_delimiter = ',', default_value = "1,10,1000")]
        groups: Vec<u64>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StoreName {
    Highwater,
    /// On a simulated device for each node: files in memory, and flushes of a fixed time
    HighwaterSimulated,
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
        Command::Clusters { clients, stores, flush_us } => {
            let flush_time = match flush_us {
                _ if !stores.contains(&StoreName::HighwaterSimulated) => Duration::ZERO,
                Some(time) => Duration::from_micros(*time),
                None => device::raw_flush_time(directory.path())?,
            };
            if !flush_time.is_zero() {
                println!("a flush of a simulated device takes {flush_time:?}");
            }
            let load = ClusterLoad { clients, stores, duration, flush_time };
            measure_clusters(&arguments, directory.path(), &load).await
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

struct ClusterLoad<'a> {
    clients: &'a [usize],
    stores: &'a [StoreName],
    duration: Duration,
    /// Of the simulated devices.
    flush_time: Duration,
}

async fn measure_clusters(
    arguments: &Arguments,
    directory: &Path,
    load: &ClusterLoad<'_>,
) -> io::Result<()> {
    print_header("store", "clients");
    for clients in load.clients {
        let mut rates = vec![Vec::new(); load.stores.len()];
        for _ in 0..arguments.rounds {
            for (store, rates) in load.stores.iter().zip(&mut rates) {
                let at = tempfile::tempdir_in(directory)?;
                let cluster = start(*store, at.path(), load.flush_time).await?;
                let measured =
                    load::run(&cluster, *clients, arguments.payload, load.duration).await;
                println!("{:<18} {clients:>7} {measured}", name_of(*store));
                rates.push(measured.per_second());
                cluster.stop().await?;
            }
        }
        print_ratios(load.stores, *clients, &rates);
    }
    Ok(())
}

fn name_of(store: StoreName) -> String {
    store.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Prints each store's rate divided by that of `memory`: the median and the least of
/// the rounds.
fn print_ratios(stores: &[StoreName], clients: usize, rates: &[Vec<f64>]) {
    let memory = stores.iter().position(|store| *store == StoreName::Memory);
    let Some(memory) = memory.and_then(|at| rates.get(at)) else { return };
    for (store, rates) in stores.iter().zip(rates).filter(|(store, _)| **store != StoreName::Memory)
    {
        let mut ratios: Vec<f64> = rates.iter().zip(memory).map(|(rate, of)| rate / of).collect();
        ratios.sort_by(f64::total_cmp);
        if let (Some(median), [first, ..]) = (ratios.get(ratios.len() / 2), ratios.as_slice()) {
            let name = name_of(*store);
            println!("{name:<18} {clients:>7} {median:.2} of memory (at least {first:.2})");
        }
    }
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

async fn start(store: StoreName, at: &Path, flush_time: Duration) -> io::Result<Cluster> {
    match store {
        StoreName::Highwater => Cluster::start::<HighwaterMedium>(at, None).await,
        StoreName::HighwaterSimulated => {
            Cluster::start::<HighwaterMedium>(at, Some(flush_time)).await
        }
        StoreName::RaftLog => Cluster::start::<RaftLogMedium>(at, None).await,
        StoreName::RaftLogNoWait => Cluster::start::<RaftLogMedium>(at, Some(Duration::ZERO)).await,
        #[cfg(feature = "rocksdb")]
        StoreName::RocksDb => Cluster::start::<stores::rocks_db::RocksDbMedium>(at, ()).await,
        StoreName::Memory => Cluster::start::<MemoryMedium>(at, ()).await,
    }
}
