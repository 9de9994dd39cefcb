//! An append that yields and is then dropped or not polled: no other call waits for it.

use std::future::Future;

use highwater::{Wal, simulation::Disk};

use crate::{
    poll_times, promising,
    support::{RING_PAYLOAD_BYTES, records, small, within},
};

async fn open() -> (Wal, Disk) {
    let (disk, faults) = promising();
    let wal = small().open_with(faults.over(disk.clone()).on_pool()).await.unwrap();
    (wal, disk)
}

/// Returns an append that has yielded. The first append of a log always yields.
fn yielded<'a>(wal: &'a Wal, payload: &'a [u8]) -> std::pin::Pin<Box<impl Future + use<'a>>> {
    let mut append = Box::pin(wal.append(payload));
    poll_times(&mut append, 1);
    assert_eq!(wal.watermarks().written.as_u64(), 0, "the append must yield");
    append
}

#[tokio::test]
async fn dropped_yielding_append_is_still_written() {
    for polls in 0..3 {
        let (wal, disk) = open().await;
        let mut append = Box::pin(wal.append(b"kept"));
        let mut is_done = false;
        for _ in 0..polls {
            is_done = is_done || futures::poll!(append.as_mut()).is_ready();
            if is_done {
                break;
            }
        }
        drop(append);
        if polls == 0 {
            assert_eq!(wal.watermarks().reserved.as_u64(), 0);
            continue;
        }
        let written = async {
            while wal.watermarks().written.as_u64() == 0 {
                tokio::task::yield_now().await;
            }
        };
        within("writing the record", written).await;
        drop(wal);
        let again = crate::support::open_when_free(|| disk.clone()).await;
        assert_eq!(records(&again).await.len(), 1, "after {polls} polls");
    }
}

#[tokio::test]
async fn close_does_not_wait_for_yielding_append() {
    let (wal, disk) = open().await;
    let append = yielded(&wal, b"yielded");
    within("close", wal.close()).await.unwrap();
    drop(append);
    let again = small().open_with(disk).await.unwrap();
    assert_eq!(records(&again).await.len(), 1);
}

#[tokio::test]
async fn held_append_does_not_block_other_calls() {
    let (wal, _disk) = open().await;
    let append = yielded(&wal, b"yielded");
    within("all of the ring", wal.append(&[1; RING_PAYLOAD_BYTES])).await.unwrap();
    drop(append);
    let (wal, _disk) = open().await;
    let append = yielded(&wal, b"yielded");
    let ticket = within("enqueue", wal.enqueue(b"after it")).await.unwrap();
    within("written", ticket.written()).await.unwrap();
    drop(append);
    let (wal, _disk) = open().await;
    let append = yielded(&wal, b"yielded");
    within("sync", wal.sync()).await.unwrap();
    drop(append);
    let (wal, _disk) = open().await;
    let append = yielded(&wal, b"yielded");
    within("truncation", wal.truncate_after(None)).await.unwrap();
    drop(append);
    let (wal, _disk) = open().await;
    std::mem::forget(yielded(&wal, b"forgotten"));
    within("close", wal.close()).await.unwrap();
}

/// Concurrent appends are written by one of them.
#[tokio::test]
async fn concurrent_appends_share_writes() {
    let (wal, _disk) = open().await;
    for _ in 0..50 {
        let appends = (0..8u8).map(|i| {
            let wal = wal.clone();
            tokio::spawn(async move { wal.append(&[i; 8]).await })
        });
        for append in appends.collect::<Vec<_>>() {
            within("append", append).await.unwrap().unwrap();
        }
    }
    let stats = wal.stats();
    assert!(stats.write_count < stats.frame_count / 3, "{stats:?}");
}
