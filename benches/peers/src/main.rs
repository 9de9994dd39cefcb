//! The peers' bench: the same work for Highwater and for other logs, in turn, each in a process of
//! its own. `docs/BENCHMARKS.md` of the library shows its tables and plots.

mod child;
mod contenders;
mod filesystems;
mod follow;
mod machine;
mod meter;
mod open_loop;
mod outcome;
mod plan;
mod plots;
mod records;
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
    /// The works that the targets are about; the default, under ten minutes.
    #[arg(long, group = "form")]
    short: bool,
    /// All works.
    #[arg(long, group = "form")]
    long: bool,
    /// Highwater alone, by tasks, record size, ring size and log size.
    #[arg(long, group = "form")]
    curves: bool,
    /// A few operations of everybody, read back; nothing is measured.
    #[arg(long, group = "form")]
    smoke: bool,
    /// Only count the syncs of durable commits, with strace.
    #[arg(long, group = "form")]
    count_syncs: bool,
    /// Only works whose name contains one of these (or is one of these, with = in front),
    /// separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these contenders, separated by commas.
    #[arg(long, value_delimiter = ',')]
    contenders: Vec<String>,
    /// How often each contender does each work.
    #[arg(long)]
    rounds: Option<usize>,
    /// Milliseconds of a measured window.
    #[arg(long)]
    milliseconds: Option<u64>,
    /// Where the logs are written; on the file system that is to be measured.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Also on ext4, XFS, btrfs (mounted images in --dir) and tmpfs, or on those named; needs root.
    #[arg(long, value_delimiter = ',', num_args = 0.., default_missing_value = "ext4,xfs,btrfs,tmpfs")]
    filesystems: Vec<String>,
    /// Where the page and the plots go; docs/benchmarks of the repository by default, nowhere with
    /// --only or --contenders.
    #[arg(long)]
    out: Option<PathBuf>,
    /// `KEY=VALUE` for Highwater: segment_bytes, ring_bytes, record_bytes_max, preallocation.
    #[arg(long = "set")]
    settings: Vec<String>,
    /// Names of works and contenders.
    #[arg(long)]
    list: bool,
    #[arg(long, hide = true)]
    child: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(file) = &arguments.child {
        child::serve(file);
        return ExitCode::SUCCESS;
    }
    let plan = planned(&arguments);
    if arguments.list {
        plan.works.iter().for_each(|work| println!("{}", work.name));
        plan.contenders
            .iter()
            .for_each(|contender| println!("{}: {}", contender.name, contender.how));
        return ExitCode::SUCCESS;
    }
    std::fs::create_dir_all(&arguments.dir).expect("a directory for logs");
    if arguments.smoke {
        let well = smoke::run(&plan, &arguments.dir, &arguments.settings);
        return if well { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if arguments.count_syncs {
        let mut results = Results::default();
        let table = syncs::verify(&plan, &arguments.dir, &arguments.settings, &mut results);
        println!("{table}");
        return ExitCode::SUCCESS;
    }
    let whole = arguments.only.is_empty() && arguments.contenders.is_empty();
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/benchmarks");
    let default = if arguments.curves { default.join("curves") } else { default };
    let out = arguments.out.clone().or(whole.then_some(default));
    measure(&plan, &arguments, &arguments.dir, out.as_deref());
    for name in &arguments.filesystems {
        match filesystems::mount(name, &arguments.dir) {
            Ok(mounted) => {
                eprintln!("on {name}");
                let out = out.as_ref().map(|out| out.join(name));
                measure(&plan, &arguments, &mounted.point, out.as_deref());
            }
            Err(reason) => eprintln!("not on {name}: {reason}"),
        }
    }
    ExitCode::SUCCESS
}

fn planned(arguments: &Arguments) -> Plan {
    let form = match (arguments.long, arguments.curves) {
        (true, _) => Form::Long,
        (_, true) => Form::Curves,
        _ => Form::Short,
    };
    let mut plan = plan::plan(form);
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

/// One run on one file system: its tables to the terminal, its page to `out`.
fn measure(plan: &Plan, arguments: &Arguments, dir: &Path, out: Option<&Path>) {
    let mut results = Results::default();
    let syncs = (out.is_some() && syncs::has_tracer())
        .then(|| syncs::verify(plan, dir, &arguments.settings, &mut results));
    if syncs.is_none() {
        eprintln!("syncs are not counted: no strace, or only a part of the bench is run");
    }
    let results = rounds::run(plan, dir, &arguments.settings, results);
    println!("{}", table::markdown(plan, &results));
    println!("\n{}", targets::markdown(&results));
    let report = report::Report { plan, results: &results, syncs: syncs.as_deref(), dir };
    if let Some(out) = out {
        report.write(out).expect("the report can be written");
    }
}
