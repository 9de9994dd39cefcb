//! Truncations of both ends beside appends, replays and followers.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures::{StreamExt, TryStreamExt};
use highwater::{Error, Lsn, Wal, storage::MemoryStorage};

use crate::support::{records, tiny, within};

/// A stress test: 64 appenders, 8 replays and 4 followers, while both ends move.
#[test]
fn truncate_both_ends_beside_all_operations() {
    for seed in 0..if cfg!(debug_assertions) { 3 } else { 20 } {
        for workers in [1, 3] {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(workers)
                .enable_time()
                .build()
                .unwrap();
            let storage = MemoryStorage::new();
            runtime.block_on(within("both ends", both_ends_move(storage, seed)));
        }
    }
}

/// Each payload holds its task and its number. A reader sees the records of one task in order,
/// except for truncated ones, which are reported to followers.
async fn both_ends_move(storage: MemoryStorage, seed: u64) {
    let wal = tiny().open_with(storage.clone()).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let appenders: Vec<_> =
        (0..64).map(|task| tokio::spawn(append(wal.clone(), task, Arc::clone(&is_over)))).collect();
    let followers: Vec<_> = (0..4).map(|_| tokio::spawn(follow(wal.clone()))).collect();
    let replays: Vec<_> = (0..8)
        .map(|_| {
            let (wal, is_over) = (wal.clone(), Arc::clone(&is_over));
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let mut last = None;
                    let mut replay = wal.replay(wal.watermarks().first..);
                    while let Some(item) = replay.next().await {
                        match item {
                            Ok(record) => {
                                assert!(last < Some(record.lsn), "records must come in order");
                                assert_eq!(record.payload.len() % 16, 0, "records must be whole");
                                last = Some(record.lsn);
                            }
                            Err(Error::Truncated { .. } | Error::BelowFirst { .. }) => break,
                            Err(error) => panic!("{error}"),
                        }
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let truncated = {
        let (wal, is_over) = (wal.clone(), Arc::clone(&is_over));
        tokio::spawn(async move {
            let mut random = highwater::simulation::Random::new(seed);
            let mut counts = [0, 0];
            while counts[0] < 8 || counts[1] < 8 {
                let marks = wal.watermarks();
                let existing: Vec<_> =
                    wal.replay(marks.first..).take(200).try_collect().await.unwrap_or_default();
                if let Some(picked) = existing.get(random.below(existing.len().max(1))) {
                    let end = usize::from(random.one_in(3));
                    let result = match end {
                        0 => wal.truncate_before(picked.lsn).await.map(drop),
                        _ => wal.truncate_after(picked.lsn).await.map(drop),
                    };
                    match result {
                        Ok(()) => counts[end] += 1,
                        Err(
                            Error::Truncated { .. }
                            | Error::BelowFirst { .. }
                            | Error::AboveEnd { .. }
                            | Error::NotABoundary { .. },
                        ) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                tokio::task::yield_now().await;
            }
            is_over.store(true, Ordering::Relaxed);
        })
    };
    truncated.await.unwrap();
    let mut acknowledged = 0;
    for appender in appenders {
        acknowledged += appender.await.unwrap();
    }
    for replay in replays {
        replay.await.unwrap();
    }
    assert!(acknowledged > 0);
    let expected = records(&wal).await;
    wal.close().await.unwrap();
    for follower in followers {
        let (seen, first) = follower.await.unwrap();
        let seen: Vec<_> = seen.into_iter().filter(|(lsn, _)| *lsn >= first).collect();
        let existing: Vec<_> = expected.iter().filter(|(lsn, _)| *lsn >= first).cloned().collect();
        let from = seen.len().saturating_sub(existing.len());
        assert_eq!(seen[from..], existing, "records seen and not truncated must equal the log");
    }
    drop(wal);
    let wal = tiny().open_with(storage).await.unwrap();
    assert_eq!(records(&wal).await, expected);
}

/// Appends until the end of the test, and returns the number of synced records.
async fn append(wal: Wal, task: u64, is_over: Arc<AtomicBool>) -> u64 {
    let mut count = 0;
    for i in 0u64.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        // Yields, because in memory no call waits.
        tokio::task::yield_now().await;
        let mut payload = [task.to_le_bytes(), i.to_le_bytes()].concat();
        payload.resize(16 * (1 + usize::try_from((task + i) % 12).unwrap()), 7);
        match wal.append_and_sync(&payload).await {
            Ok(_) => count += 1,
            Err(Error::Truncated { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    count
}

/// Returns the records seen and not truncated, and the position from which none was missed.
async fn follow(wal: Wal) -> (Vec<(Lsn, Vec<u8>)>, Lsn) {
    let mut seen: Vec<(Lsn, Vec<u8>)> = Vec::new();
    let mut first = Lsn::ZERO;
    let mut follower = wal.follow(first);
    drop(wal.clone());
    let core = wal;
    loop {
        match follower.next().await {
            Some(Ok(record)) => {
                assert!(
                    seen.last().is_none_or(|(lsn, _)| *lsn < record.lsn),
                    "a record came twice"
                );
                seen.push((record.lsn, record.payload.to_vec()));
            }
            Some(Err(Error::Truncated { to })) => {
                let kept = seen.partition_point(|(lsn, _)| *lsn < to);
                assert!(
                    kept < seen.len() || follower.position() == to,
                    "`Truncated` must concern a record that was seen"
                );
                seen.truncate(kept);
            }
            Some(Err(Error::BelowFirst { .. })) => {
                // Truncation of the beginning has overtaken the follower: it restarts there.
                first = core.watermarks().first;
                seen.clear();
                follower = core.follow(first);
            }
            Some(Err(error)) => panic!("{error}"),
            None => return (seen, first),
        }
    }
}
