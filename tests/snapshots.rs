//! Crash-tests a store that keeps a snapshot file beside its log, on one simulated disk.
//!
//! `docs/guide/crash_tests.md` explains this test. Each change adds the next power of two to a sum.
//! So after n changes the sum is 2^n - 1, and any other sum shows a change that is missing or was
//! applied twice. The store can also make a mistake on purpose, and the test must catch each.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

use std::{
    cell::{Cell, RefCell},
    error::Error,
    io,
    rc::Rc,
};

use futures::TryStreamExt;
use highwater::{
    Lsn, Ticket, Wal,
    simulation::{self, Disk, PowerCut, Promises, Simulation, Survival},
    storage::Storage,
};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

const SNAPSHOT: &str = "snapshot";
const UNFINISHED: &str = "snapshot.new";
/// Enough bytes that a few changes fill a segment.
const CHANGE_BYTES: usize = 400;
const CHANGE_COUNT: u32 = 24;

/// A step that the store forgets or does too early.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mistake {
    /// Acknowledges a change that is written and not synced.
    AcknowledgesEarly,
    /// The snapshot claims records that are not synced.
    ClaimsBeforeSync,
    /// The file of the snapshot gets its name before its bytes are durable.
    RenamesBeforeSync,
    /// The log is truncated before the name of the snapshot is durable.
    TruncatesBeforeDirectorySync,
    /// The snapshot keeps the LSN of its last record instead of the end of that record.
    KeepsLsnOfLastRecord,
}

const MISTAKES: [Mistake; 5] = [
    Mistake::AcknowledgesEarly,
    Mistake::ClaimsBeforeSync,
    Mistake::RenamesBeforeSync,
    Mistake::TruncatesBeforeDirectorySync,
    Mistake::KeepsLsnOfLastRecord,
];

/// The state, and the position up to which the log is in it.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    sum: u64,
    position: Lsn,
}

impl State {
    fn apply(&mut self, change: u64, position: Lsn) {
        self.sum += change;
        self.position = position;
    }

    /// Returns the bytes of a snapshot: both numbers, and their sum as a checksum.
    fn to_bytes(self) -> Vec<u8> {
        let (sum, position) = (self.sum, self.position.as_u64());
        let numbers = [sum, position, !sum.wrapping_add(position)];
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let state = State { sum: number(0)?, position: Lsn::new(number(8)?) };
        (state.to_bytes() == bytes).then_some(state)
    }
}

struct Store {
    disk: Disk,
    wal: Wal,
    state: RefCell<State>,
    mistake: Option<Mistake>,
}

impl Store {
    async fn open(disk: &Disk, mistake: Option<Mistake>) -> Result<Self> {
        let options = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
        let wal = options.open_with(disk.clone()).await?;
        let mut state = read_snapshot(disk)?.unwrap_or_default();
        let mut changes = wal.replay(state.position..);
        while let Some(record) = changes.try_next().await? {
            let change = record.payload.first_chunk().ok_or("a record is too short")?;
            state.apply(u64::from_le_bytes(*change), record.end);
        }
        Ok(Store { disk: disk.clone(), wal, state: RefCell::new(state), mistake })
    }

    /// Appends and applies the next change. Only one task may do that at a time.
    async fn put(&self) -> highwater::Result<Ticket> {
        let change = self.state.borrow().sum + 1;
        let mut payload = vec![0; CHANGE_BYTES];
        payload[..8].copy_from_slice(&change.to_le_bytes());
        let ticket = self.wal.enqueue(payload).await?;
        self.state.borrow_mut().apply(change, ticket.end());
        if self.makes(Mistake::KeepsLsnOfLastRecord) {
            self.state.borrow_mut().position = ticket.lsn();
        }
        Ok(ticket)
    }

    async fn acknowledged(&self, ticket: &Ticket) -> highwater::Result<()> {
        if self.makes(Mistake::AcknowledgesEarly) {
            return ticket.written().await;
        }
        ticket.synced().await
    }

    /// Writes a snapshot, and truncates the log up to its position.
    async fn snapshot(&self) -> Result {
        let state = *self.state.borrow();
        if !self.makes(Mistake::ClaimsBeforeSync) {
            self.wal.sync().await?;
        }
        self.write_snapshot(state)?;
        self.wal.truncate_before(state.position).await?;
        Ok(())
    }

    fn write_snapshot(&self, state: State) -> io::Result<()> {
        // A power cut may have left an unfinished one.
        if self.disk.list()?.iter().any(|name| name == UNFINISHED) {
            self.disk.remove(UNFINISHED)?;
        }
        let file = self.disk.create(UNFINISHED)?;
        let bytes = state.to_bytes();
        if file.write_at(&bytes, 0)? < bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        if !self.makes(Mistake::RenamesBeforeSync) {
            file.sync_all()?;
        }
        self.disk.rename(UNFINISHED, SNAPSHOT)?;
        if self.makes(Mistake::TruncatesBeforeDirectorySync) {
            return Ok(());
        }
        self.disk.sync_dir()
    }

    fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }
}

fn read_snapshot(disk: &Disk) -> Result<Option<State>> {
    if !disk.list()?.iter().any(|name| name == SNAPSHOT) {
        return Ok(None);
    }
    let mut bytes = vec![0; 25];
    let count = disk.open(SNAPSHOT)?.read_at(&mut bytes, 0)?;
    bytes.truncate(count);
    let state = State::from_bytes(&bytes).ok_or("the snapshot is damaged")?;
    Ok(Some(state))
}

/// Appends changes while another task writes snapshots. Promises the sum after each change.
async fn workload(disk: Disk, promises: &Promises<u64>, mistake: Option<Mistake>) {
    let store = Rc::new(Store::open(&disk, mistake).await.unwrap());
    let is_done = Rc::new(Cell::new(false));
    let snapshots = simulation::spawn({
        let (store, is_done) = (Rc::clone(&store), Rc::clone(&is_done));
        async move {
            let mut before = 0;
            while !is_done.get() {
                let sum = store.state.borrow().sum;
                if sum > before << 5 {
                    store.snapshot().await.unwrap();
                    before = sum;
                }
                simulation::yield_now().await;
            }
        }
    });
    let mut waiting: Option<(Ticket, u64)> = None;
    for _ in 0..CHANGE_COUNT {
        let ticket = store.put().await.unwrap();
        let sum = store.state.borrow().sum;
        // The change before is acknowledged while this one is in flight.
        if let Some((ticket, sum)) = waiting.replace((ticket, sum)) {
            store.acknowledged(&ticket).await.unwrap();
            promises.make(sum);
        }
    }
    is_done.set(true);
    snapshots.await.unwrap();
}

/// Checks a state that a power cut has left: the promised changes are there, and the store can
/// continue.
async fn check(cut: &PowerCut, promised: u64, mistake: Option<Mistake>) -> Result {
    let mut disk = cut.disk();
    let mut sum_min = promised;
    for _ in 0..2 {
        let store = Store::open(&disk, mistake).await?;
        let sum = store.state.borrow().sum;
        if !(sum + 1).is_power_of_two() {
            return Err(format!("a change is missing or was applied twice: {sum:#x}").into());
        }
        if sum < sum_min {
            return Err(format!("acknowledged changes were lost: {sum:#x} of {sum_min:#x}").into());
        }
        for _ in 0..3 {
            store.put().await?.synced().await?;
        }
        store.snapshot().await?;
        store.put().await?.synced().await?;
        sum_min = store.state.borrow().sum;
        disk = disk.crash(Survival::Nothing);
    }
    Ok(())
}

/// Tests one seed. Returns the number of checked states, or the first failure.
fn crash_test(seed: u64, mistake: Option<Mistake>) -> std::result::Result<u64, String> {
    let disk = Disk::new(seed).recording();
    let promises = Promises::new(&disk);
    Simulation::new(seed).run(workload(disk.clone(), &promises, mistake));
    let mut count = 0;
    for cut in disk.power_cuts(2) {
        let promised = promises.made_by(cut.operation).into_iter().max().unwrap_or_default();
        let checked = Simulation::new(seed).run(check(&cut, promised, mistake));
        checked.map_err(|error| format!("seed {seed}, {cut}: {error}"))?;
        count += 1;
    }
    Ok(count)
}

#[test]
fn store_with_snapshots_survives_power_cuts() {
    let mut count = 0;
    simulation::for_each_seed(4, |seed| count += crash_test(seed, None).unwrap());
    println!("{count} states");
    assert!(count > 500, "only {count} states: the workload does too little");
}

/// The negative control: a test that catches none of these proves nothing.
#[test]
fn each_mistake_of_a_store_is_caught() {
    for mistake in MISTAKES {
        let failure = (0..20).find_map(|seed| crash_test(seed, Some(mistake)).err());
        println!("{mistake:?}: {failure:?}");
        assert!(failure.is_some(), "{mistake:?} was not caught");
    }
}
