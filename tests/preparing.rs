//! Failures while the next segment's file is prepared. Nothing was reserved, so appends that need
//! the file are refused, the next append retries, and the log works on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod support;

use highwater::{
    Error, Lsn, Options, Preallocation, Wal,
    simulation::{Event, Faults, Op},
    storage::MemoryStorage,
};
use support::{records, small, within};

const EINTR: i32 = 4;
const EIO: i32 = 5;
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EDQUOT: i32 = 122;

const CODES: [i32; 8] = [EINTR, EIO, ENOMEM, ENFILE, EMFILE, ENOSPC, EROFS, EDQUOT];

fn is_next(name: &str) -> bool {
    !name.ends_with("00001.wal")
}

/// Returns a log with one segment, in which `op` fails while the next file is prepared.
async fn failing(op: Op, code: i32, options: &Options) -> (Wal, Faults, MemoryStorage) {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let storage = faults.over(memory.clone()).on_pool();
    let wal = options.clone().open_with(storage).await.unwrap();
    let rule = faults.on(op);
    // The directory has no file name.
    match op {
        Op::SyncDir => rule.fail_os(code),
        _ => rule.file(is_next).fail_os(code),
    }
    (wal, faults, memory)
}

/// Appends until one is refused. Returns the acknowledged LSNs and the refusal.
async fn until_refused(wal: &Wal) -> (Vec<Lsn>, Error) {
    let mut lsns = Vec::new();
    for _ in 0..100 {
        match within("append", wal.append_and_sync(vec![7; 500])).await {
            Ok(lsn) => lsns.push(lsn),
            Err(error) => return (lsns, error),
        }
    }
    panic!("no append was refused");
}

/// Checks that a refusal names the system's error and does not poison the log.
fn assert_refusal(error: &Error, code: i32, what: &str) {
    let source = match error {
        Error::NoSpace { source, .. } if matches!(code, ENOSPC | EDQUOT) => source,
        Error::Io { source, .. } if !matches!(code, ENOSPC | EDQUOT) => source,
        other => panic!("{what}: {other}"),
    };
    assert_eq!(source.raw_os_error(), Some(code), "{what}");
}

async fn refuses_and_retries(op: Op, code: i32, preallocation: Preallocation) {
    let what = format!("{op:?}, error {code}, {preallocation:?}");
    let options = small().preallocation(preallocation);
    let (wal, faults, memory) = failing(op, code, &options).await;
    let (mut lsns, error) = until_refused(&wal).await;
    assert_refusal(&error, code, &what);
    let again = within("append", wal.append(vec![8; 500])).await.unwrap_err();
    assert_refusal(&again, code, &what);
    assert_refusal(&wal.append_batch([vec![1; 500]]).await.unwrap_err(), code, &what);
    assert_refusal(&wal.truncate_after(None).await.unwrap_err(), code, &what);
    wal.sync().await.unwrap();
    // One truncation of the beginning is possible, because it frees space on a full disk.
    let kept = lsns[1];
    within("truncate_before", wal.truncate_before(kept)).await.unwrap();
    faults.heal();
    // The truncation may have begun an attempt that met the fault. It refuses one more append.
    match within("append", wal.append_and_sync(vec![9; 500])).await {
        Ok(lsn) => lsns.push(lsn),
        Err(error) => assert_refusal(&error, code, &what),
    }
    for _ in 0..80 {
        lsns.push(within("append", wal.append_and_sync(vec![9; 500])).await.unwrap());
    }
    assert!(wal.stats().rotation_count > 1, "{what}");
    within("close", wal.close()).await.unwrap();
    let wal = small().open_with(memory).await.unwrap();
    let found: Vec<Lsn> = records(&wal).await.into_iter().map(|(lsn, _)| lsn).collect();
    assert_eq!(found, lsns[1..], "{what}");
}

#[tokio::test]
async fn failed_creation_refuses_and_is_retried() {
    for code in CODES {
        refuses_and_retries(Op::Create, code, Preallocation::Reserve).await;
    }
}

#[tokio::test]
async fn failed_reservation_refuses_and_is_retried() {
    for code in CODES.into_iter().filter(|&code| code != EINTR) {
        for preallocation in [Preallocation::Sparse, Preallocation::Reserve] {
            refuses_and_retries(Op::Resize, code, preallocation).await;
        }
    }
}

#[tokio::test]
async fn failed_filling_refuses_and_is_retried() {
    for code in CODES.into_iter().filter(|&code| code != EINTR) {
        refuses_and_retries(Op::Write, code, Preallocation::ZeroFill).await;
    }
}

#[tokio::test]
async fn failed_file_sync_refuses_and_is_retried() {
    for code in CODES.into_iter().filter(|&code| code != EINTR) {
        for preallocation in [Preallocation::Reserve, Preallocation::ZeroFill] {
            refuses_and_retries(Op::Sync, code, preallocation).await;
        }
    }
}

#[tokio::test]
async fn failed_directory_sync_refuses_and_is_retried() {
    for code in CODES.into_iter().filter(|&code| code != EINTR) {
        refuses_and_retries(Op::SyncDir, code, Preallocation::Reserve).await;
    }
}

/// A call interrupted by a signal is repeated at once.
#[tokio::test]
async fn interrupted_preparation_refuses_nothing() {
    for op in [Op::Resize, Op::Write, Op::Sync, Op::SyncDir] {
        let faults = Faults::new();
        let storage = faults.over(MemoryStorage::new()).on_pool();
        let wal = small().preallocation(Preallocation::ZeroFill).open_with(storage).await.unwrap();
        faults.on(op).times(3).fail_os(EINTR);
        for _ in 0..80 {
            within("append", wal.append_and_sync(vec![7; 500])).await.unwrap();
        }
        assert!(wal.stats().rotation_count > 1 && faults.met_count() > 0, "{op:?}");
    }
}

/// Recycling a file: its renaming, the directory's sync, and its opening fail.
#[tokio::test]
async fn failed_recycling_refuses_at_most_a_few_appends() {
    for code in CODES {
        for op in [Op::Rename, Op::SyncDir, Op::Open] {
            let (memory, faults) = (MemoryStorage::new(), Faults::new());
            let storage = faults.over(memory.clone()).on_pool();
            let wal = small().recycle_segments(2).open_with(storage).await.unwrap();
            let mut lsns = Vec::new();
            let (mut refused, mut reused, mut round) = (0, 0, 0);
            // Files are removed in the background, on a busy machine perhaps after many appends.
            while round < 200 || (reused < 2 && round < 20_000) {
                if round == 60 {
                    let file = |name: &str| name.ends_with(".recycled");
                    match op {
                        Op::Rename => faults.on(op).file(file).times(2).fail_os(code),
                        _ => faults.on(op).times(2).fail_os(code),
                    }
                }
                match within("append", wal.append_and_sync(vec![7; 500])).await {
                    Ok(lsn) => lsns.push(lsn),
                    Err(error) => {
                        assert_refusal(&error, code, &format!("{op:?}"));
                        refused += 1;
                    }
                }
                if round % 20 == 19 {
                    within("truncate", wal.truncate_before(lsns[lsns.len() - 3])).await.unwrap();
                }
                reused = wal.stats().recycled_count;
                round += 1;
            }
            assert!(refused < 5 && reused > 1, "{op:?} {code}: {refused} refused, {reused} reused");
            within("close", wal.close()).await.unwrap();
            small().open_with(memory).await.unwrap();
        }
    }
}

/// The spare grows for a unit larger than a segment. After a failed flush it is not used.
#[tokio::test]
async fn failed_sync_of_grown_spare_leaves_it_unused() {
    for code in [EIO, ENOSPC] {
        let (memory, faults) = (MemoryStorage::new(), Faults::new());
        let wal = small().open_with(faults.over(memory.clone()).on_pool()).await.unwrap();
        // Enough records to prepare the spare.
        wal.append_and_sync(vec![1; 900]).await.unwrap();
        wal.append_and_sync(vec![1; 900]).await.unwrap();
        wal.append_and_sync(vec![1; 900]).await.unwrap();
        // The spare's own sync has ended, so the fault applies to the sync of the grown file.
        let is_synced = |event: &Event| matches!(event, Event::SyncEnded { file, .. } if file.ends_with("00002.wal"));
        let prepared = async {
            while faults.count(is_synced) == 0 {
                tokio::task::yield_now().await;
            }
        };
        within("a spare", prepared).await;
        faults.on(Op::Sync).file(is_next).once().fail_os(code);
        let large = vec![2; 40 << 10];
        let refused = within("large", wal.append(large.clone())).await.unwrap_err();
        assert_refusal(&refused, code, "a grown file");
        let lsn = within("large", wal.append_and_sync(large.clone())).await.unwrap();
        within("small", wal.append_and_sync(vec![3; 900])).await.unwrap();
        assert_eq!(wal.read(lsn).await.unwrap().payload, large);
        within("close", wal.close()).await.unwrap();
        assert_eq!(records(&small().open_with(memory).await.unwrap()).await.len(), 5);
    }
}
