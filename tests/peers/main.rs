//! Known defects of other write-ahead logs, each as a test of this one. The doc comment of each
//! test names the defect.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod checker;
#[path = "../support/mod.rs"]
mod support;

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use checker::check;
use futures::future::join_all;
use highwater::{
    Error, Lsn, Wal,
    simulation::{self, Disk, Event, Faults, Op, Promises, Random, Simulation, Survival},
    storage::{MemoryStorage, Storage},
};
use support::{cause, open_when_free, reached, records, settled, small, within};

const EIO: i32 = 5;
const HEADER_BYTES: u64 = 4096;
const FIRST_SEGMENT: &str = "00000000000000000001.wal";

/// Appends, syncs, and notes the synced mark in the event log.
async fn commit(wal: &Wal, faults: &Faults, payload: Vec<u8>) -> Lsn {
    let lsn = within("commit", wal.append_and_sync(payload)).await.unwrap();
    let synced = wal.watermarks().synced;
    assert!(synced > lsn);
    faults.note(synced.as_u64());
    lsn
}

/// A write that lands during a sync of its segment needs another sync, also if a rotation follows.
#[tokio::test]
async fn segment_written_during_sync_is_synced_again() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    commit(&wal, &faults, vec![1; 100]).await;
    settled(&wal).await;
    let gate = faults.on(Op::Sync).file(|name| name == FIRST_SEGMENT).once().gate();
    let mut during = Box::pin(wal.append_and_sync(vec![2; 100]));
    assert!(futures::poll!(&mut during).is_pending());
    reached(&gate, 1).await;
    while wal.stats().rotation_count == 0 {
        within("append during a sync", wal.append(vec![3; 500])).await.unwrap();
    }
    gate.open();
    within("the sync", during).await.unwrap();
    faults.note(wal.watermarks().synced.as_u64());
    for i in 0..10 {
        commit(&wal, &faults, vec![4 + i; 700]).await;
    }
    check(&faults.events()).unwrap();
}

/// The same with 16 tasks that append and commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_below_synced_precedes_its_sync() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    let tasks = (0..16u8).map(|task| {
        let (wal, faults) = (wal.clone(), faults.clone());
        tokio::spawn(async move {
            for i in 0..25usize {
                let payload = vec![task + 1; 30 + (i * 37 + usize::from(task) * 11) % 600];
                if (i + usize::from(task)) % 3 == 0 {
                    wal.append(&payload).await.unwrap();
                } else {
                    commit(&wal, &faults, payload).await;
                }
            }
        })
    });
    for task in within("writers", join_all(tasks)).await {
        task.unwrap();
    }
    assert!(wal.stats().rotation_count > 5);
    faults.note(within("sync", wal.sync()).await.unwrap().as_u64());
    assert!(check(&faults.events()).unwrap() > 60_000);
}

/// Bytes that recovery keeps were perhaps only in the page cache.
#[tokio::test]
async fn recovered_bytes_are_synced_before_they_count() {
    for on_pool in [false, true] {
        let (memory, faults) = (MemoryStorage::new(), Faults::new());
        let wal = small().open_with(faults.over(memory.clone())).await.unwrap();
        commit(&wal, &faults, vec![1; 50]).await;
        let lsn = wal.append(vec![2; 50]).await.unwrap();
        drop(wal);
        let storage = faults.over(memory);
        let wal =
            small().open_with(if on_pool { storage.on_pool() } else { storage }).await.unwrap();
        assert!(wal.sync().await.unwrap() > lsn);
        faults.note(wal.watermarks().synced.as_u64());
        assert!(check(&faults.events()).unwrap() > lsn.as_u64());
        assert_eq!(wal.read(lsn).await.unwrap().payload, vec![2; 50]);
    }
}

/// A commit must not depend on a file whose directory entry is not durable.
#[tokio::test]
async fn directory_is_synced_before_new_segment_is_used() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    commit(&wal, &faults, vec![1; 50]).await;
    let gate = faults.on(Op::SyncDir).once().gate();
    let writing = tokio::spawn({
        let (wal, faults) = (wal.clone(), faults.clone());
        async move {
            for _ in 0..60 {
                commit(&wal, &faults, vec![2; 500]).await;
            }
        }
    });
    reached(&gate, 1).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(wal.stats().rotation_count, 0, "the segment is used before its entry is durable");
    gate.open();
    within("writing", writing).await.unwrap();
    assert!(wal.stats().rotation_count >= 2);
    check(&faults.events()).unwrap();
}

/// A second fsync may succeed although the first one dropped the pages.
#[tokio::test]
async fn failed_sync_is_remembered() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    wal.append(b"x").await.unwrap();
    faults.on(Op::Sync).once().fail_os(EIO);
    let first = cause(&wal.sync().await.unwrap_err());
    for _ in 0..3 {
        assert_eq!(cause(&wal.sync().await.unwrap_err()), first);
    }
    assert_eq!(wal.watermarks().synced, Lsn::ZERO);
}

/// Inverts eight payload bytes of a record in the first segment.
fn damage(memory: &MemoryStorage, lsn: Lsn) {
    let file = memory.open(FIRST_SEGMENT).unwrap();
    let offset = HEADER_BYTES + lsn.as_u64() + 16;
    let mut bytes = [0; 8];
    assert_eq!(file.read_at(&mut bytes, offset).unwrap(), 8);
    file.write_at(&bytes.map(|byte| !byte), offset).unwrap();
}

/// The log's beginning is in no separate file and is not updated in place. After a power cut at any
/// write of a truncation, the log begins at the old or at the new position.
#[tokio::test]
async fn truncation_cut_anywhere_loses_no_kept_record() {
    let disk = Disk::new(2).recording();
    let wal = small().open_with(disk.clone()).await.unwrap();
    for i in 0..140u8 {
        wal.append(&[i; 200]).await.unwrap();
    }
    wal.sync().await.unwrap();
    let all = records(&wal).await;
    let began = disk.operation_count();
    wal.truncate_before(all[70].0).await.unwrap();
    wal.truncate_before(all[100].0).await.unwrap();
    let ended = disk.operation_count();
    drop(wal);
    let mut count = 0;
    for cut in disk.power_cuts(4).filter(|cut| (began..=ended).contains(&cut.operation)) {
        let mut image = cut.image();
        let others = image.names().into_iter().filter(|name| !name.ends_with(".wal"));
        others.for_each(|name| image.delete(&name));
        let wal = small().open_with(Disk::with_image(image, 3)).await.unwrap();
        let found = records(&wal).await;
        let first = all.len() - found.len();
        assert!([0, 70, 100].contains(&first), "{cut}: begins with the record {first}");
        assert_eq!(found, all[first..], "{cut}");
        count += 1;
    }
    assert!(count > 20, "{count}");
}

/// A torn tail is normal after a power cut. Damage to synced records is corruption.
#[tokio::test]
async fn torn_tail_opens_and_synced_damage_is_refused() {
    let written = || async {
        let memory = MemoryStorage::new();
        let wal = small().open_with(memory.clone()).await.unwrap();
        let mut lsns = Vec::new();
        for i in 0..3u8 {
            lsns.push(wal.append_and_sync(&[i; 40]).await.unwrap());
        }
        for i in 3..6u8 {
            lsns.push(wal.append(&[i; 40]).await.unwrap());
        }
        (memory, lsns)
    };
    // Concurrent writers: the second of three unsynced records did not reach the disk.
    let (memory, lsns) = written().await;
    damage(&memory, lsns[4]);
    let wal = small().open_with(memory).await.expect("an ordinary power cut");
    let cut = wal.recovery().cut.as_ref().expect("the report contains the cut");
    assert_eq!((cut.lsn, cut.valid_frame_count), (lsns[4], 1));
    assert!(!cut.kept_in.is_empty(), "the cut bytes must be kept");
    let kept: Vec<_> = records(&wal).await.into_iter().map(|(lsn, _)| lsn).collect();
    assert_eq!(kept, lsns[..4]);
    // The same damage to each synced record.
    for i in 0..3 {
        let (memory, lsns) = written().await;
        damage(&memory, lsns[i]);
        let faults = Faults::new();
        let error = small().open_with(faults.over(memory.clone())).await.unwrap_err();
        assert!(matches!(&error, Error::Corrupt { lsn, .. } if *lsn == lsns[i]), "{i}: {error}");
        let changes = |event: &Event| !matches!(event, Event::Opened { .. } | Event::Read { .. });
        assert_eq!(faults.count(changes), 0, "nothing was changed");
        damage(&memory, lsns[i]);
        assert_eq!(records(&small().open_with(memory).await.unwrap()).await.len(), 6);
    }
}

/// Two processes must not write one log.
#[tokio::test]
async fn second_process_is_refused_until_first_dies() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_holds_log_until_killed", "--ignored", "--nocapture"])
        .env("HIGHWATER_TEST_LOG", directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("holds the log")));
    let error = small().open(directory.path()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Locked { owner, .. } if owner.pid() == Some(child.id())),
        "{error}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let wal = small().open(directory.path()).await.expect("the lock of a dead process is free");
    assert_eq!(records(&wal).await.len(), 1, "the child's record must be kept");
    assert!(!wal.recovery().was_closed);
}

#[tokio::test]
#[ignore = "the other process of second_process_is_refused_until_first_dies"]
async fn child_holds_log_until_killed() {
    let path = std::env::var("HIGHWATER_TEST_LOG").unwrap();
    let wal = small().open(path).await.unwrap();
    wal.append(b"from the child").await.unwrap();
    println!("it holds the log");
    // Blocks until the child is killed or its parent has ended.
    std::io::stdin().lines().for_each(drop);
    drop(wal);
}

/// After a failed sync nothing may be acknowledged, and a position may not hold two records.
#[tokio::test]
async fn failed_sync_acknowledges_nothing_reuses_no_lsn() {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let wal = small().open_with(faults.over(memory.clone()).on_pool()).await.unwrap();
    let k0 = commit(&wal, &faults, b"k0".to_vec()).await;
    faults.on(Op::Sync).once().fail_os(EIO);
    let results = join_all([&b"k1"[..], b"k2", b"k3"].map(|key| wal.append_and_sync(key)));
    for result in within("k1, k2, k3", results).await {
        cause(&result.unwrap_err());
    }
    within("close", wal.close()).await.unwrap_err();
    drop(wal);
    let again = open_when_free(|| faults.over(memory.clone())).await;
    let found = records(&again).await;
    assert_eq!(found[0], (k0, b"k0".to_vec()));
    let next = commit(&again, &faults, b"k4".to_vec()).await;
    assert!(found.iter().all(|(lsn, _)| *lsn < next), "{next} was the position of another record");
    check(&faults.events()).unwrap();
}

/// An append that timed out must not leave a hole below later commits.
#[tokio::test]
async fn timed_out_append_leaves_no_hole() {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let wal = small().open_with(faults.over(memory.clone()).on_pool()).await.unwrap();
    commit(&wal, &faults, b"k0".to_vec()).await;
    let gate = faults.on(Op::Sync).once().gate();
    let late = tokio::time::timeout(Duration::from_millis(5), wal.append_and_sync(b"k1")).await;
    late.expect_err("the sync hangs");
    gate.open();
    commit(&wal, &faults, b"k2".to_vec()).await;
    commit(&wal, &faults, b"k3".to_vec()).await;
    check(&faults.events()).unwrap();
    within("close", wal.close()).await.unwrap();
    let again = small().open_with(memory).await.unwrap();
    let keys: Vec<_> = records(&again).await.into_iter().map(|(_, key)| key).collect();
    assert_eq!(keys, [b"k0", b"k1", b"k2", b"k3"]);
}

/// A sealed segment must be synced before a commit in the next one is acknowledged.
#[tokio::test]
async fn sealed_segment_is_synced_before_next_commit() {
    for on_pool in [false, true] {
        let faults = Faults::new();
        let storage = faults.over(MemoryStorage::new());
        let wal =
            small().open_with(if on_pool { storage.on_pool() } else { storage }).await.unwrap();
        for round in 1..=3 {
            // No sync is requested for these appends.
            while wal.stats().rotation_count < round {
                within("append", wal.append(vec![1; 800])).await.unwrap();
            }
            commit(&wal, &faults, vec![2; 10]).await;
        }
        // This record needs its own segment.
        within("append", wal.append(vec![3; 30_000])).await.unwrap();
        commit(&wal, &faults, vec![4; 10]).await;
        check(&faults.events()).unwrap();
    }
}

/// Opening without recovery would reuse positions.
#[tokio::test]
async fn each_open_recovers() {
    let memory = MemoryStorage::new();
    let mut expected = Vec::new();
    for round in 0..10u8 {
        let wal = small().open_with(memory.clone()).await.unwrap();
        for i in 0..5 {
            let payload = vec![round * 5 + i; 300];
            expected.push((wal.append_and_sync(&payload).await.unwrap(), payload));
        }
        if round % 2 == 0 {
            wal.close().await.unwrap();
        }
    }
    assert!(expected.is_sorted_by(|a, b| a.0 < b.0), "positions must rise");
    assert_eq!(records(&small().open_with(memory).await.unwrap()).await, expected);
}

/// A single commit must not wait for a timer. This runtime has none, so waiting for one panics.
#[test]
fn single_commit_waits_for_no_timer() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (done, answer) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let storage = Faults::new().over(MemoryStorage::new()).on_pool();
        let lsn = runtime.block_on(async {
            let wal = small().open_with(storage).await.unwrap();
            wal.append_and_sync(b"alone").await
        });
        done.send(lsn).unwrap();
    });
    answer.recv_timeout(support::PATIENCE).expect("it hangs").unwrap();
}

/// A failed sync must wake all waiters.
#[tokio::test]
async fn failed_sync_wakes_all_waiters() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    let gate = faults.on(Op::Sync).once().gate();
    faults.on(Op::Sync).once().fail_os(EIO);
    // Two waiters come before the sync, two while it runs, two after it failed.
    let spawn = || {
        let wal = wal.clone();
        tokio::spawn(async move { wal.append_and_sync(b"x").await })
    };
    let mut waiters = vec![spawn(), spawn()];
    reached(&gate, 1).await;
    waiters.extend([spawn(), spawn()]);
    tokio::task::yield_now().await;
    gate.open();
    waiters.extend([spawn(), spawn()]);
    for result in within("waiters", join_all(waiters)).await {
        cause(&result.unwrap().unwrap_err());
    }
}

/// No call may skip the device's flush.
#[tokio::test]
async fn each_kind_of_sync_reaches_device() {
    for on_pool in [false, true] {
        let faults = Faults::new();
        let storage = faults.over(MemoryStorage::new());
        let wal =
            small().open_with(if on_pool { storage.on_pool() } else { storage }).await.unwrap();
        for kind in 0..6 {
            faults.clear();
            let synced = |event: &Event| matches!(event, Event::SyncEnded { ok: true, .. });
            match kind {
                0 => drop(wal.append_and_sync(b"x").await.unwrap()),
                1 => wal.enqueue(b"x").await.unwrap().synced().await.unwrap(),
                2..5 => {
                    let lsn = wal.append(b"x").await.unwrap();
                    assert_eq!(faults.count(synced), 0, "appending alone syncs nothing");
                    if kind == 2 {
                        wal.sync().await.unwrap();
                    } else if kind == 3 {
                        wal.sync_to(lsn).await.unwrap();
                    } else {
                        let waiting = wal.wait_synced(lsn);
                        wal.sync().await.unwrap();
                        waiting.await.unwrap();
                    }
                }
                _ => {
                    wal.append(b"x").await.unwrap();
                    wal.close().await.unwrap();
                }
            }
            let events = faults.events();
            let wrote = events.iter().position(|event| matches!(event, Event::Wrote(_))).unwrap();
            let covered = events.iter().any(
                |event| matches!(event, Event::SyncEnded { begin, ok: true, .. } if *begin > wrote),
            );
            assert!(covered, "{kind}: {events:?}");
        }
    }
}

/// A failed write must be returned at once, not by a later sync.
#[tokio::test]
async fn failed_write_is_returned_by_append_and_syncs() {
    for on_pool in [false, true] {
        let (memory, faults) = (MemoryStorage::new(), Faults::new());
        let storage = faults.over(memory.clone());
        let wal =
            small().open_with(if on_pool { storage.on_pool() } else { storage }).await.unwrap();
        let kept = wal.append(b"kept").await.unwrap();
        faults.on(Op::Write).once().fail(std::io::ErrorKind::StorageFull);
        let first = cause(&within("append", wal.append(b"lost")).await.unwrap_err());
        assert!(first.contains("writing"), "{first}");
        for _ in 0..3 {
            assert_eq!(cause(&wal.sync().await.unwrap_err()), first);
        }
        assert_eq!(cause(&wal.close().await.unwrap_err()), first);
        drop(wal);
        let again = open_when_free(|| memory.clone()).await;
        assert_eq!(records(&again).await, [(kept, b"kept".to_vec())]);
    }
}

/// A single commit takes one sync; all commits that arrive during it share the next one.
#[tokio::test]
async fn commits_during_sync_share_the_next_sync() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    faults.clear();
    let syncs = || faults.count(|event| matches!(event, Event::SyncBegan { .. }));
    let gate = faults.on(Op::Sync).once().gate();
    let mut leader = Box::pin(wal.append_and_sync(b"leader"));
    assert!(futures::poll!(&mut leader).is_pending());
    reached(&gate, 1).await;
    let mut group = Box::pin(join_all((0..30).map(|_| wal.append_and_sync(b"x"))));
    assert!(futures::poll!(&mut group).is_pending());
    gate.open();
    within("leader", leader).await.unwrap();
    for result in within("group", group).await {
        result.unwrap();
    }
    assert_eq!(syncs(), 2);
}

/// A dead background job must poison the log, not only write a line to a log file.
#[tokio::test]
async fn panicking_job_poisons_log() {
    for op in [Op::Sync, Op::Write] {
        for on_pool in [true, false] {
            let faults = Faults::new();
            let storage = faults.over(MemoryStorage::new());
            let wal =
                small().open_with(if on_pool { storage.on_pool() } else { storage }).await.unwrap();
            faults.on(op).once().panic();
            let waiters = (0..5).map(|_| {
                let wal = wal.clone();
                tokio::spawn(async move { wal.append_and_sync(b"x").await })
            });
            // In place, the panic unwinds through the caller's task, which then has no result.
            for result in within("waiters", join_all(waiters)).await.into_iter().flatten() {
                let text = cause(&result.unwrap_err());
                assert!(text.contains("panicked"), "{text}");
            }
            cause(&within("sync", wal.sync()).await.unwrap_err());
            within("close", wal.close()).await.unwrap_err();
        }
    }
}

/// Writes 0xffffffff over every four bytes of a log: lengths, counts, positions and checksums.
#[test]
fn disk_bytes_are_validated_before_use() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let disk = Disk::new(1);
    let mut expected = Vec::new();
    runtime.block_on(async {
        let wal = small().open_with(disk.clone()).await.unwrap();
        for i in 0..12u8 {
            let payload = vec![i + 1; 40];
            expected.push((wal.append_and_sync(&payload).await.unwrap(), payload));
        }
    });
    let image = disk.image();
    for name in image.names() {
        let used = image.bytes(&name).unwrap().iter().rposition(|&byte| byte != 0).unwrap_or(0);
        for at in (0..used).step_by(4) {
            let mut bytes = image.bytes(&name).unwrap().to_vec();
            bytes[at..at + 4].fill(0xff);
            let mut damaged = image.clone();
            damaged.put(&name, bytes);
            runtime.block_on(async {
                match small().open_with(Disk::with_image(damaged, 1)).await {
                    Err(Error::Corrupt { .. } | Error::UnsupportedVersion { .. }) => {}
                    Err(error) => panic!("{name}, {at}: {error}"),
                    Ok(wal) => {
                        let found = records(&wal).await;
                        assert_eq!(found, expected[..found.len()], "{name}, {at}");
                        let lost = found.len() < expected.len();
                        assert!(
                            !lost || wal.recovery().cut.is_some(),
                            "{name}, {at}: lost records without a reported cut"
                        );
                    }
                }
            });
        }
    }
}

/// A task is aborted during its append, its handle is dropped, and the log is reopened at once.
/// Late writes of the old handle land before the new one opens, or never.
#[test]
fn io_of_dropped_future_lands_before_reopen() {
    let mut late_count = 0;
    simulation::for_each_seed(300, |seed| {
        let disk = Disk::new(seed);
        disk.faults().on(Op::Write).one_in(2).delay(Duration::from_millis(1));
        let (acknowledged, attempted) = Simulation::new(seed).run(async {
            let mut random = Random::new(seed);
            let (mut acknowledged, mut attempted) = (Vec::new(), Vec::new());
            for round in 0..4u8 {
                // Opening waits for the lock, which the last job of the old handle frees.
                let wal = small().open_with(disk.clone()).await.unwrap();
                let payload = vec![round + 1; 100];
                acknowledged.push((wal.append_and_sync(&payload).await.unwrap(), payload));
                for i in (0..4).take(random.below(4)) {
                    let payload = vec![0x80 | round << 3 | i; 300];
                    attempted.push(payload.clone());
                    let wal = wal.clone();
                    let task = simulation::spawn(async move { wal.append(&payload).await });
                    simulation::yield_now().await;
                    task.abort();
                }
                drop(wal);
                let dropped_at = disk.operation_count();
                for _ in 0..random.below(4) {
                    simulation::yield_now().await;
                }
                late_count += u64::from(disk.operation_count() > dropped_at);
            }
            (acknowledged, attempted)
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let found = runtime.block_on(async {
            records(&small().open_with(disk.crash(Survival::Everything)).await.unwrap()).await
        });
        for record in &acknowledged {
            assert!(found.contains(record), "{} was acknowledged", record.0);
        }
        for record in found.iter().filter(|record| !acknowledged.contains(record)) {
            assert!(attempted.contains(&record.1), "never appended: {record:?}");
        }
    });
    assert!(late_count > 0, "no write of a dropped handle was late, so nothing was tested");
}

/// Each call that promises durability is followed by a power cut as soon as it returns.
#[test]
fn acknowledged_record_survives_immediate_power_cut() {
    simulation::for_each_seed(100, |seed| {
        let disk = Disk::new(seed);
        let promises = Promises::new(&disk);
        let (lsns, images) = Simulation::new(seed).run(async {
            let wal = small().open_with(disk.clone()).await.unwrap();
            let other = wal.clone();
            // Another task writes and rotates all the time.
            simulation::spawn(async move { while other.append(vec![7; 900]).await.is_ok() {} });
            let (mut lsns, mut images) = (Vec::new(), Vec::new());
            for way in 0..6 {
                let lsn = match way {
                    0 => wal.append_and_sync("durable").await.unwrap(),
                    _ => wal.append("durable").await.unwrap(),
                };
                let end = Lsn::new(lsn.as_u64() + 24);
                match way {
                    0 => {}
                    1 => assert!(wal.sync().await.unwrap() >= end),
                    2 => wal.sync_to(lsn).await.unwrap(),
                    3 => wal.enqueue("").await.unwrap().synced().await.unwrap(),
                    4 => futures::join!(wal.wait_synced(lsn), wal.sync()).0.unwrap(),
                    _ => {
                        let mut marks = wal.watch();
                        let (reached, synced) =
                            futures::join!(marks.wait_for(|marks| marks.synced >= end), wal.sync());
                        assert!(reached.is_ok() && synced.is_ok());
                    }
                }
                assert!(wal.watermarks().synced >= end, "way {way}");
                promises.make(lsn);
                lsns.push(lsn);
                images.push((disk.operation_count(), disk.image()));
            }
            (lsns, images)
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        for (operation, image) in images {
            let crashed = Disk::with_image(image.crash(Survival::Nothing), seed);
            let wal = runtime.block_on(small().open_with(crashed)).unwrap();
            for lsn in promises.made_by(operation) {
                let record = runtime.block_on(wal.read(lsn)).unwrap();
                assert_eq!(record.payload, "durable", "{lsn} of {lsns:?}");
            }
        }
    });
}
