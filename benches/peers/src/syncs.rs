//! Does it really sync? Counted by the same tracer for all, from outside.

use std::{fmt::Write, fs, path::Path};

use crate::{
    child,
    contenders::Contender,
    plan::Plan,
    rounds::{Place, Results},
    work::{Assignment, Limits, Work},
};

/// Commits of one run, all by one task: each must have a sync of its own.
const COMMITS: u64 = 64;
/// Less than this of one for each commit is no sync.
const ENOUGH: f64 = 0.9;

const CALLS: &str = "trace=fsync,fdatasync,sync_file_range,msync,pwritev2,openat";

struct Counted {
    full: u64,
    data: u64,
    /// `sync_file_range`, which writes back but neither flushes the device nor writes metadata.
    ranges: u64,
    maps: u64,
    /// Writes with `RWF_DSYNC` or `RWF_SYNC`, and opens with `O_DSYNC` or `O_SYNC`.
    flagged: u64,
    opened: u64,
}

pub fn has_tracer() -> bool {
    let trial = std::process::Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    trial.is_ok_and(|output| output.status.success())
}

/// A table; who doesn't sync is noted in the results.
pub fn verify(plan: &Plan, dir: &Path, settings: &[String], results: &mut Results) -> String {
    let mut text = format!(
        "{COMMITS} durable commits by one task, opening and closing included.\n\n\
         | contender | syncs per commit | fdatasync | fsync | synchronous writes | sync_file_range | msync | |\n\
         |---|---:|---:|---:|---:|---:|---:|---|\n"
    );
    for contender in plan.contenders.iter() {
        let name = contender.name;
        eprintln!("counting syncs of {name}");
        let line = match count(dir, settings, contender) {
            Ok(counted) => {
                let synced = counted.full + counted.data + counted.maps + counted.flagged;
                let each = synced as f64 / COMMITS as f64;
                // A file opened to be synchronous syncs with every write.
                let syncs = each >= ENOUGH || counted.opened > 0;
                if !syncs {
                    results.unsynced.push(name);
                }
                let verdict = if syncs { "" } else { "**does not sync**" };
                let Counted { full, data, ranges, maps, flagged, opened } = counted;
                let note = if opened > 0 { ", opened O_SYNC" } else { "" };
                format!(
                    "| {name} | {each:.2} | {data} | {full} | {flagged}{note} | {ranges} | {maps} | {verdict} |"
                )
            }
            Err(failure) => format!("| {name} | failed: {failure} |"),
        };
        let _ = writeln!(text, "{line}");
    }
    text
}

fn count(dir: &Path, settings: &[String], contender: &Contender) -> Result<Counted, String> {
    let place = Place::new(dir);
    let trace = place.log().with_extension("trace");
    let second = std::time::Duration::from_secs(1);
    let limits = Limits {
        warm_up: 0 * second,
        measure: 60 * second,
        operations: Some(COMMITS),
        fixed: true,
    };
    let assignment = Assignment {
        contender: contender.name.to_owned(),
        work: Work::commit(1),
        limits,
        directory: place.log(),
        prepare: false,
        verify: false,
        settings: settings.to_vec(),
    };
    let tracer: Vec<String> =
        ["strace", "-f", "-qq", "-e", CALLS, "-e", "signal=none", "-o", &trace.to_string_lossy()]
            .map(str::to_owned)
            .to_vec();
    let outcome = child::run(&assignment, &tracer)?;
    if outcome.operations < COMMITS {
        return Err(format!("only {} commits", outcome.operations));
    }
    let text = fs::read_to_string(&trace).map_err(|error| error.to_string())?;
    Ok(tally(&text))
}

/// A call that another interrupts has two lines, of which only the first has its name and `(`.
fn tally(trace: &str) -> Counted {
    let calls = |name: &str| -> Vec<&str> {
        let call = format!(" {name}(");
        trace.lines().filter(|line| line.contains(&call)).collect()
    };
    let with = |name: &str, flags: &[&str]| {
        let calls = calls(name);
        calls.iter().filter(|line| flags.iter().any(|flag| line.contains(flag))).count() as u64
    };
    let count = |name: &str| calls(name).len() as u64;
    Counted {
        full: count("fsync"),
        data: count("fdatasync"),
        ranges: count("sync_file_range"),
        maps: with("msync", &["MS_SYNC"]),
        flagged: with("pwritev2", &["RWF_DSYNC", "RWF_SYNC"]),
        opened: with("openat", &["O_DSYNC", "O_SYNC"]),
    }
}
