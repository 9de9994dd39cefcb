//! The power cut of a real process, again and again: under [`WriteBack`] whatever isn't synced is in
//! the process's memory, so what a `SIGKILL` leaves in the directory is what a power cut would have
//! left on the device. What was acknowledged as synced is there, and nothing is that shouldn't be.
//!
//! `HIGHWATER_POWER_CUTS` sets how often; 30 by default, 500 for the long form.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and what it covered is said"
)]

mod power;

use std::{collections::BTreeMap, fs, path::Path, time::Instant};

use futures::TryStreamExt;
use highwater::{Lsn, Wal, simulation::WriteBack, storage::FileStorage};
use power::{
    child::{self, Lie},
    options, payload, words,
};
use tempfile::TempDir;

/// A directory is used for so many cuts, then a new one is begun: reading it all takes ever longer.
const CUTS_PER_DIRECTORY: u64 = 20;
const ATTEMPTS: u64 = 40;

/// Runs in the child.
#[test]
fn child_whose_power_is_cut() {
    child::run_if_told();
}

/// What is done with the directory after a cut, in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Opened, read, closed.
    Close,
    /// Opened, read, and left unclosed.
    Leave,
    /// A copy is opened and read: the next child recovers what the cut left, and may be cut in that.
    LookAtCopy,
}

impl After {
    fn of(cut: u64) -> Self {
        // Shifted after each four, so that each of them follows each kind of cut.
        let turn = (cut + cut / 4) % 4;
        [After::Close, After::Leave, After::Close, After::LookAtCopy][turn as usize]
    }
}

type Found = Vec<(Lsn, Vec<u8>)>;

#[derive(Default)]
struct Tally {
    cuts: u64,
    acknowledged: usize,
    found: usize,
    /// Cuts before the child had acknowledged anything: while it opened the log, for the most part.
    silent: u64,
    torn_tails: u64,
}

/// One log and the cuts it went through.
struct Life {
    directory: TempDir,
    kept: Found,
}

impl Life {
    fn new() -> Self {
        Life { directory: tempfile::tempdir().unwrap(), kept: Vec::new() }
    }

    /// A child runs and is killed; then the directory is judged.
    fn cut(&mut self, cut: u64, lie: Lie, tally: &mut Tally) -> Result<(), String> {
        let path = self.directory.path().join("log");
        let run = child::run_and_kill(&path, cut, lie);
        tally.cuts += 1;
        tally.acknowledged += run.acknowledged.len();
        tally.silent += u64::from(run.acknowledged.is_empty());
        let after = After::of(cut);
        if let Some(status) = &run.ended {
            return Err(format!("cut {cut}: the child ended by itself: {status}"));
        }
        let case = |what: String| format!("cut {cut} ({run}, then {after:?}): {what}");
        let copy = tempfile::tempdir().unwrap();
        let opened = if after == After::LookAtCopy {
            copy_files(&path, copy.path());
            copy.path()
        } else {
            &path
        };
        let (found, was_torn) = read_back(opened, after).map_err(case)?;
        tally.torn_tails += u64::from(was_torn);
        check_order(&found, cut).map_err(case)?;
        if found.get(..self.kept.len()) != Some(&self.kept[..]) {
            return Err(case("what earlier cuts left is no longer so".to_owned()));
        }
        check_acknowledged(&found, cut, &run.acknowledged).map_err(case)?;
        tally.found += found.len() - self.kept.len();
        self.kept = found;
        Ok(())
    }

    /// Ends the test, and leaves the directory as it is for whoever looks into it.
    fn fail(self, what: &str) -> ! {
        panic!("{what}\nthe log is kept in {}", self.directory.keep().display());
    }
}

/// Plainly, so that nothing is seen but what has left the child.
fn read_back(directory: &Path, after: After) -> Result<(Found, bool), String> {
    // With its end it waits for the log's last job, and with that for the lock.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let storage = FileStorage::create(directory).unwrap();
        WriteBack::discard_lost(&storage).unwrap();
        let wal: Wal = options().open_with(storage).await.map_err(|error| error.to_string())?;
        let records = wal.replay(..).map_ok(|record| (record.lsn, record.payload.to_vec()));
        let found = records.try_collect().await.map_err(|error| error.to_string())?;
        if after == After::Close {
            wal.close().await.map_err(|error| error.to_string())?;
        }
        Ok((found, wal.recovery().cut.is_some()))
    })
}

fn copy_files(from: &Path, to: &Path) {
    let Ok(entries) = fs::read_dir(from) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Each task's records are those it appended, in order, from 0 on, without a gap; batches are whole.
fn check_order(found: &[(Lsn, Vec<u8>)], cut: u64) -> Result<(), String> {
    let mut next: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for (lsn, bytes) in found {
        if bytes.len() < 24 {
            return Err(format!("{lsn} was never appended"));
        }
        let (of_cut, task, number) = words(bytes);
        if of_cut > cut || task >= child::TASKS || *bytes != payload(of_cut, task, number) {
            return Err(format!("{lsn} was never appended"));
        }
        let next = next.entry((of_cut, task)).or_default();
        if number != *next {
            return Err(format!("at {lsn} task {task} of {of_cut} has {number}, not {next}"));
        }
        *next += 1;
    }
    for ((of_cut, task), count) in next {
        if child::is_batching(task) && count % child::BATCH_COUNT != 0 {
            return Err(format!("part of a batch of task {task} of {of_cut}"));
        }
    }
    Ok(())
}

fn check_acknowledged(
    found: &[(Lsn, Vec<u8>)],
    cut: u64,
    acknowledged: &[(Lsn, u64, u64)],
) -> Result<(), String> {
    for &(lsn, task, number) in acknowledged {
        let at = found.binary_search_by_key(&lsn, |(lsn, _)| *lsn);
        let kept = at.is_ok_and(|at| found[at].1 == payload(cut, task, number));
        if !kept {
            return Err(format!("{lsn} (task {task}, {number}) was acknowledged as synced"));
        }
    }
    Ok(())
}

#[test]
fn a_power_cut_takes_nothing_that_was_acknowledged_as_synced() {
    let cuts = std::env::var("HIGHWATER_POWER_CUTS").ok().and_then(|cuts| cuts.parse().ok());
    let begin = Instant::now();
    let mut tally = Tally::default();
    let mut life = Life::new();
    for cut in 0..cuts.unwrap_or(30) {
        if cut % CUTS_PER_DIRECTORY == 0 {
            life = Life::new();
        }
        if let Err(what) = life.cut(cut, Lie::None, &mut tally) {
            life.fail(&what);
        }
    }
    println!(
        "{} cuts ({} before anything was acknowledged), {} records acknowledged as synced, {} kept, \
         {} torn tails, {:.1} s",
        tally.cuts,
        tally.silent,
        tally.acknowledged,
        tally.found,
        tally.torn_tails,
        begin.elapsed().as_secs_f64()
    );
    assert!(tally.acknowledged > 0);
}

fn assert_caught(lie: Lie) {
    let mut tally = Tally::default();
    let caught = (0..ATTEMPTS).find_map(|cut| Life::new().cut(cut, lie, &mut tally).err());
    let what = caught.unwrap_or_else(|| panic!("{lie:?} was not caught in {ATTEMPTS} cuts"));
    println!("{lie:?} is caught by cut {}: {what}", tally.cuts);
}

#[test]
fn a_flush_that_does_nothing_is_caught() {
    assert_caught(Lie::SkipSync);
}

#[test]
fn a_flush_that_now_and_then_does_nothing_is_caught() {
    assert_caught(Lie::SkipSomeSyncs);
}

#[test]
fn a_flush_of_the_directory_that_does_nothing_is_caught() {
    assert_caught(Lie::SkipSyncDir);
}
