//! The beginning of the log moves: beside everything else, on a full disk, for good.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and what was measured is said"
)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt};
use highwater::{
    Error, Lsn, Options, Wal,
    simulation::{Disk, Event, Faults, Op, Survival},
    storage::MemoryStorage,
};
use support::{records, small, within};

fn tiny() -> Options {
    Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 10)
}

async fn filled(wal: &Wal, count: u64) -> Vec<Lsn> {
    let mut lsns = Vec::new();
    for i in 0..count {
        lsns.push(wal.append(&i.to_le_bytes().repeat(12)).await.unwrap());
    }
    wal.sync().await.unwrap();
    lsns
}

#[tokio::test]
async fn reading_resumes_exactly_there_also_after_every_kind_of_reopening() {
    for how in ["closed", "dropped", "power cut", "closed twice"] {
        let disk = Disk::new(1);
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        let lsns = filled(&wal, 200).await;
        let expected = records(&wal).await[150..].to_vec();
        let before = wal.stats().segment_count;
        wal.truncate_before(lsns[100]).await.unwrap();
        wal.truncate_before(lsns[150]).await.unwrap();
        wal.truncate_before(lsns[20]).await.unwrap();
        assert_eq!(wal.watermarks().first, lsns[150]);
        assert!(wal.stats().removed_count > 0 && wal.stats().segment_count < before);
        assert_eq!(records(&wal).await, expected);
        let below = within("read", wal.read(lsns[149])).await;
        assert!(matches!(below, Err(Error::OutOfRange { first, .. }) if first == lsns[150]));
        assert!(wal.replay(lsns[149]..).next().await.unwrap().is_err());
        if how.starts_with("closed") {
            wal.close().await.unwrap();
        }
        drop(wal);
        let disk = if how == "power cut" { disk.crash(Survival::Nothing) } else { disk };
        if how == "closed twice" {
            let wal = tiny().open_with(disk.clone()).await.unwrap();
            wal.append_and_sync("more").await.unwrap();
            wal.close().await.unwrap();
        }
        let wal = tiny().open_with(disk).await.unwrap();
        assert_eq!(wal.recovery().first, lsns[150], "{how}: {}", wal.recovery());
        assert_eq!(wal.watermarks().first, lsns[150]);
        let found = records(&wal).await;
        assert_eq!(found[..50], expected, "{how}");
        assert_eq!(found.len(), if how == "closed twice" { 51 } else { 50 });
    }
}

#[tokio::test]
async fn all_of_it_can_go_and_nothing_else() {
    let wal = tiny().open_with(Disk::new(1)).await.unwrap();
    wal.truncate_before(Lsn::ZERO).await.unwrap();
    filled(&wal, 50).await;
    let end = wal.watermarks().reserved;
    let above = wal.truncate_before(Lsn::new(end.as_u64() + 8)).await;
    assert!(matches!(above, Err(Error::OutOfRange { .. })));
    wal.truncate_before(end).await.unwrap();
    assert_eq!(records(&wal).await, []);
    let lsn = wal.append_and_sync("the first again").await.unwrap();
    assert_eq!(records(&wal).await, [(lsn, b"the first again".to_vec())]);
}

#[tokio::test]
async fn only_where_a_record_or_batch_begins() {
    let wal = tiny().open_with(MemoryStorage::new()).await.unwrap();
    let batch = wal.append_batch(["one", "two", "three"]).await.unwrap();
    let after = wal.append(vec![1; 100]).await.unwrap();
    for wrong in [batch.start.as_u64() + 24, batch.start.as_u64() + 48, after.as_u64() + 16, 3] {
        let answer = wal.truncate_before(Lsn::new(wrong)).await;
        assert!(matches!(answer, Err(Error::NotABoundary { .. })), "{wrong}: {answer:?}");
    }
    assert_eq!(wal.watermarks().first, Lsn::ZERO);
    wal.truncate_before(after).await.unwrap();
    let batch = wal.append_batch(["four", "five"]).await.unwrap();
    wal.truncate_before(batch.start).await.unwrap();
    assert_eq!(records(&wal).await.len(), 2);
}

/// Nothing is removed before the record that says so is durable, and the oldest goes first.
#[tokio::test]
async fn files_go_oldest_first_once_it_is_durable() {
    let faults = Faults::new();
    let storage = faults.over(MemoryStorage::new()).on_pool();
    let wal = tiny().open_with(storage).await.unwrap();
    let lsns = filled(&wal, 300).await;
    let gate = faults.on(Op::Sync).gate();
    let truncating = tokio::spawn({
        let (wal, lsn) = (wal.clone(), lsns[250]);
        async move { wal.truncate_before(lsn).await }
    });
    support::reached(&gate, 1).await;
    let removed = |faults: &Faults| faults.count(|event| matches!(event, Event::Removed { .. }));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(removed(&faults), 0, "not durable yet");
    gate.open();
    within("truncation", truncating).await.unwrap().unwrap();
    let gone = async {
        while wal.stats().removed_count < 5 {
            tokio::task::yield_now().await;
        }
    };
    within("removal", gone).await;
    let names: Vec<_> = faults
        .events()
        .into_iter()
        .filter_map(|event| if let Event::Removed { file } = event { Some(file) } else { None })
        .collect();
    assert!(names.is_sorted() && names.len() >= 5, "{names:?}");
}

#[tokio::test]
async fn a_lease_holds_what_a_slow_reader_needs() {
    let wal = tiny().open_with(Disk::new(1)).await.unwrap();
    let lsns = filled(&wal, 200).await;
    let expected = records(&wal).await;
    let (lease, later) = (wal.retain(lsns[10]).unwrap(), wal.retain(lsns[60]).unwrap());
    let mut slow = wal.replay(lsns[10]..);
    let first = slow.try_next().await.unwrap().unwrap();
    wal.truncate_before(lsns[180]).await.unwrap();
    assert_eq!((wal.watermarks().first, wal.stats().lease_count), (lsns[180], 2));
    let rest: Vec<_> = slow.try_collect().await.unwrap();
    assert_eq!((first.lsn, rest.len()), (expected[10].0, 189));
    assert!(wal.retain(lsns[9]).is_err(), "it is gone");
    let held = wal.stats().segment_count;
    drop(lease);
    assert!(wal.stats().segment_count < held && wal.read(lsns[20]).await.is_err());
    assert_eq!(wal.read(lsns[60]).await.unwrap().payload, expected[60].1);
    drop(later);
    assert_eq!(wal.stats().lease_count, 0);
    assert!(wal.read(lsns[60]).await.is_err());
}

/// The device is full: appends are refused, a truncation isn't, and gives space again.
#[tokio::test]
async fn a_full_disk_heals_by_a_truncation() {
    let disk = Disk::new(1);
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    let mut lsns = filled(&wal, 100).await;
    let used: usize =
        disk.image().names().iter().map(|n| disk.image().bytes(n).unwrap().len()).sum();
    disk.set_capacity_bytes(used as u64);
    let full = loop {
        match wal.append(vec![1; 200]).await {
            Ok(lsn) => lsns.push(lsn),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::NoSpace { .. }), "{full}");
    wal.truncate_before(lsns[90]).await.unwrap();
    for _ in 0..20 {
        wal.append_and_sync(vec![2; 200]).await.unwrap();
    }
    // One that gives nothing is fine as well; the room for it is there once.
    wal.close().await.unwrap();
    let wal = tiny().open_with(disk).await.unwrap();
    assert_eq!(wal.recovery().first, lsns[90]);
}

/// 64 tasks append, 8 replay, 4 truncate, on real threads.
#[test]
fn beside_appends_and_replays() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let seen = runtime.block_on(async {
        let wal = small().open(&path).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let appended = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::new();
        for task in 0..64u64 {
            let (wal, stop, appended) = (wal.clone(), Arc::clone(&stop), Arc::clone(&appended));
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let lsn = wal.append(task.to_le_bytes().repeat(9)).await.unwrap();
                    appended.fetch_max(lsn.as_u64(), Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            }));
        }
        for _ in 0..4 {
            let (wal, stop, appended) = (wal.clone(), Arc::clone(&stop), Arc::clone(&appended));
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let lsn = Lsn::new(appended.load(Ordering::Relaxed));
                    wal.truncate_before(lsn).await.unwrap();
                    assert!(wal.watermarks().first >= lsn);
                    tokio::time::sleep(Duration::from_millis(3)).await;
                }
            }));
        }
        let replays = (0..8).map(|_| {
            let (wal, stop) = (wal.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut seen = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    let mut last = None;
                    let mut replay = wal.replay(..);
                    while let Some(item) = replay.next().await {
                        match item {
                            Ok(record) => {
                                assert!(last < Some(record.lsn), "in order");
                                assert_eq!(record.payload.len(), 72);
                                last = Some(record.lsn);
                                seen += 1;
                            }
                            // It was truncated meanwhile.
                            Err(Error::OutOfRange { .. }) => break,
                            Err(error) => panic!("{error}"),
                        }
                    }
                    tokio::task::yield_now().await;
                }
                seen
            })
        });
        let replays: Vec<_> = replays.collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop.store(true, Ordering::Relaxed);
        let mut seen = 0;
        for replay in replays {
            seen += replay.await.unwrap();
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert!(wal.stats().removed_count > 3, "{:?}", wal.stats());
        let first = wal.watermarks().first;
        wal.close().await.unwrap();
        (seen, first)
    });
    let first = runtime.block_on(async { small().open(&path).await.unwrap().recovery().first });
    assert_eq!(first, seen.1);
    println!("{} records replayed meanwhile", seen.0);
}

/// The longest wait of an append while a thousand segments go. Said, not asserted.
#[test]
fn a_thousand_segments_go_while_others_append() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let wal = tiny().open(directory.path().join("log")).await.unwrap();
        while wal.stats().segment_count < 1000 {
            wal.append(vec![1; 1000]).await.unwrap();
        }
        let stop = Arc::new(AtomicBool::new(false));
        let appending = tokio::spawn({
            let (wal, stop) = (wal.clone(), Arc::clone(&stop));
            async move {
                let mut longest = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    wal.append(vec![2; 10]).await.unwrap();
                    longest = longest.max(begun.elapsed());
                }
                longest
            }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        let begun = Instant::now();
        wal.truncate_before(wal.watermarks().synced).await.unwrap();
        let answered = begun.elapsed();
        let gone = async {
            while wal.stats().removed_count < 990 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        within("removal", gone).await;
        let removed = begun.elapsed();
        stop.store(true, Ordering::Relaxed);
        let longest = appending.await.unwrap();
        println!(
            "answered after {answered:?}, removed after {removed:?}, append at most {longest:?}"
        );
        wal.close().await.unwrap();
    });
}

/// Peers' defect 7: a truncation beside everything that writes, syncs and reads, dropped half way.
#[tokio::test]
async fn row_07_a_dropped_truncation_leaves_the_log_as_it_was_or_truncated() {
    for polls in 0..6 {
        let disk = Disk::new(polls);
        let faults = Faults::with_seed(polls);
        let wal = tiny().open_with(faults.over(disk.clone()).on_pool()).await.unwrap();
        let lsns = filled(&wal, 60).await;
        {
            let truncating = wal.truncate_before(lsns[40]);
            futures::pin_mut!(truncating);
            for _ in 0..polls {
                if futures::poll!(truncating.as_mut()).is_ready() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        let others = wal.append_and_sync("goes on").await.unwrap();
        let first = wal.watermarks().first;
        assert!(first == Lsn::ZERO || first == lsns[40]);
        wal.close().await.unwrap();
        let wal = tiny().open_with(disk).await.unwrap();
        let found = records(&wal).await;
        assert_eq!(wal.recovery().first, first);
        assert_eq!(found.len(), if first == Lsn::ZERO { 61 } else { 21 });
        assert_eq!(found.last().unwrap().0, others);
    }
}

/// A segment that goes between a reader's look at where it is and its opening of the file is
/// truncated, and no file that has got lost.
#[tokio::test]
async fn a_file_that_goes_while_a_reader_opens_it_is_a_truncation() {
    let (disk, faults) = (Disk::new(1), Faults::new());
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    let lsns = filled(&wal, 200).await;
    wal.close().await.unwrap();
    let wal = tiny().open_with(faults.over(disk).on_pool()).await.unwrap();
    let gate = faults.on(Op::Open).once().gate();
    let mut replay = wal.replay(..);
    let reading = tokio::spawn(async move { replay.next().await });
    support::reached(&gate, 1).await;
    wal.truncate_before(lsns[150]).await.unwrap();
    let removed = async {
        while wal.stats().removed_count == 0 {
            tokio::task::yield_now().await;
        }
    };
    within("nothing is removed", removed).await;
    gate.open();
    let read = within("replay", reading).await.unwrap().unwrap();
    assert!(matches!(read, Err(Error::OutOfRange { first, .. }) if first == lsns[150]), "{read:?}");
}
