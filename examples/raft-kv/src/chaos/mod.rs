//! The chaos test: three nodes, many clients and faults, and a check of the history.

mod checker;
mod history;
mod nemesis;
mod proxy;
mod verdict;
mod workload;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use self::{
    history::{Operation, Outcome},
    nemesis::{Fault, Nemesis},
    proxy::Link,
    verdict::Verdict,
    workload::Recorder,
};
use crate::{
    client::Client,
    cluster::{NodeProcess, field, free_nodes, wait_for},
    node::Sabotage,
    protocol::Request,
    random::Random,
    types::Addresses,
};

const NODE_COUNT: usize = 3;
/// The least number of faults. With fewer faults the test has no verdict.
const FAULTS_MIN: u32 = 3;
/// The least number of acknowledged writes for each second of `--seconds`. With fewer writes the
/// test has no verdict.
const WRITES_MIN_PER_SECOND: u64 = 10;
/// The additional time in which a slow machine can reach these numbers.
const TIMEOUT: Duration = Duration::from_secs(90);
/// The time for the start, the recovery and the final reads; more than a slow machine needs.
const MARGIN: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ChaosOptions {
    /// How long to inject faults, in seconds
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// The seed of the faults and of the clients' operations
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of clients
    #[arg(long, default_value_t = 12)]
    clients: u64,
    /// The number of keys that all clients use
    #[arg(long, default_value_t = 6)]
    keys: u64,
    /// Make each kill act like a power loss: the node loses its unsynced data
    #[arg(long)]
    power_cuts: bool,
    /// Use segments of the default size instead of 8 KiB
    #[arg(long)]
    large_segments: bool,
    /// The faults to inject; all by default
    #[arg(long, value_delimiter = ',')]
    nemesis: Vec<Fault>,
    /// A mistake on purpose, which the test must find
    #[arg(long)]
    sabotage: Option<Sabotage>,
    /// The directory for the nodes' data, their logs and the history. The default is a new
    /// directory, which is removed if the test finds nothing
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// Runs the test and returns the exit code: 0 if it passed, 1 if a guarantee is broken, and 2 if
/// the test did not end or too little was acknowledged for a verdict.
pub(crate) async fn run(options: ChaosOptions) -> io::Result<u8> {
    let name = format!("raft-kv-chaos-{}-{}", options.seed, std::process::id());
    let directory = options.directory.clone().unwrap_or_else(|| std::env::temp_dir().join(name));
    if directory.exists() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("the directory {directory:?} already exists"),
        ));
    }
    println!("chaos: seed {}, {} s, in {}", options.seed, options.seconds, directory.display());

    let recorder = Recorder::new();
    let mut counts = BTreeMap::new();
    let limit = Duration::from_secs(options.seconds) + TIMEOUT + MARGIN;
    // The nodes end in any case, because the future that owns them is dropped.
    let result = tokio::select! {
        result = timeout(limit, trial(&options, &directory, &recorder, &mut counts)) => result,
        stop = tokio::signal::ctrl_c() => return stop.map(|()| 2),
    };
    let failures = match result {
        Ok(Ok(failures)) => failures,
        Ok(Err(error)) => vec![error.to_string()],
        Err(_) => vec!["the test did not end in time".to_owned()],
    };

    let mut history = recorder.history();
    history.sort_by_key(|operation| operation.begin);
    let mut verdict = Verdict::of(&history);
    verdict.failures.extend(failures);
    verdict.require_activity(
        &history,
        counts.values().sum(),
        options.seconds * WRITES_MIN_PER_SECOND,
        FAULTS_MIN,
    );
    let summary = summary(&history, &counts);
    println!("{summary}\n{verdict}");
    if verdict.exit_code() > 0 || options.directory.is_some() {
        fs::create_dir_all(&directory)?;
        write_history(&directory.join("history.txt"), &history)?;
        fs::write(directory.join("summary.txt"), format!("{summary}\n{verdict}\n"))?;
        println!("the history, the logs and the data are in {}", directory.display());
    } else {
        fs::remove_dir_all(&directory)?;
    }
    Ok(verdict.exit_code())
}

/// Runs the cluster, the clients and the faults, and then reads all keys. Returns the failed reads.
async fn trial(
    options: &ChaosOptions,
    directory: &Path,
    recorder: &Recorder,
    counts: &mut BTreeMap<Fault, u32>,
) -> io::Result<Vec<String>> {
    let mut nemesis = start_cluster(options, directory, recorder).await?;
    let addresses = nemesis.addresses();
    let keys = workload::keys(options.keys);

    let (stop, stopped) = watch::channel(false);
    let clients: Vec<_> = (0..options.clients)
        .map(|id| {
            let (nodes, keys, recorder) = (addresses.clone(), keys.clone(), recorder.clone());
            tokio::spawn(workload::run_client(
                id,
                nodes,
                keys,
                recorder,
                options.seed,
                stopped.clone(),
            ))
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(options.seconds);
    let faults = if options.nemesis.is_empty() { &Fault::ALL[..] } else { &options.nemesis };
    let injected = nemesis.inject_faults(faults, FAULTS_MIN, deadline, deadline + TIMEOUT).await;
    // Continues after the last fault, so that a slow cluster can reach the minimum of writes.
    let minimum = options.seconds * WRITES_MIN_PER_SECOND;
    let mut progress = recorder.acknowledged();
    let enough = progress.wait_for(|count| *count >= minimum);
    if injected.is_ok() {
        let _ = tokio::time::timeout_at(deadline + TIMEOUT, enough).await;
    }
    *counts = nemesis.counts.clone();
    stop.send_replace(true);
    for client in clients {
        client.await?;
    }
    injected?;
    if !nemesis.longest_change.is_zero() {
        println!("  another leader within {:.1?} of a frozen disk", nemesis.longest_change);
    }

    nemesis.repair()?;
    nemesis.restore_membership(Duration::from_secs(40)).await?;
    let voters: Vec<String> = nemesis.nodes.iter().map(|node| node.id.to_string()).collect();
    let settled = |status: &str| {
        field(status, "voters") == voters.join(",") && field(status, "leader") != "-"
    };
    let time_limit = Duration::from_secs(40);
    for status in wait_for(&addresses, NODE_COUNT, time_limit, settled).await? {
        println!("  {status}");
    }
    let own_keys = (0..options.clients).map(workload::own_key);
    let all_keys: Vec<String> = keys.into_iter().chain(own_keys).collect();
    let failures = workload::read_everything(&addresses, &all_keys, recorder).await;
    nemesis.check_alive()?;
    Ok(failures)
}

/// Starts three nodes and waits until they have a leader.
async fn start_cluster(
    options: &ChaosOptions,
    directory: &Path,
    recorder: &Recorder,
) -> io::Result<Nemesis> {
    let addresses: Vec<(u64, Addresses)> = (1..).zip(free_nodes(NODE_COUNT)?).collect();
    let mut links = Vec::new();
    for (from, _) in &addresses {
        for (to, node) in addresses.iter().filter(|(to, _)| to != from) {
            links.push(Link::open(*from, *to, node.peers.clone()).await?);
        }
    }
    let node = |(id, node): &(u64, Addresses)| {
        let routes = links.iter().filter(|link| link.from == *id);
        let routes = routes.map(|link| format!("--route={}={}", link.to, link.address));
        // Few entries are kept, so that nodes that lag behind need a snapshot.
        let mut arguments: Vec<OsString> = routes.map(OsString::from).collect();
        arguments.extend(
            ["--heartbeat-ms=80", "--snapshot-after=300", "--keep-entries=60"].map(OsString::from),
        );
        let lifetime = options.seconds + TIMEOUT.as_secs() + 2 * MARGIN.as_secs();
        arguments.push(format!("--lifetime-seconds={lifetime}").into());
        if !options.large_segments {
            arguments.push("--tiny-segments".into());
        }
        if let Some(sabotage) = options.sabotage.and_then(|mistake| mistake.to_possible_value()) {
            arguments.push(format!("--sabotage={}", sabotage.get_name()).into());
        }
        NodeProcess::new(*id, node.clone(), directory, arguments)
    };
    let nodes = addresses.iter().map(node).collect();
    let (random, power_cuts) = (Random::new(options.seed), options.power_cuts);
    let (counts, progress) = (BTreeMap::new(), recorder.acknowledged());
    let longest_change = Duration::ZERO;
    let mut nemesis =
        Nemesis { nodes, links, random, power_cuts, counts, longest_change, progress };
    nemesis.repair()?;
    let mut client = Client::new(nemesis.addresses(), 0);
    client.send(&Request::Initialize(addresses), Duration::from_secs(30)).await?;
    let leads = |status: &str| field(status, "state") == "Leader";
    wait_for(&nemesis.addresses(), 1, Duration::from_secs(30), leads).await?;
    Ok(nemesis)
}

fn summary(history: &[Operation], faults: &BTreeMap<Fault, u32>) -> String {
    let count = |matches: fn(&Operation) -> bool| history.iter().filter(|o| matches(o)).count();
    let faults: Vec<String> =
        faults.iter().map(|(fault, count)| format!("{fault:?} {count}")).collect();
    format!(
        "{} operations: {} reads, {} acknowledged writes, {} mismatches, {} unknown; faults: {}",
        history.len(),
        count(|operation| matches!(operation.outcome, Outcome::Read(_))),
        count(Operation::is_acknowledged_write),
        count(|operation| matches!(operation.outcome, Outcome::Mismatch(_))),
        count(|operation| operation.outcome == Outcome::Unknown),
        faults.join(", "),
    )
}

fn write_history(path: &Path, history: &[Operation]) -> io::Result<()> {
    let mut file = io::BufWriter::new(fs::File::create(path)?);
    history.iter().try_for_each(|operation| writeln!(file, "{operation}"))?;
    file.flush()
}
