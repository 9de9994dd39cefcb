//! The log as a `Sink`: back pressure, flush, and what a dropped future or sink leaves.

use bytes::Bytes;
use futures::{Sink, SinkExt, StreamExt, TryStreamExt, stream};
use highwater::{
    Error, Wal,
    simulation::{Disk, Faults, Op, Simulation, Survival, for_each_seed},
    storage::MemoryStorage,
};

use crate::{
    closed, held, poisoned, runtimes,
    support::{assert_ring_is_whole, poll_and_drop, records, small, within},
};

fn payload(i: u32) -> Bytes {
    Bytes::from(format!("{i}:").repeat(1 + i as usize % 60))
}

async fn payloads(wal: &Wal) -> Vec<Vec<u8>> {
    records(wal).await.into_iter().map(|(_, payload)| payload).collect()
}

#[test]
fn sink_keeps_order_and_flush_syncs() {
    for runtime in runtimes() {
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let wal = small().open(directory.path()).await.unwrap();
            let mut sink = wal.sink();
            // There is nothing to flush, so the device is not used.
            within("flush", sink.flush()).await.unwrap();
            assert_eq!(wal.stats().sync_count, 0);
            let mut all = stream::iter(0..300).map(|i| Ok(payload(i)));
            within("send_all", sink.send_all(&mut all)).await.unwrap();
            assert!(wal.watermarks().synced > records(&wal).await[299].0);
            assert!(wal.stats().room_wait_count > 0, "the sink must meet back pressure");
            // Larger than the ring, and larger than a segment.
            for bytes in [3000, 20_000] {
                within("feed", sink.feed(Bytes::from(vec![9; bytes]))).await.unwrap();
            }
            within("close", sink.close()).await.unwrap();
            assert!(wal.watermarks().synced > records(&wal).await[301].0);
            let lsn = wal.append(b"the log is still open").await.unwrap();
            within("send", sink.send(payload(7))).await.unwrap();
            assert!(wal.watermarks().synced > lsn);
            let found = payloads(&wal).await;
            assert!(found[..300].iter().eq((0..300).map(payload).collect::<Vec<_>>().iter()));
            assert_eq!(found.len(), 304);
        });
    }
}

#[tokio::test]
async fn sink_readiness_is_back_pressure() {
    let (wal, _memory, writes) = held().await;
    let mut sink = wal.sink();
    // One record waits in the sink, so the next one must wait.
    within("feed", sink.feed(payload(1))).await.unwrap();
    let reserved = wal.watermarks().reserved;
    assert!(poll_and_drop(sink.feed(payload(2)), 1, |_| {}).is_none());
    // Without readiness the record is refused, and the waiting one is kept.
    let error = std::pin::Pin::new(&mut sink).start_send(payload(3)).unwrap_err();
    assert!(matches!(error, Error::Full), "{error}");
    assert_eq!(wal.watermarks().reserved, reserved);
    writes.open();
    within("feed", sink.feed(payload(4))).await.unwrap();
    within("flush", sink.flush()).await.unwrap();
    let found = payloads(&wal).await;
    assert_eq!(found[1..], [payload(1), payload(4)]);
    assert_ring_is_whole(&wal).await;
}

#[tokio::test]
async fn dropped_send_keeps_its_record() {
    for polls in 0..=6 {
        let (wal, memory, writes) = held().await;
        let mut sink = wal.sink();
        let result = poll_and_drop(sink.send(payload(1)), polls, |_| writes.allow(1));
        writes.open();
        within("flush", sink.flush()).await.unwrap();
        if polls == 0 {
            // No record was sent, so `flush` had nothing to do.
            within("sync", wal.sync()).await.unwrap();
        }
        let found = payloads(&wal).await;
        assert_eq!(found.len(), 1 + usize::from(polls > 0), "{polls}: sent, unless never polled");
        if let Some(result) = result {
            result.unwrap();
        }
        assert!(polls == 0 || wal.watermarks().synced > records(&wal).await[1].0, "{polls}");
        assert_ring_is_whole(&wal).await;
        let found = payloads(&wal).await;
        within("close", wal.close()).await.unwrap();
        assert_eq!(payloads(&small().open_with(memory).await.unwrap()).await, found);
    }
}

#[tokio::test]
async fn dropped_sink_drops_only_the_waiting_record() {
    let (wal, _memory, writes) = held().await;
    let mut sink = wal.sink();
    within("feed", sink.feed(payload(1))).await.unwrap();
    poll_and_drop(sink.flush(), 1, |_| {});
    drop(sink);
    writes.open();
    within("sync", wal.sync()).await.unwrap();
    assert_eq!(payloads(&wal).await.len(), 1);
    assert_ring_is_whole(&wal).await;
    // With ring space, a fed record belongs to the log.
    let wal = Wal::options().open_with(MemoryStorage::new()).await.unwrap();
    let mut sink = wal.sink();
    sink.feed(payload(2)).await.unwrap();
    drop(sink);
    assert_eq!(payloads(&wal).await, [payload(2)]);
}

#[tokio::test]
async fn sink_errors_are_returned_to_their_caller() {
    for wal in [poisoned().await, closed().await] {
        let mut sink = wal.sink();
        let error = sink.send(payload(1)).await.unwrap_err();
        assert!(error.is_poisoned() || error.is_closed(), "{error}");
        sink.feed(payload(1)).await.unwrap_err();
    }
    // A failed flush poisons the log.
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new())).await.unwrap();
    faults.on(Op::Sync).once().fail(std::io::ErrorKind::Other);
    let mut sink = wal.sink();
    sink.feed(payload(1)).await.unwrap();
    assert!(sink.flush().await.unwrap_err().is_poisoned());
    assert!(sink.flush().await.unwrap_err().is_poisoned());
    // An oversized record fails alone.
    let wal = small().record_bytes_max(100).open_with(MemoryStorage::new()).await.unwrap();
    let mut sink = wal.sink();
    let error = sink.send(Bytes::from(vec![0; 101])).await.unwrap_err();
    assert!(matches!(error, Error::RecordTooLarge { .. }), "{error}");
    sink.send(payload(2)).await.unwrap();
    assert_eq!(payloads(&wal).await, [payload(2)]);
}

#[tokio::test]
async fn full_disk_drops_waiting_record_only() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    faults.on(Op::Create).fail(std::io::ErrorKind::StorageFull);
    let mut sink = wal.sink();
    let mut sent = 0;
    let error = loop {
        match within("send", sink.send(Bytes::from(vec![1; 900]))).await {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    faults.heal();
    within("send", sink.send(payload(5))).await.unwrap();
    assert_eq!(payloads(&wal).await.len(), sent + 1);
}

/// After a power cut, the records of an earlier flush are there, in any order of operations.
#[test]
fn flushed_records_survive_power_cut() {
    for_each_seed(20, |seed| {
        let disk = Disk::new(seed);
        let sent = Simulation::new(seed).run(async {
            let wal = small().open_with(disk.clone()).await.unwrap();
            let mut sink = wal.sink();
            for i in 0..40 {
                sink.feed(payload(i)).await.unwrap();
            }
            sink.flush().await.unwrap();
            let synced = wal.watermarks().synced;
            sink.feed(payload(40)).await.unwrap();
            (synced, disk.crash(Survival::Nothing))
        });
        let (synced, crashed) = sent;
        Simulation::new(seed).run(async {
            let wal = small().open_with(crashed).await.unwrap();
            let found: Vec<_> = wal.replay(..synced).try_collect().await.unwrap();
            let found = found.into_iter().map(|record| record.payload);
            assert!(found.eq((0..40).map(payload)), "seed {seed}");
        });
    });
}
