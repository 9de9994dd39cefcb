//! The peers' bench: the same work for Highwater and for other logs, in turn, each in a process of
//! its own. `docs/BENCHMARKS.md` of the library shows its tables and plots.

mod child;
mod contenders;
mod meter;
mod outcome;
mod plan;
mod records;
mod replay;
mod rounds;
mod table;
mod tasks;
mod threads;
mod usage;
mod work;

use std::path::PathBuf;

use clap::Parser;

#[derive(Debug, Parser)]
#[command(about = "Highwater against other logs: alternating rounds, medians, ratios")]
struct Arguments {
    /// The works that the targets are about; the default, under ten minutes.
    #[arg(long, group = "form")]
    short: bool,
    /// All works.
    #[arg(long, group = "form")]
    long: bool,
    /// Only works whose name contains one of these, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these contenders.
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
    /// `KEY=VALUE` for Highwater: segment_bytes, ring_bytes, record_bytes_max, preallocation.
    #[arg(long = "set")]
    settings: Vec<String>,
    #[arg(long, hide = true)]
    child: Option<PathBuf>,
}

fn main() {
    let arguments = Arguments::parse();
    if let Some(file) = &arguments.child {
        return child::serve(file);
    }
    let mut plan = plan::plan(if arguments.long { plan::Form::Long } else { plan::Form::Short });
    plan.restrict(&arguments.only, &arguments.contenders);
    if let Some(rounds) = arguments.rounds {
        plan.rounds = rounds.max(1);
    }
    if let Some(milliseconds) = arguments.milliseconds {
        plan.measure = std::time::Duration::from_millis(milliseconds);
    }
    let results = rounds::run(&plan, &arguments.dir, &arguments.settings);
    println!("{}", table::markdown(&plan, &results));
}
