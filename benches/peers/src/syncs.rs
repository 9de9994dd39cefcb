//! Counts the sync calls of each contender with strace, to find contenders that do not really sync.

use std::{fmt::Write, fs, path::Path, time::Duration};

use crate::{
    child,
    plan::Plan,
    registry::Contender,
    rounds::{Place, Results},
    work::{Assignment, Limits, Work},
};

/// The commits of one run, all by one task, so that each commit needs its own sync.
const COMMITS: u64 = 64;
/// A contender with fewer syncs per commit does not count as syncing.
const SYNCS_PER_COMMIT_MIN: f64 = 0.9;

const CALLS: &str = "trace=fsync,fdatasync,sync_file_range,msync,pwritev2,openat";

struct SyncCalls {
    full: u64,
    data: u64,
    /// Calls of `sync_file_range`, which neither flushes the device nor writes metadata.
    ranges: u64,
    maps: u64,
    /// Writes with `RWF_DSYNC` or `RWF_SYNC`, and opens with `O_DSYNC` or `O_SYNC`.
    flagged: u64,
    opened: u64,
}

impl SyncCalls {
    /// Returns the number of calls that return only after data is on the device.
    fn syncs(&self) -> u64 {
        self.full + self.data + self.maps + self.flagged
    }
}

pub fn has_tracer() -> bool {
    let trial = std::process::Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    trial.is_ok_and(|output| output.status.success())
}

/// Returns the table of syncs, and adds contenders that do not sync to `results.unsynced`.
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
            Ok(calls) => {
                let each = calls.syncs() as f64 / COMMITS as f64;
                // A file opened with O_SYNC or O_DSYNC syncs with every write.
                let syncs = each >= SYNCS_PER_COMMIT_MIN || calls.opened > 0;
                if !syncs {
                    results.unsynced.push(name);
                }
                let verdict = if syncs { "" } else { "**does not sync**" };
                let SyncCalls { full, data, ranges, maps, flagged, opened } = calls;
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

fn count(dir: &Path, settings: &[String], contender: &Contender) -> Result<SyncCalls, String> {
    let place = Place::new(dir);
    let trace = place.log().with_extension("trace");
    let limits = Limits {
        warm_up: Duration::ZERO,
        measure: Duration::from_secs(60),
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
        return Err(format!("only {} of {COMMITS} commits were done", outcome.operations));
    }
    let text = fs::read_to_string(&trace).map_err(|error| error.to_string())?;
    Ok(tally(&text))
}

/// Counts the calls in a trace. An interrupted call has two lines, and only the first has `name(`.
fn tally(trace: &str) -> SyncCalls {
    let calls = |name: &str| -> Vec<&str> {
        let call = format!(" {name}(");
        trace.lines().filter(|line| line.contains(&call)).collect()
    };
    let with = |name: &str, flags: &[&str]| {
        let calls = calls(name);
        calls.iter().filter(|line| flags.iter().any(|flag| line.contains(flag))).count() as u64
    };
    let count = |name: &str| calls(name).len() as u64;
    SyncCalls {
        full: count("fsync"),
        data: count("fdatasync"),
        ranges: count("sync_file_range"),
        maps: with("msync", &["MS_SYNC"]),
        flagged: with("pwritev2", &["RWF_DSYNC", "RWF_SYNC"]),
        opened: with("openat", &["O_DSYNC", "O_SYNC"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tally_calls_without_device_flush_are_no_syncs() {
        let calls = tally(
            "1 openat(AT_FDCWD, \"log\", O_RDWR|O_CREAT, 0666) = 3\n\
             1 sync_file_range(3, 0, 4096, SYNC_FILE_RANGE_WRITE) = 0\n\
             1 pwritev2(3, [{iov_base=\"x\", iov_len=1}], 1, 0, RWF_NOWAIT) = 1\n\
             1 msync(0x7f, 4096, MS_ASYNC) = 0\n",
        );
        assert_eq!(calls.syncs(), 0);
        assert_eq!((calls.opened, calls.ranges), (0, 1));
    }

    #[test]
    fn tally_interrupted_calls_count_once() {
        let calls = tally(
            "1 fdatasync(3 <unfinished ...>\n2 fsync(4) = 0\n1 <... fdatasync resumed>) = 0\n\
             1 pwritev2(3, [{iov_base=\"x\", iov_len=1}], 1, 0, RWF_DSYNC) = 1\n",
        );
        assert_eq!((calls.data, calls.full, calls.flagged), (1, 1, 1));
        assert_eq!(calls.syncs(), 3);
    }
}
