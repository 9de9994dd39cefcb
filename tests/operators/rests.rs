//! The mark of a run of commits: it is written when the log rests, and when the log is dropped.

use std::time::{Duration, Instant};

use highwater::{
    Error, InlineSyncs, Lsn, Options, Wal,
    sabotage::{self, Sabotage},
    simulation::{Disk, Faults, Survival},
};
use tokio::runtime::{Builder, Runtime};

use crate::{
    block_on, segments,
    support::{MARK_BYTES, PATIENCE, edited, settled, small, within},
};

const COMMITS: u64 = 200;
const PAYLOAD: &[u8] = b"a payload of 24 bytes...";

/// The payload and the header of a record.
const FRAME_BYTES: u64 = 24 + 16;

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

/// Opens a log whose I/O runs on the pool, as that of real files.
async fn open(options: Options, disk: &Disk) -> Wal {
    options.open_with(Faults::new().over(disk.clone()).on_pool()).await.unwrap()
}

fn inline() -> Options {
    small().segment_bytes(1 << 20).inline_syncs(InlineSyncs::Always)
}

/// Commits records one after the other. Returns the position of the last.
async fn commit(wal: &Wal, count: u64) -> Lsn {
    let mut last = Lsn::ZERO;
    for _ in 0..count {
        last = wal.append_and_sync(PAYLOAD).await.unwrap();
    }
    last
}

/// Commits until the last flush has left its mark owed.
async fn commit_until_owed(wal: &Wal) -> Lsn {
    let owed = async {
        loop {
            let last = commit(wal, 2).await;
            if wal.stats().written_bytes == wal.watermarks().synced.as_u64() {
                break last;
            }
        }
    };
    within("commits that follow each other", owed).await
}

/// Opens the log as the next process, with one flipped bit in the record at `lsn`.
fn open_with_flipped_bit(disk: &Disk, lsn: Lsn) -> highwater::Result<Wal> {
    let image = disk.image().crash(Survival::Everything);
    let name = segments(&image)[0].clone();
    let offset = 4096 + usize::try_from(lsn.as_u64()).unwrap() + 16;
    let image = edited(&image, &name, |bytes| {
        assert_eq!(&bytes[offset..][..PAYLOAD.len()], PAYLOAD);
        bytes[offset] ^= 1;
    });
    block_on(small().open_with(Disk::with_image(image, 7)))
}

fn is_corrupt(disk: &Disk, lsn: Lsn) -> bool {
    match open_with_flipped_bit(disk, lsn) {
        Err(Error::Corrupt { .. }) => true,
        Ok(wal) => {
            assert!(wal.recovery().cut.is_some(), "the damage was not noticed");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn commits_in_a_row_write_few_marks() {
    for options in [inline(), inline().inline_syncs(InlineSyncs::Never)] {
        for runtime in [multi_thread(), current_thread()] {
            runtime.block_on(async {
                let disk = Disk::new(1);
                let wal = open(options.clone(), &disk).await;
                commit(&wal, COMMITS).await;
                settled(&wal).await;
                let mark_bytes = wal.stats().written_bytes - COMMITS * FRAME_BYTES;
                // A pause of the machine makes a mark or two.
                assert!(mark_bytes < COMMITS / 2 * MARK_BYTES, "{mark_bytes} bytes of marks");
                wal.close().await.unwrap();
            });
        }
    }
}

#[test]
fn damage_after_a_run_is_corrupt_at_rest() {
    for options in [inline(), inline().inline_syncs(InlineSyncs::WhenAlone)] {
        let runtime = multi_thread();
        runtime.block_on(async {
            let disk = Disk::new(1);
            let wal = open(options, &disk).await;
            let last = commit(&wal, COMMITS).await;
            settled(&wal).await;
            assert!(is_corrupt_apart(&disk, last).await);
            // The next run owes a mark again.
            let last = commit_until_owed(&wal).await;
            settled(&wal).await;
            assert!(is_corrupt_apart(&disk, last).await);
            wal.close().await.unwrap();
        });
    }
}

/// As [`is_corrupt`], from a task.
async fn is_corrupt_apart(disk: &Disk, lsn: Lsn) -> bool {
    let disk = disk.clone();
    tokio::task::spawn_blocking(move || is_corrupt(&disk, lsn)).await.unwrap()
}

/// Commits, and drops the log while it owes a mark. Returns the position of the last record.
fn drop_while_owed(disk: &Disk) -> Lsn {
    current_thread().block_on(async {
        let wal = open(inline(), disk).await;
        commit_until_owed(&wal).await
    })
}

/// Waits until damage to the record is corruption. If the machine pauses before a drop, the short
/// thread writes the mark, at any time later.
fn wait_until_corrupt(disk: &Disk, lsn: Lsn) {
    let began = Instant::now();
    while !is_corrupt(disk, lsn) {
        assert!(began.elapsed() < PATIENCE, "the mark is never written");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn drop_writes_the_owed_mark() {
    let disk = Disk::new(1);
    let last = drop_while_owed(&disk);
    wait_until_corrupt(&disk, last);
}

#[test]
fn end_of_the_runtime_writes_the_owed_mark() {
    let disk = Disk::new(1);
    let runtime = current_thread();
    let wal = runtime.block_on(open(inline(), &disk));
    let last = runtime.block_on(commit_until_owed(&wal));
    drop(runtime);
    wait_until_corrupt(&disk, last);
    drop(wal);
}

/// A record waits behind the group whose mark is owed, for a job that never runs. Then its frame
/// claims the group.
#[test]
fn end_of_the_runtime_writes_a_waiting_frame() {
    let disk = Disk::new(1);
    let runtime = current_thread();
    let wal = runtime.block_on(open(inline(), &disk));
    let (last, behind) = runtime.block_on(async {
        let last = commit_until_owed(&wal).await;
        // Polled once, and its write is left to another task.
        (last, wal.try_enqueue(PAYLOAD).unwrap())
    });
    drop(runtime);
    wait_until_corrupt(&disk, last);
    drop((wal, behind));
}

/// Negative control: without the mark at rest, the last commit is cut as a torn tail.
#[test]
fn run_without_its_mark_loses_a_record() {
    let disk = Disk::new(1);
    let (wal, last) = sabotage::with(Sabotage::ForgetOwedMark, || {
        current_thread().block_on(async {
            let wal = open(inline(), &disk).await;
            let last = commit(&wal, 10).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            (wal, last)
        })
    });
    assert!(!is_corrupt(&disk, last));
    drop(wal);
}

/// Negative control: without the mark at the drop, the last commit is cut as a torn tail. On a slow
/// machine the watching thread may write the mark first, so this tries again.
#[test]
fn drop_without_the_owed_mark_loses_a_record() {
    let is_lost = |_| {
        let disk = Disk::new(1);
        let runtime = current_thread();
        let (wal, last) = runtime.block_on(async {
            let wal = open(inline(), &disk).await;
            let last = commit_until_owed(&wal).await;
            (wal, last)
        });
        sabotage::with(Sabotage::ForgetOwedMark, || drop((wal, runtime)));
        !is_corrupt(&disk, last)
    };
    assert!((0..20).any(is_lost), "the record was never lost");
}
