//! Time marks: the log's time never goes back, and finds positions.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod support;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::TryStreamExt;
use highwater::{
    Lsn, Reader, Wal,
    inspect::{FrameKind, Role, Snapshot},
    sabotage::{self, Sabotage},
    simulation::{Disk, Random, Survival},
};
use support::{clocked::Clocked, tiny};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

async fn open(clocked: &Clocked) -> Wal {
    tiny().time_marks(Duration::from_millis(10)).open_with(clocked.clone()).await.unwrap()
}

/// Returns the times of the log's marks and headers, in the order of their positions.
fn times(disk: &Disk) -> (Vec<u64>, Vec<u64>) {
    let snapshot = Snapshot::of_storage(disk.clone()).unwrap();
    let (mut marks, mut created) = (Vec::new(), Vec::new());
    for segment in snapshot.outline().segments.iter().filter(|it| it.role == Role::Log) {
        created.push(segment.header.unwrap().created_unix_ms);
        for frame in snapshot.frames(segment).unwrap() {
            let frame = frame.unwrap();
            if frame.kind == FrameKind::Time {
                marks.push(u64::from_le_bytes(frame.payload[..8].try_into().unwrap()));
            }
        }
    }
    (marks, created)
}

/// Appends with a clock that jumps, and reopens the log in each way. Returns whether the times of
/// the log never go back.
fn time_is_monotonic(seed: u64) -> bool {
    let mut random = Random::new(seed);
    let mut clocked = Clocked::new(Disk::new(seed));
    let mut is_monotonic = true;
    for _ in 0..6 {
        block_on(async {
            let wal = open(&clocked).await;
            let mut lsns = Vec::new();
            for _ in 0..20 + random.below(20) {
                clocked.set(1_000_000 + random.below(10_000) as u64);
                lsns.push(wal.append_and_sync(&[7; 150]).await.unwrap());
                if random.one_in(20) {
                    wal.truncate_after(lsns.pop().unwrap()).await.unwrap();
                }
            }
            // The clock may be anywhere when the log is closed or opened again.
            clocked.set(1_000_000 + random.below(5_000) as u64);
            if random.one_in(2) {
                wal.close().await.unwrap();
            }
        });
        let survival = [Survival::Nothing, Survival::Everything, Survival::Random(seed)];
        clocked.disk = clocked.disk.crash(survival[random.below(3)]);
        let (marks, created) = times(&clocked.disk);
        assert!(!marks.is_empty() && !created.is_empty());
        is_monotonic &= marks.is_sorted() && created.is_sorted();
    }
    is_monotonic
}

#[test]
fn time_never_goes_back_with_jumping_clock() {
    for seed in 0..20 {
        assert!(time_is_monotonic(seed), "seed {seed}");
    }
}

#[test]
fn time_mark_that_goes_back_is_caught() {
    let is_caught = || (0..20).any(|seed| !time_is_monotonic(seed));
    assert!(sabotage::with(Sabotage::TimeGoesBack, is_caught));
}

#[test]
fn at_time_finds_all_later_records() {
    for closes in [true, false] {
        let clocked = Clocked::new(Disk::new(3));
        let mut records: Vec<(u64, Lsn)> = Vec::new();
        let mut now = 1_000_000;
        let mut random = Random::new(9);
        for _ in 0..4 {
            block_on(async {
                let wal = open(&clocked).await;
                for _ in 0..100 {
                    now += random.below(8) as u64;
                    clocked.set(now);
                    records.push((now, wal.append_and_sync(&[7; 100]).await.unwrap()));
                }
                for _ in 0..200 {
                    let ms = 999_990 + random.below(usize::try_from(now - 999_970).unwrap()) as u64;
                    let time = UNIX_EPOCH + Duration::from_millis(ms);
                    let at = wal.at_time(time).await.unwrap();
                    let missed = records.iter().find(|(began, lsn)| *began >= ms && *lsn < at);
                    assert_eq!(missed, None, "from {ms} on, found {at}");
                    let early = records.iter().filter(|(began, lsn)| began + 45 < ms && *lsn >= at);
                    assert_eq!(early.count(), 0, "long before {ms}, found {at}");
                }
                let first = wal.watermarks().first;
                assert_eq!(wal.at_time(UNIX_EPOCH).await.unwrap(), first);
                if closes {
                    wal.close().await.unwrap();
                }
            });
        }
        block_on(async {
            let wal = open(&clocked).await;
            let kept = records[350].1;
            wal.truncate_before(kept).await.unwrap();
            assert_eq!(wal.at_time(UNIX_EPOCH).await.unwrap(), kept);
            assert!(wal.at_time(SystemTime::now()).await.unwrap() >= kept);
        });
    }
}

async fn reader_of(clocked: &Clocked) -> Reader {
    Reader::options().open_with(clocked.clone()).await.unwrap()
}

/// The reader is beside the writer. All its records since a time are above the position, and a
/// replay can begin there.
#[test]
fn reader_at_time_finds_all_later_records() {
    let clocked = Clocked::new(Disk::new(5));
    let mut records: Vec<(u64, Lsn)> = Vec::new();
    let mut now = 1_000_000;
    let mut random = Random::new(4);
    for _ in 0..4 {
        block_on(async {
            let wal = open(&clocked).await;
            for _ in 0..100 {
                now += random.below(8) as u64;
                clocked.set(now);
                records.push((now, wal.append_and_sync(&[7; 100]).await.unwrap()));
            }
            let reader = reader_of(&clocked).await;
            assert!(reader.newest_time_mark().await.unwrap().unwrap() > UNIX_EPOCH);
            assert_eq!(reader.at_time(UNIX_EPOCH).await.unwrap(), reader.first());
            for _ in 0..100 {
                let ms = 999_990 + random.below(usize::try_from(now - 999_970).unwrap()) as u64;
                let at = reader.at_time(UNIX_EPOCH + Duration::from_millis(ms)).await.unwrap();
                let missed = records.iter().find(|(began, lsn)| *began >= ms && *lsn < at);
                assert_eq!(missed, None, "from {ms} on, found {at}");
                let early = records.iter().filter(|(began, lsn)| began + 45 < ms && *lsn >= at);
                assert_eq!(early.count(), 0, "long before {ms}, found {at}");
                assert!(at <= reader.end(), "{at} is above what the reader shows");
                let shown: Vec<_> = reader.replay(at..).try_collect().await.unwrap();
                let expected = records.iter().filter(|(_, lsn)| (at..reader.end()).contains(lsn));
                assert_eq!(shown.len(), expected.count(), "a replay begins at {at}");
            }
            wal.close().await.unwrap();
        });
    }
}

/// Appends a record between the clock's reading for a mark and the mark, so that the mark is above
/// the record and has an earlier time. Returns whether a search for the record's time finds it.
fn late_record_is_found() -> bool {
    let clocked = Clocked::new(Disk::new(8));
    block_on(async {
        let wal = open(&clocked).await;
        for unix_ms in [1_000_000, 1_000_100] {
            clocked.set(unix_ms);
            wal.append_and_sync(b"before a mark").await.unwrap();
        }
        clocked.set(1_000_200);
        let late = Arc::new(Mutex::new(None));
        wal.append(b"makes a flush necessary").await.unwrap();
        let (writer, clock, ticket) = (wal.clone(), clocked.clone(), Arc::clone(&late));
        *clocked.after_reading.lock().unwrap() = Some(Box::new(move || {
            clock.set(1_000_250);
            *ticket.lock().unwrap() = Some(writer.try_enqueue(b"late").unwrap().lsn());
        }));
        wal.sync().await.unwrap();
        let late = late.lock().unwrap().unwrap();
        clocked.set(1_000_300);
        wal.append_and_sync(b"with the next mark").await.unwrap();
        let time = UNIX_EPOCH + Duration::from_millis(1_000_250);
        let by_reader = reader_of(&clocked).await.at_time(time).await.unwrap();
        let by_writer = wal.at_time(time).await.unwrap();
        assert_eq!(by_writer, by_reader);
        by_writer <= late
    })
}

#[test]
fn record_between_clock_and_mark_is_found() {
    assert!(late_record_is_found());
}

#[test]
fn search_for_the_newest_mark_only_is_caught() {
    assert!(!sabotage::with(Sabotage::TrustNewestMark, late_record_is_found));
}

/// The writer removes segments after the reader has listed them.
#[test]
fn reader_at_time_passes_removed_segments() {
    block_on(async {
        let clocked = Clocked::new(Disk::new(6));
        let wal = open(&clocked).await;
        let mut lsns = Vec::new();
        for i in 0..300 {
            clocked.set(1_000_000 + i);
            lsns.push(wal.append_and_sync(&[7; 100]).await.unwrap());
        }
        let reader = reader_of(&clocked).await;
        assert_eq!(reader.first(), Lsn::ZERO);
        wal.truncate_before(lsns[250]).await.unwrap();
        wal.append_and_sync(b"makes the truncation durable").await.unwrap();
        let kept = wal.segments()[0].start;
        assert!(kept > lsns[100], "segments were removed");
        let late = UNIX_EPOCH + Duration::from_millis(1_000_290);
        for time in [UNIX_EPOCH + Duration::from_millis(1_000_050), late] {
            let at = reader.at_time(time).await.unwrap();
            assert!(at >= kept && at <= lsns[290], "{at}, and the log begins at {kept}");
        }
        assert_eq!(reader.first(), Lsn::ZERO, "the reader shows the same");
    });
}

/// A later opening without the option leaves the marks that are there.
#[test]
fn newest_time_mark_is_found_in_older_segments() {
    block_on(async {
        let clocked = Clocked::new(Disk::new(7));
        let plain = tiny().open_with(clocked.clone()).await.unwrap();
        support::filled(&plain, 10).await;
        plain.close().await.unwrap();
        assert_eq!(reader_of(&clocked).await.newest_time_mark().await.unwrap(), None);
        let wal = open(&clocked).await;
        clocked.set(2_000_000);
        wal.append_and_sync(&[7; 100]).await.unwrap();
        wal.close().await.unwrap();
        let marked = UNIX_EPOCH + Duration::from_millis(2_000_000);
        let plain = tiny().open_with(clocked.clone()).await.unwrap();
        clocked.set(3_000_000);
        for _ in 0..3 {
            let newest = reader_of(&clocked).await.newest_time_mark().await.unwrap();
            assert_eq!(newest, Some(marked));
            support::filled(&plain, 100).await;
        }
        assert!(plain.segments().len() > 2, "the newest segments have no mark");
        plain.close().await.unwrap();
    });
}

#[test]
fn log_without_time_marks_returns_its_beginning() {
    block_on(async {
        let wal = tiny().open_with(Disk::new(1)).await.unwrap();
        support::filled(&wal, 100).await;
        assert_eq!(wal.at_time(SystemTime::now()).await.unwrap(), Lsn::ZERO);
        wal.close().await.unwrap();
    });
}
