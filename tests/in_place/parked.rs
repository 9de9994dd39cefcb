//! An append that lets others go first, and is then dropped or not polled: nobody waits for it.

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

/// The first append of a log tries whether it pays to let others go first.
fn parked<'a>(wal: &'a Wal, payload: &'a [u8]) -> std::pin::Pin<Box<impl Future + use<'a>>> {
    let mut append = Box::pin(wal.append(payload));
    poll_times(&mut append, 1);
    assert_eq!(wal.watermarks().written.as_u64(), 0, "it lets others go first");
    append
}

#[tokio::test]
async fn dropped_at_any_poll_the_record_stays_and_is_written_without_anybodys_help() {
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
        within("nobody writes it", written).await;
        drop(wal);
        let again = crate::support::open_when_free(|| disk.clone()).await;
        assert_eq!(records(&again).await.len(), 1, "after {polls} polls");
    }
}

#[tokio::test]
async fn closing_does_not_wait_for_it() {
    let (wal, disk) = open().await;
    let append = parked(&wal, b"parked");
    within("close", wal.close()).await.unwrap();
    drop(append);
    let again = small().open_with(disk).await.unwrap();
    assert_eq!(records(&again).await.len(), 1);
}

#[tokio::test]
async fn nobody_who_needs_its_room_or_its_bytes_waits_for_it() {
    let (wal, _disk) = open().await;
    let append = parked(&wal, b"parked");
    within("all of the ring", wal.append(&[1; RING_PAYLOAD_BYTES])).await.unwrap();
    drop(append);
    let (wal, _disk) = open().await;
    let append = parked(&wal, b"parked");
    let ticket = within("enqueue", wal.enqueue(b"behind it")).await.unwrap();
    within("written", ticket.written()).await.unwrap();
    drop(append);
    let (wal, _disk) = open().await;
    let append = parked(&wal, b"parked");
    within("sync", wal.sync()).await.unwrap();
    drop(append);
    let (wal, _disk) = open().await;
    let append = parked(&wal, b"parked");
    within("truncation", wal.truncate_after(None)).await.unwrap();
    drop(append);
    let (wal, _disk) = open().await;
    std::mem::forget(parked(&wal, b"forgotten"));
    within("close", wal.close()).await.unwrap();
}

/// Those who append at once are written for by one of them.
#[tokio::test]
async fn many_at_once_are_written_for_together() {
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
