//! Segments that are used again: nothing of what they were is ever seen, whatever fails and whoever
//! looks; what holds a file back; what stays on the disk. `docs/DURABILITY.md`, "Using segments again".

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and what it covered is said"
)]

mod contract;
mod support;

use std::{cell::Cell, io::ErrorKind, path::Path, time::Duration};

use contract::{
    block_on, recycle,
    sweep::{Depth, Tally, fail_syncs_of, sweep_as_it_is, sweep_simulated_as_it_is},
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

/// Segments with room for 4096 bytes: three or four of the records here.
fn recycling(count: usize) -> Options {
    Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10).recycle_segments(count)
}

fn payload(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(120)
}

/// Appends `numbers`; each of them is the beginning of the log once it is synced.
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

/// Each such log has some hundred operations.
const DEPTH: Depth = Depth { survivals: 2, recovery_one_in: 200 };

/// What a log that turns over is swept with.
fn sweep_turnover(seed: u64, tally: &mut Tally) -> Result<(), String> {
    recycle(1 + seed as usize % 2);
    sweep_as_it_is(seed, &turnover_script(seed), DEPTH, tally)
}

fn sweep_simulated_turnover(seed: u64, tally: &mut Tally) -> Result<(), String> {
    recycle(1 + seed as usize % 2);
    sweep_simulated_as_it_is(seed, &turnover_script(seed), DEPTH, tally)
}

#[test]
fn a_log_that_turns_over_survives_a_power_cut_after_every_operation() {
    let mut tally = Tally::default();
    for_each_seed(1, |seed| sweep_turnover(seed, &mut tally).unwrap());
    for_each_seed(1, |seed| sweep_simulated_turnover(seed, &mut tally).unwrap());
    println!("{tally}");
}

#[test]
fn a_log_that_turns_over_loses_nothing_when_a_flush_fails() {
    let mut tally = Tally::default();
    for_each_seed(1, |seed| {
        recycle(2);
        let script = turnover_script(seed);
        fail_syncs_of(&script, seed, Running::InPlace, &mut tally).unwrap();
    });
    println!("{tally}");
}

/// The sweeps above prove something: they catch each step that is left out.
#[test]
fn each_flush_that_is_left_out_is_caught() {
    let steps = [Sabotage::RecycleBeforeFlush, Sabotage::RecycleUnflushed];
    for step in steps {
        let mut tally = Tally::default();
        let caught =
            sabotage::with(step, || (0..2).find_map(|seed| sweep_turnover(seed, &mut tally).err()));
        let what = caught.unwrap_or_else(|| panic!("{step:?} was not caught: {tally}"));
        println!("{step:?} is caught after {tally}:\n  {what}");
    }
}

/// All that is on the disk when a log has turned over, by name, without the files that wait.
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

/// So whatever is tested of other logs (damage, recovery, every tool) holds for these.
#[test]
fn recycling_changes_no_byte_of_a_log() {
    let is_changed = || {
        (40..56).any(|records| {
            let closes = records % 2 == 0;
            let (fresh, none) = disk_after_turnover(0, records, closes);
            let (recycled, some) = disk_after_turnover(2, records, closes);
            assert!(none == 0 && some >= 5, "{some} segments were used again");
            fresh != recycled
        })
    };
    assert!(!is_changed());
    // A prepared segment tells nothing of what it was.
    assert!(sabotage::with(Sabotage::RecycleHeader, is_changed), "or nobody would notice");
}

#[test]
fn a_steady_log_creates_and_removes_no_files() {
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
fn no_more_are_kept_than_asked_for_and_a_closed_log_keeps_none() {
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
fn what_waited_when_the_log_broke_off_is_removed_and_told() {
    let disk = Disk::new(1);
    block_on(async {
        let wal = recycling(2).open_with(disk.clone()).await.unwrap();
        turn_over(&wal, 0..20).await.unwrap();
        let expected = records(&wal).await;
        drop(wal);
        let left = waiting(&disk.image());
        assert!(!left.is_empty());
        // Whatever is in it.
        let mut image = disk.crash(Survival::Everything).image();
        image.put(&left[0], vec![0xa5; 9000]);
        let disk = Disk::with_image(image, 1);
        let reader = Reader::options().open_with(disk.clone()).await.unwrap();
        assert_eq!(waiting(&disk.image()), left, "a reader changes nothing");
        drop(reader);
        let wal = recycling(0).open_with(disk.clone()).await.unwrap();
        let told = wal.recovery().warnings.iter().filter(
            |warning| matches!(warning, Warning::Leftover { name, .. } if left.contains(name)),
        );
        assert_eq!(told.count(), left.len(), "{}", wal.recovery());
        assert!(wal.recovery().cut.is_none());
        assert_eq!(waiting(&disk.image()).len(), 0);
        assert_eq!(records(&wal).await, expected);
    });
}

/// Truncates a log of which each segment has a second name, and says whether a file with that name
/// has changed.
fn is_a_backup_changed() -> bool {
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
        assert!(is_changed || wal.stats().recycled_count > 0, "later ones are used again");
        is_changed
    })
}

#[test]
fn a_file_with_another_name_is_never_written_to() {
    assert!(!is_a_backup_changed());
    assert!(sabotage::with(Sabotage::RecycleShared, is_a_backup_changed), "or nobody would notice");
}

/// Replays, in this log and by readers of their own, beside a log that turns over: whether each gave
/// what was appended, and ended because the log begins later now or with the last record. How many
/// were overtaken is added to `overtaken`.
fn read_beside(seed: u64, by_reader: bool, overtaken: &Cell<u64>) -> Result<(), String> {
    let disk = Disk::new(seed);
    // Long enough for a file to be another when it comes to it.
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
                        Err(error) => return Err(format!("a reader opens: {error}")),
                    };
                    check_replay(reader.replay(..)).await
                } else {
                    check_replay(wal.replay(..)).await
                }
            })
        };
        // One at a time, so that a file is used again as soon as it can be.
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

/// Removed, or renamed, between two looks at it.
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
            Err(Error::OutOfRange { .. }) => return Ok(true),
            Err(error) if is_gone(&error) => return Ok(true),
            Err(error) => return Err(format!("{error}")),
        }
        simulation::yield_now().await;
    }
    Ok(false)
}

#[test]
fn who_reads_a_file_is_never_given_what_it_becomes() {
    let overtaken = Cell::new(0);
    for_each_seed(200, |seed| {
        read_beside(seed, false, &overtaken).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    });
    println!("{} of 200 replays were overtaken", overtaken.get());
    assert!(overtaken.get() > 20);
    let caught = sabotage::with(Sabotage::RecycleOpen, || {
        (0..200).find_map(|seed| read_beside(seed, false, &overtaken).err())
    });
    println!("RecycleOpen: {}", caught.expect("a file in use is overwritten, and nobody notices"));
}

/// A reader of its own can't be asked whether it has a file open: what it meets there is no damage.
#[test]
fn a_reader_in_a_file_that_is_used_again_is_told_that_the_log_begins_later() {
    let overtaken = Cell::new(0);
    for_each_seed(50, |seed| {
        read_beside(seed, true, &overtaken).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    });
    println!("{} of 50 replays were overtaken", overtaken.get());
    assert!(overtaken.get() > 5);
}

/// The same on files: it has them open, and they are others when it comes to them.
#[tokio::test]
async fn a_replay_and_a_follower_that_hold_files_open_end_where_the_log_begins_later() {
    let directory = tempfile::tempdir().unwrap();
    let path: &Path = directory.path();
    // More than a reader reads ahead.
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
    let used_again = async {
        while wal.stats().recycled_count < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    within("segments are used again", used_again).await;
    let mut number = 2;
    let ended = loop {
        match within("replay", replay.next()).await.unwrap() {
            Ok(read) => assert_eq!(read.payload, record(number)),
            Err(error) => break error,
        }
        number += 1;
    };
    assert!(matches!(ended, Error::OutOfRange { first, .. } if first == newest), "{ended}");
    let mut number = 2;
    let ended = loop {
        match within("tail", tail.next()).await.unwrap() {
            Ok(read) => assert_eq!(read.payload, record(number)),
            Err(error) => break error,
        }
        number += 1;
    };
    assert!(matches!(ended, Error::OutOfRange { first, .. } if first == newest), "{ended}");
    wal.close().await.unwrap();
}

/// A step that fails is no failure of the log: the file is removed, and another one made.
#[test]
fn what_fails_while_a_file_is_made_ready_stops_nothing() {
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
fn a_segment_of_another_size_is_not_used_again() {
    let disk = Disk::new(1);
    block_on(async {
        let wal = recycling(2).open_with(disk.clone()).await.unwrap();
        for number in 0..3 {
            wal.append_and_sync(payload(number)).await.unwrap();
        }
        // A segment of its own, larger than others.
        wal.append_and_sync(vec![7; 20 << 10]).await.unwrap();
        turn_over(&wal, 3..40).await.unwrap();
        let sizes = |disk: &Disk| {
            let image = disk.image();
            let names = segments(&image).into_iter().chain(waiting(&image));
            names.map(|name| image.bytes(&name).unwrap().len()).collect::<Vec<_>>()
        };
        assert!(sizes(&disk).iter().all(|&bytes| bytes == 8 << 10), "{:?}", sizes(&disk));
        wal.close().await.unwrap();
        // Opened with another size: the old one goes.
        let options = recycling(2).segment_bytes(16 << 10);
        let wal = options.open_with(disk.clone()).await.unwrap();
        turn_over(&wal, 40..120).await.unwrap();
        assert!(wal.stats().recycled_count > 0);
        assert!(sizes(&disk).iter().all(|&bytes| bytes == 16 << 10), "{:?}", sizes(&disk));
    });
}

#[test]
fn what_waits_makes_room_for_a_larger_segment_on_a_full_disk() {
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
