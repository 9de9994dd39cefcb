//! `truncate_before`: the new beginning is durable, also beside all other calls and on a full disk.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and the measurements are printed"
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
    Error, Lsn,
    simulation::{Disk, Event, Faults, Op, Survival},
    storage::MemoryStorage,
};
use support::{filled, records, small, tiny, within};

#[tokio::test]
async fn first_record_is_exact_after_each_reopen() {
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
        assert!(matches!(below, Err(Error::BelowFirst { first, .. }) if first == lsns[150]));
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
async fn truncate_before_accepts_end_and_refuses_above() {
    let wal = tiny().open_with(Disk::new(1)).await.unwrap();
    wal.truncate_before(Lsn::ZERO).await.unwrap();
    filled(&wal, 50).await;
    let end = wal.watermarks().reserved;
    let above = wal.truncate_before(Lsn::new(end.as_u64() + 8)).await;
    assert!(matches!(above, Err(Error::AboveEnd { .. })));
    wal.truncate_before(end).await.unwrap();
    assert_eq!(records(&wal).await, []);
    let lsn = wal.append_and_sync("first").await.unwrap();
    assert_eq!(records(&wal).await, [(lsn, b"first".to_vec())]);
}

#[tokio::test]
async fn truncate_before_needs_start_of_record_or_batch() {
    let wal = tiny().open_with(MemoryStorage::new()).await.unwrap();
    let batch = wal.append_batch(["one", "two", "three"]).await.unwrap();
    let after = wal.append(vec![1; 100]).await.unwrap();
    for wrong in [batch.start.as_u64() + 24, batch.start.as_u64() + 48, after.as_u64() + 16, 3] {
        let result = wal.truncate_before(Lsn::new(wrong)).await;
        assert!(matches!(result, Err(Error::NotABoundary { .. })), "{wrong}: {result:?}");
    }
    assert_eq!(wal.watermarks().first, Lsn::ZERO);
    wal.truncate_before(after).await.unwrap();
    let batch = wal.append_batch(["four", "five"]).await.unwrap();
    wal.truncate_before(batch.start).await.unwrap();
    assert_eq!(records(&wal).await.len(), 2);
}

/// Segments are removed after the new beginning is durable, oldest first.
#[tokio::test]
async fn segments_are_removed_oldest_first_when_durable() {
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
    assert_eq!(removed(&faults), 0, "removed before the truncation was durable");
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
async fn lease_keeps_segments_of_slow_reader() {
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
    assert!(wal.retain(lsns[9]).is_err(), "a truncated position cannot be leased");
    let held = wal.stats().segment_count;
    drop(lease);
    assert!(wal.stats().segment_count < held && wal.read(lsns[20]).await.is_err());
    assert_eq!(wal.read(lsns[60]).await.unwrap().payload, expected[60].1);
    drop(later);
    assert_eq!(wal.stats().lease_count, 0);
    assert!(wal.read(lsns[60]).await.is_err());
}

/// On a full disk appends fail, a truncation succeeds, and space is free again.
#[tokio::test]
async fn truncation_frees_full_disk() {
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
    // Again and again: each segment has the space for a truncation of a full log.
    for _ in 0..5 {
        let full = loop {
            match wal.append_and_sync(vec![1; 200]).await {
                Ok(lsn) => lsns.push(lsn),
                Err(error) => break error,
            }
        };
        assert!(matches!(full, Error::NoSpace { .. }), "{full}");
        wal.truncate_before(*lsns.last().unwrap()).await.unwrap();
        wal.append_and_sync(vec![2; 200]).await.unwrap();
    }
    let first = wal.watermarks().first;
    // The log keeps space for one truncation and for its close.
    wal.close().await.unwrap();
    let wal = tiny().open_with(disk).await.unwrap();
    assert_eq!(wal.recovery().first, first);
}

/// 64 tasks append, 8 replay and 4 truncate on two threads.
#[test]
fn truncations_beside_appends_and_replays() {
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
                                assert!(last < Some(record.lsn), "records must come in order");
                                assert_eq!(record.payload.len(), 72);
                                last = Some(record.lsn);
                                seen += 1;
                            }
                            // The position was truncated meanwhile.
                            Err(Error::BelowFirst { .. }) => break,
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
    println!("{} records replayed during truncations", seen.0);
    assert!(seen.0 >= 100, "too few records were replayed");
}

/// Prints, without a limit, the longest append while 1,000 segments are removed.
#[test]
fn removing_1000_segments_measures_appends() {
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
        let returned = begun.elapsed();
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
            "returned after {returned:?}, removed after {removed:?}, append at most {longest:?}"
        );
        wal.close().await.unwrap();
    });
}

/// A known defect of other logs: a truncation dropped half-way.
#[tokio::test]
async fn dropped_truncate_before_is_complete_or_absent() {
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
        let others = wal.append_and_sync("later").await.unwrap();
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

/// A reader looks a segment up, then the segment is removed, then the reader opens it. The error is
/// `BelowFirst`, not a lost file.
#[tokio::test]
async fn segment_removed_during_open_is_below_first() {
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
    within("removal of a segment", removed).await;
    gate.open();
    let read = within("replay", reading).await.unwrap().unwrap();
    assert!(matches!(read, Err(Error::BelowFirst { first, .. }) if first == lsns[150]), "{read:?}");
}

/// A forgotten lease can be found: statistics show its position and the bytes it holds.
#[tokio::test]
async fn stats_show_oldest_lease_and_its_bytes() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let mut lsns = Vec::new();
    while wal.stats().segment_count < 6 {
        lsns.push(wal.append_and_sync(&[1; 500]).await.unwrap());
    }
    let stats = wal.stats();
    assert_eq!((stats.oldest_lease, stats.leased_bytes), (None, 0));
    let (old, new) = (wal.retain(lsns[2]).unwrap(), wal.retain(lsns[40]).unwrap());
    let stats = wal.stats();
    assert_eq!(
        (stats.oldest_lease, stats.leased_bytes),
        (Some(lsns[2]), 0),
        "the lease holds no bytes yet"
    );
    wal.truncate_before(*lsns.last().unwrap()).await.unwrap();
    let all = wal.stats();
    assert_eq!((all.oldest_lease, all.segment_count), (Some(lsns[2]), 6));
    // A segment loses its header and the unused space at its end.
    let segment_bytes = (16 << 10) - 4096;
    let range = 5 * (segment_bytes - 600)..=5 * segment_bytes;
    assert!(range.contains(&all.leased_bytes), "five segments: {}", all.leased_bytes);
    drop(old);
    let one = async {
        while wal.stats().segment_count == 6 {
            tokio::task::yield_now().await;
        }
    };
    within("the removal", one).await;
    let less = wal.stats();
    assert_eq!(less.oldest_lease, Some(lsns[40]));
    assert!(less.leased_bytes < all.leased_bytes && less.leased_bytes > 0, "{less:?}");
    drop(new);
    let stats = wal.stats();
    assert_eq!((stats.oldest_lease, stats.leased_bytes), (None, 0));
}
