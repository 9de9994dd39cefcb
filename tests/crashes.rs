//! Power cuts: after every storage operation, with many survivals each, also during recovery, also
//! after a flush that failed. What was acknowledged must be there, in order, and nothing else.
//!
//! `HIGHWATER_CRASH_SEEDS` multiplies the budget; `HIGHWATER_CRASH_SEED` replays one seed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and what it covered is said"
)]

mod disk;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    rc::Rc,
    sync::{Arc, Condvar, Mutex},
};

use disk::{CrashDisk, Image, Lie, Random, Survival};
use futures::{StreamExt, TryStreamExt, stream::FuturesUnordered};
use highwater::{
    Lsn, Wal,
    storage::{Locking, Storage, StorageFile},
};

type Found = Vec<(Lsn, Vec<u8>)>;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

async fn open(disk: impl Storage) -> highwater::Result<Wal> {
    Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10).open_with(disk).await
}

async fn read_all(wal: &Wal) -> Result<Found, String> {
    let records: Vec<_> = wal
        .replay(..)
        .map_ok(|record| (record.lsn, record.payload.to_vec()))
        .try_collect()
        .await
        .map_err(|error| format!("replay: {error}"))?;
    Ok(records)
}

/// What was asked of the log and what it answered, each with the count of disk operations by then.
#[derive(Default)]
struct Oracle {
    /// Records whose place is known.
    placed: BTreeMap<Lsn, Vec<u8>>,
    attempted: BTreeSet<Vec<u8>>,
    attempted_batches: Vec<Vec<Vec<u8>>>,
    /// `(operation count, exclusive end)`: everything below is on stable storage.
    synced: Vec<(u64, Lsn)>,
    /// The same for what is with the operating system.
    written: Vec<(u64, Lsn)>,
}

impl Oracle {
    /// Whether `found`, a log that ends at `end`, is what may be left after operation `at`.
    fn check(&self, found: &Found, end: Lsn, at: u64, process_only: bool) -> Result<(), String> {
        let acknowledged = if process_only {
            self.written.iter().chain(&self.synced)
        } else {
            self.synced.iter().chain(&[])
        };
        let acknowledged = acknowledged.filter(|(when, _)| *when <= at).map(|(_, end)| *end);
        let acknowledged = acknowledged.max().unwrap_or(Lsn::ZERO);
        if end < acknowledged {
            return Err(format!("ends at {end}, acknowledged up to {acknowledged}"));
        }
        for window in found.windows(2) {
            let after = window[0].0.as_u64() + frame_bytes(&window[0].1);
            if window[1].0.as_u64() < after {
                return Err(format!("{} overlaps {}", window[1].0, window[0].0));
            }
        }
        let lsns: BTreeSet<Lsn> = found.iter().map(|(lsn, _)| *lsn).collect();
        for (lsn, payload) in found {
            match self.placed.get(lsn) {
                Some(expected) if expected == payload => {}
                Some(_) => return Err(format!("other bytes at {lsn}")),
                None if self.attempted.contains(payload) => {}
                None => return Err(format!("never appended: {} bytes at {lsn}", payload.len())),
            }
        }
        // Past the last record there may be marks of a recovery, where lost records had been.
        let whole_below = found.last().map_or(acknowledged, |(lsn, _)| acknowledged.max(*lsn));
        let mut expected = self.placed.range(..whole_below);
        if let Some((gone, _)) = expected.find(|(lsn, _)| !lsns.contains(lsn)) {
            return Err(format!(
                "{gone} is missing: ends at {end}, acknowledged up to {acknowledged}"
            ));
        }
        let payloads: BTreeSet<&Vec<u8>> = found.iter().map(|(_, payload)| payload).collect();
        for batch in &self.attempted_batches {
            let there = batch.iter().filter(|part| payloads.contains(part)).count();
            if there != 0 && there != batch.len() {
                return Err(format!("{there} of a batch of {}", batch.len()));
            }
        }
        Ok(())
    }

    /// A log that recovery has just opened: all of it counts as synced.
    fn recovered(found: Found, end: Lsn) -> Self {
        Oracle { placed: found.into_iter().collect(), synced: vec![(0, end)], ..Default::default() }
    }
}

fn frame_bytes(payload: &[u8]) -> u64 {
    16 + (payload.len() as u64).next_multiple_of(8)
}

#[derive(Clone, Debug)]
enum Action {
    Append(usize),
    AppendAndSync(usize),
    Batch(Vec<usize>),
    Enqueue(usize),
    EnqueueSynced(usize),
    Sync,
    Yield,
}

struct Session {
    wal: Wal,
    disk: CrashDisk,
    oracle: Rc<RefCell<Oracle>>,
    next_id: Rc<RefCell<u64>>,
}

impl Session {
    /// Unlike any other if it has eight bytes; not zero, so that a lost sector is never mistaken.
    fn payload(&self, bytes: usize) -> Vec<u8> {
        let mut id = self.next_id.borrow_mut();
        *id += 1;
        let mut random = Random::new(*id << 8 | 0x5a);
        let mut payload: Vec<u8> = (0..bytes).map(|_| random.next() as u8 | 1).collect();
        if bytes >= 8 {
            payload[..8].copy_from_slice(&(*id << 8 | 1).to_le_bytes());
        }
        self.oracle.borrow_mut().attempted.insert(payload.clone());
        payload
    }

    fn placed(&self, lsn: Lsn, payload: &[u8]) {
        let mut oracle = self.oracle.borrow_mut();
        oracle.placed.insert(lsn, payload.to_vec());
    }

    fn wrote(&self, lsn: Lsn) {
        let now = self.disk.operation_count();
        let end = Lsn::new(lsn.as_u64() + 1);
        self.oracle.borrow_mut().written.push((now, end));
    }

    fn synced(&self, end: Lsn) {
        let now = self.disk.operation_count();
        self.oracle.borrow_mut().synced.push((now, end));
    }

    async fn run(&self, action: &Action) -> highwater::Result<()> {
        // In place everything is quick: what takes long waits for something that never comes.
        let limit = std::time::Duration::from_secs(10);
        let ran = tokio::time::timeout(limit, self.run_unlimited(action)).await;
        ran.unwrap_or_else(|_| panic!("{action:?} never ends, {:?}", self.wal))
    }

    async fn run_unlimited(&self, action: &Action) -> highwater::Result<()> {
        match action {
            Action::Append(bytes) => {
                let payload = self.payload(*bytes);
                let lsn = self.wal.append(&payload).await?;
                self.placed(lsn, &payload);
                self.wrote(lsn);
            }
            Action::AppendAndSync(bytes) => {
                let payload = self.payload(*bytes);
                let lsn = self.wal.append_and_sync(&payload).await?;
                self.placed(lsn, &payload);
                self.synced(Lsn::new(lsn.as_u64() + 1));
            }
            Action::Batch(sizes) => self.batch(sizes).await?,
            Action::Enqueue(bytes) | Action::EnqueueSynced(bytes) => {
                let payload = self.payload(*bytes);
                let ticket = self.wal.enqueue(&payload).await?;
                self.placed(ticket.lsn(), &payload);
                if matches!(action, Action::EnqueueSynced(_)) {
                    tokio::task::yield_now().await;
                    ticket.synced().await?;
                    self.synced(Lsn::new(ticket.lsn().as_u64() + 1));
                }
            }
            Action::Sync => {
                let target = self.wal.sync().await?;
                self.synced(target);
            }
            Action::Yield => tokio::task::yield_now().await,
        }
        // Whatever the log says of itself counts as acknowledged too.
        self.synced(self.wal.watermarks().synced);
        Ok(())
    }

    async fn batch(&self, sizes: &[usize]) -> highwater::Result<()> {
        let payloads: Vec<_> = sizes.iter().map(|&bytes| self.payload(bytes)).collect();
        self.oracle.borrow_mut().attempted_batches.push(payloads.clone());
        let range = self.wal.append_batch(&payloads).await?;
        let mut at = range.start;
        for payload in &payloads {
            self.placed(at, payload);
            at = Lsn::new(at.as_u64() + frame_bytes(payload));
        }
        assert_eq!(at, range.end, "a batch's range covers its frames exactly");
        self.wrote(range.start);
        Ok(())
    }
}

/// Sessions of tasks of actions. A session ends with a close or with the last handle dropped.
#[derive(Clone, Debug)]
struct Script {
    sessions: Vec<(Vec<Vec<Action>>, bool)>,
}

fn random_script(seed: u64) -> Script {
    let mut random = Random::new(seed);
    let size = |random: &mut Random| match random.below(40) {
        0 => 20 << 10,
        1 | 2 => 3000,
        3 => 0,
        n => random.below(if n < 20 { 60 } else { 300 }),
    };
    let mut sessions = Vec::new();
    for _ in 0..1 + random.below(3) {
        let mut tasks = Vec::new();
        for _ in 0..1 + random.below(3) {
            let mut actions = Vec::new();
            for _ in 0..2 + random.below(9) {
                let bytes = size(&mut random);
                actions.push(match random.below(12) {
                    0..3 => Action::Append(bytes),
                    3..5 => Action::AppendAndSync(bytes),
                    5 | 6 => {
                        let count = 2 + random.below(3);
                        let sizes = (0..count).map(|_| size(&mut random).max(8));
                        Action::Batch(sizes.collect())
                    }
                    7 | 8 => Action::Enqueue(bytes),
                    9 => Action::EnqueueSynced(bytes),
                    10 => Action::Sync,
                    _ => Action::Yield,
                });
            }
            tasks.push(actions);
        }
        sessions.push((tasks, random.one_in(2)));
    }
    Script { sessions }
}

/// Runs a script until it ends or the log stops.
async fn run(script: &Script, disk: &CrashDisk, seed: u64) -> Oracle {
    let oracle = Rc::new(RefCell::new(Oracle::default()));
    let next_id = Rc::new(RefCell::new(seed << 20));
    for (tasks, closes) in &script.sessions {
        let Ok(wal) = open(disk.clone()).await else {
            break;
        };
        let session = Session {
            wal,
            disk: disk.clone(),
            oracle: Rc::clone(&oracle),
            next_id: Rc::clone(&next_id),
        };
        session.synced(session.wal.watermarks().synced);
        let session = &session;
        let running: FuturesUnordered<_> = tasks
            .iter()
            .map(|actions| async move {
                for action in actions {
                    session.run(action).await?;
                }
                highwater::Result::<()>::Ok(())
            })
            .collect();
        let ended: Vec<_> = running.collect().await;
        if ended.iter().any(Result::is_err) || (*closes && session.wal.close().await.is_err()) {
            break;
        }
        session.synced(session.wal.watermarks().synced);
    }
    oracle.take()
}

#[derive(Default)]
struct Tally {
    cuts: u64,
    images: u64,
    recovery_cuts: u64,
}

/// How far one seed is taken.
#[derive(Clone, Copy)]
struct Depth {
    survivals: u64,
    /// One in this many images is also cut during its recovery.
    recovery_one_in: usize,
    lie: Lie,
}

async fn open_checked(
    disk: &CrashDisk,
    oracle: &Oracle,
    at: u64,
    process_only: bool,
) -> Result<(Wal, Oracle), String> {
    let wal = open(disk.clone()).await.map_err(|error| format!("opening refuses: {error}"))?;
    let marks = wal.watermarks();
    if marks.synced != marks.written || marks.written != marks.reserved {
        return Err(format!("after opening: {marks:?}"));
    }
    let found = read_all(&wal).await?;
    let end = wal.recovery().end;
    oracle
        .check(&found, end, at, process_only)
        .map_err(|what| format!("{what}; {}", wal.recovery()))?;
    let recovered = Oracle::recovered(found, marks.synced);
    Ok((wal, recovered))
}

/// Opens, checks, appends more, cuts the power again, and checks again.
async fn live_on(
    disk: &CrashDisk,
    oracle: &Oracle,
    at: u64,
    seed: u64,
    process_only: bool,
) -> Result<(), String> {
    let (wal, recovered) = open_checked(disk, oracle, at, process_only).await?;
    let end = wal.watermarks().synced;
    let session = Session {
        wal,
        disk: disk.clone(),
        oracle: Rc::new(RefCell::new(recovered)),
        next_id: Rc::new(RefCell::new(seed << 32 | 1 << 30)),
    };
    session.oracle.borrow_mut().synced = vec![(0, end)];
    let mut random = Random::new(seed);
    for _ in 0..random.below(4) {
        let action = match random.below(4) {
            0 => Action::Append(random.below(2000)),
            1 => Action::Batch(vec![30, 40]),
            2 => Action::Enqueue(random.below(100)),
            _ => Action::AppendAndSync(random.below(300)),
        };
        session.run(&action).await.map_err(|e| e.to_string())?;
    }
    let after = session.oracle.take();
    drop(session);
    for survival in [Survival::Nothing, Survival::Random(seed ^ 0xa5a5)] {
        let again = disk.crash(survival, seed + 1);
        let (wal, _) = open_checked(&again, &after, u64::MAX, false)
            .await
            .map_err(|what| format!("after a second crash ({survival:?}): {what}"))?;
        drop(wal);
    }
    Ok(())
}

/// Cuts the power after each operation of the recovery of `image`.
async fn cut_recovery(
    image: &Image,
    oracle: &Oracle,
    at: u64,
    seed: u64,
    tally: &mut Tally,
) -> Result<(), String> {
    let whole = CrashDisk::with(image.clone(), seed);
    drop(open(whole.clone()).await);
    for cut in 0..=whole.operation_count() {
        let disk = CrashDisk::with(image.clone(), seed).cut_after(cut);
        drop(open(disk.clone()).await);
        tally.recovery_cuts += 1;
        for survival in [Survival::Nothing, Survival::Everything, Survival::Random(seed ^ cut)] {
            let again = disk.crash(survival, seed + 7);
            let (wal, _) = open_checked(&again, oracle, at, false)
                .await
                .map_err(|what| format!("recovery cut after {cut} ({survival:?}): {what}"))?;
            drop(wal);
        }
    }
    Ok(())
}

/// One seed: runs the script once, then cuts the power after each operation of it.
fn sweep(seed: u64, script: &Script, depth: Depth, tally: &mut Tally) -> Result<(), String> {
    block_on(async {
        let disk = CrashDisk::new(seed).lying(depth.lie).recording();
        let oracle = run(script, &disk, seed).await;
        let history = disk.history();
        let mut random = Random::new(seed ^ 0xc0ffee);
        for (at, image) in history.iter().enumerate() {
            let at = at as u64;
            tally.cuts += 1;
            let random_survivals =
                (0..depth.survivals).map(|i| Survival::Random(seed << 24 ^ at << 8 ^ i));
            let survivals =
                [Survival::Nothing, Survival::Everything].into_iter().chain(random_survivals);
            for survival in survivals {
                tally.images += 1;
                let crashed = image.crash(survival);
                let case = |what: String| {
                    format!("seed {seed}, cut after operation {at}, {survival:?}: {what}")
                };
                let case_seed = random.next() >> 40;
                let disk = CrashDisk::with(crashed.clone(), case_seed);
                live_on(&disk, &oracle, at, case_seed, false).await.map_err(case)?;
                if random.one_in(depth.recovery_one_in) {
                    cut_recovery(&crashed, &oracle, at, case_seed, tally).await.map_err(case)?;
                }
            }
        }
        Ok(())
    })
}

fn budget(default: u64) -> std::ops::Range<u64> {
    if let Some(seed) = env("HIGHWATER_CRASH_SEED") {
        return seed..seed + 1;
    }
    0..default * env("HIGHWATER_CRASH_SEEDS").unwrap_or(1)
}

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn replayable(test: &str, seed: u64, swept: Result<(), String>) {
    if let Err(what) = swept {
        panic!("{what}\nreplay: HIGHWATER_CRASH_SEED={seed} cargo test --test crashes {test}");
    }
}

const FULL: Depth = Depth { survivals: 3, recovery_one_in: 25, lie: Lie::None };

#[test]
fn random_workloads_survive_a_power_cut_after_every_operation() {
    let mut tally = Tally::default();
    for seed in budget(14) {
        let script = random_script(seed);
        let swept = sweep(seed, &script, FULL, &mut tally);
        replayable("random_workloads", seed, swept);
    }
    println!(
        "{} cuts, {} images, {} cuts of a recovery",
        tally.cuts, tally.images, tally.recovery_cuts
    );
    assert!(tally.images > tally.cuts, "the sweep swept something");
}

#[test]
fn scripted_workloads_survive_a_power_cut_after_every_operation() {
    use Action::{Append, AppendAndSync, Batch, Enqueue, Sync};
    let session = |actions: Vec<Action>, closes| (vec![actions], closes);
    // A segment has room for 4096 bytes of frames: sizes that end on it, next to it and past it.
    let scripts = [
        ("an empty log", vec![session(vec![], true), session(vec![], false)]),
        (
            "a segment filled to its last byte",
            vec![session(
                vec![Append(1000), Append(1000), Append(1000), AppendAndSync(1008), Append(8)],
                true,
            )],
        ),
        (
            "no room for the mark",
            vec![
                session(vec![Append(2000), AppendAndSync(2048), AppendAndSync(8)], true),
                session(vec![Sync, AppendAndSync(10)], false),
            ],
        ),
        (
            "no room for the close",
            vec![
                session(vec![Append(2000), Append(2048)], true),
                session(vec![AppendAndSync(10)], true),
            ],
        ),
        (
            "a unit larger than a segment between others",
            vec![session(
                vec![
                    AppendAndSync(100),
                    Append(20 << 10),
                    Enqueue(5),
                    Batch(vec![9000, 9000]),
                    Sync,
                ],
                false,
            )],
        ),
        (
            "three segments and no sync",
            vec![session((0..12).map(|_| Append(1000)).collect(), false)],
        ),
        (
            "reopened again and again without a close",
            vec![
                session(vec![Append(100)], false),
                session(vec![], false),
                session(vec![AppendAndSync(100), Append(10)], false),
                session(vec![Batch(vec![20, 30])], false),
                session(vec![], false),
            ],
        ),
    ];
    let mut tally = Tally::default();
    for (name, sessions) in scripts {
        let depth = Depth { survivals: 4, recovery_one_in: 12, ..FULL };
        if let Err(what) = sweep(1, &Script { sessions }, depth, &mut tally) {
            panic!("{name}: {what}");
        }
    }
    println!(
        "{} cuts, {} images, {} cuts of a recovery",
        tally.cuts, tally.images, tally.recovery_cuts
    );
}

/// Fails each flush of a script in turn, reopens on the same boot and then cuts the power.
fn fail_syncs(seed: u64, lie: Lie, tally: &mut Tally) -> Result<(), String> {
    let script = random_script(seed);
    block_on(async {
        let disk = CrashDisk::new(seed);
        run(&script, &disk, seed).await;
        for index in 0..disk.sync_count() {
            let disk = CrashDisk::new(seed).failing_sync(index).lying(lie);
            let oracle = run(&script, &disk, seed).await;
            disk.heal();
            tally.cuts += 1;
            let case = |what: String| format!("seed {seed}, flush {index} fails: {what}");
            // The power goes at once, or after the log was opened again on the same boot.
            for survival in [Survival::Nothing, Survival::Random(seed ^ index)] {
                tally.images += 1;
                let crashed = disk.crash(survival, seed);
                live_on(&crashed, &oracle, u64::MAX, index, false).await.map_err(case)?;
            }
            cut_same_boot(&disk, &oracle, tally).await.map_err(case)?;
            live_on(&disk, &oracle, u64::MAX, index, true)
                .await
                .map_err(|what| case(format!("on the same boot: {what}")))?;
        }
        Ok(())
    })
}

/// Opens what a failed flush left, on the same boot, with a power cut after each operation of that.
async fn cut_same_boot(disk: &CrashDisk, oracle: &Oracle, tally: &mut Tally) -> Result<(), String> {
    let image = disk.image();
    let whole = CrashDisk::with(image.clone(), 5);
    drop(open(whole.clone()).await);
    for cut in 0..=whole.operation_count() {
        let reopened = CrashDisk::with(image.clone(), 5).cut_after(cut);
        drop(open(reopened.clone()).await);
        tally.recovery_cuts += 1;
        for survival in [Survival::Nothing, Survival::Random(cut)] {
            let crashed = reopened.crash(survival, cut);
            let (wal, _) = open_checked(&crashed, oracle, u64::MAX, false)
                .await
                .map_err(|what| format!("same boot, cut after {cut} ({survival:?}): {what}"))?;
            drop(wal);
        }
    }
    Ok(())
}

#[test]
fn a_failed_sync_then_a_reopening_on_the_same_boot_then_a_power_cut_lose_nothing() {
    let mut tally = Tally::default();
    for seed in budget(40) {
        replayable("a_failed_sync", seed, fail_syncs(seed, Lie::None, &mut tally));
    }
    println!("{} failed flushes, {} cuts of a recovery", tally.cuts, tally.recovery_cuts);
    assert!(tally.cuts > 0);
}

fn assert_caught(lie: Lie) {
    let depth = Depth { lie, survivals: 1, recovery_one_in: usize::MAX };
    let caught = (0..10)
        .find_map(|seed| sweep(seed, &random_script(seed), depth, &mut Tally::default()).err());
    let what = caught.unwrap_or_else(|| panic!("{lie:?} was not caught"));
    println!("{lie:?} is caught: {what}");
}

#[test]
fn a_disk_that_acknowledges_before_it_flushes_is_caught() {
    assert_caught(Lie::SkipSync);
}

#[test]
fn a_directory_that_is_never_flushed_is_caught() {
    assert_caught(Lie::SkipSyncDir);
}

#[test]
fn a_failed_flush_that_a_retry_turns_into_ok_is_caught() {
    let caught =
        (0..40).find_map(|seed| fail_syncs(seed, Lie::HideFailedSync, &mut Tally::default()).err());
    println!("caught: {}", caught.unwrap());
}

/// A blocking disk whose flush of one file can be held up after it has done its work.
#[derive(Clone, Debug)]
struct Latched {
    disk: CrashDisk,
    latch: Arc<Latch>,
}

#[derive(Debug, Default)]
struct Latch {
    /// `Armed`, `Reached` (a flush waits) and `Idle`.
    state: Mutex<LatchState>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LatchState {
    #[default]
    Idle,
    Armed,
    Reached,
}

impl Latch {
    fn set(&self, to: LatchState) {
        *self.state.lock().unwrap() = to;
        self.changed.notify_all();
    }

    fn wait_for(&self, wanted: LatchState) {
        let mut state = self.state.lock().unwrap();
        while *state != wanted {
            state = self.changed.wait(state).unwrap();
        }
    }
}

#[derive(Debug)]
struct LatchedFile(Box<dyn StorageFile>, Arc<Latch>);

impl StorageFile for LatchedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()?;
        let armed = *self.1.state.lock().unwrap() == LatchState::Armed;
        if armed {
            self.1.set(LatchState::Reached);
            self.1.wait_for(LatchState::Idle);
        } else {
            // Its work is done and not yet known: what is written now is not covered.
            std::thread::sleep(std::time::Duration::from_micros(500));
        }
        Ok(())
    }
    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

impl Storage for Latched {
    fn location(&self) -> String {
        self.disk.location()
    }
    fn lock(&self) -> io::Result<Locking> {
        self.disk.lock()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let file = self.disk.create(name)?;
        Ok(Box::new(LatchedFile(file, Arc::clone(&self.latch))))
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let file = self.disk.open(name)?;
        Ok(Box::new(LatchedFile(file, Arc::clone(&self.latch))))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
}

/// ```text
/// syncer: takes [A] ---- fsync A ------------------------------- answers
/// writer:                       writes more to A, seals it, begins B
/// ```
///
/// The flush of A covers nothing that was written while it ran, though A is sealed when it ends.
#[test]
fn a_flush_that_overlaps_a_rotation_covers_only_what_was_written_before_it() {
    let disk = CrashDisk::new(1);
    let latch = Arc::new(Latch::default());
    let storage = Latched { disk: disk.clone(), latch: Arc::clone(&latch) };
    let acknowledged = block_on(async {
        let wal = open(storage).await.unwrap();
        wal.append_and_sync(&[1; 100]).await.unwrap();
        latch.set(LatchState::Armed);
        let syncing = wal.enqueue(&[2; 100]).await.unwrap();
        let first = tokio::join!(syncing.synced(), async {
            tokio::task::yield_now().await;
            latch.wait_for(LatchState::Reached);
            // The flush of the first segment is over and not answered: these fill it and the next.
            for i in 3..9u8 {
                wal.append(&[i; 1000]).await.unwrap();
            }
            assert!(wal.stats().rotation_count > 0, "the log rotated meanwhile");
            latch.set(LatchState::Idle);
        });
        first.0.unwrap();
        wal.sync().await.unwrap();
        wal.watermarks().synced
    });
    block_on(async {
        let crashed = disk.crash(Survival::Nothing, 2);
        let wal = open(crashed).await.unwrap();
        assert!(
            wal.recovery().end >= acknowledged,
            "acknowledged up to {acknowledged}, {}",
            wal.recovery()
        );
        assert_eq!(read_all(&wal).await.unwrap().len(), 8);
    });
}

/// Flushes that overlap writes, rotations and each other's waiters, on real threads.
#[test]
fn many_threads_lose_nothing_acknowledged_when_the_power_goes() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    let mut acknowledged_count = 0;
    for seed in budget(60) {
        let mut random = Random::new(seed);
        let disk = CrashDisk::new(seed).cut_after(40 + random.below(1500) as u64);
        let tasks = many_tasks(disk.clone(), seed);
        let tasks = async { tokio::time::timeout(std::time::Duration::from_secs(30), tasks).await };
        let acknowledged = runtime.block_on(tasks).unwrap_or_else(|_| panic!("seed {seed} hangs"));
        acknowledged_count += acknowledged.len();
        for survival in [Survival::Nothing, Survival::Random(seed)] {
            let found = block_on(async {
                let wal = open(disk.crash(survival, seed)).await.unwrap();
                read_all(&wal).await.unwrap()
            });
            let found: BTreeMap<_, _> = found.into_iter().collect();
            for (lsn, payload) in &acknowledged {
                let kept = found.get(lsn) == Some(payload);
                assert!(kept, "seed {seed}, {survival:?}: {lsn} was acknowledged");
            }
        }
    }
    println!("{acknowledged_count} acknowledged records");
    assert!(acknowledged_count > 0);
}

/// Appends from many tasks until the power goes, and says what was acknowledged as synced.
async fn many_tasks(disk: CrashDisk, seed: u64) -> Vec<(Lsn, Vec<u8>)> {
    let latch = Arc::default();
    let Ok(wal) = open(Latched { disk, latch }).await else {
        return Vec::new();
    };
    let tasks = (0..6u64).map(|task| {
        let wal = wal.clone();
        tokio::spawn(async move {
            let mut random = Random::new(seed << 8 | task);
            let mut acknowledged = Vec::new();
            loop {
                let payload = vec![random.next() as u8; random.below(600)];
                // Some only ever append: they write and rotate while the others' flush runs.
                if task % 2 == 0 || random.one_in(4) {
                    if wal.append(&payload).await.is_err() {
                        return acknowledged;
                    }
                    continue;
                }
                let Ok(lsn) = wal.append_and_sync(&payload).await else {
                    return acknowledged;
                };
                acknowledged.push((lsn, payload));
            }
        })
    });
    let mut acknowledged = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        acknowledged.extend(task.await.unwrap());
    }
    acknowledged
}
