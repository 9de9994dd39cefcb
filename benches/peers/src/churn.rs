//! The work `churn`: a log gets durable batches, and drops all but its newest records.
//!
//! Measures the bytes that reach the device for each user byte. The log is `fresh` until it first
//! has as many bytes as it keeps, and then `steady`. The file system is flushed before and after
//! each phase, so that write-back cannot move bytes from one phase to another.

use std::{collections::VecDeque, fs::File, os::fd::AsRawFd, time::Instant};

use tokio::runtime::Runtime;

use crate::{
    log::{AsyncLog, Log, Writer},
    outcome::{Churned, Outcome},
    records::{Source, largest},
    usage::{Usage, peak_memory_kib},
    work::{Assignment, Kind, Work},
};

/// A log drops old records this many times while it gets as many bytes as it keeps.
const TRUNCATIONS: usize = 16;
/// The log keeps this many times the bytes of one of its files, for logs with a setting for that.
const FILES: u64 = 8;

/// Returns the bytes that the log of a work keeps, if the work drops records.
pub fn keep_bytes(work: &Work) -> Option<u64> {
    match work.kind {
        Kind::Churn { keep_bytes, .. } => Some(keep_bytes),
        _ => None,
    }
}

/// Returns the bytes of a file of a log that keeps `keep_bytes`.
pub fn file_bytes(keep_bytes: u64) -> u64 {
    (keep_bytes / FILES).max(1)
}

/// The ends of a log at its last truncations.
#[derive(Default)]
pub struct Marks(VecDeque<u64>);

impl Marks {
    /// Adds the end of the log. Returns the position before which records are to be dropped.
    pub fn push(&mut self, end: u64) -> Option<u64> {
        self.0.push_back(end);
        if self.0.len() > TRUNCATIONS { self.0.pop_front() } else { None }
    }
}

/// The batches of one phase.
struct Phase {
    source: Source,
    batch: Vec<Vec<u8>>,
    /// The user bytes that are written, and at which the phase ends.
    written: u64,
    end: u64,
    truncate_every: u64,
    next_truncation: u64,
    begun: Instant,
    give_up: Instant,
}

impl Phase {
    fn new(work: &Work, end: u64, give_up: Instant) -> Self {
        let Kind::Churn { records, keep_bytes } = work.kind else {
            unreachable!("a work of another kind")
        };
        let truncate_every = keep_bytes / TRUNCATIONS as u64;
        Phase {
            source: Source::varied(work.records, 0),
            batch: vec![Vec::new(); records],
            written: 0,
            end,
            truncate_every,
            next_truncation: truncate_every,
            begun: Instant::now(),
            give_up,
        }
    }

    /// Fills the next batch, or returns false if the phase has ended.
    fn more(&mut self) -> bool {
        if self.written >= self.end || Instant::now() >= self.give_up {
            return false;
        }
        for record in &mut self.batch {
            record.clear();
            record.extend_from_slice(self.source.next());
            self.written += record.len() as u64;
        }
        true
    }

    /// Returns whether old records are to be dropped now.
    fn is_truncation_due(&mut self) -> bool {
        let is_due = self.written >= self.next_truncation;
        if is_due {
            self.next_truncation += self.truncate_every;
        }
        is_due
    }
}

/// The measurements of a run.
struct Run<'a> {
    assignment: &'a Assignment,
    directory: File,
    give_up: Instant,
    before: Usage,
    /// User bytes, seconds and usage of each phase.
    phases: Vec<(u64, f64, Usage)>,
}

impl<'a> Run<'a> {
    /// Starts the measurement of the first phase, which includes opening the log.
    fn begin(assignment: &'a Assignment) -> Self {
        let directory = File::open(&assignment.directory).unwrap();
        flush_file_system(&directory);
        let give_up = Instant::now() + assignment.limits.measure;
        Run { assignment, directory, give_up, before: Usage::now(), phases: Vec::new() }
    }

    /// Returns the two phases, each at the time when it begins.
    fn phases(&self) -> impl Iterator<Item = Phase> + use<> {
        let (work, give_up) = (self.assignment.work.clone(), self.give_up);
        let fresh = keep_bytes(&work).unwrap_or(0);
        let ends = [fresh, work.bytes.saturating_sub(fresh)];
        ends.into_iter().map(move |end| Phase::new(&work, end, give_up))
    }

    fn end_phase(&mut self, phase: &Phase) {
        let seconds = phase.begun.elapsed().as_secs_f64();
        flush_file_system(&self.directory);
        let now = Usage::now();
        self.phases.push((phase.written, seconds, now.since(&self.before)));
        self.before = now;
    }

    fn outcome(self) -> Outcome {
        let work = &self.assignment.work;
        let bytes = self.phases.iter().map(|(bytes, ..)| bytes).sum();
        let each = |&(bytes, _, usage): &(u64, f64, Usage)| {
            (bytes > 0).then(|| usage.disk_bytes as f64 / bytes as f64)
        };
        Outcome {
            operations: bytes / largest(work.records) as u64,
            bytes,
            seconds: self.phases.iter().map(|(_, seconds, _)| seconds).sum(),
            usage: self.phases.iter().fold(Usage::default(), |sum, phase| sum.plus(&phase.2)),
            peak_memory_kib: peak_memory_kib(),
            note: (bytes < work.bytes).then(|| format!("only {} MiB in time", bytes >> 20)),
            churned: Some(Churned {
                fresh: self.phases.first().and_then(each),
                steady: self.phases.last().and_then(each),
            }),
            ..Outcome::default()
        }
    }
}

fn flush_file_system(directory: &File) {
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::syncfs(directory.as_raw_fd()) }, 0, "syncfs");
}

/// Runs the work with one task. The log drops old records itself.
pub fn tasks<L: AsyncLog>(assignment: &Assignment, runtime: &Runtime) -> Outcome {
    let mut run = Run::begin(assignment);
    let log = runtime.block_on(L::open(assignment));
    for mut phase in run.phases() {
        let log = log.clone();
        let writing = runtime.spawn(async move {
            while phase.more() {
                log.batch(&phase.batch).await;
            }
            phase
        });
        run.end_phase(&runtime.block_on(writing).unwrap());
    }
    let outcome = run.outcome();
    runtime.block_on(log.close());
    outcome
}

/// Runs the work with one thread.
pub fn threads<L: Log>(assignment: &Assignment) -> Outcome {
    let mut run = Run::begin(assignment);
    let log = L::open(assignment);
    let mut writer = log.writer(0);
    for mut phase in run.phases() {
        while phase.more() {
            writer.batch(&phase.batch, true);
            if phase.is_truncation_due() {
                writer.truncate();
            }
        }
        run.end_phase(&phase);
    }
    drop(writer);
    log.close();
    run.outcome()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_drop_records_older_than_kept_bytes() {
        let mut marks = Marks::default();
        for end in 1..=TRUNCATIONS as u64 {
            assert_eq!(marks.push(end * 100), None);
        }
        assert_eq!(marks.push(1_700), Some(100));
        assert_eq!(marks.push(1_800), Some(200));
    }

    #[test]
    fn phase_writes_its_bytes_and_truncates_in_steps() {
        let work = Work::churn(256, 1 << 20);
        let give_up = Instant::now() + std::time::Duration::from_secs(60);
        let mut phase = Phase::new(&work, 128 << 10, give_up);
        let (mut batches, mut truncations) = (0, 0);
        while phase.more() {
            batches += 1;
            truncations += usize::from(phase.is_truncation_due());
        }
        assert_eq!(batches, 8);
        assert_eq!(truncations, 8);
    }
}
