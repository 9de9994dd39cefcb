//! Runs all contenders on all works, once per round and in turn. If the machine's speed drifts, it
//! drifts for all contenders.

use std::{
    fs,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    child,
    outcome::Outcome,
    plan::Plan,
    registry::Contender,
    work::{Assignment, Kind, Work},
};

/// The openings of a log in one round. Their median counts, because single times differ by a factor
/// of four.
const OPENINGS: usize = 20;
/// No opening begins after this time. Some logs need seconds to open 1 GiB.
const OPENINGS_TIME_MAX: Duration = Duration::from_secs(3);

/// The results of one contender on one work.
pub struct Row {
    pub work: Work,
    pub contender: &'static str,
    /// One outcome per round; `None` if the run failed.
    pub outcomes: Vec<Option<Outcome>>,
    pub failure: Option<String>,
}

#[derive(Default)]
pub struct Results {
    pub rows: Vec<Row>,
    /// The number of rounds.
    pub rounds: usize,
    /// Contenders that do not sync; they do not count as the best peer.
    pub unsynced: Vec<&'static str>,
}

impl Results {
    pub fn row(&self, work: &str, contender: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.work.name == work && row.contender == contender)
    }

    fn row_mut(&mut self, work: &Work, contender: &'static str) -> &mut Row {
        let found =
            self.rows.iter().position(|row| row.work == *work && row.contender == contender);
        let index = found.unwrap_or_else(|| {
            let work = work.clone();
            self.rows.push(Row { work, contender, outcomes: Vec::new(), failure: None });
            self.rows.len() - 1
        });
        &mut self.rows[index]
    }
}

pub fn run(plan: &Plan, dir: &Path, settings: &[String], mut results: Results) -> Results {
    let begun = Instant::now();
    for round in 0..plan.rounds {
        let spent = begun.elapsed();
        let each = spent / u32::try_from(round.max(1)).unwrap_or(1);
        if round > 0 && plan.time.is_some_and(|time| spent + each > time) {
            eprintln!("no time for another round after {round}");
            break;
        }
        results.rounds = round + 1;
        for (number, work) in plan.works.iter().enumerate() {
            let mut contenders = plan.contenders_for(work);
            if contenders.is_empty() {
                continue;
            }
            let first = (round + number) % contenders.len();
            contenders.rotate_left(first);
            for contender in contenders {
                let outcome = run_once(plan, dir, settings, contender, work);
                report(round, work, contender, &outcome);
                let row = results.row_mut(work, contender.name);
                match outcome {
                    Ok(outcome) => row.outcomes.push(Some(outcome)),
                    Err(failure) => {
                        row.outcomes.push(None);
                        row.failure = Some(failure);
                    }
                }
            }
        }
    }
    results
}

fn run_once(
    plan: &Plan,
    dir: &Path,
    settings: &[String],
    contender: &Contender,
    work: &Work,
) -> Result<Outcome, String> {
    let place = Place::new(dir);
    let assignment = Assignment {
        contender: contender.name.to_owned(),
        work: work.clone(),
        limits: plan.limits(work),
        directory: place.log(),
        prepare: false,
        verify: false,
        settings: work.settings.iter().chain(settings).cloned().collect(),
    };
    if let Some(work) = work.preparing() {
        child::run(&Assignment { work, prepare: true, ..assignment.clone() }, &[])?;
    }
    match work.kind {
        Kind::Open => open_repeatedly(&assignment),
        _ => child::run(&assignment, &[]),
    }
}

/// Opens and closes the log of an assignment repeatedly, each time in a new process. Returns the
/// outcome with the median time.
fn open_repeatedly(assignment: &Assignment) -> Result<Outcome, String> {
    let begun = Instant::now();
    let mut outcomes = vec![child::run(assignment, &[])?];
    while outcomes.len() < OPENINGS && begun.elapsed() < OPENINGS_TIME_MAX {
        outcomes.push(child::run(assignment, &[])?);
    }
    let count = outcomes.len();
    outcomes.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let mut median = outcomes.swap_remove(count / 2);
    if count < OPENINGS {
        median.note = Some(format!("median of {count} openings"));
    }
    Ok(median)
}

fn report(round: usize, work: &Work, contender: &Contender, outcome: &Result<Outcome, String>) {
    let (round, work, name) = (round + 1, &work.name, contender.name);
    match outcome {
        Ok(outcome) => eprintln!(
            "round {round} {work:<16} {name:<16} {:>12.0}/s {:>9.1} MiB/s",
            outcome.per_second(),
            outcome.mib_per_second()
        ),
        Err(failure) => eprintln!("round {round} {work:<16} {name:<16} failed: {failure}"),
    }
}

/// A directory for one run. Dropping it removes the directory, and by default flushes the file
/// system.
pub struct Place {
    path: PathBuf,
    /// True if `drop` flushes the file system, so that the next run does not pay for this one's
    /// writeback.
    flushes: bool,
}

impl Place {
    pub fn new(dir: &Path) -> Self {
        let path = dir.join(format!("highwater-peers-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("the directory of a run can be created");
        Place { path, flushes: true }
    }

    /// Creates a directory for a run that is not measured, which needs no flush.
    pub fn unmeasured(dir: &Path) -> Self {
        let mut place = Place::new(dir);
        place.flushes = false;
        place
    }

    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        if !self.flushes {
            return;
        }
        if let Some(parent) = self.path.parent().and_then(|parent| fs::File::open(parent).ok()) {
            // SAFETY: the descriptor is open.
            unsafe { libc::syncfs(parent.as_raw_fd()) };
        }
    }
}
