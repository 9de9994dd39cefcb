//! The memory of reading ahead: buffers are reused, but not while a record of them is held.

use futures::{StreamExt, TryStreamExt};
use highwater::{Record, Wal, simulation::Faults};

use crate::{ALONE, allocated::Since, filled, payload, support::within};

fn number(record: &Record) -> u32 {
    u32::from_le_bytes(record.payload[..4].try_into().unwrap())
}

#[tokio::test]
async fn replay_reuses_buffers() {
    let _alone = ALONE.lock().await;
    let faults = Faults::new();
    let (wal, written) = filled(&faults, None, 60).await;
    let since = Since::now();
    let mut count = 0;
    let mut stream = wal.replay(..);
    while let Some(record) = within("next", stream.next()).await {
        assert_eq!(number(&record.unwrap()), written[count].1);
        count += 1;
    }
    assert_eq!(count, written.len());
    let made = since.made_count();
    assert!(made <= 8, "{made} buffers for 60 chunks");
    assert!(since.peak_bytes() <= 8 * (256 << 10), "{}", since.peak_bytes());
    drop(stream);
    // A job may still be running.
    let freed = async {
        while since.live_bytes() > 0 {
            tokio::task::yield_now().await;
        }
    };
    within("release of all buffers", freed).await;
}

/// Some records are held to the end: their bytes must not change.
#[tokio::test]
async fn held_records_are_never_overwritten() {
    let _alone = ALONE.lock().await;
    let faults = Faults::new();
    let (wal, written) = filled(&faults, None, 40).await;
    for hold_one_in in [1, 7, 150] {
        let since = Since::now();
        let mut held = Vec::new();
        let mut stream = wal.replay(..);
        while let Some(record) = within("next", stream.next()).await {
            let record = record.unwrap();
            if number(&record) % hold_one_in == 0 {
                held.push(record);
            }
        }
        for record in &held {
            assert_eq!(record.payload, payload(number(record)));
        }
        assert_eq!(held.len(), written.len().div_ceil(hold_one_in as usize));
        if hold_one_in < 60 {
            assert!(since.made_count() >= 40, "each chunk has a held record");
        } else {
            assert!(since.made_count() < 40, "{} buffers were made", since.made_count());
        }
    }
}

/// Records larger than the read-ahead window: at most two are held besides those of the reader.
#[tokio::test]
async fn at_most_two_large_records_are_read_ahead() {
    const RECORD_BYTES: usize = 4 << 20;
    let _alone = ALONE.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let options = Wal::options().segment_bytes(16 << 20).ring_bytes(1 << 20);
    let wal = options.open(directory.path()).await.unwrap();
    let large = vec![3; RECORD_BYTES];
    for _ in 0..12 {
        wal.append(&large).await.unwrap();
    }
    wal.sync().await.unwrap();
    // The writer's buffers are freed with its jobs.
    drop(large);
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let since = Since::now();
    let mut stream = wal.replay(..);
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(within("next", stream.next()).await.unwrap().unwrap());
    }
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let allowed = |records: usize| records * RECORD_BYTES + (3 << 20);
    assert!(since.peak_bytes() <= allowed(6 + 2), "{} while six are held", since.peak_bytes());
    drop(held);
    assert!(since.live_bytes() <= allowed(2), "{} bytes are kept", since.live_bytes());
    let since = Since::now();
    let rest: Vec<_> =
        within("rest", stream.by_ref().map_ok(|r| r.payload.len()).try_collect()).await.unwrap();
    assert_eq!(rest, [RECORD_BYTES; 6]);
    assert!(since.peak_bytes() <= allowed(2), "{}", since.peak_bytes());
}

/// Salvage must not expand all records of a chunk at once.
#[tokio::test]
async fn salvage_expands_one_record_at_a_time() {
    const RECORD_BYTES: usize = 4 << 20;
    let _alone = ALONE.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let options = Wal::options().compression(highwater::Compression::Lz4);
    let wal = options.open(directory.path()).await.unwrap();
    for _ in 0..30 {
        wal.append(vec![0; RECORD_BYTES]).await.unwrap();
    }
    wal.close().await.unwrap();
    let since = Since::now();
    let salvage = highwater::Reader::options().salvage(directory.path()).await.unwrap();
    let lengths: Vec<_> =
        salvage.map_ok(|record| record.payload.len()).try_collect().await.unwrap();
    assert_eq!(lengths, [RECORD_BYTES; 30]);
    let allowed = 3 * RECORD_BYTES;
    assert!(since.peak_bytes() <= allowed, "{} bytes at once", since.peak_bytes());
}
