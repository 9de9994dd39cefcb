//! What went wrong in other logs, each as a test of ours. The rows are those of the first table of
//! `design/peers.md`; rows 2, 7, 18 and 20 need truncation or a simulated disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on panics"
)]

mod support;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use futures::future::join_all;
use highwater::{
    Error, Lsn, Wal,
    simulation::{self, Disk, Event, Faults, Op, Promises, Random, Simulation, Survival, Wrote},
    storage::{MemoryStorage, Storage},
};
use support::{cause, open_when_free, reached, records, settled, small, within};

const EIO: i32 = 5;
const HEADER_BYTES: u64 = 4096;
const FIRST_SEGMENT: &str = "00000000000000000001.wal";

/// A segment file as an event log shows it.
#[derive(Default)]
struct Segment {
    /// From the header, once there is one.
    base: Option<u64>,
    created: usize,
    header_written: usize,
    /// For each byte past the header's block the event that wrote it last; 0 for none.
    written: Vec<usize>,
    /// The beginning of the newest sync that succeeded.
    synced: usize,
}

/// Holds an event log against what "synced" means: each time the mark was seen at `W`, every byte
/// below `W` had been written before a sync of its file began that ended well, and so had its
/// segment's header; and the file had been created before a sync of the directory began.
fn check(events: &[Event]) -> Result<u64, String> {
    let mut segments: BTreeMap<&str, Segment> = BTreeMap::new();
    let (mut directory_synced, mut noted) = (0, 0);
    for (now, event) in events.iter().enumerate() {
        match event {
            Event::Created { file } => {
                segments.insert(file, Segment { created: now, ..Segment::default() });
            }
            Event::Removed { file } => drop(segments.remove(file.as_str())),
            Event::SyncDirEnded { begin, ok: true } => directory_synced = *begin,
            Event::SyncEnded { file, begin, ok: true } => {
                let segment = segments.get_mut(file.as_str()).ok_or("a sync of an unknown file")?;
                segment.synced = segment.synced.max(*begin);
            }
            Event::Wrote(wrote) if !wrote.is_blank => {
                let segment =
                    segments.get_mut(wrote.file.as_str()).ok_or("a write to an unknown file")?;
                if wrote.offset == 0 {
                    let base = wrote.head.get(32..40).and_then(|bytes| bytes.try_into().ok());
                    segment.base = Some(u64::from_le_bytes(base.ok_or("a short header")?));
                    segment.header_written = now;
                } else {
                    let start = usize::try_from(wrote.offset - HEADER_BYTES).unwrap();
                    let end = start + wrote.count;
                    segment.written.resize(segment.written.len().max(end), 0);
                    segment.written[start..end].fill(now);
                }
            }
            Event::Noted { note: synced } => {
                check_mark(&segments, directory_synced, noted, *synced)
                    .map_err(|problem| format!("event {now}, synced = {synced}: {problem}"))?;
                noted = noted.max(*synced);
            }
            _ => {}
        }
    }
    Ok(noted)
}

fn check_mark(
    segments: &BTreeMap<&str, Segment>,
    directory_synced: usize,
    from: u64,
    to: u64,
) -> Result<(), String> {
    for lsn in from..to {
        // The newest that begins at or below: a segment ends where its successor begins.
        let holder =
            segments.iter().rev().find(|(_, segment)| segment.base.is_some_and(|base| base <= lsn));
        let (name, segment) = holder.ok_or(format!("no segment holds {lsn}"))?;
        let offset = usize::try_from(lsn - segment.base.unwrap_or_default()).unwrap();
        let written = segment.written.get(offset).copied().unwrap_or_default();
        if written == 0 {
            return Err(format!("{name}: the byte at {lsn} was never written"));
        }
        if written > segment.synced {
            return Err(format!("{name}: no sync began after the byte at {lsn} was written"));
        }
        if segment.header_written > segment.synced {
            return Err(format!("{name}: its header was not synced"));
        }
        if segment.created > directory_synced {
            return Err(format!("{name}: its directory entry was not synced"));
        }
    }
    Ok(())
}

#[test]
fn the_checker_itself_sees_each_kind_of_lie() {
    let wrote = |offset: u64, count: usize, base: u64| {
        let mut head = vec![0xaa; 64];
        head[32..40].copy_from_slice(&base.to_le_bytes());
        Event::Wrote(Wrote {
            file: "1".into(),
            offset,
            count,
            head,
            is_blank: false,
            is_nonblocking: false,
        })
    };
    let file = || "1".to_owned();
    let honest = vec![
        Event::SyncDirBegan,
        Event::Created { file: file() },
        Event::SyncDirBegan,
        Event::SyncDirEnded { begin: 2, ok: true },
        wrote(0, 116, 0),
        wrote(HEADER_BYTES, 64, 0),
        Event::SyncBegan { file: file() },
        wrote(HEADER_BYTES + 64, 64, 0),
        Event::SyncEnded { file: file(), begin: 6, ok: true },
        Event::Noted { note: 64 },
    ];
    assert_eq!(check(&honest), Ok(64));
    let doctored = |at: usize, event: Event| {
        let mut events = honest.clone();
        events[at] = event;
        check(&events).unwrap_err()
    };
    let too_far = doctored(9, Event::Noted { note: 65 });
    assert!(too_far.contains("no sync began after the byte at 64"), "{too_far}");
    let never = doctored(9, Event::Noted { note: 129 });
    assert!(never.contains("no sync began"), "{never}");
    let failed = doctored(8, Event::SyncEnded { file: file(), begin: 6, ok: false });
    assert!(failed.contains("no sync began after the byte at 0"), "{failed}");
    let late = doctored(8, Event::SyncEnded { file: file(), begin: 4, ok: true });
    assert!(late.contains("no sync began after the byte at 0"), "{late}");
    let no_entry = doctored(3, Event::SyncDirEnded { begin: 0, ok: true });
    assert!(no_entry.contains("directory entry"), "{no_entry}");
    let gap = doctored(5, wrote(HEADER_BYTES + 8, 56, 0));
    assert!(gap.contains("never written"), "{gap}");
    let no_header = doctored(7, wrote(0, 116, 0));
    assert!(no_header.contains("header"), "{no_header}");
}

/// Appends and syncs, and notes the mark after each answer.
async fn commit(wal: &Wal, faults: &Faults, payload: Vec<u8>) -> Lsn {
    let lsn = within("commit", wal.append_and_sync(payload)).await.unwrap();
    let synced = wal.watermarks().synced;
    assert!(synced > lsn);
    faults.note(synced.as_u64());
    lsn
}

/// A write into a segment lands while a sync of it runs; then comes a rotation, then a commit.
#[tokio::test]
async fn row_01_a_segment_written_to_during_its_sync_is_synced_again() {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_01_every_byte_below_synced_was_written_before_its_sync() {
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

#[tokio::test]
async fn row_03_recovered_bytes_are_synced_before_they_count() {
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

#[tokio::test]
async fn row_04_the_directory_is_synced_before_synced_passes_into_a_new_segment() {
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
    assert_eq!(wal.stats().rotation_count, 0, "no entry, no use of the file");
    gate.open();
    within("writing", writing).await.unwrap();
    assert!(wal.stats().rotation_count >= 2);
    check(&faults.events()).unwrap();
}

#[tokio::test]
async fn row_05_a_failed_sync_is_remembered() {
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

/// Turns the bytes of a record over, in the first segment.
fn damage(memory: &MemoryStorage, lsn: Lsn) {
    let file = memory.open(FIRST_SEGMENT).unwrap();
    let offset = HEADER_BYTES + lsn.as_u64() + 16;
    let mut bytes = [0; 8];
    assert_eq!(file.read_at(&mut bytes, offset).unwrap(), 8);
    file.write_at(&bytes.map(|byte| !byte), offset).unwrap();
}

/// Where the log begins stands in no file of its own, and nowhere in place: torn at any write of a
/// truncation, it begins where it did or where it was to.
#[tokio::test]
async fn row_02_no_file_and_no_write_of_a_truncation_loses_what_is_kept() {
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

#[tokio::test]
async fn row_06_a_torn_tail_opens_and_damage_to_what_was_synced_does_not() {
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
    // Writers side by side: the second of three unsynced records didn't get to the disk.
    let (memory, lsns) = written().await;
    damage(&memory, lsns[4]);
    let wal = small().open_with(memory).await.expect("an ordinary power cut");
    let cut = wal.recovery().cut.as_ref().expect("the report tells of it");
    assert_eq!((cut.lsn, cut.valid_frame_count), (lsns[4], 1));
    assert!(!cut.kept_in.is_empty(), "what was cut is kept");
    let kept: Vec<_> = records(&wal).await.into_iter().map(|(lsn, _)| lsn).collect();
    assert_eq!(kept, lsns[..4]);
    // The same to each record that was synced.
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

#[tokio::test]
async fn row_08_two_processes_never_have_one_log() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "as_a_child_it_holds_the_log", "--ignored", "--nocapture"])
        .env("HIGHWATER_TEST_LOG", directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("holds the log")));
    let error = small().open(directory.path()).await.unwrap_err();
    assert!(
        matches!(error, Error::Locked { owner_pid: Some(pid), .. } if pid == child.id()),
        "{error}"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    let wal = small().open(directory.path()).await.expect("a dead process holds no lock");
    assert_eq!(records(&wal).await.len(), 1, "what it appended is kept");
    assert!(!wal.recovery().was_closed);
}

#[tokio::test]
#[ignore = "the other process of row_08_two_processes_never_have_one_log"]
async fn as_a_child_it_holds_the_log() {
    let path = std::env::var("HIGHWATER_TEST_LOG").unwrap();
    let wal = small().open(path).await.unwrap();
    wal.append(b"from the child").await.unwrap();
    println!("it holds the log");
    // Until it is killed, or whoever started it is gone.
    std::io::stdin().lines().for_each(drop);
    drop(wal);
}

#[tokio::test]
async fn row_09_nothing_is_acknowledged_after_a_failure_and_no_position_is_used_twice() {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let wal = small().open_with(faults.over(memory.clone()).on_pool()).await.unwrap();
    let k0 = commit(&wal, &faults, b"k0".to_vec()).await;
    faults.on(Op::Sync).once().fail_os(EIO);
    let answers = join_all([&b"k1"[..], b"k2", b"k3"].map(|key| wal.append_and_sync(key)));
    for answer in within("k1, k2, k3", answers).await {
        cause(&answer.unwrap_err());
    }
    within("close", wal.close()).await.unwrap_err();
    drop(wal);
    let again = open_when_free(|| faults.over(memory.clone())).await;
    let found = records(&again).await;
    assert_eq!(found[0], (k0, b"k0".to_vec()));
    let next = commit(&again, &faults, b"k4".to_vec()).await;
    assert!(found.iter().all(|(lsn, _)| *lsn < next), "{next} stood for another record");
    check(&faults.events()).unwrap();
}

#[tokio::test]
async fn row_09_a_timeout_makes_no_hole_under_those_who_come_later() {
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

#[tokio::test]
async fn row_10_the_old_segment_is_synced_before_the_new_one_counts() {
    for on_pool in [false, true] {
        let faults = Faults::new();
        let storage = faults.over(MemoryStorage::new());
        let wal =
            small().open_with(if on_pool { storage.on_pool() } else { storage }).await.unwrap();
        for round in 1..=3 {
            // Nobody asks for a sync of these.
            while wal.stats().rotation_count < round {
                within("append", wal.append(vec![1; 800])).await.unwrap();
            }
            commit(&wal, &faults, vec![2; 10]).await;
        }
        // A unit that needs a segment of its own.
        within("append", wal.append(vec![3; 30_000])).await.unwrap();
        commit(&wal, &faults, vec![4; 10]).await;
        check(&faults.events()).unwrap();
    }
}

#[tokio::test]
async fn row_11_opening_always_recovers() {
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
    assert!(expected.is_sorted_by(|a, b| a.0 < b.0), "positions go on");
    assert_eq!(records(&small().open_with(memory).await.unwrap()).await, expected);
}

/// No timers in this runtime: what waits for one panics.
#[test]
fn row_12_a_lone_commit_waits_for_nobody() {
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

#[tokio::test]
async fn row_13_after_a_failed_sync_nobody_is_left_waiting() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    let gate = faults.on(Op::Sync).once().gate();
    faults.on(Op::Sync).once().fail_os(EIO);
    // Some come before the sync, some while it runs, some after it failed.
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
    for answer in within("waiters", join_all(waiters)).await {
        cause(&answer.unwrap().unwrap_err());
    }
}

#[tokio::test]
async fn row_14_and_15_each_kind_of_sync_reaches_the_device() {
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

#[tokio::test]
async fn row_16_and_19_a_failed_write_is_told_at_once_and_by_every_later_sync() {
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

/// Self-clocked: one sync for a lone commit, and one more for all who come while it runs.
#[tokio::test]
async fn row_17_syncs_are_shared_by_those_who_come_and_wait_for_no_clock() {
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
    for answer in within("group", group).await {
        answer.unwrap();
    }
    assert_eq!(syncs(), 2);
}

#[tokio::test]
async fn row_17_a_job_that_dies_is_no_line_in_a_log_file() {
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
            // In place, a panic is the caller's own, and its task gives no answer.
            for answer in within("waiters", join_all(waiters)).await.into_iter().flatten() {
                let text = cause(&answer.unwrap_err());
                assert!(text.contains("panicked"), "{text}");
            }
            cause(&within("sync", wal.sync()).await.unwrap_err());
            within("close", wal.close()).await.unwrap_err();
        }
    }
}

/// Every four bytes of a log as the largest number: lengths, counts, positions, checksums.
#[test]
fn row_16_bytes_from_the_disk_are_checked_before_they_are_believed() {
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
                        assert!(!lost || wal.recovery().cut.is_some(), "{name}, {at}: unsaid");
                    }
                }
            });
        }
    }
}

/// A task is dropped with its append under way, then the handle, and the log is opened again at
/// once: what the old handle's jobs still write lands before the new one begins, or not at all.
#[test]
fn row_18_the_io_of_a_dropped_future_is_never_an_orphan() {
    let mut late_count = 0;
    simulation::for_each_seed(300, |seed| {
        let disk = Disk::new(seed);
        disk.faults().on(Op::Write).one_in(2).delay(Duration::from_millis(1));
        let (acknowledged, attempted) = Simulation::new(seed).run(async {
            let mut random = Random::new(seed);
            let (mut acknowledged, mut attempted) = (Vec::new(), Vec::new());
            for round in 0..4u8 {
                // Waits for the lock, which the old handle's last job frees.
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
    assert!(late_count > 0, "no I/O of a dropped handle was ever late: nothing was tested");
}

/// Each call that promises stable storage, and a loss of power the moment it has returned.
#[test]
fn row_20_nothing_is_acknowledged_before_it_is_durable() {
    simulation::for_each_seed(100, |seed| {
        let disk = Disk::new(seed);
        let promises = Promises::new(&disk);
        let (lsns, images) = Simulation::new(seed).run(async {
            let wal = small().open_with(disk.clone()).await.unwrap();
            let other = wal.clone();
            // Somebody else's writes and rotations are under way all the time.
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
