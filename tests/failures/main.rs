//! Device failures: every waiter gets an error, durable records survive, and the log recovers from
//! a full disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod refusals;
#[path = "../support/mod.rs"]
mod support;

use std::io::ErrorKind;

use futures::{StreamExt, future::join_all};
use highwater::{
    Durability, Error,
    simulation::{Event, Faults, Op},
    storage::{FileStorage, MemoryStorage, Storage},
};
use support::{
    MARK_BYTES, RING_PAYLOAD_BYTES, assert_ring_is_whole, cause, open_when_free, reached, records,
    settled, small, within,
};

const EIO: i32 = 5;

fn is_first(name: &str) -> bool {
    name.ends_with("00001.wal")
}

fn is_spare(name: &str) -> bool {
    name.ends_with("00002.wal")
}

/// Lets every call that can wait do so while the `gated` operation fails.
async fn poison_with_all_calls_waiting(gated: Op, arm: impl Fn(&Faults), code: Option<i32>) {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let wal = small().open_with(faults.over(memory.clone()).on_pool()).await.unwrap();
    let mut acknowledged = Vec::new();
    for i in 0..3u8 {
        acknowledged.push((wal.append_and_sync(&[i; 20]).await.unwrap(), vec![i; 20]));
    }
    assert_ring_is_whole(&wal).await;
    settled(&wal).await;
    let before = wal.watermarks();

    let gate = faults.on(gated).file(is_first).once().gate();
    arm(&faults);
    let first = tokio::spawn({
        let wal = wal.clone();
        async move { wal.append_and_sync(&[8; 100]).await }
    });
    reached(&gate, 1).await;
    let ticket = wal.enqueue(b"enqueued").await.unwrap();
    let (written, synced) = (ticket.written(), ticket.synced());
    let others = join_all((0..8).map(|_| wal.append_and_sync(b"other")));
    let waiting = async {
        tokio::join!(
            async { wal.append(b"appended").await.map(drop) },
            async { wal.append_batch([b"one", b"two"]).await.map(drop) },
            written,
            synced,
            async { wal.sync().await.map(drop) },
            wal.sync_to(ticket.lsn()),
            wal.wait_synced(ticket.lsn()),
            async { wal.enqueue(vec![1; 900]).await.map(drop) },
            others
        )
    };
    let release = async {
        tokio::task::yield_now().await;
        gate.open();
    };
    let (results, ()) = within("the waiting calls", async { tokio::join!(waiting, release) }).await;
    let first = within("the first append", first).await.unwrap().unwrap_err();
    let text = cause(&first);
    if let Some(code) = code {
        assert!(text.contains(&std::io::Error::from_raw_os_error(code).to_string()), "{text}");
    }
    assert!(text.contains("00001.wal"), "the cause names the file: {text}");

    let (append, batch, written, synced, sync, sync_to, wait, enqueue, others) = results;
    for (call, result) in
        [("ticket.synced", synced), ("sync", sync), ("sync_to", sync_to), ("wait_synced", wait)]
    {
        assert_eq!(cause(&result.expect_err(call)), text, "{call}");
    }
    for other in others {
        assert_eq!(cause(&other.unwrap_err()), text, "an append of the group");
    }
    if gated == Op::Write {
        for (call, result) in
            [("append", append), ("append_batch", batch), ("ticket.written", written)]
        {
            assert_eq!(cause(&result.expect_err(call)), text, "{call}");
        }
        let first_end = before.written.as_u64() + MARK_BYTES + 16 + 104;
        assert!(wal.watermarks().written.as_u64() < first_end, "`written` must not move");
    } else {
        for result in [append, batch, written, enqueue] {
            // The sync does not stop writes, so these may have been written.
            assert!(result.is_ok() || cause(&result.unwrap_err()) == text);
        }
    }
    assert_eq!(wal.watermarks().synced, before.synced, "`synced` must not move");

    faults.heal();
    let later: Vec<highwater::Result<()>> = within("a call on a poisoned log", async {
        vec![
            wal.append(b"x").await.map(drop),
            wal.append_and_sync(b"x").await.map(drop),
            wal.append_batch([b"x"]).await.map(drop),
            wal.enqueue(b"x").await.map(drop),
            wal.try_enqueue(b"x").map(drop),
            wal.sync().await.map(drop),
            wal.sync_to(acknowledged[0].0).await,
            ticket.synced().await,
            wal.append(vec![9; 2000]).await.map(drop),
        ]
    })
    .await;
    for (i, result) in later.into_iter().enumerate() {
        assert_eq!(
            cause(&result.expect_err("a healed device does not unpoison")),
            text,
            "call {i}"
        );
    }
    for (lsn, payload) in &acknowledged {
        assert_eq!(wal.read(*lsn).await.unwrap().payload, payload, "reads still work");
    }
    assert!(records(&wal).await.starts_with(&acknowledged));
    assert_eq!(cause(&within("close", wal.close()).await.unwrap_err()), text);

    let again = open_when_free(|| memory.clone()).await;
    assert!(records(&again).await.starts_with(&acknowledged), "an acknowledged record is missing");
    again.append_and_sync(b"and on").await.unwrap();
}

#[tokio::test]
async fn failed_write_poisons_log_and_all_waiters() {
    poison_with_all_calls_waiting(
        Op::Write,
        |faults| faults.on(Op::Write).once().fail_os(EIO),
        Some(EIO),
    )
    .await;
}

#[tokio::test]
async fn full_disk_after_reservation_poisons_log() {
    let full = |faults: &Faults| faults.on(Op::Write).once().fail(ErrorKind::StorageFull);
    poison_with_all_calls_waiting(Op::Write, full, None).await;
}

#[tokio::test]
async fn write_of_zero_bytes_poisons_log() {
    let short = |faults: &Faults| {
        faults.on(Op::Write).once().short(5);
        faults.on(Op::Write).once().short(0);
    };
    poison_with_all_calls_waiting(Op::Write, short, None).await;
}

#[tokio::test]
async fn failed_sync_poisons_log_and_all_waiters() {
    poison_with_all_calls_waiting(
        Op::Sync,
        |faults| faults.on(Op::Sync).once().fail_os(EIO),
        Some(EIO),
    )
    .await;
}

/// The unsynced file is removed, and the next attempt creates another one.
#[tokio::test]
async fn failed_directory_sync_refuses_appends_until_ok() {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let wal = small().open_with(faults.over(memory.clone()).on_pool()).await.unwrap();
    let kept = wal.append_and_sync(b"kept").await.unwrap();
    faults.on(Op::SyncDir).times(5).fail_os(EIO);
    let refused = async {
        loop {
            if let Err(error) = wal.append_and_sync(&[7; 500]).await {
                break error;
            }
        }
    };
    let error = within("a refusal", refused).await;
    assert!(error.to_string().contains("syncing the directory"), "{error}");
    assert!(!error.is_poisoned(), "{error}");
    assert_eq!(wal.read(kept).await.unwrap().payload, "kept");
    let accepted = async { while wal.append_and_sync(&[7; 500]).await.is_err() {} };
    within("an append", accepted).await;
    within("close", wal.close()).await.unwrap();
    let again = open_when_free(|| memory.clone()).await;
    assert_eq!(again.read(kept).await.unwrap().payload, "kept");
}

/// A second job that waits for the writer's lock must not write after the first one failed.
#[tokio::test]
async fn failed_write_stops_queued_writers() {
    for round in 0..60 {
        let faults = Faults::new();
        let storage = faults.over(MemoryStorage::new()).on_pool();
        let wal = small().open_with(storage).await.unwrap();
        wal.append_and_sync(b"x").await.unwrap();
        settled(&wal).await;
        let gate = faults.on(Op::Write).once().gate();
        faults.on(Op::Write).once().fail_os(EIO);
        let mut sync = Box::pin(wal.append_and_sync(b"first"));
        assert!(futures::poll!(&mut sync).is_pending());
        reached(&gate, 1).await;
        let mut append = Box::pin(wal.append(b"second"));
        assert!(futures::poll!(&mut append).is_pending());
        // Gives the second job time to reach the lock; the test does not assert that it does.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        gate.open();
        within("append_and_sync", sync).await.unwrap_err();
        let second = within("append", append).await;
        let events = faults.events();
        let failed = events.iter().position(|event| matches!(event, Event::Failed { .. }));
        let later = &events[failed.unwrap()..];
        let wrote =
            later.iter().any(|event| matches!(event, Event::Wrote(wrote) if !wrote.is_blank));
        assert!(
            second.is_err() && !wrote,
            "round {round}: {second:?} after a failed write: {later:?}"
        );
    }
}

/// `close` returns only when the lock is free, even if a job of the poisoned log still runs.
#[tokio::test]
async fn close_of_poisoned_log_frees_lock() {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let storage = faults.over(memory.clone()).on_pool();
    let wal = small().open_with(storage).await.unwrap();
    let gate = faults.on(Op::Sync).once().gate();
    let mut sync = Box::pin(wal.append_and_sync(b"x"));
    assert!(futures::poll!(&mut sync).is_pending());
    reached(&gate, 1).await;
    faults.on(Op::Write).once().fail_os(EIO);
    within("append", wal.append(b"y")).await.unwrap_err();
    within("the sync that hangs", sync).await.unwrap_err();
    let mut close = Box::pin(wal.close());
    let early = tokio::time::timeout(std::time::Duration::from_millis(50), &mut close).await;
    let reopened = small().open_with(memory.clone()).await.map(drop);
    assert!(
        early.is_err() || reopened.is_ok(),
        "close returned {early:?}, but reopening: {reopened:?}"
    );
    gate.open();
    if early.is_err() {
        within("close", close).await.unwrap_err();
    }
    small().open_with(memory).await.expect("closed");
}

#[tokio::test]
async fn watch_of_poisoned_log_returns_error() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    wal.append_and_sync(b"x").await.unwrap();
    let mut watching = wal.watch();
    let gate = faults.on(Op::Sync).once().gate();
    faults.on(Op::Sync).once().fail_os(EIO);
    let append = tokio::spawn({
        let wal = wal.clone();
        async move { wal.append_and_sync(b"y").await }
    });
    reached(&gate, 1).await;
    gate.open();
    append.await.unwrap().unwrap_err();
    let stopped = async { while watching.changed().await.is_ok() {} };
    within("watching a poisoned log", stopped).await;
    assert!(watching.changed().await.unwrap_err().is_poisoned());
}

/// A second fsync could return Ok for dirty pages that the kernel has dropped (fsyncgate).
#[tokio::test]
async fn failed_sync_is_not_retried() {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let wal = small().open_with(faults.over(memory.clone()).on_pool()).await.unwrap();
    wal.append(b"in the page cache").await.unwrap();
    faults.on(Op::Sync).once().fail_os(EIO);
    wal.sync().await.unwrap_err();
    faults.clear();
    for _ in 0..3 {
        wal.sync().await.unwrap_err();
        wal.append_and_sync(b"more").await.unwrap_err();
    }
    within("close", wal.close()).await.unwrap_err();
    assert_eq!(faults.events(), [], "a poisoned log must do no I/O");

    let again = open_when_free(|| faults.over(memory.clone())).await;
    let report = again.recovery();
    assert_eq!(report.rewritten_bytes, report.end.as_u64(), "unsynced bytes must be written again");
    assert_eq!(records(&again).await[0].1, b"in the page cache");
}

#[tokio::test]
async fn failed_group_sync_fails_every_member() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    let gate = faults.on(Op::Sync).once().gate();
    faults.on(Op::Sync).skip(1).once().fail_os(EIO);
    let leader = tokio::spawn({
        let wal = wal.clone();
        async move { wal.append_and_sync(b"leader").await }
    });
    reached(&gate, 1).await;
    let mut group = Box::pin(join_all((0..20).map(|_| wal.append_and_sync(b"group"))));
    assert!(futures::poll!(&mut group).is_pending());
    gate.open();
    leader.await.unwrap().expect("the leader's own sync succeeded");
    for result in within("the group", group).await {
        cause(&result.unwrap_err());
    }
}

/// Each step of preparing a segment may find the disk full.
#[tokio::test]
async fn full_disk_refuses_before_reserving_and_recovers() {
    for (op, on_pool) in [Op::Create, Op::Resize, Op::Write, Op::Sync, Op::SyncDir]
        .into_iter()
        .flat_map(|op| [(op, false), (op, true)])
    {
        let (memory, faults) = (MemoryStorage::new(), Faults::new());
        let storage = faults.over(memory.clone());
        let wal =
            small().open_with(if on_pool { storage.on_pool() } else { storage }).await.unwrap();
        let full = || {
            faults
                .on(op)
                .file(|name| name.is_empty() || !is_first(name))
                .fail(ErrorKind::StorageFull)
        };
        full();
        let mut acknowledged = Vec::new();
        let refused = loop {
            let payload = vec![u8::try_from(acknowledged.len()).unwrap(); 400];
            match within("append", wal.append_and_sync(&payload)).await {
                Ok(lsn) => acknowledged.push((lsn, payload)),
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, Error::NoSpace { .. }), "{op:?}: {refused}");
        let reserved = wal.watermarks().reserved;
        for _ in 0..3 {
            let error = within("append", wal.append(b"refused")).await.unwrap_err();
            assert!(matches!(error, Error::NoSpace { .. }), "{op:?}: {error}");
            let error = within("batch", wal.append_batch([b"a", b"b"])).await.unwrap_err();
            assert!(matches!(error, Error::NoSpace { .. }), "{op:?}: {error}");
            let error = within("large", wal.append(vec![1; 20_000])).await.unwrap_err();
            assert!(matches!(error, Error::NoSpace { .. }), "{op:?}: {error}");
            within("sync", wal.sync()).await.expect("existing records can be synced");
        }
        assert_eq!(wal.watermarks().reserved, reserved, "nothing was reserved");

        faults.heal();
        acknowledged.push((
            within("healed", wal.append_and_sync(b"healed")).await.unwrap(),
            b"healed".to_vec(),
        ));
        let large = vec![3; 20_000];
        acknowledged.push((within("healed", wal.append_and_sync(&large)).await.unwrap(), large));
        assert_eq!(records(&wal).await, acknowledged, "{op:?}");
        within("close", wal.close()).await.unwrap();
        let again = small().open_with(memory).await.unwrap();
        assert_eq!(records(&again).await, acknowledged, "{op:?}");
    }
}

#[tokio::test]
async fn try_enqueue_recovers_after_full_disk() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new())).await.unwrap();
    faults.on(Op::Create).fail(ErrorKind::StorageFull);
    while wal.try_enqueue(&[5; 400]).is_ok() {}
    faults.heal();
    let healed = async {
        while let Err(error) = wal.try_enqueue(&[5; 400]) {
            assert!(matches!(error, Error::Full | Error::NoSpace { .. }), "{error}");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    within("try_enqueue must request the next segment", healed).await;
}

#[tokio::test]
async fn close_on_full_disk_succeeds() {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let wal = small().open_with(faults.over(memory.clone())).await.unwrap();
    faults.on(Op::Create).fail(ErrorKind::StorageFull);
    let mut lsns = Vec::new();
    while let Ok(lsn) = wal.append_and_sync(&[5; 1000]).await {
        lsns.push(lsn);
    }
    within("close", wal.close()).await.expect("the close frame must fit");
    let again = small().open_with(memory).await.unwrap();
    assert_eq!(records(&again).await.len(), lsns.len());
}

/// Space for the close frame is reserved: appends cannot use it.
#[tokio::test]
async fn close_on_full_disk_with_full_segment_succeeds() {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let storage = faults.over(memory.clone());
    let wal = small().open_with(storage).await.unwrap();
    faults.on(Op::Create).fail(ErrorKind::StorageFull);
    let mut count = 0;
    while wal.append(vec![5; RING_PAYLOAD_BYTES]).await.is_ok() {
        count += 1;
    }
    assert_eq!(count, 11, "twelve would fill the segment to its last byte");
    let closed = within("close", wal.close()).await;
    let again = small().open_with(memory).await.unwrap();
    assert_eq!(records(&again).await.len(), count, "nothing is lost");
    closed.expect("the close frame must fit");
}

#[tokio::test]
async fn read_error_in_replay_names_file_and_offset() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new())).await.unwrap();
    let mut lsns = Vec::new();
    while wal.stats().segment_count < 3 {
        lsns.push(wal.append(&[1; 300]).await.unwrap());
    }
    faults.on(Op::Read).file(is_spare).fail_os(EIO);
    let mut replay = wal.replay(..);
    let mut count = 0;
    let error = loop {
        match within("replay", replay.next()).await.expect("the error comes first") {
            Ok(record) => {
                assert_eq!(record.lsn, lsns[count]);
                count += 1;
            }
            Err(error) => break error,
        }
    };
    let Error::Io { path, offset, source, .. } = &error else {
        panic!("never corruption: {error}");
    };
    assert!(
        is_spare(path) && *offset == Some(4096) && source.raw_os_error() == Some(EIO),
        "{error}"
    );
    assert!(count > 10, "the first segment must be replayed");
    assert!(replay.next().await.is_none(), "the stream has ended");
    assert!(matches!(wal.read(lsns[count]).await, Err(Error::Io { .. })));
    assert!(wal.append_and_sync(b"on").await.is_ok(), "a read error does not poison");
    faults.heal();
    assert_eq!(records(&wal).await.len(), lsns.len() + 1);
}

#[tokio::test]
async fn read_error_at_open_changes_nothing() {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let wal = small().open_with(memory.clone()).await.unwrap();
    let lsn = wal.append_and_sync(b"kept").await.unwrap();
    drop(wal);
    // The reads are those of the header, then those of the search for the end.
    for skip in 0..3 {
        faults.clear();
        faults.on(Op::Read).skip(skip).fail_os(EIO);
        let error = small().open_with(faults.over(memory.clone())).await.unwrap_err();
        assert!(matches!(error, Error::Io { offset: Some(_), .. }), "{error}");
        let changes = |event: &Event| {
            !matches!(event, Event::Opened { .. } | Event::Read { .. } | Event::Failed { .. })
        };
        assert_eq!(faults.count(changes), 0, "{:?}", faults.events());
        faults.heal();
    }
    let wal = small().open_with(memory).await.unwrap();
    assert_eq!(wal.read(lsn).await.unwrap().payload, "kept");
}

#[tokio::test]
async fn interrupted_and_short_calls_are_retried() {
    for on_pool in [false, true] {
        let (memory, faults) = (MemoryStorage::new(), Faults::new());
        for op in [Op::Read, Op::Write] {
            for n in 0..400u64 {
                let fault = faults.on(op).skip(2 * n).once();
                if n % 3 == 0 {
                    fault.fail(ErrorKind::Interrupted);
                } else {
                    fault.short(usize::try_from(1 + n * 7 % 90).unwrap());
                }
            }
        }
        faults.on(Op::Sync).times(40).fail(ErrorKind::Interrupted);
        let storage = faults.over(memory.clone());
        let wal =
            small().open_with(if on_pool { storage.on_pool() } else { storage }).await.unwrap();
        let mut expected = Vec::new();
        for i in 0..60u8 {
            let payload = vec![i; 10 + usize::from(i) * 3];
            expected
                .push((within("append", wal.append_and_sync(&payload)).await.unwrap(), payload));
        }
        let large = vec![77; 5000];
        expected.push((within("append", wal.append(&large)).await.unwrap(), large));
        assert_eq!(records(&wal).await, expected);
        drop(wal);
        let again = open_when_free(|| faults.over(memory.clone())).await;
        assert_eq!(records(&again).await, expected);
    }
}

/// `fallocate` returns EINTR in processes that get many signals, for example from profilers.
#[tokio::test]
async fn interrupted_allocation_is_retried() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new())).await.unwrap();
    faults.on(Op::Resize).times(2).fail(ErrorKind::Interrupted);
    while wal.stats().segment_count < 2 {
        wal.append(&[1; 300]).await.expect("EINTR must be retried");
    }
}

/// The same over real files: the fault storage wraps them.
#[tokio::test]
async fn failed_sync_of_real_file_poisons_log() {
    let directory = tempfile::tempdir().unwrap();
    let faults = Faults::new();
    let storage = FileStorage::create(directory.path()).unwrap();
    assert!(!storage.is_nonblocking());
    let wal = small().open_with(faults.over(storage)).await.unwrap();
    let kept = wal.append_and_sync(b"kept").await.unwrap();
    faults.on(Op::Sync).once().fail_os(EIO);
    cause(&within("append", wal.append_and_sync(b"lost?")).await.unwrap_err());
    within("close", wal.close()).await.unwrap_err();
    let again = open_when_free(|| FileStorage::create(directory.path()).unwrap()).await;
    assert_eq!(again.read(kept).await.unwrap().payload, "kept");
}

/// Records that a failed flush dropped read as poisoned; only durable bytes can be corrupt.
#[tokio::test]
async fn unsynced_loss_reads_as_poisoned_not_corrupt() {
    for bytes in [10, 900, 2000] {
        let (memory, faults) = (MemoryStorage::new(), Faults::new());
        let wal = small().open_with(faults.over(memory.clone()).on_pool()).await.unwrap();
        let durable = wal.append_with(vec![1; bytes], Durability::Synced).await.unwrap();
        let offset = durable.offset;
        let durable = durable.lsn;
        let lost = wal.append_with(vec![2; bytes], Durability::Written).await.unwrap();
        let behind = wal.append(vec![3; bytes]).await.unwrap();
        // Fails the flush of the first segment only, not that of the segment being prepared.
        faults.on(Op::Sync).file(is_first).once().fail_os(EIO);
        wal.sync().await.unwrap_err();
        // Simulates the system: it drops the dirty pages, and later reads return zeros.
        let file = memory.open(&lost.segment_name()).unwrap();
        file.write_at(&[0; 12 << 10], lost.offset).unwrap();
        let lost = lost.lsn;
        let is_cause = |error: &Error| cause(error).contains("syncing");
        for lsn in [lost, behind] {
            let error = within("read", wal.read(lsn)).await.unwrap_err();
            assert!(is_cause(&error), "read {lsn}: {error}");
        }
        let streams: [futures::stream::BoxStream<'_, _>; 3] = [
            wal.replay(..).boxed(),
            wal.replay(durable..).boxed(),
            wal.follow_written(durable).boxed(),
        ];
        for (number, mut stream) in streams.into_iter().enumerate() {
            let first = within("durable", stream.next()).await.unwrap().unwrap();
            assert_eq!((first.lsn, &first.payload[..]), (durable, &vec![1; bytes][..]));
            let error = within("lost", stream.next()).await.unwrap().unwrap_err();
            assert!(is_cause(&error), "stream {number}: {error}");
        }
        let error = within("lost", wal.replay(lost..).next()).await.unwrap().unwrap_err();
        assert!(is_cause(&error), "{error}");
        // Damage to a durable record is still corruption.
        file.write_at(b"other", offset + 16).unwrap();
        let error = within("read", wal.read(durable)).await.unwrap_err();
        assert!(error.is_corrupt(), "{error}");
        let error = within("replay", wal.replay(..).next()).await.unwrap().unwrap_err();
        assert!(error.is_corrupt(), "{error}");
    }
}
