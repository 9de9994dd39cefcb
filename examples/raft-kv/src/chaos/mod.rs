//! Three nodes, many clients, everything that goes wrong, and the judgement of what they were told.

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
    protocol::Ask,
    random::Random,
    types::Addresses,
};

const NODE_COUNT: usize = 3;
/// For starting, for coming to rest, and for the last reads: more than a slow machine takes.
const MARGIN: Duration = Duration::from_secs(120);

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ChaosOptions {
    /// How long things go wrong
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// What goes wrong when, and what the clients do
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 12)]
    clients: u64,
    #[arg(long, default_value_t = 6)]
    keys: u64,
    /// A kill is a loss of power: what the node hadn't synced is gone
    #[arg(long)]
    power_cuts: bool,
    /// Segments of the default size, not of 8 KiB
    #[arg(long)]
    large_segments: bool,
    /// What may go wrong; everything by default
    #[arg(long, value_delimiter = ',')]
    nemesis: Vec<Fault>,
    /// A mistake on purpose, which is to be found
    #[arg(long)]
    sabotage: Option<Sabotage>,
    /// Where the nodes' data, their logs and the history go; a new directory by default, which is
    /// removed if nothing was found
    #[arg(long)]
    directory: Option<PathBuf>,
}

/// Returns what the process is to end with: 0, 1 for a broken guarantee, 2 if it didn't come to its
/// end.
pub(crate) async fn run(options: ChaosOptions) -> io::Result<u8> {
    let name = format!("raft-kv-chaos-{}-{}", options.seed, std::process::id());
    let directory = options.directory.clone().unwrap_or_else(|| std::env::temp_dir().join(name));
    if directory.exists() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{directory:?} exists")));
    }
    println!("chaos: seed {}, {} s, in {}", options.seed, options.seconds, directory.display());

    let recorder = Recorder::new();
    let mut counts = BTreeMap::new();
    let limit = Duration::from_secs(options.seconds) + MARGIN;
    // Whatever ends it, the nodes end with it: they are dropped.
    let trial = tokio::select! {
        trial = timeout(limit, trial(&options, &directory, &recorder, &mut counts)) => trial,
        stop = tokio::signal::ctrl_c() => return stop.map(|()| 2),
    };
    let failures = match trial {
        Ok(Ok(failures)) => failures,
        Ok(Err(error)) => vec![error.to_string()],
        Err(_) => vec!["it didn't come to its end in time".to_owned()],
    };

    let mut history = recorder.history();
    history.sort_by_key(|operation| operation.begin);
    let mut verdict = Verdict::of(&history);
    verdict.failures.extend(failures);
    let summary = summary(&history, &counts);
    println!("{summary}\n{verdict}");
    if verdict.exit_code() > 0 || options.directory.is_some() {
        fs::create_dir_all(&directory)?;
        write_history(&directory.join("history.txt"), &history)?;
        fs::write(directory.join("summary.txt"), format!("{summary}\n{verdict}\n"))?;
        println!("history, logs and data: {}", directory.display());
    } else {
        fs::remove_dir_all(&directory)?;
    }
    Ok(verdict.exit_code())
}

/// Until everything was read at the end; says what couldn't be.
async fn trial(
    options: &ChaosOptions,
    directory: &Path,
    recorder: &Recorder,
    counts: &mut BTreeMap<Fault, u32>,
) -> io::Result<Vec<String>> {
    let mut nemesis = begin(options, directory).await?;
    let addresses = nemesis.addresses();
    let keys = workload::keys(options.keys);

    let (stop, stopped) = watch::channel(false);
    let clients: Vec<_> = (0..options.clients)
        .map(|id| {
            let (nodes, keys, recorder) = (addresses.clone(), keys.clone(), recorder.clone());
            tokio::spawn(workload::work(id, nodes, keys, recorder, options.seed, stopped.clone()))
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(options.seconds);
    let faults = if options.nemesis.is_empty() { &Fault::ALL[..] } else { &options.nemesis };
    let raged = nemesis.rage(faults, deadline).await;
    *counts = nemesis.counts.clone();
    stop.send_replace(true);
    for client in clients {
        client.await?;
    }
    raged?;

    nemesis.put_right()?;
    nemesis.full_membership(Duration::from_secs(40)).await?;
    let voters: Vec<String> = nemesis.nodes.iter().map(|node| node.id.to_string()).collect();
    let settled = |status: &str| {
        field(status, "voters") == voters.join(",") && field(status, "leader") != "-"
    };
    let patience = Duration::from_secs(40);
    for status in wait_for(&addresses, NODE_COUNT, patience, settled).await? {
        println!("  {status}");
    }
    let own_keys = (0..options.clients).map(workload::own_key);
    let all_keys: Vec<String> = keys.into_iter().chain(own_keys).collect();
    let failures = workload::read_everything(&addresses, &all_keys, recorder).await;
    nemesis.check_alive()?;
    Ok(failures)
}

/// Three nodes that have a leader.
async fn begin(options: &ChaosOptions, directory: &Path) -> io::Result<Nemesis> {
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
        // Few entries are kept, so that nodes that lag get a snapshot.
        let mut arguments: Vec<OsString> = routes.map(OsString::from).collect();
        arguments.extend(
            ["--heartbeat-ms=80", "--snapshot-after=300", "--keep-entries=60"].map(OsString::from),
        );
        let lifetime = options.seconds + 2 * MARGIN.as_secs();
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
    let mut nemesis = Nemesis { nodes, links, random, power_cuts, counts: BTreeMap::new() };
    nemesis.put_right()?;
    let mut client = Client::new(nemesis.addresses(), 0);
    client.ask(&Ask::Initialize(addresses), Duration::from_secs(30)).await?;
    let leads = |status: &str| field(status, "state") == "Leader";
    wait_for(&nemesis.addresses(), 1, Duration::from_secs(30), leads).await?;
    Ok(nemesis)
}

fn summary(history: &[Operation], faults: &BTreeMap<Fault, u32>) -> String {
    let count = |is_it: fn(&Operation) -> bool| history.iter().filter(|o| is_it(o)).count();
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
