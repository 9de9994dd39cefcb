//! What happens when the device, or the caller, is wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on panics"
)]

mod support;

use std::{fs, io::ErrorKind, path::Path, process::Command};

use futures::{StreamExt, TryStreamExt, future::join_all};
use highwater::{
    Error, Lsn, Wal, Warning,
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

/// Everything that can wait, waiting at once when the operation behind `gated` fails.
async fn poison_with_everybody_waiting(gated: Op, arm: impl Fn(&Faults), code: Option<i32>) {
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
    let (answers, ()) =
        within("somebody waits for ever", async { tokio::join!(waiting, release) }).await;
    let first = within("the first waits for ever", first).await.unwrap().unwrap_err();
    let text = cause(&first);
    if let Some(code) = code {
        assert!(text.contains(&std::io::Error::from_raw_os_error(code).to_string()), "{text}");
    }
    assert!(text.contains("00001.wal"), "the cause says where: {text}");

    let (append, batch, written, synced, sync, sync_to, wait, enqueue, others) = answers;
    for (who, answer) in
        [("ticket.synced", synced), ("sync", sync), ("sync_to", sync_to), ("wait_synced", wait)]
    {
        assert_eq!(cause(&answer.expect_err(who)), text, "{who}");
    }
    for other in others {
        assert_eq!(cause(&other.unwrap_err()), text, "one of the group");
    }
    if gated == Op::Write {
        for (who, answer) in
            [("append", append), ("append_batch", batch), ("ticket.written", written)]
        {
            assert_eq!(cause(&answer.expect_err(who)), text, "{who}");
        }
        let first_end = before.written.as_u64() + MARK_BYTES + 16 + 104;
        assert!(wal.watermarks().written.as_u64() < first_end, "nothing counts as written");
    } else {
        for answer in [append, batch, written, enqueue] {
            // What was written while the sync ran is written.
            assert!(answer.is_ok() || cause(&answer.unwrap_err()) == text);
        }
    }
    assert_eq!(wal.watermarks().synced, before.synced, "nothing counts as synced");

    faults.heal();
    let later: Vec<highwater::Result<()>> = within("a stopped log still answers", async {
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
    for (i, answer) in later.into_iter().enumerate() {
        assert_eq!(cause(&answer.expect_err("healed devices heal no log")), text, "call {i}");
    }
    for (lsn, payload) in &acknowledged {
        assert_eq!(wal.read(*lsn).await.unwrap().payload, payload, "reading goes on");
    }
    assert!(records(&wal).await.starts_with(&acknowledged));
    assert_eq!(cause(&within("close", wal.close()).await.unwrap_err()), text);

    let again = open_when_free(|| memory.clone()).await;
    assert!(records(&again).await.starts_with(&acknowledged), "all that was acknowledged");
    again.append_and_sync(b"and on").await.unwrap();
}

#[tokio::test]
async fn a_failed_write_stops_the_log_and_answers_everybody() {
    poison_with_everybody_waiting(
        Op::Write,
        |faults| faults.on(Op::Write).once().fail_os(EIO),
        Some(EIO),
    )
    .await;
}

#[tokio::test]
async fn a_full_device_after_a_reservation_stops_the_log() {
    let full = |faults: &Faults| faults.on(Op::Write).once().fail(ErrorKind::StorageFull);
    poison_with_everybody_waiting(Op::Write, full, None).await;
}

#[tokio::test]
async fn a_write_that_is_short_for_good_stops_the_log() {
    let short = |faults: &Faults| {
        faults.on(Op::Write).once().short(5);
        faults.on(Op::Write).once().short(0);
    };
    poison_with_everybody_waiting(Op::Write, short, None).await;
}

#[tokio::test]
async fn a_failed_sync_stops_the_log_and_answers_everybody() {
    poison_with_everybody_waiting(
        Op::Sync,
        |faults| faults.on(Op::Sync).once().fail_os(EIO),
        Some(EIO),
    )
    .await;
}

#[tokio::test]
async fn a_failed_directory_sync_stops_the_log() {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let wal = small().open_with(faults.over(memory.clone()).on_pool()).await.unwrap();
    let kept = wal.append_and_sync(b"kept").await.unwrap();
    faults.on(Op::SyncDir).once().fail_os(EIO);
    let stopped = async {
        loop {
            if let Err(error) = wal.append_and_sync(&[7; 500]).await {
                break error;
            }
        }
    };
    assert!(cause(&within("stopping", stopped).await).contains("syncing the directory"));
    assert_eq!(wal.read(kept).await.unwrap().payload, "kept");
    within("close", wal.close()).await.unwrap_err();
    let again = open_when_free(|| memory.clone()).await;
    assert_eq!(again.read(kept).await.unwrap().payload, "kept");
}

/// Two jobs may be at the writer's door when the first one fails: the second must not write what
/// the first could not, and call it written.
#[tokio::test]
async fn no_other_job_writes_after_a_failed_write() {
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
        // The second job needs a moment to get to the door; that it does is not asserted.
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

/// A job of the stopped log may still be at work, and then the lock is still held: `close` must
/// not come back before it is free.
#[tokio::test]
async fn closing_a_stopped_log_frees_its_lock() {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let storage = faults.over(memory.clone()).on_pool();
    let wal = small().open_with(storage).await.unwrap();
    let gate = faults.on(Op::Sync).once().gate();
    let mut hanging = Box::pin(wal.append_and_sync(b"x"));
    assert!(futures::poll!(&mut hanging).is_pending());
    reached(&gate, 1).await;
    faults.on(Op::Write).once().fail_os(EIO);
    within("append", wal.append(b"y")).await.unwrap_err();
    within("the sync that hangs", hanging).await.unwrap_err();
    let mut close = Box::pin(wal.close());
    let early = tokio::time::timeout(std::time::Duration::from_millis(50), &mut close).await;
    let reopened = small().open_with(memory.clone()).await.map(drop);
    assert!(early.is_err() || reopened.is_ok(), "closed, says {early:?}, and yet: {reopened:?}");
    gate.open();
    if early.is_err() {
        within("close", close).await.unwrap_err();
    }
    small().open_with(memory).await.expect("closed");
}

#[tokio::test]
async fn those_who_watch_are_told_that_the_log_has_stopped() {
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
    watching.mark_unchanged();
    gate.open();
    append.await.unwrap().unwrap_err();
    // Whatever the way it is told: a closed channel or a change.
    let told = within("a watcher of a stopped log", watching.changed()).await;
    drop(told);
}

/// fsyncgate: the second call of the kernel would answer Ok for pages that are gone.
#[tokio::test]
async fn a_failed_sync_is_never_tried_again() {
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
    assert_eq!(faults.events(), [], "a stopped log touches its files no more");

    let again = open_when_free(|| faults.over(memory.clone())).await;
    let report = again.recovery();
    assert_eq!(report.rewritten_bytes, report.end.as_u64(), "what was not synced is written anew");
    assert_eq!(records(&again).await[0].1, b"in the page cache");
}

#[tokio::test]
async fn a_group_fails_as_a_whole() {
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
    leader.await.unwrap().expect("its own sync was fine");
    for answer in within("the group", group).await {
        cause(&answer.unwrap_err());
    }
}

/// Each step of preparing a segment can find the device full.
#[tokio::test]
async fn a_full_device_is_found_before_anything_is_reserved_and_heals() {
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
            within("sync", wal.sync()).await.expect("what is there can be synced");
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
async fn a_full_device_heals_also_for_those_who_never_wait() {
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
    within("nobody asks for the next segment: try_enqueue", healed).await;
}

#[tokio::test]
async fn a_log_on_a_full_device_can_be_closed() {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let wal = small().open_with(faults.over(memory.clone())).await.unwrap();
    faults.on(Op::Create).fail(ErrorKind::StorageFull);
    let mut lsns = Vec::new();
    while let Ok(lsn) = wal.append_and_sync(&[5; 1000]).await {
        lsns.push(lsn);
    }
    within("close", wal.close()).await.expect("there is room for the close");
    let again = small().open_with(memory).await.unwrap();
    assert_eq!(records(&again).await.len(), lsns.len());
}

/// The record of the close is one more frame: room for it is kept back from the appends.
#[tokio::test]
async fn a_log_that_fills_its_segment_on_a_full_device_can_be_closed() {
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
    closed.expect("there is room for the close");
}

#[tokio::test]
async fn an_unreadable_place_ends_a_replay_with_where_it_is() {
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
    assert!(count > 10, "the first segment was given");
    assert!(replay.next().await.is_none(), "the stream has ended");
    assert!(matches!(wal.read(lsns[count]).await, Err(Error::Io { .. })));
    assert!(wal.append_and_sync(b"on").await.is_ok(), "reading stops no log");
    faults.heal();
    assert_eq!(records(&wal).await.len(), lsns.len() + 1);
}

#[tokio::test]
async fn an_unreadable_log_is_refused_and_left_alone() {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let wal = small().open_with(memory.clone()).await.unwrap();
    let lsn = wal.append_and_sync(b"kept").await.unwrap();
    drop(wal);
    // Reads: the header, and then whatever the search for the end takes.
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
async fn interrupted_and_short_calls_are_nobodys_business() {
    for on_pool in [false, true] {
        let (memory, faults) = (MemoryStorage::new(), Faults::new());
        for op in [Op::Read, Op::Write] {
            for n in 0..400u64 {
                let often = faults.on(op).skip(2 * n).once();
                if n % 3 == 0 {
                    often.fail(ErrorKind::Interrupted);
                } else {
                    often.short(usize::try_from(1 + n * 7 % 90).unwrap());
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

/// `fallocate` answers EINTR where signals are many (profilers, Go, PostgreSQL know it).
#[tokio::test]
async fn an_interrupted_reservation_of_space_is_tried_again() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new())).await.unwrap();
    faults.on(Op::Resize).times(2).fail(ErrorKind::Interrupted);
    while wal.stats().segment_count < 2 {
        wal.append(&[1; 300]).await.expect("an interruption is no failure");
    }
}

#[tokio::test]
async fn options_that_cannot_work_are_named_before_anything_is_touched() {
    let faults = Faults::new();
    let options = [
        ("segment_bytes", Wal::options().segment_bytes(0)),
        ("segment_bytes", Wal::options().segment_bytes(u64::MAX)),
        ("ring_bytes", Wal::options().ring_bytes(0)),
        ("ring_bytes", Wal::options().ring_bytes(u64::MAX)),
        ("record_bytes_max", Wal::options().record_bytes_max(0)),
        ("record_bytes_max", Wal::options().record_bytes_max(u64::MAX)),
        ("batch_bytes_max", Wal::options().batch_bytes_max(0)),
        ("batch_bytes_max", Wal::options().batch_bytes_max(u64::MAX)),
    ];
    for (name, options) in options {
        let opened = options.open_with(faults.over(MemoryStorage::new())).await;
        let Err(Error::InvalidOption { option, .. }) = opened else {
            panic!("{name}: {opened:?}");
        };
        assert_eq!(option, name);
    }
    assert_eq!(faults.events(), []);
    let odd = Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 30).record_bytes_max(1);
    let wal = odd.open_with(MemoryStorage::new()).await.expect("unusual, and it works");
    wal.append_and_sync(b"x").await.unwrap();
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_file_is_no_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, b"precious").unwrap();
    for path in [path.clone(), path.join("below")] {
        let error = Wal::open(&path).await.unwrap_err();
        assert!(
            matches!(&error, Error::Io { path: named, .. } if named.contains("file")),
            "{error}"
        );
    }
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn a_directory_of_somebody_elses_files_is_no_log_and_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("thesis.txt"), b"precious").unwrap();
    let error = Wal::open(directory.path()).await.unwrap_err();
    assert!(matches!(&error, Error::NotALog { found, .. } if found == "thesis.txt"), "{error}");
    assert_eq!(names(directory.path()), ["thesis.txt"], "nothing was changed");
}

#[tokio::test]
async fn a_foreign_file_beside_a_log_is_a_warning() {
    let directory = tempfile::tempdir().unwrap();
    let wal = small().open(directory.path()).await.unwrap();
    let lsn = wal.append(b"x").await.unwrap();
    wal.close().await.unwrap();
    fs::write(directory.path().join("notes.txt"), b"precious").unwrap();
    let wal = small().open(directory.path()).await.unwrap();
    let warning = Warning::ForeignFile { name: "notes.txt".to_owned() };
    assert_eq!(wal.recovery().warnings, [warning]);
    assert_eq!(wal.read(lsn).await.unwrap().payload, "x");
    wal.close().await.unwrap();
    assert_eq!(fs::read(directory.path().join("notes.txt")).unwrap(), b"precious");
}

#[tokio::test]
async fn a_second_handle_is_kept_out_and_told_by_whom() {
    let directory = tempfile::tempdir().unwrap();
    let wal = small().open(directory.path()).await.unwrap();
    let error = small().open(directory.path()).await.unwrap_err();
    assert!(
        matches!(error, Error::Locked { owner_pid: Some(pid), .. } if pid == std::process::id()),
        "{error}"
    );
    wal.append_and_sync(b"unharmed").await.unwrap();

    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "as_a_child_it_opens_the_log", "--ignored", "--nocapture"])
        .env("HIGHWATER_TEST_LOG", directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(said.contains(&format!("Locked by {}", std::process::id())), "{said}");
    assert_eq!(records(&wal).await.len(), 1);
}

#[tokio::test]
#[ignore = "the other process of a_second_handle_is_kept_out_and_told_by_whom"]
async fn as_a_child_it_opens_the_log() {
    let path = std::env::var("HIGHWATER_TEST_LOG").unwrap();
    match small().open(path).await {
        Err(Error::Locked { owner_pid: Some(pid), .. }) => println!("Locked by {pid}"),
        other => println!("{other:?}"),
    }
}

#[tokio::test]
async fn positions_that_are_no_records_are_told_apart() {
    for on_pool in [false, true] {
        let storage = Faults::new().over(MemoryStorage::new());
        let wal =
            small().open_with(if on_pool { storage.on_pool() } else { storage }).await.unwrap();
        let empty = [wal.read(Lsn::ZERO).await.map(drop), wal.sync_to(Lsn::ZERO).await];
        assert!(
            empty.iter().all(|answer| matches!(answer, Err(Error::OutOfRange { .. }))),
            "{empty:?}"
        );
        let first = wal.append(&[0x11; 100]).await.unwrap();
        let second = wal.append_and_sync(b"second").await.unwrap();
        let end = wal.watermarks().reserved;
        for lsn in first.as_u64() + 1..second.as_u64() {
            let answer = within("read", wal.read(Lsn::new(lsn))).await;
            assert!(matches!(answer, Err(Error::NotABoundary { .. })), "{lsn}: {answer:?}");
        }
        for lsn in [end, Lsn::new(end.as_u64() + 8), Lsn::new(u64::MAX - 7), Lsn::new(u64::MAX)] {
            let answer = within("read", wal.read(lsn)).await;
            assert!(matches!(answer, Err(Error::OutOfRange { .. })), "{lsn}: {answer:?}");
            let answer = within("sync_to", wal.sync_to(lsn)).await;
            assert!(matches!(answer, Err(Error::OutOfRange { .. })), "{lsn}: {answer:?}");
        }
        let from_within: Result<Vec<_>, _> =
            wal.replay(Lsn::new(first.as_u64() + 8)..).try_collect().await;
        assert!(matches!(from_within, Err(Error::NotABoundary { .. })), "{from_within:?}");
        let past: Result<Vec<_>, _> = wal.replay(Lsn::new(u64::MAX - 7)..).try_collect().await;
        assert!(matches!(past, Err(Error::OutOfRange { .. })), "{past:?}");
        assert_eq!(wal.read(second).await.unwrap().payload, "second");
    }
}

#[tokio::test]
async fn what_is_too_large_reserves_nothing_and_what_is_empty_is_fine() {
    let memory = MemoryStorage::new();
    let options = || small().record_bytes_max(3000).batch_bytes_max(5000);
    let wal = options().open_with(memory.clone()).await.unwrap();
    let before = wal.watermarks();
    let large = vec![1; 3001];
    let answers = [
        wal.append(&large).await.map(drop),
        wal.append_and_sync(&large).await.map(drop),
        wal.enqueue(&large).await.map(drop),
        wal.try_enqueue(&large).map(drop),
        wal.append_batch([&[1u8; 10][..], &large]).await.map(drop),
    ];
    for answer in answers {
        assert!(
            matches!(answer, Err(Error::RecordTooLarge { bytes: 3001, max: 3000 })),
            "{answer:?}"
        );
    }
    let answer = wal.append_batch([&large[1..], &large[1..]]).await;
    assert!(matches!(answer, Err(Error::BatchTooLarge { max: 5000, .. })), "{answer:?}");
    let nothing = wal.append_batch(Vec::<&[u8]>::new()).await.unwrap();
    assert!(nothing.is_empty());
    assert_eq!(wal.watermarks(), before);

    let empty = wal.append_and_sync(b"").await.unwrap();
    let largest = wal.append_and_sync(&large[1..]).await.unwrap();
    wal.append_batch([b"", b""]).await.unwrap();
    drop(wal);
    let wal = options().open_with(memory).await.unwrap();
    let found = records(&wal).await;
    assert_eq!(found.len(), 4);
    assert_eq!(found[0], (empty, Vec::new()));
    assert_eq!(found[1], (largest, large[1..].to_vec()));
    assert!(found[2].1.is_empty() && found[3].1.is_empty());
}

#[cfg(unix)]
#[tokio::test]
async fn an_unwritable_directory_is_an_error_that_names_it() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("closed");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(path.join("probe"), b"").is_ok() {
        return; // Root may write anywhere.
    }
    let error = Wal::open(&path).await.unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path.contains("closed")), "{error}");
}

/// The same over real files: the decorator sees all of it, and a failed sync fails.
#[tokio::test]
async fn a_failed_sync_of_real_files_stops_the_log() {
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
