//! Crash-tests a store that is built on the log.
//!
//! The store is a small key-value store that writes its changes to the log. The test runs it on a
//! simulated disk, and cuts the power after each operation of the disk. None, all or a random part
//! of the unsynced writes survive a cut. After each cut the store must have every acknowledged
//! change. At the end the test also finds the mistake in a store that acknowledges too early.
//! To run it:
//!
//! ```text
//! cargo run --release --features simulation --example crash_test
//! ```

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example prints, and may panic")]

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use highwater::{
    Wal,
    simulation::{self, Disk, Op, Promises, Random, Simulation},
    storage::Storage,
};

/// The code under test: keys and values in memory, and their changes in the log.
struct Store {
    wal: Wal,
    values: RefCell<BTreeMap<u8, u64>>,
    /// The mistake to find: acknowledges a change when it is written, not when it is synced.
    acknowledges_early: bool,
}

impl Store {
    async fn open(storage: impl Storage, acknowledges_early: bool) -> highwater::Result<Self> {
        // Small limits, so that a short run rotates segments and waits for ring space.
        let wal = Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 10);
        let wal = wal.open_with(storage).await?;
        let mut values = BTreeMap::new();
        let mut changes = wal.replay(..);
        while let Some(change) = changes.try_next().await? {
            // 1 byte of key and 8 bytes of value. This store wrote the record, and the log has
            // verified its checksum.
            let (key, value) = change.payload.split_first().unwrap();
            values.insert(*key, u64::from_le_bytes(value.try_into().unwrap()));
        }
        Ok(Store { wal, values: RefCell::new(values), acknowledges_early })
    }

    async fn put(&self, key: u8, value: u64) -> highwater::Result<()> {
        let mut change = vec![key];
        change.extend(value.to_le_bytes());
        let ticket = self.wal.enqueue(&change).await?;
        self.values.borrow_mut().insert(key, value);
        if self.acknowledges_early {
            return ticket.written().await;
        }
        ticket.synced().await
    }

    fn get(&self, key: u8) -> Option<u64> {
        self.values.borrow().get(&key).copied()
    }
}

/// Runs three tasks that put increasing values, each to its own key. Half of the seeds
/// abort the first task.
async fn workload(disk: Disk, promises: Rc<Promises<(u8, u64)>>, early: bool, seed: u64) {
    let Ok(store) = Store::open(disk, early).await else {
        return;
    };
    let store = Rc::new(store);
    let tasks = (0..3u8).map(|key| {
        let (store, promises) = (Rc::clone(&store), Rc::clone(&promises));
        simulation::spawn(async move {
            for value in 1..8 {
                if store.put(key, value).await.is_err() {
                    return;
                }
                promises.make((key, value));
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    if Random::new(seed).one_in(2) {
        simulation::yield_now().await;
        tasks.iter().take(1).for_each(simulation::Task::abort);
    }
    futures::future::join_all(tasks).await;
}

/// Tests one seed: runs the workload, and checks each state that a power loss could have left.
fn crash_test(seed: u64, early: bool, image_count: &mut u64) -> Result<(), String> {
    let disk = Disk::new(seed).recording();
    // Real disks write short and sync slowly at times, which must not matter.
    disk.faults().on(Op::Write).one_in(5).short(100);
    disk.faults().on(Op::Sync).one_in(3).delay(Duration::from_millis(1));
    if seed % 3 == 0 {
        disk.faults().on(Op::Sync).skip(seed % 7).once().fail_os(5);
    }
    let promises = Rc::new(Promises::new(&disk));
    Simulation::new(seed).run(workload(disk.clone(), Rc::clone(&promises), early, seed));
    for cut in disk.power_cuts(3) {
        *image_count += 1;
        let store = Simulation::new(seed).run(Store::open(cut.disk(), early));
        let store = store.map_err(|error| format!("seed {seed}, {cut}: {error:#}"))?;
        for (key, value) in promises.made_by(cut.operation) {
            let found = store.get(key);
            if found.is_none_or(|found| found < value) {
                return Err(format!(
                    "seed {seed}, {cut}: {key} = {value} was lost, the value is {found:?}"
                ));
            }
        }
    }
    Ok(())
}

fn main() {
    let started = Instant::now();
    let mut image_count = 0;
    simulation::for_each_seed(40, |seed| {
        if let Err(failure) = crash_test(seed, false, &mut image_count) {
            panic!("{failure}");
        }
    });
    println!(
        "{image_count} crash images in {:.1?}: no acknowledged change was lost",
        started.elapsed()
    );
    let failure = (0..40).find_map(|seed| crash_test(seed, true, &mut image_count).err());
    println!("found the store that acknowledges early: {}", failure.unwrap());
}
