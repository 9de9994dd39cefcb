//! Runs a work under callgrind and reads its counts.

use std::{fs, io, process::Command};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{failure::Failure, load, works::Work};

/// Makes the C library copy with vector loops on every processor.
///
/// Otherwise the processor decides which copies use `rep movsb`. Callgrind counts it once for each
/// byte, although a processor copies 32 bytes or more at a time.
const NO_STRING_INSTRUCTIONS: &str =
    "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824";

pub const CHILD: &str = "run-for-callgrind";

/// Returns the instructions per operation; the median of 3 measurements if the work is not exact.
///
/// # Errors
///
/// If valgrind is not installed, or if the work fails.
pub fn per_operation(work: &Work) -> Result<f64, Failure> {
    if work.is_exact {
        return difference(work);
    }
    let (a, b, c) = (difference(work)?, difference(work)?, difference(work)?);
    Ok(a.max(b).min(a.min(b).max(c)))
}

/// Returns the cost of N further turns, divided by their operations.
fn difference(work: &Work) -> Result<f64, Failure> {
    let (once, twice) = (count(work.name, work.turns)?, count(work.name, 2 * work.turns)?);
    let more = twice.checked_sub(once).ok_or("twice the turns took fewer instructions")?;
    Ok(exact(more)? / exact(work.turns * work.operations_per_turn)?)
}

fn exact(count: u64) -> Result<f64, Failure> {
    Ok(f64::from(u32::try_from(count)?))
}

/// Returns valgrind's version line.
///
/// # Errors
///
/// If valgrind is not installed; the error text has the package name.
pub fn version() -> Result<String, Failure> {
    match Command::new("valgrind").arg("--version").output() {
        Ok(output) => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(
            "valgrind isn't installed, so no instructions can be counted, and nothing was checked. \
             Install the package `valgrind`."
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
    // The same variables everywhere, because their size moves the stack and libraries read them.
    command.env_clear().env("LC_ALL", "C").env("GLIBC_TUNABLES", NO_STRING_INSTRUCTIONS);
    for name in ["PATH", "TMPDIR", load::EXTRA] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let output = on_one_cpu(|| command.output())??;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name}, {turns} turns: {}\n{stderr}", output.status).into());
    }
    let counts = fs::read_to_string(counts)?;
    let total = counts.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.ok_or("callgrind wrote no totals")?.trim().parse()?)
}

/// Calls `run` with this process and its children bound to one processor.
///
/// Then threads switch only when one of them waits. The log's jobs do not linger either, which
/// would depend on the clock.
fn on_one_cpu<T>(run: impl FnOnce() -> T) -> Result<T, Failure> {
    let all = sched_getaffinity(None)?;
    let first = (0..CpuSet::MAX_CPU)
        .find(|&cpu| all.is_set(cpu))
        .ok_or("this process may run on no processor")?;
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one)?;
    let output = run();
    sched_setaffinity(None, &all)?;
    Ok(output)
}
