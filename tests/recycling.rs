//! Recycled segments: no reader ever gets old contents, also after failures and power cuts.
//! See `docs/DURABILITY.md`, "Using segments again".

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and the coverage is printed"
)]

mod contract;
mod support;

use std::{cell::Cell, io::ErrorKind, path::Path, time::Duration};

use contract::{
    block_on, recycle,
    sweep::{
        Depth, Tally, fail_syncs_of, sweep_simulated_with_thread_settings,
        sweep_with_thread_settings,
    },
    workload::{Running, turnover_script},
};
use futures::{StreamExt, TryStreamExt};
use highwater::{
    Error, Lsn, Options, Reader, Wal, Warning,
    sabotage::{self, Sabotage},
    simulation::{self, Disk, Event, Image, Op, Simulation, Survival, for_each_seed},
    storage::Storage,
};
use support::{records, within};

/// Options with segments for 4096 bytes of frames: three or four of the records here.
fn recycling(count: usize) -> Options {
    Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10).recycle_segments(count)
}

fn payload(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(120)
}

/// Appends `numbers`. After each sync, truncates the log up to that record.
async fn turn_over(wal: &Wal, numbers: std::ops::Range<u64>) -> highwater::Result<Vec<Lsn>> {
    let mut lsns = Vec::new();
    for number in numbers {
        let lsn = wal.append_and_sync(payload(number)).await?;
        wal.truncate_before(lsn).await?;
        lsns.push(lsn);
    }
    Ok(lsns)
}

fn is_waiting(name: &str) -> bool {
    name.ends_with(".wal.recycled")
}

fn waiting(image: &Image) -> Vec<String> {
    image.names().into_iter().filter(|name| is_waiting(name)).collect()
}

fn segments(image: &Image) -> Vec<String> {
    image.names().into_iter().filter(|name| name.ends_with(".wal")).collect()
}

/// A script has some hundred operations, so the sweeps cut only a part of the recoveries.
const DEPTH: Depth = Depth { survivals: 2, recovery_one_in: 200 };

/// Sweeps a log that recycles its segments.
fn sweep_turnover(seed: u64, tally: &mut Tally) -> Result<(), String> {
    recycle(1 + seed as usize % 2);
    sweep_with_thread_settings(seed, &turnover_script(seed), DEPTH, tally)
}

fn sweep_simulated_turnover(seed: u64, tally: &mut Tally) -> Result<(), String> {
    recycle(1 + seed as usize % 2);
    sweep_simulated_with_thread_settings(seed, &turnover_script(seed), DEPTH, tally)
}

#[test]
fn recycling_log_survives_power_cuts() {
    let mut tally = Tally::default();
    for_each_seed(1, |seed| sweep_turnover(seed, &mut tally).unwrap());
    for_each_seed(1, |seed| sweep_simulated_turnover(seed, &mut tally).unwrap());
    tally.assert_judged(1_300, 1_200);
}

#[test]
fn recycling_log_survives_failed_flushes() {
    let mut tally = Tally::default();
    for_each_seed(1, |seed| {
        recycle(2);
        let script = turnover_script(seed);
        fail_syncs_of(&script, seed, Running::InPlace, &mut tally).unwrap();
    });
    tally.assert_judged(70, 60);
}

/// Negative control: the sweeps catch each step that is left out.
#[test]
fn each_skipped_flush_is_caught() {
    let steps = [Sabotage::RecycleBeforeFlush, Sabotage::RecycleUnflushed];
    for step in steps {
        let mut tally = Tally::default();
        let caught =
            sabotage::with(step, || (0..2).find_map(|seed| sweep_turnover(seed, &mut tally).err()));
        let what = caught.unwrap_or_else(|| panic!("{step:?} was not caught: {tally}"));
        println!("{step:?} is caught after {tally}:\n  {what}");
    }
}

/// Returns all segments of a log that has turned over, and the number of recycled files.
fn disk_after_turnover(
    count: usize,
    count_of_records: u64,
    closes: bool,
) -> (Vec<(String, Vec<u8>)>, u64) {
    let disk = Disk::new(7);
    let recycled_count = block_on(async {
        let wal = recycling(count).open_with(disk.clone()).await.unwrap();
        turn_over(&wal, 0..count_of_records).await.unwrap();
        let recycled_count = wal.stats().recycled_count;
        if closes {
            wal.close().await.unwrap();
        }
        recycled_count
    });
    let image = disk.image();
    let bytes = |name: String| (name.clone(), image.bytes(&name).unwrap().to_vec());
    (segments(&image).into_iter().map(bytes).collect(), recycled_count)
}

/// So the tests of other logs (damage, recovery, tools) hold for recycled segments, too.
#[test]
fn recycling_changes_no_byte_of_a_log() {
    let is_changed = || {
        (40..56).any(|records| {
            let closes = records % 2 == 0;
            let (fresh, none) = disk_after_turnover(0, records, closes);
            let (recycled, some) = disk_after_turnover(2, records, closes);
            assert!(none == 0 && some >= 5, "{some} segments were recycled");
            fresh != recycled
        })
    };
    assert!(!is_changed());
    // The check finds a header that keeps a byte of the old contents.
    assert!(sabotage::with(Sabotage::RecycleHeader, is_changed), "the old header is not noticed");
}

#[test]
fn steady_log_creates_and_removes_no_files() {
    let disk = Disk::new(1);
    block_on(async {
        let wal = recycling(2).open_with(disk.clone()).await.unwrap();
        turn_over(&wal, 0..20).await.unwrap();
        let before = wal.stats();
        disk.faults().record(true);
        turn_over(&wal, 20..100).await.unwrap();
        let events = disk.faults().events();
        let is_file =
            |event: &&Event| matches!(event, Event::Created { .. } | Event::Removed { .. });
        assert_eq!(events.iter().filter(is_file).count(), 0);
        let stats = wal.stats();
        assert!(stats.rotation_count - before.rotation_count > 20);
        assert!(stats.recycled_count - before.recycled_count > 20);
        assert!(stats.removed_count - before.removed_count > 20);
        assert!(waiting(&disk.image()).len() <= 2);
    });
}

#[test]
fn recycled_files_are_limited_and_removed_at_close() {
    let disk = Disk::new(1);
    block_on(async {
        let wal = recycling(3).open_with(disk.clone()).await.unwrap();
        for number in 0..80 {
            wal.append(payload(number)).await.unwrap();
        }
        let newest = wal.append_and_sync(b"newest").await.unwrap();
        wal.truncate_before(newest).await.unwrap();
        assert!(wal.stats().removed_count > 10);
        assert_eq!(waiting(&disk.image()).len(), 3);
        wal.close().await.unwrap();
        assert_eq!((waiting(&disk.image()).len(), segments(&disk.image()).len()), (0, 1));
    });
}

#[test]
fn leftover_recycled_files_are_removed_and_reported() {
    let disk = Disk::new(1);
    block_on(async {
        let wal = recycling(2).open_with(disk.clone()).await.unwrap();
        turn_over(&wal, 0..20).await.unwrap();
        let expected = records(&wal).await;
        drop(wal);
        let left = waiting(&disk.image());
        assert!(!left.is_empty());
        // Overwrites the first waiting file.
        let mut image = disk.crash(Survival::Everything).image();
        image.put(&left[0], vec![0xa5; 9000]);
        let disk = Disk::with_image(image, 1);
        let reader = Reader::options().open_with(disk.clone()).await.unwrap();
        assert_eq!(waiting(&disk.image()), left, "a reader must not change files");
        drop(reader);
        let wal = recycling(0).open_with(disk.clone()).await.unwrap();
        let reported = wal.recovery().warnings.iter().filter(
            |warning| matches!(warning, Warning::Leftover { name, .. } if left.contains(name)),
        );
        assert_eq!(reported.count(), left.len(), "{}", wal.recovery());
        assert!(wal.recovery().cut.is_none());
        assert_eq!(waiting(&disk.image()).len(), 0);
        assert_eq!(records(&wal).await, expected);
    });
}

/// Truncates a log whose segments have second names. Returns whether a file with a second name has
/// changed.
fn changes_a_backup() -> bool {
    let disk = Disk::new(1);
    block_on(async {
        let wal = recycling(2).open_with(disk.clone()).await.unwrap();
        for number in 0..20 {
            wal.append_and_sync(payload(number)).await.unwrap();
        }
        let (newest, sealed) = {
            let mut sealed = segments(&disk.image());
            sealed.truncate(wal.stats().segment_count as usize - 1);
            (wal.append_and_sync(payload(20)).await.unwrap(), sealed)
        };
        assert!(sealed.len() > 3);
        let backup = |name: &String| format!("backup/{name}");
        let bytes = |name: &String| disk.image().bytes(&backup(name)).map(<[u8]>::to_vec);
        for name in &sealed {
            disk.link(name, &backup(name)).unwrap();
        }
        let before: Vec<_> = sealed.iter().map(bytes).collect();
        wal.truncate_before(newest).await.unwrap();
        turn_over(&wal, 21..60).await.unwrap();
        let is_changed = before != sealed.iter().map(bytes).collect::<Vec<_>>();
        assert!(is_changed || wal.stats().recycled_count > 0, "later segments must be recycled");
        is_changed
    })
}

#[test]
fn file_with_second_name_is_never_overwritten() {
    assert!(!changes_a_backup());
    assert!(
        sabotage::with(Sabotage::RecycleShared, changes_a_backup),
        "overwriting a shared file is not noticed"
    );
}

/// Replays, by the log or by a reader, during recycling. The records must be those appended, and
/// the replay ends with the last record or because the log now begins later. Adds the overtaken
/// replays to `overtaken`.
fn read_during_recycling(seed: u64, by_reader: bool, overtaken: &Cell<u64>) -> Result<(), String> {
    let disk = Disk::new(seed);
    // Reads are slow, so a file may be recycled before it is read.
    disk.faults().on(Op::Read).one_in(2).delay(Duration::from_millis(20));
    Simulation::new(seed).run(async move {
        let wal = recycling(2).open_with(disk.clone()).await.unwrap();
        for number in 0..16 {
            wal.append_and_sync(payload(number)).await.unwrap();
        }
        let reading = {
            let (wal, disk) = (wal.clone(), disk.clone());
            simulation::spawn(async move {
                if by_reader {
                    let reader = Reader::options().open_with(disk.clone()).await;
                    let reader = match reader {
                        Ok(reader) => reader,
                        Err(error) if is_gone(&error) => return Ok(false),
                        Err(error) => return Err(format!("opening a reader: {error}")),
                    };
                    check_replay(reader.replay(..)).await
                } else {
                    check_replay(wal.replay(..)).await
                }
            })
        };
        // Appends and truncates one record at a time, so that files are recycled soon.
        for number in 16..40 {
            let lsn = wal.append_and_sync(payload(number)).await.unwrap();
            wal.truncate_before(lsn).await.unwrap();
            simulation::yield_now().await;
        }
        let is_overtaken = reading.await.unwrap()?;
        overtaken.set(overtaken.get() + u64::from(is_overtaken));
        Ok(())
    })
}

/// The file was removed or renamed between two calls.
fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::NotFound)
}

async fn check_replay(mut replay: highwater::Replay) -> Result<bool, String> {
    let mut expected = None;
    while let Some(item) = replay.next().await {
        match item {
            Ok(record) => {
                let number = u64::from_le_bytes(record.payload[..8].try_into().unwrap());
                if record.payload != payload(number) || expected.is_some_and(|it| it != number) {
                    return Err(format!("other bytes at {}", record.lsn));
                }
                expected = Some(number + 1);
            }
            Err(Error::BelowFirst { .. }) => return Ok(true),
            Err(error) if is_gone(&error) => return Ok(true),
            Err(error) => return Err(format!("{error:#}")),
        }
        simulation::yield_now().await;
    }
    Ok(false)
}

#[test]
fn replay_never_reads_recycled_contents() {
    let overtaken = Cell::new(0);
    for_each_seed(200, |seed| {
        read_during_recycling(seed, false, &overtaken)
            .unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    });
    println!("{} of 200 replays were overtaken", overtaken.get());
    assert!(overtaken.get() > 20);
    let caught = sabotage::with(Sabotage::RecycleOpen, || {
        (0..200).find_map(|seed| read_during_recycling(seed, false, &overtaken).err())
    });
    println!("RecycleOpen: {}", caught.expect("overwriting an open file is not noticed"));
}

/// The log cannot see the files that a `Reader` has open. A recycled file is reported as truncated,
/// not as damaged.
#[test]
fn reader_of_recycled_file_gets_below_first() {
    let overtaken = Cell::new(0);
    for_each_seed(50, |seed| {
        read_during_recycling(seed, true, &overtaken)
            .unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    });
    println!("{} of 50 replays were overtaken", overtaken.get());
    assert!(overtaken.get() > 5);
}

/// The same on real files that were opened before they were recycled.
#[tokio::test]
async fn open_files_recycled_end_with_below_first() {
    let directory = tempfile::tempdir().unwrap();
    let path: &Path = directory.path();
    // More bytes than a reader reads ahead.
    let options = Wal::options().segment_bytes(1 << 20).ring_bytes(64 << 10).recycle_segments(4);
    let wal = options.open(path).await.unwrap();
    let record = |number: u64| number.to_le_bytes().repeat(8 << 10);
    let mut newest = Lsn::ZERO;
    for number in 0..45 {
        newest = wal.append_and_sync(record(number)).await.unwrap();
    }
    let reader = Reader::options().poll_interval(Duration::from_millis(1));
    let reader = reader.open(path).await.unwrap();
    let mut replay = reader.replay(..);
    let mut tail = reader.follow(Lsn::ZERO);
    for number in 0..2 {
        assert_eq!(replay.try_next().await.unwrap().unwrap().payload, record(number));
        assert_eq!(within("tail", tail.next()).await.unwrap().unwrap().payload, record(number));
    }
    wal.truncate_before(newest).await.unwrap();
    for number in 45..90 {
        newest = wal.append_and_sync(record(number)).await.unwrap();
        wal.truncate_before(newest).await.unwrap();
    }
    let recycled = async {
        while wal.stats().recycled_count < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within("recycling of segments", recycled).await;
    let mut number = 2;
    let ended = loop {
        match within("replay", replay.next()).await.unwrap() {
            Ok(read) => assert_eq!(read.payload, record(number)),
            Err(error) => break error,
        }
        number += 1;
    };
    assert!(matches!(ended, Error::BelowFirst { first, .. } if first == newest), "{ended}");
    let mut number = 2;
    let ended = loop {
        match within("tail", tail.next()).await.unwrap() {
            Ok(read) => assert_eq!(read.payload, record(number)),
            Err(error) => break error,
        }
        number += 1;
    };
    assert!(matches!(ended, Error::BelowFirst { first, .. } if first == newest), "{ended}");
    wal.close().await.unwrap();
}

/// A failed step is not a failure of the log: the file is removed, and a new one is created.
#[test]
fn failed_recycling_step_does_not_stop_log() {
    type Plan = fn(&Disk);
    let plans: [(&str, Plan); 5] = [
        ("the renaming", |disk| disk.faults().on(Op::Rename).fail_os(5)),
        ("the opening", |disk| disk.faults().on(Op::Open).file(is_waiting).fail_os(5)),
        ("the zeros", |disk| disk.faults().on(Op::Write).file(is_waiting).fail_os(5)),
        ("their flush", |disk| disk.faults().on(Op::Sync).file(is_waiting).fail_os(5)),
        ("the second renaming", |disk| disk.faults().on(Op::Rename).file(is_waiting).fail_os(5)),
    ];
    for (what, plan) in plans {
        let disk = Disk::new(1);
        plan(&disk);
        let expected = block_on(async {
            let wal = recycling(2).open_with(disk.clone()).await.unwrap();
            turn_over(&wal, 0..30).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(wal.stats().recycled_count, 0, "{what}");
            assert!(waiting(&disk.image()).len() <= 2, "{what}");
            records(&wal).await
        });
        assert!(disk.faults().met_count() > 3, "{what}");
        for survival in [Survival::Nothing, Survival::Everything] {
            block_on(async {
                let wal = recycling(2).open_with(disk.crash(survival)).await.unwrap();
                assert_eq!(records(&wal).await, expected, "{what}");
            });
        }
    }
}

#[test]
fn segment_of_other_size_is_not_recycled() {
    let disk = Disk::new(1);
    block_on(async {
        let wal = recycling(2).open_with(disk.clone()).await.unwrap();
        for number in 0..3 {
            wal.append_and_sync(payload(number)).await.unwrap();
        }
        // This record needs its own, larger segment.
        wal.append_and_sync(vec![7; 20 << 10]).await.unwrap();
        turn_over(&wal, 3..40).await.unwrap();
        let sizes = |disk: &Disk| {
            let image = disk.image();
            let names = segments(&image).into_iter().chain(waiting(&image));
            names.map(|name| image.bytes(&name).unwrap().len()).collect::<Vec<_>>()
        };
        assert!(sizes(&disk).iter().all(|&bytes| bytes == 8 << 10), "{:?}", sizes(&disk));
        wal.close().await.unwrap();
        // Opens with another segment size: the old segment is removed.
        let options = recycling(2).segment_bytes(16 << 10);
        let wal = options.open_with(disk.clone()).await.unwrap();
        turn_over(&wal, 40..120).await.unwrap();
        assert!(wal.stats().recycled_count > 0);
        assert!(sizes(&disk).iter().all(|&bytes| bytes == 16 << 10), "{:?}", sizes(&disk));
    });
}

#[test]
fn recycled_files_free_space_on_full_disk() {
    let disk = Disk::new(1);
    block_on(async {
        let wal = recycling(4).open_with(disk.clone()).await.unwrap();
        for number in 0..30 {
            wal.append_and_sync(payload(number)).await.unwrap();
        }
        turn_over(&wal, 30..34).await.unwrap();
        assert_eq!(waiting(&disk.image()).len(), 4);
        let used: usize = {
            let image = disk.image();
            image.names().iter().map(|name| image.bytes(name).unwrap().len()).sum()
        };
        disk.set_capacity_bytes(used as u64 + 4096);
        let lsn = wal.append_and_sync(vec![9; 20 << 10]).await.unwrap();
        assert_eq!(wal.read(lsn).await.unwrap().payload, vec![9; 20 << 10]);
        assert_eq!(waiting(&disk.image()).len(), 0);
    });
}
