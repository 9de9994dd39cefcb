//! Runs a work under callgrind and reads what it counted.

use std::{fs, io, process::Command};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{Failure, load, works::Work};

/// Callgrind counts a `rep movsb` once for each byte, the processor takes 32 or more at a time; which
/// copies use it is up to the processor. So none do: they are vector loops everywhere.
const NO_STRING_INSTRUCTIONS: &str =
    "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824";

pub const CHILD: &str = "run-for-callgrind";

/// Instructions per operation; the median of some measurements if one doesn't tell.
///
/// # Errors
///
/// If valgrind isn't there, or the work failed.
pub fn per_operation(work: &Work) -> Result<f64, Failure> {
    if work.is_exact {
        return difference(work);
    }
    let (a, b, c) = (difference(work)?, difference(work)?, difference(work)?);
    Ok(a.max(b).min(a.min(b).max(c)))
}

/// What 2 N turns cost more than N, for one of N's operations.
fn difference(work: &Work) -> Result<f64, Failure> {
    let (once, twice) = (count(work.name, work.turns)?, count(work.name, 2 * work.turns)?);
    let more = twice.checked_sub(once).ok_or("twice the work took fewer instructions")?;
    Ok(exact(more)? / exact(work.turns * work.operations_per_turn)?)
}

fn exact(count: u64) -> Result<f64, Failure> {
    Ok(f64::from(u32::try_from(count)?))
}

/// One line, as valgrind tells it.
///
/// # Errors
///
/// If it isn't there, with what to do.
pub fn version() -> Result<String, Failure> {
    match Command::new("valgrind").arg("--version").output() {
        Ok(output) => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(
            "valgrind isn't installed, so no instructions can be counted; nothing was checked. \
             Most systems have it as the package `valgrind`."
                .into(),
        ),
        Err(error) => Err(format!("running valgrind: {error}").into()),
    }
}

fn count(name: &str, turns: u64) -> Result<u64, Failure> {
    let directory = tempfile::tempdir()?;
    let counts = directory.path().join("callgrind.out");
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--quiet", "--fair-sched=yes"])
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(std::env::current_exe()?)
        .args([CHILD, name])
        .arg(turns.to_string());
    // The same environment everywhere: its size moves the stack, and libraries read it.
    command.env_clear().env("LC_ALL", "C").env("GLIBC_TUNABLES", NO_STRING_INSTRUCTIONS);
    for kept in ["PATH", "TMPDIR", load::EXTRA] {
        if let Some(value) = std::env::var_os(kept) {
            command.env(kept, value);
        }
    }
    let output = on_one_cpu(|| command.output())??;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name}, {turns} turns: {}\n{said}", output.status).into());
    }
    let counts = fs::read_to_string(counts)?;
    let total = counts.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.ok_or("callgrind told no totals")?.trim().parse()?)
}

/// Has children of `act` run on a single processor: then threads take turns where they wait and
/// nowhere else, and the log's jobs don't linger, which goes by the clock.
fn on_one_cpu<T>(act: impl FnOnce() -> T) -> Result<T, Failure> {
    let all = sched_getaffinity(None)?;
    let first = (0..CpuSet::MAX_CPU).find(|&cpu| all.is_set(cpu)).ok_or("no processor")?;
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one)?;
    let answer = act();
    sched_setaffinity(None, &all)?;
    Ok(answer)
}
