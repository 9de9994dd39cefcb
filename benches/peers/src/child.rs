//! One contender, one work, one process: threads, memory and counters are its own.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{contenders, outcome::Outcome, usage::memory_kib, work::Assignment};

/// Longer than any run should take.
const PATIENCE: Duration = Duration::from_secs(180);

/// In the child: does what the file says, and leaves the outcome beside it.
pub fn serve(file: &Path) {
    let assignment: Assignment =
        serde_json::from_reader(File::open(file).unwrap()).expect("an assignment");
    let contender = contenders::named(&assignment.contender).expect("a contender");
    let idle = memory_kib();
    let mut outcome = (contender.run)(&assignment);
    outcome.peak_memory_kib = outcome.peak_memory_kib.saturating_sub(idle);
    let answer = File::create(file.with_extension("outcome")).unwrap();
    serde_json::to_writer(answer, &outcome).unwrap();
}

/// Ends this process as a crash does: nothing is closed, dropped or flushed.
pub fn die() -> ! {
    // SAFETY: ends the process; nothing follows.
    unsafe { libc::_exit(0) }
}

/// In the parent: runs one, with `before` in front of the command line (a tracer, or nothing).
pub fn run(assignment: &Assignment, before: &[String]) -> Result<Outcome, String> {
    let file = assignment.directory.with_extension("work");
    let answer = file.with_extension("outcome");
    let complaint = file.with_extension("stderr");
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
        .stderr(File::create(&complaint).map_err(io)?)
        .spawn()
        .map_err(io)?;
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(io)? {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("still running after {PATIENCE:?}"));
        }
        thread::sleep(Duration::from_millis(5));
    };
    let outcome = std::fs::read(&answer);
    let complaint = std::fs::read_to_string(&complaint).unwrap_or_default();
    for extension in ["work", "outcome", "stderr"] {
        let _ = std::fs::remove_file(file.with_extension(extension));
    }
    if !status.success() {
        // What a panic says stands on the line behind where it was.
        let mut lines = complaint.lines().skip_while(|line| !line.contains("panicked at"));
        let place = lines.next().unwrap_or_default();
        return Err(format!("{status}: {place} {}", lines.next().unwrap_or_default()));
    }
    match outcome {
        Ok(outcome) => serde_json::from_slice(&outcome).map_err(|error| error.to_string()),
        // It was to die once all was prepared.
        Err(_) if assignment.prepare => Ok(Outcome::default()),
        Err(error) => Err(error.to_string()),
    }
}
