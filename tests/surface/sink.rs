//! The log as a sink: back pressure, flush, and what a dropped future or sink leaves.

use bytes::Bytes;
use futures::{Sink, SinkExt, StreamExt, TryStreamExt, stream};
use highwater::{
    Error, Wal,
    simulation::{Disk, Faults, Op, Simulation, Survival, for_each_seed},
    storage::MemoryStorage,
};

use crate::{
    closed, held, poisoned, poll_and_drop, runtimes,
    support::{assert_ring_is_whole, records, small, within},
};

fn payload(i: u32) -> Bytes {
    Bytes::from(format!("{i}:").repeat(1 + i as usize % 60))
}

async fn payloads(wal: &Wal) -> Vec<Vec<u8>> {
    records(wal).await.into_iter().map(|(_, payload)| payload).collect()
}

#[test]
fn what_is_sent_is_there_in_order_and_flushing_syncs_it() {
    for runtime in runtimes() {
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let wal = small().open(directory.path()).await.unwrap();
            let mut sink = wal.sink();
            // Nothing to flush: no trip to the device.
            within("flush", sink.flush()).await.unwrap();
            assert_eq!(wal.stats().sync_count, 0);
            let mut all = stream::iter(0..300).map(|i| Ok(payload(i)));
            within("send_all", sink.send_all(&mut all)).await.unwrap();
            assert!(wal.watermarks().synced > records(&wal).await[299].0);
            assert!(wal.stats().room_wait_count > 0, "it felt the back pressure");
            // Larger than the ring, and larger than a segment.
            for bytes in [3000, 20_000] {
                within("feed", sink.feed(Bytes::from(vec![9; bytes]))).await.unwrap();
            }
            within("close", sink.close()).await.unwrap();
            assert!(wal.watermarks().synced > records(&wal).await[301].0);
            let lsn = wal.append(b"closing the sink doesn't close the log").await.unwrap();
            within("send", sink.send(payload(7))).await.unwrap();
            assert!(wal.watermarks().synced > lsn);
            let found = payloads(&wal).await;
            assert!(found[..300].iter().eq((0..300).map(payload).collect::<Vec<_>>().iter()));
            assert_eq!(found.len(), 304);
        });
    }
}

#[tokio::test]
async fn ready_is_back_pressure() {
    let (wal, _memory, writes) = held().await;
    let mut sink = wal.sink();
    // One record waits in the sink; the next one has to.
    within("feed", sink.feed(payload(1))).await.unwrap();
    let reserved = wal.watermarks().reserved;
    assert!(poll_and_drop(sink.feed(payload(2)), 1, |_| {}).is_none());
    // Without asking for readiness it is refused, and neither record is harmed.
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
async fn dropped_futures_take_nothing_back() {
    for polls in 0..=6 {
        let (wal, memory, writes) = held().await;
        let mut sink = wal.sink();
        let answer = poll_and_drop(sink.send(payload(1)), polls, |_| writes.allow(1));
        writes.open();
        within("flush", sink.flush()).await.unwrap();
        if polls == 0 {
            // Nothing was sent, so nothing had to be flushed.
            within("sync", wal.sync()).await.unwrap();
        }
        let found = payloads(&wal).await;
        assert_eq!(found.len(), 1 + usize::from(polls > 0), "{polls}: sent, or never begun");
        if let Some(answer) = answer {
            answer.unwrap();
        }
        assert!(polls == 0 || wal.watermarks().synced > records(&wal).await[1].0, "{polls}");
        assert_ring_is_whole(&wal).await;
        let found = payloads(&wal).await;
        within("close", wal.close()).await.unwrap();
        assert_eq!(payloads(&small().open_with(memory).await.unwrap()).await, found);
    }
}

#[tokio::test]
async fn a_dropped_sink_drops_the_record_that_waits_and_no_other() {
    let (wal, _memory, writes) = held().await;
    let mut sink = wal.sink();
    within("feed", sink.feed(payload(1))).await.unwrap();
    poll_and_drop(sink.flush(), 1, |_| {});
    drop(sink);
    writes.open();
    within("sync", wal.sync()).await.unwrap();
    assert_eq!(payloads(&wal).await.len(), 1);
    assert_ring_is_whole(&wal).await;
    // With room, what was fed is the log's.
    let wal = Wal::options().open_with(MemoryStorage::new()).await.unwrap();
    let mut sink = wal.sink();
    sink.feed(payload(2)).await.unwrap();
    drop(sink);
    assert_eq!(payloads(&wal).await, [payload(2)]);
}

#[tokio::test]
async fn errors_come_to_whom_they_concern() {
    for wal in [poisoned().await, closed().await] {
        let mut sink = wal.sink();
        let error = sink.send(payload(1)).await.unwrap_err();
        assert!(error.is_poisoned() || error.is_closed(), "{error}");
        sink.feed(payload(1)).await.unwrap_err();
    }
    // A flush that fails, and goes on failing.
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new())).await.unwrap();
    faults.on(Op::Sync).once().fail(std::io::ErrorKind::Other);
    let mut sink = wal.sink();
    sink.feed(payload(1)).await.unwrap();
    assert!(sink.flush().await.unwrap_err().is_poisoned());
    assert!(sink.flush().await.unwrap_err().is_poisoned());
    // A record that can't be: it alone.
    let wal = small().record_bytes_max(100).open_with(MemoryStorage::new()).await.unwrap();
    let mut sink = wal.sink();
    let error = sink.send(Bytes::from(vec![0; 101])).await.unwrap_err();
    assert!(matches!(error, Error::RecordTooLarge { .. }), "{error}");
    sink.send(payload(2)).await.unwrap();
    assert_eq!(payloads(&wal).await, [payload(2)]);
}

#[tokio::test]
async fn without_space_the_record_that_waited_is_not_there_and_the_next_may_be() {
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

/// Any order of things, and the power goes after a flush: what it covered is there.
#[test]
fn what_a_flush_covered_survives_a_loss_of_power() {
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
