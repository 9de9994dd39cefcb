//! Power cuts of a real process. Under [`WriteBack`] unsynced bytes are in the process's memory, so
//! `SIGKILL` leaves in the directory what a power cut would leave on the disk. The model: each
//! record acknowledged as synced must be there, and each record there must have been appended.
//!
//! `HIGHWATER_POWER_CUTS` sets the number of cuts: 30 by default, 500 for the long form.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and the coverage is printed"
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

/// The number of cuts in one directory. A new one then begins, because reading it takes ever
/// longer.
const CUTS_PER_DIRECTORY: u64 = 20;
const ATTEMPTS: u64 = 40;

/// The child process.
#[test]
fn child_under_power_cut() {
    child::run_if_child();
}

/// The next step after a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Open, read and close the log.
    Close,
    /// Open and read the log, without a close.
    Leave,
    /// Open and read a copy. The next child recovers the log itself, and may be cut during that.
    LookAtCopy,
}

impl After {
    fn of(cut: u64) -> Self {
        // Shifted by one after each four, so that each step follows each kind of cut.
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
    /// Cuts before the first acknowledgement, mostly while the child opened the log.
    silent: u64,
    torn_tails: u64,
}

/// A log and the records that its earlier cuts left.
struct Life {
    directory: TempDir,
    kept: Found,
}

impl Life {
    fn new() -> Self {
        Life { directory: tempfile::tempdir().unwrap(), kept: Vec::new() }
    }

    /// Runs and kills a child, then checks the directory.
    fn cut(&mut self, cut: u64, lie: Lie, tally: &mut Tally) -> Result<(), String> {
        let path = self.directory.path().join("log");
        let run = child::run_and_kill(&path, cut, lie);
        tally.cuts += 1;
        tally.acknowledged += run.acknowledged.len();
        tally.silent += u64::from(run.acknowledged.is_empty());
        let after = After::of(cut);
        if let Some(status) = &run.ended {
            return Err(format!("cut {cut}: the child ended without a kill: {status}"));
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
            return Err(case("records that earlier cuts left have changed".to_owned()));
        }
        check_acknowledged(&found, cut, &run.acknowledged).map_err(case)?;
        tally.found += found.len() - self.kept.len();
        self.kept = found;
        Ok(())
    }

    /// Ends the test, and keeps the directory for inspection.
    fn fail(self, what: &str) -> ! {
        panic!("{what}\nthe log is kept in {}", self.directory.keep().display());
    }
}

/// Opens the directory without `WriteBack`, so that only bytes that left the child are seen.
fn read_back(directory: &Path, after: After) -> Result<(Found, bool), String> {
    // Dropping the runtime waits for the log's last job, and so for the lock.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let storage = FileStorage::create(directory).unwrap();
        WriteBack::discard_lost(&storage).unwrap();
        let wal: Wal = options().open_with(storage).await.map_err(|error| format!("{error:#}"))?;
        let records = wal.replay(..).map_ok(|record| (record.lsn, record.payload.to_vec()));
        let found = records.try_collect().await.map_err(|error| format!("{error:#}"))?;
        if after == After::Close {
            wal.close().await.map_err(|error| format!("{error:#}"))?;
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

/// Checks that each task's records are its own, in order from 0, without a gap, and batches are
/// whole.
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
fn power_cut_keeps_records_acknowledged_as_synced() {
    let cuts = std::env::var("HIGHWATER_POWER_CUTS").ok().and_then(|cuts| cuts.parse().ok());
    let begin = Instant::now();
    let mut tally = Tally::default();
    let mut life = Life::new();
    let cuts = cuts.unwrap_or(30);
    for cut in 0..cuts {
        if cut % CUTS_PER_DIRECTORY == 0 {
            life = Life::new();
        }
        if let Err(what) = life.cut(cut, Lie::None, &mut tally) {
            life.fail(&what);
        }
    }
    println!(
        "{} cuts ({} before the first acknowledgement), {} records acknowledged as synced, {} kept, \
         {} torn tails, {:.1} s",
        tally.cuts,
        tally.silent,
        tally.acknowledged,
        tally.found,
        tally.torn_tails,
        begin.elapsed().as_secs_f64()
    );
    // One cut in three may come while the child opens the log. The others wait for
    // acknowledgements, also on a slow machine.
    let floor = child::ACKNOWLEDGED_MIN as u64 * (cuts * 2 / 3);
    assert!(tally.silent <= cuts / 3 + 1, "{} cuts came before any acknowledgement", tally.silent);
    assert!(tally.acknowledged as u64 >= floor, "too few records were acknowledged");
}

fn assert_caught(lie: Lie) {
    let mut tally = Tally::default();
    let caught = (0..ATTEMPTS).find_map(|cut| Life::new().cut(cut, lie, &mut tally).err());
    let what = caught.unwrap_or_else(|| panic!("{lie:?} was not caught in {ATTEMPTS} cuts"));
    println!("{lie:?} is caught by cut {}: {what}", tally.cuts);
}

#[test]
fn flush_without_effect_is_caught() {
    assert_caught(Lie::SkipSync);
}

#[test]
fn flush_sometimes_without_effect_is_caught() {
    assert_caught(Lie::SkipSomeSyncs);
}

#[test]
fn directory_flush_without_effect_is_caught() {
    assert_caught(Lie::SkipSyncDir);
}
