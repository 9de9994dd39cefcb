//! Crash-tests a small key-value store that keeps its changes in the log: in every state that a
//! loss of power can leave, each acknowledged change must be there. A store that acknowledges too
//! early is caught.
//!
//! ```text
//! cargo run --release --features simulation --example crash_test
//! ```

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "an example talks, and stops at once")]

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

/// The code under test: keys and values in memory, changes in the log.
struct Store {
    wal: Wal,
    values: RefCell<BTreeMap<u8, u64>>,
    /// The mistake to be found: a change is acknowledged when it is written, not when it is synced.
    acknowledges_early: bool,
}

impl Store {
    async fn open(storage: impl Storage, acknowledges_early: bool) -> highwater::Result<Self> {
        // Small limits, so that a short run rotates and waits for room.
        let wal = Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 10);
        let wal = wal.open_with(storage).await?;
        let mut values = BTreeMap::new();
        let mut changes = wal.replay(..);
        while let Some(change) = changes.try_next().await? {
            // One byte of key, eight of value: this store wrote it, and the log checked it.
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

/// Tasks that put ever greater values, each to a key of its own. A put may be given up half way.
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

/// One seed: runs the workload, and looks at what each loss of power would have left.
fn crash_test(seed: u64, early: bool, image_count: &mut u64) -> Result<(), String> {
    let disk = Disk::new(seed).recording();
    // What real disks do now and then, and nobody may notice.
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
        let store = store.map_err(|error| format!("seed {seed}, {cut}: {error}"))?;
        for (key, value) in promises.made_by(cut.operation) {
            if store.get(key).is_none_or(|kept| kept < value) {
                let kept = store.get(key);
                return Err(format!(
                    "seed {seed}, {cut}: {key} = {value} was lost, it is {kept:?}"
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
        if let Err(what) = crash_test(seed, false, &mut image_count) {
            panic!("{what}");
        }
    });
    println!("{image_count} crash images in {:.1?}: nothing was lost", started.elapsed());
    let caught = (0..40).find_map(|seed| crash_test(seed, true, &mut image_count).err());
    println!("a store that acknowledges early is caught: {}", caught.unwrap());
}
