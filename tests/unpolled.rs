//! Futures that wait for the log and are not polled again must not block other calls.
//!
//! In programs: `select! { r = &mut append => …, _ = shutdown => wal.close().await }`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a mistake in a test must stop it")]

mod support;

use std::{future::Future, pin::Pin};

use futures::FutureExt;
use highwater::{
    Error, Wal,
    simulation::{Faults, Gate, Op},
    storage::MemoryStorage,
};
use support::{RING_PAYLOAD_BYTES, assert_ring_is_whole, reached, settled, small, within};

type Held<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Returns a log whose ring is full of one record. The gate holds the write of that record.
async fn full_ring() -> (Wal, Faults, Gate) {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    wal.append_and_sync(b"first").await.unwrap();
    assert_ring_is_whole(&wal).await;
    wal.sync().await.unwrap();
    // Otherwise the gate holds the write of the mark, and the next record waits for its room.
    settled(&wal).await;
    let gate = faults.on(Op::Write).once().gate();
    drop(wal.enqueue(vec![1; RING_PAYLOAD_BYTES]).await.unwrap());
    reached(&gate, 1).await;
    (wal, faults, gate)
}

/// Returns a call of this kind, polled once. It waits for space in the ring.
fn waiting(wal: &Wal, kind: usize) -> Held<'_> {
    let payload = || vec![2; RING_PAYLOAD_BYTES];
    let mut future: Held<'_> = match kind {
        0 => Box::pin(async move { drop(wal.append(payload()).await) }),
        1 => Box::pin(wal.append_and_sync("small").map(drop)),
        2 => Box::pin(async move { drop(wal.append_batch([payload()]).await) }),
        3 => Box::pin(wal.enqueue("small").map(drop)),
        // Larger than the ring.
        4 => Box::pin(async move { drop(wal.append(vec![3; 4096]).await) }),
        5 => Box::pin(wal.truncate_after(None).map(drop)),
        6 => Box::pin(wal.close().map(drop)),
        _ => unreachable!(),
    };
    assert!(future.as_mut().now_or_never().is_none(), "kind {kind} must wait for space");
    future
}

const APPENDS: usize = 5;

#[tokio::test]
async fn held_append_does_not_block_close() {
    for kind in 0..APPENDS {
        let (wal, _faults, gate) = full_ring().await;
        let held = waiting(&wal, kind);
        gate.open();
        within(&format!("close beside {kind}"), wal.close()).await.unwrap();
        // Polled again, it returns the reason why it did not append.
        within("the held future", held).await;
    }
}

#[tokio::test]
async fn held_append_does_not_block_truncation() {
    for kind in 0..APPENDS {
        let (wal, _faults, gate) = full_ring().await;
        let held = waiting(&wal, kind);
        let first = wal.watermarks().first;
        gate.open();
        within("truncate_before", wal.truncate_before(first)).await.unwrap();
        within("truncate_after", wal.truncate_after(None)).await.unwrap();
        drop(held);
        within("append", wal.append("after it")).await.unwrap();
    }
}

#[tokio::test]
async fn held_request_does_not_block_appends() {
    for kind in 0..6 {
        let (wal, _faults, gate) = full_ring().await;
        let held = waiting(&wal, kind);
        gate.open();
        within("append", wal.append("small")).await.unwrap();
        within("ring", wal.append_and_sync(vec![4; RING_PAYLOAD_BYTES])).await.unwrap();
        within("outside", wal.append_and_sync(vec![5; 4096])).await.unwrap();
        within("sync", wal.sync()).await.unwrap();
        drop(held);
        assert_ring_is_whole(&wal).await;
    }
}

/// A waiting append gets space although 20 earlier ones are not polled.
#[tokio::test]
async fn held_appends_do_not_block_waiting_append() {
    let (wal, _faults, gate) = full_ring().await;
    let held: Vec<_> = (0..20).map(|number| waiting(&wal, number % APPENDS)).collect();
    let other = wal.clone();
    let append = tokio::spawn(async move { other.append(vec![6; RING_PAYLOAD_BYTES]).await });
    tokio::task::yield_now().await;
    gate.open();
    within("append", append).await.unwrap().unwrap();
    drop(held);
    assert_ring_is_whole(&wal).await;
}

#[tokio::test]
async fn held_append_does_not_block_try_enqueue() {
    let (wal, _faults, gate) = full_ring().await;
    let held = waiting(&wal, 0);
    gate.open();
    let enqueued = async {
        while wal.try_enqueue("small").is_err() {
            tokio::task::yield_now().await;
        }
    };
    within("try_enqueue", enqueued).await;
    drop(held);
}

/// A close that is not polled blocks neither earlier appends nor another close.
#[tokio::test]
async fn held_close_does_not_block_close() {
    let (wal, _faults, gate) = full_ring().await;
    let held = waiting(&wal, 6);
    gate.open();
    within("close", wal.close()).await.unwrap();
    within("the held close", held).await;
}

#[tokio::test]
async fn close_in_select_returns() {
    let (wal, _faults, gate) = full_ring().await;
    let append = wal.append(vec![2; RING_PAYLOAD_BYTES]);
    tokio::pin!(append);
    tokio::select! {
        biased;
        _ = &mut append => panic!("the ring must be full"),
        () = async { gate.open() } => within("close", wal.close()).await.unwrap(),
    }
    assert!(append.await.unwrap_err().is_closed());
}

/// A call that waits for the next segment's file holds no ring space.
#[tokio::test]
async fn held_wait_for_segment_holds_no_ring() {
    for kind in [0, 2, 4] {
        let faults = Faults::new();
        let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
        let gate = faults.on(Op::Create).gate();
        // Appends until only calls that need the next segment are pending.
        let mut held = Vec::new();
        loop {
            let payload = vec![2; if kind == 4 { 4096 } else { RING_PAYLOAD_BYTES }];
            let append = async {
                match kind {
                    2 => wal.append_batch([payload]).await.map(drop),
                    _ => wal.append(payload).await.map(drop),
                }
            };
            let mut append = Box::pin(append);
            let deadline = std::time::Duration::from_millis(200);
            match tokio::time::timeout(deadline, &mut append).await {
                Ok(appended) => appended.unwrap(),
                Err(_) => break held.push(append),
            }
        }
        // `close` waits for the file that is being prepared, not for the append.
        let opened = async { gate.open() };
        let closed = within("close", async { tokio::join!(wal.close(), opened).0 }).await;
        closed.unwrap();
        drop(held);
    }
}

/// One truncation waits for a flush; the next one does not wait for the first.
#[tokio::test]
async fn held_truncation_does_not_block_another() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    let one = wal.append_and_sync("one").await.unwrap();
    let two = wal.append("two").await.unwrap();
    let three = wal.append("three").await.unwrap();
    assert!(one < two);
    let gate = faults.on(Op::Sync).once().gate();
    let mut held = Box::pin(wal.truncate_before(two));
    let at_the_flush = async {
        loop {
            assert!(futures::poll!(held.as_mut()).is_pending());
            if reached(&gate, 1).now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    within("the first truncation", at_the_flush).await;
    gate.open();
    within("the second truncation", wal.truncate_before(three)).await.unwrap();
    assert_eq!(wal.watermarks().first, three);
    within("the first truncation", held).await.unwrap();
    assert_eq!(wal.watermarks().first, three);
    assert!(matches!(wal.read(two).await.unwrap_err(), Error::BelowFirst { .. }));
}

/// A ring-sized record gets its turn although small ones keep coming.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_appends_do_not_starve_large_one() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let small_ones: Vec<_> = (0..16u8)
        .map(|number| {
            let (wal, stopped) = (wal.clone(), stopped.clone());
            tokio::spawn(async move {
                while !*stopped.borrow() {
                    wal.append(&[number; 100]).await.unwrap();
                }
            })
        })
        .collect();
    for _ in 0..20 {
        within("the large one", wal.append(vec![9; RING_PAYLOAD_BYTES])).await.unwrap();
    }
    stop.send(true).unwrap();
    for task in small_ones {
        within("a small one", task).await.unwrap();
    }
}
