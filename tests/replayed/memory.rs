//! What reading ahead holds: buffers are used again, and never while somebody has a part of them.

use futures::{StreamExt, TryStreamExt};
use highwater::{Record, Wal, simulation::Faults};

use crate::{ALONE, allocated::Since, filled, payload, support::within};

fn number(record: &Record) -> u32 {
    u32::from_le_bytes(record.payload[..4].try_into().unwrap())
}

#[tokio::test]
async fn buffers_are_used_again() {
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
    // A job may still be ending.
    let freed = async {
        while since.live_bytes() > 0 {
            tokio::task::yield_now().await;
        }
    };
    within("something is kept", freed).await;
}

/// Each seventh record is held to the end: its bytes stay what they were.
#[tokio::test]
async fn what_is_held_is_never_read_over() {
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
            assert!(since.made_count() >= 40, "each chunk has one that is held");
        } else {
            assert!(since.made_count() < 40, "{} were made", since.made_count());
        }
    }
}

/// Records larger than the window: two of them at most, whatever the reader holds besides.
#[tokio::test]
async fn of_large_records_two_are_held() {
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
    // A writer's buffers are gone with its jobs.
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
    assert!(since.live_bytes() <= allowed(2), "{} are kept for nobody", since.live_bytes());
    let since = Since::now();
    let rest: Vec<_> =
        within("rest", stream.by_ref().map_ok(|r| r.payload.len()).try_collect()).await.unwrap();
    assert_eq!(rest, [RECORD_BYTES; 6]);
    assert!(since.peak_bytes() <= allowed(2), "{}", since.peak_bytes());
}
