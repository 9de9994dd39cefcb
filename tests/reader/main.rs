//! Reading a log while it is written, in the same process and in another one. A reader changes
//! nothing. A follower yields each record once across rotation, close, crash, recovery and
//! truncation.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a mistake in a test must stop it"
)]

mod polling;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::BTreeMap,
    fs,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use futures::{StreamExt, TryStreamExt};
use highwater::{
    Error, Lsn, Options, Reader, Record, Wal,
    reader::{ReaderOptions, Tail},
    simulation::{Disk, Op, Simulation, for_each_seed, spawn},
    storage::MemoryStorage,
};
use support::{settled, within};

const DIRECTORY: &str = "HIGHWATER_READER_DIRECTORY";

/// Options with segments that hold 4096 bytes of frames.
fn tiny() -> Options {
    Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10)
}

fn quick() -> ReaderOptions {
    Reader::options().poll_interval(Duration::from_millis(1))
}

fn payload(number: u64) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(8 + (number * 37 % 300) as usize, number as u8);
    payload
}

fn number(record: &Record) -> u64 {
    let number = u64::from_le_bytes(record.payload[..8].try_into().unwrap());
    assert_eq!(record.payload, payload(number), "other bytes at {}", record.lsn);
    number
}

async fn next(tail: &mut Tail) -> highwater::Result<Record> {
    within("the follower's next record", tail.next()).await.unwrap()
}

async fn shown(reader: &Reader) -> Vec<Record> {
    within("replay", reader.replay(..).try_collect()).await.unwrap()
}

/// Returns each file's bytes, modification time and length.
fn state(directory: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime, u64)> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut state: BTreeMap<_, _> = entries
        .map(|path| {
            let metadata = fs::metadata(&path).unwrap();
            let bytes = fs::read(&path).unwrap();
            (path, (bytes, metadata.modified().unwrap(), metadata.len()))
        })
        .collect();
    let modified = fs::metadata(directory).unwrap().modified().unwrap();
    state.insert(directory.to_path_buf(), (Vec::new(), modified, 0));
    state
}

struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Directory(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("log")
    }

    fn segments(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> =
            entries.filter(|path| path.extension().is_some_and(|of| of == "wal")).collect();
        paths.sort();
        paths
    }

    /// Waits until a dropped handle has freed the lock. Changes nothing.
    async fn until_free(&self) {
        let free = async {
            while let Err(error) = Wal::recover(self.path()).await {
                assert!(matches!(error, Error::Locked { .. }), "{error}");
                tokio::task::yield_now().await;
            }
        };
        within("the freed lock", free).await;
    }

    /// Opens the log as soon as the dropped handle has freed the lock.
    async fn reopen(&self, options: Options) -> Wal {
        let opened = async {
            loop {
                match options.clone().open(self.path()).await {
                    Err(Error::Locked { .. }) => tokio::task::yield_now().await,
                    opened => break opened.unwrap(),
                }
            }
        };
        within("the freed lock", opened).await
    }
}

/// Overwrites bytes in place. Unlike `fs::write`, it never truncates the file, so a concurrent
/// reader sees the old bytes or the new ones.
fn overwrite(path: &Path, at: usize, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(bytes).unwrap();
}

/// Flips a byte of the last occurrence of `needle` in the log.
fn tear(directory: &Directory, needle: &[u8]) {
    for path in directory.segments().into_iter().rev() {
        let mut bytes = fs::read(&path).unwrap();
        let place = bytes.windows(needle.len()).rposition(|window| window == needle);
        if let Some(at) = place {
            bytes[at] ^= 0xff;
            overwrite(&path, at, &bytes[at..=at]);
            return;
        }
    }
    panic!("the log does not contain the needle");
}

#[tokio::test]
async fn reader_shows_committed_and_optionally_written() {
    let directory = Directory::new();
    let wal = tiny().open(directory.path()).await.unwrap();
    let lsn = wal.append_and_sync(payload(1)).await.unwrap();
    settled(&wal).await;
    let unsynced = wal.append(payload(2)).await.unwrap();

    let reader = Reader::open(directory.path()).await.unwrap();
    let records = shown(&reader).await;
    assert_eq!(records.iter().map(|record| record.lsn).collect::<Vec<_>>(), [lsn]);
    assert_eq!(records.iter().map(number).collect::<Vec<_>>(), [1]);
    assert_eq!(reader.end(), reader.committed());
    assert!(reader.committed() <= unsynced && reader.written() > unsynced, "{reader:?}");

    let all = Reader::options().written(true).open(directory.path()).await.unwrap();
    assert_eq!(shown(&all).await.iter().map(number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(all.end(), all.written());

    // A reader's view changes only at `refresh`.
    wal.sync().await.unwrap();
    wal.close().await.unwrap();
    assert_eq!(shown(&reader).await.len(), 1);
    reader.refresh().await.unwrap();
    assert_eq!(shown(&reader).await.iter().map(number).collect::<Vec<_>>(), [1, 2]);
    let replayed = reader.replay(unsynced..).try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(replayed.iter().map(number).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn invalid_reader_positions_are_refused() {
    let directory = Directory::new();
    let wal = tiny().open(directory.path()).await.unwrap();
    wal.append_and_sync(payload(7)).await.unwrap();
    wal.close().await.unwrap();
    let reader = quick().open(directory.path()).await.unwrap();
    for (lsn, is_outside) in [(3, false), (8, false), (4096, true)] {
        let replayed = reader.replay(Lsn::new(lsn)..).try_collect::<Vec<_>>().await;
        let mut tail = reader.follow(Lsn::new(lsn));
        let followed = next(&mut tail).await.map(|record| vec![record]);
        for refused in [replayed, followed] {
            match refused {
                Err(Error::AboveEnd { .. }) if is_outside => {}
                Err(Error::NotABoundary { .. }) if !is_outside => {}
                other => panic!("{lsn}: {other:?}"),
            }
        }
        assert!(tail.next().await.is_none(), "an error must end the stream");
    }
    for interval in [Duration::ZERO, Duration::from_secs(3601)] {
        let refused = Reader::options().poll_interval(interval).open(directory.path()).await;
        assert!(matches!(refused, Err(Error::InvalidOption { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn reader_changes_no_file_and_takes_no_lock() {
    let directory = Directory::new();
    let wal = tiny().open(directory.path()).await.unwrap();
    for i in 0..60 {
        wal.append_and_sync(payload(i)).await.unwrap();
    }
    wal.append(payload(60)).await.unwrap();
    drop(wal);
    directory.until_free().await;
    tear(&directory, &payload(60));
    fs::remove_file(directory.path().join("LOCK")).unwrap();
    let mut permissions = fs::metadata(directory.path()).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(directory.path(), permissions).unwrap();
    for path in directory.segments() {
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions).unwrap();
    }
    let before = state(&directory.path());
    for written in [false, true] {
        let reader = quick().written(written).open(directory.path()).await.unwrap();
        // The damaged record carried the commitment of the record before it, so that one is not
        // shown.
        let count = if written { 60 } else { 59 };
        assert!(shown(&reader).await.len() >= count);
        reader.refresh().await.unwrap();
        let mut tail = reader.follow(Lsn::ZERO);
        for i in 0..count as u64 {
            assert_eq!(number(&next(&mut tail).await.unwrap()), i);
        }
        // Polls a few times for a record that does not come.
        let more = tokio::time::timeout(Duration::from_millis(10), async {
            while let Some(Ok(_)) = tail.next().await {}
        });
        more.await.unwrap_err();
        let mut salvage = quick().salvage(directory.path()).await.unwrap();
        while salvage.next().await.is_some() {}
    }
    let after = state(&directory.path());
    assert!(before == after, "the directory was changed");
    #[allow(
        clippy::permissions_set_readonly_false,
        reason = "the directory is about to be removed"
    )]
    for path in [vec![directory.path()], directory.segments()].concat() {
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(false);
        fs::set_permissions(&path, permissions).unwrap();
    }
}

#[tokio::test]
async fn reader_and_writer_open_in_any_order() {
    let directory = Directory::new();
    fs::create_dir(directory.path()).unwrap();
    let reader = quick().open(directory.path()).await.unwrap();
    assert!(reader.report().is_new);
    assert_eq!(shown(&reader).await, []);
    let mut tail = reader.follow(Lsn::ZERO);
    let wal = tiny().open(directory.path()).await.unwrap();
    wal.append_and_sync(payload(1)).await.unwrap();
    assert_eq!(number(&next(&mut tail).await.unwrap()), 1);
    let other = Reader::open(directory.path()).await.unwrap();
    assert_eq!(other.report().first, Lsn::ZERO);
    wal.close().await.unwrap();
    // A new writer opens the log while readers have it open.
    let wal = tiny().open(directory.path()).await.unwrap();
    wal.append_and_sync(payload(2)).await.unwrap();
    assert_eq!(number(&next(&mut tail).await.unwrap()), 2);
}

#[tokio::test]
async fn follower_works_on_nonblocking_storage() {
    let storage = MemoryStorage::new();
    let wal = tiny().open_with(storage.clone()).await.unwrap();
    let reader = quick().open_with(storage).await.unwrap();
    let mut tail = reader.follow(Lsn::ZERO);
    for i in 0..50 {
        wal.append_and_sync(payload(i)).await.unwrap();
        assert_eq!(number(&next(&mut tail).await.unwrap()), i);
    }
}

#[test]
fn follower_works_without_tokio_timer() {
    let directory = Directory::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let wal = tiny().open(directory.path()).await.unwrap();
        let reader = quick().open(directory.path()).await.unwrap();
        let mut tail = reader.follow(Lsn::ZERO);
        let (followed, ()) = futures::join!(tail.next(), async {
            std::thread::sleep(Duration::from_millis(5));
            wal.append_and_sync(payload(3)).await.unwrap();
        });
        assert_eq!(number(&followed.unwrap().unwrap()), 3);
    });
}

/// Dozens of rotations; the beginning is truncated up to the position of the slowest follower.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_yield_once_across_rotate_and_truncate() {
    const COUNT: u64 = 3000;
    let directory = Directory::new();
    let wal = tiny().open(directory.path()).await.unwrap();
    let reader = quick().open(directory.path()).await.unwrap();
    let seen: Arc<[AtomicU64; 2]> = Arc::default();
    let followers = [0, 1].map(|follower| {
        let mut tail = reader.follow(Lsn::ZERO);
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            for i in 0..COUNT {
                assert_eq!(number(&next(&mut tail).await.unwrap()), i);
                seen[follower].store(tail.position().as_u64(), Ordering::Release);
            }
        })
    });
    let mut truncation_count = 0;
    for i in 0..COUNT {
        match i % 5 {
            0 => wal.append_and_sync(payload(i)).await.unwrap(),
            _ => wal.append(payload(i)).await.unwrap(),
        };
        if i % 50 == 49 {
            let slowest = seen.iter().map(|at| at.load(Ordering::Acquire)).min().unwrap();
            wal.truncate_before(Lsn::new(slowest)).await.unwrap();
            truncation_count += u64::from(slowest > 0);
        }
    }
    wal.sync().await.unwrap();
    for follower in followers {
        within("a follower", follower).await.unwrap();
    }
    assert!(truncation_count > 10, "{truncation_count}");
    wal.close().await.unwrap();
}

#[tokio::test]
async fn truncated_position_is_below_first_for_reader() {
    let directory = Directory::new();
    let wal = tiny().open(directory.path()).await.unwrap();
    let mut lsns = Vec::new();
    for i in 0..100 {
        lsns.push(wal.append_and_sync(payload(i)).await.unwrap());
    }
    let reader = quick().open(directory.path()).await.unwrap();
    let mut replay = reader.replay(..);
    let mut tail = reader.follow(Lsn::ZERO);
    let before = directory.segments();
    wal.truncate_before(lsns[90]).await.unwrap();
    let gone = async {
        // Waits for the third segment: it holds none of the kept records, however many marks lie
        // between.
        while directory.segments().contains(&before[2]) {
            tokio::task::yield_now().await;
        }
    };
    within("removal of the segments", gone).await;
    for stream in [replay.next().await, tail.next().await] {
        let refused = stream.unwrap();
        let is_below_first = matches!(
            refused,
            Err(Error::BelowFirst { lsn: Lsn::ZERO, first, .. }) if first == lsns[90]
        );
        assert!(is_below_first, "{refused:?}");
    }
    let starts = reader.segment_starts();
    reader.refresh().await.unwrap();
    assert_eq!(reader.first(), lsns[90]);
    assert_eq!(number(&shown(&reader).await[0]), 90);
    assert_eq!((starts[0], reader.segment_starts()[0]), (Lsn::ZERO, lsns[90]));
    for start in reader.segment_starts() {
        let records = reader.replay(start..).try_collect::<Vec<_>>().await.unwrap();
        assert_eq!(number(records.last().unwrap()), 99);
    }
    wal.close().await.unwrap();
}

#[tokio::test]
async fn followers_continue_across_close_and_crash() {
    let directory = Directory::new();
    let mut wal = tiny().open(directory.path()).await.unwrap();
    let durable = quick().open(directory.path()).await.unwrap();
    let written = quick().written(true).open(directory.path()).await.unwrap();
    let mut tails = [durable.follow(Lsn::ZERO), written.follow(Lsn::ZERO)];
    let mut appended = 0;
    for round in 0..12 {
        for i in 0..20 {
            wal.append(payload(appended)).await.unwrap();
            appended += 1;
            if i % 7 == round % 7 {
                wal.sync().await.unwrap();
            }
        }
        // Only the second follower sees unsynced records. Recovery writes them again.
        let seen = appended - 1;
        while number(&next(&mut tails[1]).await.unwrap()) != seen {}
        if round % 3 == 0 {
            wal.close().await.unwrap();
            wal = directory.reopen(tiny()).await;
        } else {
            drop(wal);
            wal = directory.reopen(tiny()).await;
            assert_eq!(wal.recovery().cut, None);
        }
    }
    wal.append_and_sync(payload(appended)).await.unwrap();
    for i in 0..=appended {
        assert_eq!(number(&next(&mut tails[0]).await.unwrap()), i);
    }
    assert_eq!(number(&next(&mut tails[1]).await.unwrap()), appended);
    wal.close().await.unwrap();
}

#[tokio::test]
async fn follower_of_cut_record_gets_truncated() {
    let directory = Directory::new();
    let wal = tiny().open(directory.path()).await.unwrap();
    wal.append_and_sync(payload(1)).await.unwrap();
    settled(&wal).await;
    wal.append(payload(2)).await.unwrap();
    let cut = wal.append(payload(13)).await.unwrap();
    wal.append(payload(14)).await.unwrap();
    let mut safe = quick().open(directory.path()).await.unwrap().follow(Lsn::ZERO);
    let written = quick().written(true).open(directory.path()).await.unwrap();
    let mut bold = written.follow(Lsn::ZERO);
    for expected in [1, 2, 13, 14] {
        assert_eq!(number(&next(&mut bold).await.unwrap()), expected);
    }
    drop(wal);
    directory.until_free().await;
    // Simulates a lost sector: that record never reached the disk.
    tear(&directory, &payload(13));
    let wal = directory.reopen(tiny()).await;
    assert_eq!(wal.recovery().cut.as_ref().unwrap().lsn, cut);
    assert!(wal.append_and_sync(payload(20)).await.unwrap() >= cut);
    let result = next(&mut bold).await;
    assert!(matches!(result, Err(Error::Truncated { to }) if to == cut), "{result:?}");
    assert_eq!(bold.position(), cut);
    assert_eq!(number(&next(&mut bold).await.unwrap()), 20);
    for expected in [1, 2, 20] {
        assert_eq!(number(&next(&mut safe).await.unwrap()), expected);
    }
    wal.close().await.unwrap();
}

#[tokio::test]
async fn damage_is_corrupt_below_and_pending_above_commit() {
    let directory = Directory::new();
    let wal = tiny().open(directory.path()).await.unwrap();
    for i in 1..=5 {
        wal.append_and_sync(payload(i)).await.unwrap();
    }
    settled(&wal).await;
    wal.append(payload(6)).await.unwrap();
    drop(wal);
    directory.until_free().await;
    let path = &directory.segments()[0];
    let whole = fs::read(path).unwrap();

    // A half-written record is neither a record nor damage, however often the reader looks.
    tear(&directory, &payload(6));
    let reader = quick().written(true).open(directory.path()).await.unwrap();
    assert_eq!(shown(&reader).await.len(), 5);
    let mut tail = reader.follow(Lsn::ZERO);
    for i in 1..=5 {
        assert_eq!(number(&next(&mut tail).await.unwrap()), i);
    }
    for _ in 0..40 {
        reader.refresh().await.unwrap();
    }
    tokio::time::timeout(Duration::from_millis(30), tail.next()).await.unwrap_err();
    // The rest of the record arrives.
    overwrite(path, 0, &whole);
    assert_eq!(number(&next(&mut tail).await.unwrap()), 6);

    let mut tail = reader.follow(Lsn::ZERO);
    tear(&directory, &payload(3));
    let mut replay = reader.replay(..);
    for i in 1..=2 {
        assert_eq!(number(&replay.next().await.unwrap().unwrap()), i);
        assert_eq!(number(&next(&mut tail).await.unwrap()), i);
    }
    for refused in [replay.next().await.unwrap(), next(&mut tail).await] {
        let error = refused.unwrap_err();
        assert!(error.is_corrupt(), "{error}");
    }
    assert!(replay.next().await.is_none() && tail.next().await.is_none());
    let refused = quick().open(directory.path()).await.unwrap_err();
    assert!(refused.is_corrupt(), "{refused}");
}

/// The child process: opens the log and appends until it is killed.
#[test]
fn child_appends_until_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let wal = tiny().open(directory).await.unwrap();
        let records = wal.replay(..).try_collect::<Vec<_>>().await.unwrap();
        let mut next = records.last().map_or(0, |record| number(record) + 1);
        loop {
            if next % 3 == 0 {
                wal.append_and_sync(payload(next)).await.unwrap();
            } else {
                wal.append(payload(next)).await.unwrap();
            }
            next += 1;
        }
    });
}

/// A writer process is killed four times. No record is taken back, and each comes once, in order.
#[test]
fn followers_survive_kills_of_writer_process() {
    let directory = Directory::new();
    fs::create_dir(directory.path()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let durable = quick().open(directory.path()).await.unwrap();
        let written = quick().written(true).open(directory.path()).await.unwrap();
        let mut tails = [durable.follow(Lsn::ZERO), written.follow(Lsn::ZERO)];
        let mut expected = [0; 2];
        for _ in 0..4 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "child_appends_until_killed", "--nocapture"])
                .env(DIRECTORY, directory.path())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let until = expected.map(|next| next + 150);
            for (tail, (expected, until)) in tails.iter_mut().zip(expected.iter_mut().zip(until)) {
                while *expected < until {
                    // A killed process loses nothing it has written, so recovery cuts nothing.
                    assert_eq!(number(&next(tail).await.unwrap()), *expected);
                    *expected += 1;
                }
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // A writer in this process opens the log that the killed ones left.
        let wal = directory.reopen(tiny()).await;
        let count = wal.replay(..).count().await as u64;
        wal.append_and_sync(payload(count)).await.unwrap();
        wal.close().await.unwrap();
        for (tail, expected) in tails.iter_mut().zip(&mut expected) {
            while *expected <= count {
                assert_eq!(number(&next(tail).await.unwrap()), *expected);
                *expected += 1;
            }
        }
    });
}

/// A seed orders all storage operations. Short writes let readers see half-written headers and
/// units.
#[test]
fn followers_beside_writer_in_any_order() {
    for_each_seed(60, |seed| {
        Simulation::new(seed).run(async move {
            const COUNT: u64 = 60;
            let disk = Disk::new(seed);
            disk.faults().on(Op::Write).one_in(2).short(700);
            let mut wal = tiny().open_with(disk.clone()).await.unwrap();
            let seen: Arc<[AtomicU64; 2]> = Arc::default();
            let mut followers = Vec::new();
            for (at, written) in [false, true].into_iter().enumerate() {
                let (disk, seen) = (disk.clone(), Arc::clone(&seen));
                followers.push(spawn(async move {
                    let reader = quick().written(written).open_with(disk).await.unwrap();
                    let mut tail = reader.follow(Lsn::ZERO);
                    for i in 0..COUNT {
                        assert_eq!(number(&tail.next().await.unwrap().unwrap()), i);
                        seen[at].store(tail.position().as_u64(), Ordering::Release);
                    }
                }));
            }
            for i in 0..COUNT {
                match (i + seed) % 4 {
                    0 => wal.append_and_sync(payload(i)).await.unwrap(),
                    1 => wal.enqueue(payload(i)).await.unwrap().lsn(),
                    _ => wal.append(payload(i)).await.unwrap(),
                };
                if i % 10 == 9 {
                    let slowest = seen.iter().map(|at| at.load(Ordering::Acquire)).min().unwrap();
                    wal.truncate_before(Lsn::new(slowest)).await.unwrap();
                }
                if i % 8 == 7 {
                    // `close` removes the spare, and the log is opened again.
                    wal.close().await.unwrap();
                    wal = tiny().open_with(disk.clone()).await.unwrap();
                }
            }
            wal.sync().await.unwrap();
            for follower in followers {
                assert_eq!(follower.await, Some(()));
            }
        });
    });
}
