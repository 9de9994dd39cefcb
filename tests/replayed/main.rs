//! Reading ahead: the records and errors that a stream yields, its end, and its memory.

#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a mistake in a test must stop it; memory is counted by an allocator"
)]

mod allocated;
mod memory;
#[path = "../support/mod.rs"]
mod support;

use futures::{StreamExt, TryStreamExt};
use highwater::{
    Error, Lsn, Wal,
    simulation::{Event, Faults, Op},
    storage::MemoryStorage,
};
use support::{reached, within};
use tokio::runtime::{Builder, Runtime};

const CHUNK_BYTES: u64 = 256 << 10;

/// Memory is counted for the whole process, so these tests run one at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn payload(i: u32) -> Vec<u8> {
    i.to_le_bytes().repeat(1000 + i as usize % 50)
}

/// Returns a log of some chunks, and its records.
async fn filled(faults: &Faults, pool: Option<&Runtime>, chunks: u64) -> (Wal, Vec<(Lsn, u32)>) {
    let options = Wal::options().segment_bytes(1 << 20).ring_bytes(256 << 10);
    let options = match pool {
        Some(pool) => options.io_handle(pool.handle().clone()),
        None => options,
    };
    let wal = options.open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    let mut written = Vec::new();
    for i in 0.. {
        if wal.watermarks().written.as_u64() > chunks * CHUNK_BYTES {
            break;
        }
        written.push((wal.append(payload(i)).await.unwrap(), i));
    }
    wal.sync().await.unwrap();
    faults.clear();
    (wal, written)
}

/// Returns a stream's records and the error that ended it. Checks that it stays ended.
async fn drain(stream: &mut highwater::Replay) -> (Vec<(Lsn, u32)>, Option<Error>) {
    let mut records = Vec::new();
    let mut failure = None;
    while let Some(item) = within("the next item", stream.next()).await {
        match item {
            Ok(record) => {
                let i = u32::from_le_bytes(record.payload[..4].try_into().unwrap());
                assert_eq!(record.payload, payload(i));
                records.push((record.lsn, i));
            }
            Err(error) => {
                assert!(failure.is_none(), "an error must end the stream");
                failure = Some(error);
            }
        }
    }
    for _ in 0..3 {
        assert!(within("after its end", stream.next()).await.is_none());
    }
    (records, failure)
}

fn pool(threads: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(threads)
        .enable_time()
        .build()
        .unwrap()
}

/// On one thread, with one blocking thread for all jobs.
#[tokio::test(flavor = "current_thread")]
async fn replay_yields_all_records_in_order() {
    let _alone = ALONE.lock().await;
    let (faults, pool) = (Faults::new(), pool(1));
    // More chunks than a job reads before it hands over.
    let (wal, written) = filled(&faults, Some(&pool), 40).await;
    let (records, failure) = drain(&mut wal.replay(..)).await;
    assert!(failure.is_none() && records == written, "{failure:?}");
    let (from, to) = (written[3].0, written[written.len() - 2].0);
    let (records, failure) = drain(&mut wal.replay(from..to)).await;
    assert!(failure.is_none() && records == written[3..written.len() - 2], "{failure:?}");
    pool.shutdown_background();
}

/// The pool shuts down during the read of a chunk, or before: the stream returns one error.
#[tokio::test]
async fn pool_shutdown_ends_stream_with_error() {
    let _alone = ALONE.lock().await;
    for reads_before in [0, 1, 3] {
        let (faults, pool) = (Faults::new(), pool(1));
        // More chunks than the running job reads before it hands over.
        let (wal, written) = filled(&faults, Some(&pool), 44).await;
        let gate = faults.on(Op::Read).skip(reads_before).once().gate();
        let mut stream = wal.replay(..);
        let mut taken = Vec::new();
        // Takes the records that need no held read.
        while let Some(Some(Ok(record))) = futures::FutureExt::now_or_never(stream.next()) {
            taken.push(record.lsn);
        }
        for _ in 0..200 {
            if futures::FutureExt::now_or_never(gate.reached(1)).is_some() {
                break;
            }
            let wait = std::time::Duration::from_millis(20);
            if let Ok(item) = tokio::time::timeout(wait, stream.next()).await {
                taken.push(item.unwrap().unwrap().lsn);
            }
        }
        reached(&gate, 1).await;
        pool.shutdown_background();
        gate.open();
        let (rest, failure) = drain(&mut stream).await;
        let failure = failure.expect("an error before the end");
        assert!(matches!(failure, Error::Closed { .. }), "{failure}");
        taken.extend(rest.iter().map(|(lsn, _)| *lsn));
        let expected: Vec<_> = written.iter().map(|(lsn, _)| *lsn).take(taken.len()).collect();
        assert_eq!(taken, expected, "the records before the error");
        assert!(taken.len() < written.len());
    }
}

/// The pool shuts down before the job starts.
#[tokio::test]
async fn pool_shutdown_before_first_read_ends_stream() {
    let _alone = ALONE.lock().await;
    let (faults, pool) = (Faults::new(), pool(1));
    let (wal, _) = filled(&faults, Some(&pool), 2).await;
    pool.shutdown_background();
    // A pool that is shut down drops new jobs.
    let mut stream = wal.replay(..);
    let (records, failure) = drain(&mut stream).await;
    assert!(records.is_empty() && matches!(failure, Some(Error::Closed { .. })), "{failure:?}");
}

#[tokio::test]
async fn dropped_stream_reads_no_more() {
    let _alone = ALONE.lock().await;
    let faults = Faults::new();
    let (wal, _) = filled(&faults, None, 12).await;
    let gate = faults.on(Op::Read).once().gate();
    let mut stream = wal.replay(..);
    assert!(futures::FutureExt::now_or_never(stream.next()).is_none());
    reached(&gate, 1).await;
    drop(stream);
    gate.open();
    within("close", wal.close()).await.unwrap();
    let reads = faults.count(|event| matches!(event, Event::Read { .. }));
    assert!(reads <= 1, "{reads} reads for a dropped stream");
}

/// The records before the error come first, then the error, then the end.
#[tokio::test]
async fn read_error_follows_earlier_records() {
    let _alone = ALONE.lock().await;
    for reads_before in [0, 1, 4, 9] {
        let faults = Faults::new();
        let (wal, written) = filled(&faults, None, 12).await;
        faults.on(Op::Read).skip(reads_before).fail_os(5);
        let mut stream = wal.replay(..);
        // For a slow reader, the records ahead of the error wait.
        if reads_before > 0 {
            let first = within("first", stream.next()).await.unwrap().unwrap();
            assert_eq!(first.lsn, written[0].0);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let (records, failure) = drain(&mut stream).await;
        assert!(matches!(failure, Some(Error::Io { .. })), "{failure:?}");
        let seen = usize::from(reads_before > 0) + records.len();
        let expected = &written[usize::from(reads_before > 0)..seen];
        assert_eq!(records, expected, "the records before the error");
        let given = written.get(seen).map_or(0, |(lsn, _)| lsn.as_u64());
        // A chunk ends before a record that does not fit, and at the end of its segment.
        assert!(
            given >= reads_before.div_ceil(2) * (CHUNK_BYTES - 8192),
            "{given} after {reads_before} reads"
        );
        // The log still works: a new stream yields everything once the device works.
        faults.heal();
        let (records, failure) = drain(&mut wal.replay(..)).await;
        assert!(failure.is_none() && records == written);
    }
}

/// A stream must not read beyond its range.
#[tokio::test]
async fn replay_does_not_read_beyond_range() {
    let _alone = ALONE.lock().await;
    let faults = Faults::new();
    let (wal, written) = filled(&faults, None, 24).await;
    let read_count = |faults: &Faults| faults.count(|event| matches!(event, Event::Read { .. }));
    for last in [0, 5, 100] {
        faults.clear();
        let range = ..=written[last].0;
        let (records, failure) = drain(&mut wal.replay(range)).await;
        assert!(failure.is_none() && records == written[..=last]);
        let needed = written[last].0.as_u64() / (CHUNK_BYTES - 8192) + 1;
        let reads = read_count(&faults) as u64;
        assert!(reads <= needed + 1, "{reads} reads, but {needed} chunks are needed");
    }
    faults.clear();
    let all: Vec<_> = within("all", wal.replay(..).try_collect()).await.unwrap();
    assert_eq!(all.len(), written.len());
    assert!(read_count(&faults) >= 24, "control: a chunk is a read");
}
