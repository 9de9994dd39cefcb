//! The crash-test kit: what its disk, its faults and its scheduler promise.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use highwater::{
    Error, Wal,
    simulation::{
        self, Disk, Event, Faults, Image, Op, Random, SECTOR_BYTES, Simulation, Survival,
    },
    storage::{MemoryStorage, Storage},
};

const SECTOR: u64 = SECTOR_BYTES as u64;

fn durable(disk: &Disk, name: &str) -> Option<Vec<u8>> {
    disk.crash(Survival::Nothing).image().bytes(name).map(<[u8]>::to_vec)
}

#[test]
fn only_synced_bytes_survive_for_sure() {
    let disk = Disk::new(1);
    let file = disk.create("a").unwrap();
    file.write_at(&[1; 1000], 0).unwrap();
    assert_eq!(durable(&disk, "a"), None, "neither name nor bytes are durable");
    file.sync_data().unwrap();
    assert_eq!(durable(&disk, "a"), None, "the name is not durable yet");
    disk.sync_dir().unwrap();
    assert_eq!(durable(&disk, "a").unwrap(), [1; 1000]);
    file.write_at(&[2; 2000], 0).unwrap();
    assert_eq!(durable(&disk, "a").unwrap(), [1; 1000]);
    disk.rename("a", "b").unwrap();
    assert_eq!(disk.list().unwrap(), ["b"]);
    assert_eq!(durable(&disk, "b"), None);
    file.set_len(100).unwrap();
    file.set_len(600).unwrap();
    let mut expected = vec![2; 100];
    expected.resize(600, 0);
    let everything = disk.crash(Survival::Everything).image();
    assert_eq!(everything.bytes("b").unwrap(), expected, "bytes cut off and extended must be zero");
    disk.remove("b").unwrap();
    assert_eq!(durable(&disk, "a").unwrap(), [1; 1000], "the removal may be lost");
    assert!(disk.crash(Survival::Everything).image().names().is_empty());
}

#[test]
fn sectors_survive_independently_and_may_be_torn() {
    let disk = Disk::new(1);
    let file = disk.create("a").unwrap();
    file.write_at(&[1; 8 * SECTOR_BYTES], 0).unwrap();
    file.sync_all().unwrap();
    disk.sync_dir().unwrap();
    file.write_at(&[2; 8 * SECTOR_BYTES], 0).unwrap();
    let (mut seen, mut torn_count) = (BTreeSet::new(), 0);
    for seed in 0..300 {
        let image = disk.crash(Survival::Random(seed)).image();
        let sectors = image.bytes("a").unwrap().chunks(SECTOR_BYTES);
        let survived: Vec<bool> = sectors.clone().map(|sector| sector[0] == 2).collect();
        seen.insert(survived);
        for sector in sectors {
            let new_count = sector.iter().filter(|&&byte| byte == 2).count();
            assert!(
                sector[..new_count].iter().all(|&byte| byte == 2),
                "a torn sector has new bytes, then old ones"
            );
            torn_count += u64::from(new_count != 0 && new_count != SECTOR_BYTES);
        }
    }
    assert!(seen.len() > 60, "only {} combinations of 256", seen.len());
    assert!(torn_count > 10);
}

/// Like Linux: a failed sync marks the pages clean. The cache shows them, but the disk lacks them.
#[test]
fn failed_sync_drops_dirty_pages_and_next_succeeds() {
    let disk = Disk::new(3);
    let file = disk.create("a").unwrap();
    disk.sync_dir().unwrap();
    file.set_len(64 * SECTOR).unwrap();
    file.sync_data().unwrap();
    file.write_at(&[1; 64 * SECTOR_BYTES], 0).unwrap();
    disk.faults().on(Op::Sync).once().fail_os(5);
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    file.sync_data().unwrap();
    let mut shown = vec![0; 64 * SECTOR_BYTES];
    file.read_at(&mut shown, 0).unwrap();
    assert!(shown.iter().all(|&byte| byte == 1), "the cache must show the new bytes");
    let kept = durable(&disk, "a").unwrap();
    let kept_count = kept.chunks(SECTOR_BYTES).filter(|sector| sector[0] == 1).count();
    assert!((1..64).contains(&kept_count), "{kept_count} of 64 sectors reached the disk");
}

#[test]
fn no_operation_succeeds_after_power_cut() {
    let disk = Disk::new(1).cut_after(2);
    let file = disk.create("a").unwrap();
    file.write_at(b"x", 0).unwrap();
    assert!(file.write_at(b"y", 0).is_err());
    assert!(file.read_at(&mut [0], 0).is_err());
    assert!(disk.list().is_err() && disk.open("a").is_err() && disk.sync_dir().is_err());
    assert_eq!(disk.operation_count(), 2);
}

#[test]
fn full_disk_allows_overwrites() {
    let disk = Disk::new(1);
    disk.set_capacity_bytes(1000);
    let file = disk.create("a").unwrap();
    file.write_at(&[1; 900], 0).unwrap();
    assert_eq!(file.write_at(&[1; 200], 900).unwrap_err().kind(), ErrorKind::StorageFull);
    file.write_at(&[2; 900], 0).unwrap();
    let other = disk.create("b").unwrap();
    assert_eq!(other.reserve(101).unwrap_err().kind(), ErrorKind::StorageFull);
    other.reserve(100).unwrap();
    disk.remove("a").unwrap();
    other.reserve(1000).unwrap();
}

#[test]
fn faults_apply_by_count_file_and_chance() {
    let faults = Faults::with_seed(4);
    let storage = faults.over(MemoryStorage::new());
    let (a, b) = (storage.create("a").unwrap(), storage.create("b").unwrap());
    faults.on(Op::Write).file(|name| name == "a").skip(1).times(2).fail(ErrorKind::Other);
    let oks: Vec<_> = (0..5).map(|_| a.write_at(b"x", 0).is_ok()).collect();
    assert_eq!(oks, [true, false, false, true, true]);
    assert!(b.write_at(b"x", 0).is_ok());
    assert_eq!(faults.met_count(), 2);
    faults.on(Op::Read).one_in(4).fail(ErrorKind::Interrupted);
    let failed_count = (0..1000).filter(|_| b.read_at(&mut [0], 0).is_err()).count();
    assert!((150..350).contains(&failed_count), "{failed_count} of 1000");
    faults.heal();
    faults.on(Op::Write).short(3);
    assert_eq!(b.write_at(b"12345", 0).unwrap(), 3);
    faults.heal();
    faults.on(Op::Sync).once().ignore();
    b.sync_data().unwrap();
    let ended = |event: &Event| matches!(event, Event::SyncEnded { ok: true, .. });
    assert_eq!(faults.count(ended), 1);
}

/// Returns eight sectors of ones after a faulty write of twos to two of them, and the write's
/// success.
fn written_through(plan: impl FnOnce(&Faults)) -> (Vec<u8>, bool) {
    let disk = Disk::new(9);
    let file = disk.create("a").unwrap();
    file.write_at(&[1; 8 * SECTOR_BYTES], 0).unwrap();
    plan(disk.faults());
    let ok = file.write_at(&[2; 2 * SECTOR_BYTES], SECTOR).is_ok();
    disk.faults().heal();
    let mut bytes = vec![0; 8 * SECTOR_BYTES];
    file.read_at(&mut bytes, 0).unwrap();
    (bytes, ok)
}

#[test]
fn faulty_disk_can_flip_lose_and_misdirect() {
    let place = SECTOR_BYTES..3 * SECTOR_BYTES;
    let (flipped, ok) = written_through(|faults| faults.on(Op::Write).flip_bit());
    let wrong: u32 = flipped[place.clone()].iter().map(|byte| (byte ^ 2).count_ones()).sum();
    assert_eq!((wrong, ok), (1, true), "exactly one bit must be wrong");
    let (lost, ok) = written_through(|faults| faults.on(Op::Write).ignore());
    assert!(ok && lost.iter().all(|&byte| byte == 1));
    let (stale, ok) = written_through(|faults| faults.on(Op::Write).stale());
    assert!(ok && stale[place.clone()].chunks(SECTOR_BYTES).any(|sector| sector[0] == 1));
    let (elsewhere, ok) = written_through(|faults| faults.on(Op::Write).misdirect());
    assert!(ok && elsewhere.contains(&2));
    assert!(elsewhere[place].contains(&1));
}

#[test]
fn timed_out_write_lands_late() {
    let disk = Disk::new(1);
    let file = disk.create("a").unwrap();
    disk.faults().on(Op::Write).once().land_late(2);
    assert_eq!(file.write_at(b"late", 0).unwrap_err().kind(), ErrorKind::TimedOut);
    let bytes = || disk.image().bytes("a").unwrap().to_vec();
    file.sync_data().unwrap();
    file.sync_data().unwrap();
    assert_eq!(bytes(), b"");
    file.sync_data().unwrap();
    assert_eq!(bytes(), b"late");
}

/// Returns the operations of three tasks and the log, in their order.
fn events_of(seed: u64) -> Vec<Event> {
    let disk = Disk::new(0);
    disk.faults().record(true);
    Simulation::new(seed).run(async {
        let options = Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 10);
        let wal = options.open_with(disk.clone()).await.unwrap();
        let tasks = (0..3u8).map(|task| {
            let wal = wal.clone();
            simulation::spawn(async move {
                for i in 0..6 {
                    wal.append_and_sync(vec![task * 16 + i; 200]).await.unwrap();
                }
            })
        });
        futures::future::join_all(tasks.collect::<Vec<_>>()).await;
    });
    disk.faults().events()
}

#[test]
fn seed_determines_the_order_of_operations() {
    let mut orders = Vec::new();
    for seed in 0..20 {
        let events = events_of(seed);
        assert_eq!(events, events_of(seed), "seed {seed} gave two orders");
        if !orders.contains(&events) {
            orders.push(events);
        }
    }
    assert!(orders.len() >= 18, "only {} orders of 20 seeds", orders.len());
    // A write happens during a flush, which one thread alone cannot do.
    let overlaps = |events: &Vec<Event>| {
        let mut in_sync = 0;
        events.iter().any(|event| {
            match event {
                Event::SyncBegan { .. } => in_sync += 1,
                Event::SyncEnded { .. } => in_sync -= 1,
                _ => {}
            }
            in_sync > 0 && matches!(event, Event::Wrote(_))
        })
    };
    assert!(orders.iter().any(overlaps), "no flush ever overlapped a write");
}

#[test]
fn simulation_panics_instead_of_waiting_forever() {
    let stuck = catch_unwind(|| Simulation::new(1).run(std::future::pending::<()>()));
    let why = stuck.unwrap_err();
    let why = why.downcast_ref::<&str>().unwrap();
    assert_eq!(*why, "deadlock: all tasks wait, and the log has no work");
    let nested = catch_unwind(AssertUnwindSafe(|| {
        Simulation::new(1).run(async { Simulation::new(2).run(async {}) });
    }));
    assert!(nested.is_err());
    // The thread can simulate again.
    assert_eq!(Simulation::new(1).run(async { 7 }), 7);
}

#[test]
fn simulated_tasks_end_within_the_run() {
    let alive = Rc::new(());
    let inner = Rc::clone(&alive);
    Simulation::new(5).run(async move {
        assert_eq!(simulation::spawn(async { 1 }).await, Some(1));
        let aborted = simulation::spawn(std::future::pending::<()>());
        aborted.abort();
        assert_eq!(aborted.await, None);
        simulation::spawn(async move {
            std::future::pending::<()>().await;
            drop(inner);
        });
        simulation::yield_now().await;
    });
    assert_eq!(Rc::strong_count(&alive), 1);
    assert!(catch_unwind(|| simulation::spawn(async {})).is_err(), "spawning outside a simulation");
}

/// As with a dropped runtime: queued work is dropped, and each waiter gets an error.
#[test]
fn log_that_outlives_its_simulation_is_closed() {
    for seed in 0..50 {
        let disk = Disk::new(seed);
        let wal = Simulation::new(seed).run(async {
            let options = Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 10);
            let wal = options.open_with(disk.clone()).await.unwrap();
            let other = wal.clone();
            simulation::spawn(async move { other.append_and_sync("x").await });
            for _ in 0..Random::new(seed).below(6) {
                simulation::yield_now().await;
            }
            wal
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let result = runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(5), wal.append_and_sync("y")).await
        });
        match result.expect("the append must return") {
            Ok(_) | Err(Error::Closed { .. }) => {}
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
}

#[test]
fn image_can_be_edited() {
    let mut image = Image::new();
    image.put("a", vec![1, 2, 3]);
    image.put("b", vec![4]);
    image.delete("b");
    assert_eq!(image.names(), ["a"]);
    let disk = Disk::with_image(image, 1);
    assert_eq!(disk.crash(Survival::Nothing).image().bytes("a").unwrap(), [1, 2, 3]);
}

/// The events after the main future has returned also depend on the seed alone.
#[test]
fn seed_determines_the_end_of_a_simulation() {
    let run = |seed| {
        let disk = Disk::new(seed);
        disk.faults().record(true);
        Simulation::new(seed).run(async {
            let wal = Wal::options()
                .segment_bytes(8 << 10)
                .ring_bytes(2 << 10)
                .open_with(disk.clone())
                .await
                .unwrap();
            let mut tasks = Vec::new();
            for t in 0..3u8 {
                let wal = wal.clone();
                tasks.push(simulation::spawn(async move {
                    for i in 0..6 {
                        let _ = wal.enqueue(vec![t * 16 + i + 1; 300]).await;
                        if i % 2 == 0 {
                            let _ = wal.sync().await;
                        }
                    }
                }));
            }
            for _ in 0..40 + seed % 50 {
                simulation::yield_now().await;
            }
        });
        disk.faults().events()
    };
    let mut differ = Vec::new();
    for seed in 0..60 {
        let first = run(seed);
        if (0..6).any(|_| run(seed) != first) {
            differ.push(seed);
        }
    }
    assert!(differ.is_empty(), "seeds with more than one outcome: {differ:?}");
}

/// A closed gate blocks at most 20 s, also at the end of a simulation.
#[test]
fn closed_gate_does_not_hang_a_simulation() {
    let (end, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let disk = Disk::new(1);
        let _gate = disk.faults().on(Op::Sync).skip(2).gate();
        let ran = catch_unwind(AssertUnwindSafe(|| {
            Simulation::new(1).run(async {
                let wal = Wal::options().open_with(disk.clone()).await.unwrap();
                let _ = wal.append_and_sync(b"held").await;
            });
        }));
        let _ = end.send(ran.is_err());
    });
    assert!(ended.recv_timeout(Duration::from_secs(30)).is_ok(), "the simulation hangs");
}

/// The operation is done, and then reported as failed. Rules that cannot apply are refused.
#[test]
fn late_failure_takes_effect_and_bad_rule_is_refused() {
    let disk = Disk::new(1);
    let file = disk.create("a").unwrap();
    disk.sync_dir().unwrap();
    file.write_at(b"x", 0).unwrap();
    disk.faults().on(Op::Sync).afterwards().once().fail_os(5);
    assert!(file.sync_data().is_err());
    assert_eq!(durable(&disk, "a").unwrap(), b"x", "the sync must have been done");
    let refused = |plan: &dyn Fn()| catch_unwind(AssertUnwindSafe(plan)).is_err();
    assert!(refused(&|| disk.faults().on(Op::Sync).flip_bit()));
    assert!(refused(&|| disk.faults().on(Op::Read).afterwards().fail_os(5)));
    assert!(refused(&|| disk.faults().on(Op::Create).ignore()));
}
