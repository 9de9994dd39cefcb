//! Cuts the power after every disk operation. The recovered changes must be a prefix of the issued
//! ones, across all groups, with every acknowledged change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use highwater::{
    raft::RaftLog,
    simulation::{self, Disk, Image, Op, Random, Simulation, Survival, for_each_seed},
};

use super::{
    model::Model,
    workload::{Driver, History, IssuedChange, Notes, options},
};

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) images: u64,
    pub(crate) reopened: u64,
    pub(crate) removed: u64,
    pub(crate) hinted: u64,
}

/// Runs sessions of tasks, each with separate groups. Between them the log is closed or dropped.
async fn run(disk: &Disk, seed: u64, settings: SweepOptions, tally: &mut Tally) -> History {
    let notes: Notes = Arc::new(Mutex::new(History::default()));
    let mut random = Random::new(seed ^ 0x5eed);
    for session in 0..1 + random.below(3) as u64 {
        let log = options(seed + session).open_with(disk.clone()).await.unwrap();
        let found = Model::all_of(&log).await.unwrap();
        let expected = all(&notes.lock().unwrap());
        assert!(
            settings.delays_votes || found == expected,
            "{found:?} of {expected:?}, {seed}, {session}"
        );
        let driver = Driver {
            log: log.clone(),
            disk: disk.clone(),
            notes: Arc::clone(&notes),
            delayed_votes: settings.delays_votes.then(Default::default),
        };
        let tasks: &[&[u64]] = &[&[1], &[2, 300], &[70_000]];
        let task_count = 1 + random.below(3);
        let mut running = Vec::new();
        for (number, groups) in (0..).zip(&tasks[..task_count]) {
            let (driver, groups) = (driver.clone(), groups.to_vec());
            let (seed, count) = (seed * 64 + session * 8 + number, 10 + random.below(30));
            let task = async move { driver.drive(&groups, seed, count).await.unwrap() };
            if settings.in_simulation {
                running.push(simulation::spawn(task));
            } else {
                task.await;
            }
        }
        for task in running {
            task.await.unwrap();
        }
        drop(driver);
        tally.reopened += 1;
        tally.removed += log.wal().stats().removed_count;
        tally.hinted += u64::from(log.stats().opened_from_hint);
        if random.one_in(2) {
            log.close().await.unwrap();
        }
    }
    Arc::try_unwrap(notes)
        .map_or_else(|notes| notes.lock().unwrap().clone(), |notes| notes.into_inner().unwrap())
}

/// Returns the models of all groups after every issued change.
fn all(history: &History) -> BTreeMap<u64, Model> {
    let ids: BTreeSet<_> = history.steps.keys().chain(history.before.keys()).collect();
    let models = ids.into_iter().map(|id| (*id, history.model(*id)));
    models.filter(|(_, model)| *model != Model::default()).collect()
}

/// Returns the ranges of positions at which a cut of the log gives the found state of a group.
fn cuts_of(
    steps: &[IssuedChange],
    before: &Model,
    found: &Model,
    at: u64,
) -> Result<Vec<(u64, u64)>, String> {
    let must = steps.iter().rposition(|step| step.acknowledged.is_some_and(|when| when <= at));
    let may = steps.iter().take_while(|step| step.began <= at).count();
    let from = must.map_or(0, |number| number + 1);
    let mut cuts = Vec::new();
    let mut seen_before = false;
    for count in 0..=may {
        let state = if count == 0 { before } else { &steps[count - 1].after };
        if state != found {
            continue;
        }
        seen_before = true;
        if count < from {
            continue;
        }
        let low = steps[..count].iter().rev().find_map(|step| step.lsn).unwrap_or(0);
        let high = steps[count..].iter().find_map(|step| step.lsn).unwrap_or(u64::MAX);
        cuts.push((low, high));
    }
    match (cuts.is_empty(), seen_before) {
        (false, _) => Ok(cuts),
        (true, true) => Err(format!("acknowledged changes are lost: {from} were, found {found:?}")),
        (true, false) => Err(format!(
            "the group never had this state: {found:?}, after {may} changes, the last {:?}",
            steps.get(may.wrapping_sub(1)).map(|step| &step.change)
        )),
    }
}

/// Checks that a power cut after operation `at` may leave the state `found`.
pub(crate) fn check(
    history: &History,
    found: &BTreeMap<u64, Model>,
    at: u64,
) -> Result<(), String> {
    if let Some(what) = history.contradictions.first() {
        return Err(what.clone());
    }
    let none = Vec::new();
    let mut cuts = Vec::new();
    let ids: BTreeSet<_> =
        history.steps.keys().chain(history.before.keys()).chain(found.keys()).collect();
    for id in ids {
        let before = history.before.get(id).cloned().unwrap_or_default();
        let steps = history.steps.get(id).unwrap_or(&none);
        let found = found.get(id).cloned().unwrap_or_default();
        let of_group =
            cuts_of(steps, &before, &found, at).map_err(|w| format!("group {id}: {w}"))?;
        cuts.push(of_group);
    }
    // All groups must have been cut at one position of the log.
    let places = cuts.iter().flatten().map(|(low, _)| *low);
    let fits = |place: u64| {
        cuts.iter()
            .all(|of_group| of_group.iter().any(|(low, high)| *low <= place && place < *high))
    };
    if cuts.is_empty() || places.into_iter().any(fits) {
        Ok(())
    } else {
        Err(format!("the groups are not of one moment: {cuts:?}"))
    }
}

pub(crate) async fn open_checked(
    disk: &Disk,
    history: &History,
    seed: u64,
    at: u64,
) -> Result<(RaftLog, BTreeMap<u64, Model>), String> {
    let log = options(seed).open_with(disk.clone()).await;
    let log = log.map_err(|error| format!("opening failed: {error}"))?;
    let found = Model::all_of(&log).await?;
    check(history, &found, at)?;
    Ok((log, found))
}

/// Opens the log after a crash, changes it further, and cuts the power again.
async fn continue_after_crash(
    image: Image,
    history: &History,
    seed: u64,
    at: u64,
) -> Result<(), String> {
    let disk = Disk::with_image(image, seed);
    let (log, found) = open_checked(&disk, history, seed, at).await?;
    let before = History { before: found.clone(), ..History::default() };
    for survival in [Survival::Nothing, Survival::Random(seed)] {
        // The state reported at opening is durable already.
        let (_, again) = open_checked(&disk.crash(survival), &before, seed, u64::MAX).await?;
        if again != found {
            return Err("state reported after a crash is lost after the next crash".to_owned());
        }
    }
    let notes = Arc::new(Mutex::new(before));
    let driver = Driver { log, disk: disk.clone(), notes: Arc::clone(&notes), delayed_votes: None };
    driver.drive(&[1, 2, 300], seed, 6).await.map_err(|error| format!("{error:#}"))?;
    drop(driver);
    let after = notes.lock().unwrap().clone();
    for survival in [Survival::Nothing, Survival::Random(seed ^ 0xa5)] {
        open_checked(&disk.crash(survival), &after, seed, u64::MAX)
            .await
            .map_err(|what| format!("after a second crash: {what}"))?;
    }
    Ok(())
}

/// The options of one seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SweepOptions {
    /// Runs tasks and jobs in an order that the seed decides. Otherwise tasks run one at a time.
    pub(crate) in_simulation: bool,
    /// Checks one of this many images.
    pub(crate) one_in: usize,
    /// Issues votes after the change that follows them: a deliberate mistake.
    pub(crate) delays_votes: bool,
}

/// Runs one seed and checks the images of power cuts.
pub(crate) fn sweep(seed: u64, settings: SweepOptions, tally: &mut Tally) -> Result<(), String> {
    let disk = Disk::new(seed).recording();
    let history = if settings.in_simulation {
        Simulation::new(seed).run(run(&disk, seed, settings, tally))
    } else {
        block_on(run(&disk, seed, settings, tally))
    };
    let mut random = Random::new(seed);
    for cut in disk.power_cuts(1) {
        let seed = random.next_u64() >> 40;
        if !random.one_in(settings.one_in) {
            continue;
        }
        tally.images += 1;
        block_on(continue_after_crash(cut.image(), &history, seed, cut.operation))
            .map_err(|what| format!("seed {seed}, {cut}: {what}"))?;
    }
    // The process ends, the log is opened on the same boot, then the power fails.
    block_on(continue_after_crash(disk.image(), &history, seed, u64::MAX))
        .map_err(|what| format!("seed {seed}, on the same boot: {what}"))
}

/// Fails one flush, opens the log on the same boot, then cuts the power. Repeats for 40 flushes.
pub(crate) fn fail_syncs(seed: u64, tally: &mut Tally) -> Result<(), String> {
    for index in 0..40 {
        let disk = Disk::new(seed);
        disk.faults().on(Op::Sync).skip(index).once().fail_os(5);
        let history = block_on(run_until_it_fails(&disk, seed));
        if disk.faults().met_count() == 0 {
            break;
        }
        tally.images += 1;
        disk.faults().land();
        block_on(continue_after_crash(disk.image(), &history, seed, u64::MAX))
            .map_err(|what| format!("seed {seed}, flush {index} fails: {what}"))?;
    }
    Ok(())
}

async fn run_until_it_fails(disk: &Disk, seed: u64) -> History {
    let notes: Notes = Arc::new(Mutex::new(History::default()));
    if let Ok(log) = options(seed).open_with(disk.clone()).await {
        let notes = Arc::clone(&notes);
        let driver = Driver { log, disk: disk.clone(), notes, delayed_votes: None };
        // It ends with the failure, or after all changes.
        let _ = driver.drive(&[1, 2, 300], seed, 40).await;
    }
    notes.lock().unwrap().clone()
}

fn sweep_seeds(count: u64, in_simulation: bool) {
    let began = std::time::Instant::now();
    let mut tally = Tally::default();
    for_each_seed(count, |seed| {
        let settings = SweepOptions { in_simulation, one_in: 40, delays_votes: false };
        if let Err(what) = sweep(seed, settings, &mut tally) {
            panic!("{what}");
        }
    });
    println!("{tally:?} in {:?}", began.elapsed());
    assert!(tally.images >= 30 && tally.removed > 0, "{tally:?}");
}

#[test]
fn sequential_changes_survive_power_cuts() {
    sweep_seeds(3, false);
}

#[test]
fn concurrent_changes_survive_power_cuts() {
    sweep_seeds(3, true);
}

#[test]
fn failed_flush_then_power_cut_loses_nothing() {
    let mut tally = Tally::default();
    for_each_seed(4, |seed| {
        if let Err(what) = fail_syncs(seed, &mut tally) {
            panic!("{what}");
        }
    });
    println!("{tally:?}");
    assert!(tally.images >= 75, "{tally:?}");
}
