//! Runs one contender on one work in a separate process, so that threads, memory and counters
//! belong to this run alone.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{device, outcome::Outcome, usage::memory_kib, work::Assignment};

/// The time limit of a run, longer than any run should take.
const TIME_MAX: Duration = Duration::from_secs(180);

/// In the child: does the assignment in `file` and writes the outcome next to it.
pub fn serve(file: &Path, run: fn(&Assignment) -> Outcome) {
    let assignment: Assignment =
        serde_json::from_reader(File::open(file).unwrap()).expect("an assignment");
    device::select(&assignment.directory);
    let idle = memory_kib();
    let mut outcome = run(&assignment);
    outcome.peak_memory_kib = outcome.peak_memory_kib.saturating_sub(idle);
    let file = File::create(file.with_extension("outcome")).unwrap();
    serde_json::to_writer(file, &outcome).unwrap();
}

/// Ends this process as a crash does: nothing is closed, dropped or flushed.
pub fn die() -> ! {
    // SAFETY: ends the process; nothing follows.
    unsafe { libc::_exit(0) }
}

/// In the parent: runs an assignment in a child process and returns its outcome.
///
/// `before` is put in front of the command line: a tracer, or nothing.
pub fn run(assignment: &Assignment, before: &[String]) -> Result<Outcome, String> {
    let file = assignment.directory.with_extension("work");
    let outcome_file = file.with_extension("outcome");
    let stderr_file = file.with_extension("stderr");
    let io = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(&assignment.directory).map_err(io)?;
    serde_json::to_writer(File::create(&file).map_err(io)?, assignment)
        .map_err(|error| error.to_string())?;
    let program = std::env::current_exe().map_err(io)?;
    let mut words = before.to_vec();
    words.push(program.to_string_lossy().into_owned());
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .arg("--child")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&stderr_file).map_err(io)?)
        .spawn()
        .map_err(io)?;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(io)? {
            break status;
        }
        if begun.elapsed() > TIME_MAX {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("killed, because it ran longer than {TIME_MAX:?}"));
        }
        thread::sleep(Duration::from_millis(5));
    };
    let outcome = std::fs::read(&outcome_file);
    let stderr = std::fs::read_to_string(&stderr_file).unwrap_or_default();
    for extension in ["work", "outcome", "stderr"] {
        let _ = std::fs::remove_file(file.with_extension(extension));
    }
    if !status.success() {
        // The line after the location of a panic has its message.
        let mut lines = stderr.lines().skip_while(|line| !line.contains("panicked at"));
        let place = lines.next().unwrap_or_default();
        return Err(format!("{status}: {place} {}", lines.next().unwrap_or_default()));
    }
    match outcome {
        Ok(outcome) => serde_json::from_slice(&outcome).map_err(|error| error.to_string()),
        // The preparation for `Kind::Recover` ends without an outcome.
        Err(_) if assignment.prepare => Ok(Outcome::default()),
        Err(error) => Err(error.to_string()),
    }
}
