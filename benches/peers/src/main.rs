//! Benchmarks Highwater against other logs.
//!
//! All contenders do the same works in turn, and each run has a separate process.
//! `docs/BENCHMARKS.md` shows the tables and plots.

mod child;
mod churn;
mod contenders;
mod device;
mod efficiency;
mod filesystems;
mod follow;
mod log;
mod machine;
mod meter;
mod open_loop;
mod outcome;
mod plan;
mod plots;
mod records;
mod registry;
mod replay;
mod report;
mod rounds;
mod smoke;
mod syncs;
mod table;
mod targets;
mod tasks;
mod threads;
mod usage;
mod work;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use plan::{Form, Plan};
use rounds::Results;

#[derive(Debug, Parser)]
#[command(about = "Highwater against other logs: alternating rounds, medians, ratios")]
struct Arguments {
    /// Run the works that have targets, in less than ten minutes; the default.
    #[arg(long, group = "form")]
    short: bool,
    /// Run all works.
    #[arg(long, group = "form")]
    long: bool,
    /// Run only Highwater, by number of tasks, record size, ring size and log size.
    #[arg(long, group = "form")]
    curves: bool,
    /// Run only commits on a storage that adds 1 ms to each flush: `highwater-1ms` and its floor
    /// `raw-1ms`.
    #[arg(long, group = "form")]
    delayed: bool,
    /// Run only logs that drop old records, and measure the bytes that reach the device for each
    /// user byte. Writes --megabytes in each run.
    #[arg(long, group = "form")]
    churn: bool,
    /// Run a few operations of each contender and read them back, without measuring.
    #[arg(long, group = "form")]
    smoke: bool,
    /// Only count the syncs of durable commits with strace.
    #[arg(long, group = "form")]
    count_syncs: bool,
    /// Run only works whose name contains one of these, separated by commas; `=NAME` matches the
    /// whole name.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Run only these contenders, separated by commas. Names that --list shows; `highwater-1ms` and
    /// `raw-1ms` are also valid in the forms that do not list them.
    #[arg(long, value_delimiter = ',')]
    contenders: Vec<String>,
    /// The number of runs of each work by each contender.
    #[arg(long)]
    rounds: Option<usize>,
    /// The length of a measured window, in milliseconds.
    #[arg(long)]
    milliseconds: Option<u64>,
    /// The user bytes of a run with --churn, in MiB. The log keeps an eighth of them.
    #[arg(long, default_value_t = 1024)]
    megabytes: u64,
    /// The directory for the logs, on the file system to be measured.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Also measure these file systems: ext4, xfs, btrfs (as mounted images in --dir) and tmpfs, or
    /// only the named ones. Needs root.
    #[arg(long, value_delimiter = ',', num_args = 0.., default_missing_value = "ext4,xfs,btrfs,tmpfs")]
    filesystems: Vec<String>,
    /// The directory for the page and the plots. The default is the repository's
    /// benches/results/peers; with --only or --contenders nothing is written by default.
    #[arg(long)]
    out: Option<PathBuf>,
    /// A setting for Highwater as `KEY=VALUE`: segment_bytes, ring_bytes, record_bytes_max,
    /// inline_writes, inline_syncs, recycle_segments or preallocation.
    #[arg(long = "set")]
    settings: Vec<String>,
    /// List the works and the contenders.
    #[arg(long)]
    list: bool,
    #[arg(long, hide = true)]
    child: Option<PathBuf>,
}

impl Arguments {
    fn form(&self) -> Form {
        let forms = [
            (self.long, Form::Long),
            (self.curves, Form::Curves),
            (self.delayed, Form::Delayed),
            (self.churn, Form::Churn),
            (self.smoke, Form::Smoke),
        ];
        forms.into_iter().find(|(is_set, _)| *is_set).map_or(Form::Short, |(_, form)| form)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(file) = &arguments.child {
        child::serve(file, registry::run);
        return ExitCode::SUCCESS;
    }
    let plan = plan_of(&arguments);
    if arguments.list {
        plan.works.iter().for_each(|work| println!("{}", work.name));
        plan.contenders
            .iter()
            .for_each(|contender| println!("{}: {}", contender.name, contender.how));
        return ExitCode::SUCCESS;
    }
    std::fs::create_dir_all(&arguments.dir).expect("the directory for the logs can be created");
    if arguments.smoke {
        let passed = smoke::run(&plan, &arguments.dir, &arguments.settings);
        return if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if arguments.count_syncs {
        let mut results = Results::default();
        let table = syncs::verify(&plan, &arguments.dir, &arguments.settings, &mut results);
        println!("{table}");
        return ExitCode::SUCCESS;
    }
    let is_whole = arguments.only.is_empty() && arguments.contenders.is_empty();
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results/peers");
    let default = default.join(arguments.form().folder().unwrap_or_default());
    let out = arguments.out.clone().or(is_whole.then_some(default));
    measure(&plan, &arguments, &arguments.dir, out.as_deref());
    for name in &arguments.filesystems {
        match filesystems::mount(name, &arguments.dir) {
            Ok(mounted) => {
                eprintln!("measuring on {name}");
                let out = out.as_ref().map(|out| out.join(name));
                measure(&plan, &arguments, &mounted.point, out.as_deref());
            }
            Err(reason) => eprintln!("skipping {name}: {reason}"),
        }
    }
    ExitCode::SUCCESS
}

fn plan_of(arguments: &Arguments) -> Plan {
    let mut plan = plan::plan(arguments.form(), arguments.megabytes.max(1) << 20);
    plan.restrict(&arguments.only, &arguments.contenders);
    if let Some(rounds) = arguments.rounds {
        plan.rounds = rounds.max(1);
        plan.time = None;
    }
    if let Some(milliseconds) = arguments.milliseconds {
        plan.measure = Duration::from_millis(milliseconds);
    }
    plan
}

/// Measures on one file system. Prints the tables and writes the page to `out`.
fn measure(plan: &Plan, arguments: &Arguments, dir: &Path, out: Option<&Path>) {
    let mut results = Results::default();
    let syncs = (out.is_some() && syncs::has_tracer())
        .then(|| syncs::verify(plan, dir, &arguments.settings, &mut results));
    if syncs.is_none() {
        eprintln!(
            "syncs are not counted, because strace is missing or only a part of the bench runs"
        );
    }
    let results = rounds::run(plan, dir, &arguments.settings, results);
    println!("{}", table::markdown(plan, &results));
    println!("\n{}", targets::markdown(&results));
    let report = report::Report { plan, results: &results, syncs: syncs.as_deref(), dir };
    if let Some(out) = out {
        report.write(out).expect("the report can be written");
    }
}
