//! What can't be done here is done by a job: what was begun, what would wait, what is unknown, what
//! fails, what is large.

use std::{io::ErrorKind, time::Duration};

use highwater::{
    Lsn,
    simulation::{Disk, Event, Faults, Op},
};
use tracing::{Level, Metadata, Subscriber, span};

use crate::{
    Watched, here_count, nonblocking_count, poll_times, promising,
    support::{cause, reached, records, small, within},
};

const EIO: i32 = 5;

/// The first try comes to nothing, as `plan` says; the mark moves when a job has written all of it.
async fn completed_by_the_pool(plan: impl Fn(&Faults)) {
    let (disk, faults) = promising();
    let wal = small().open_with(faults.over(disk.clone()).on_pool()).await.unwrap();
    let first = wal.append(b"in place").await.unwrap();
    assert_eq!(nonblocking_count(&faults), 1, "{:?}", faults.events());
    let before = wal.watermarks().written;
    plan(&faults);
    let gate = faults.on(Op::Write).once().gate();
    let mut append = Box::pin(wal.append(b"it takes a job to write all of this"));
    // Once for those that may go first.
    poll_times(&mut append, 2);
    reached(&gate, 1).await;
    poll_times(&mut append, 3);
    assert_eq!(wal.watermarks().written, before, "nothing more is written");
    gate.open();
    let second = within("the append", append).await.unwrap();
    assert!(wal.watermarks().written > second);
    let payload = b"it takes a job to write all of this".to_vec();
    assert_eq!(records(&wal).await, [(first, b"in place".to_vec()), (second, payload.clone())]);
    // And what is on the disk is what was read from the cache.
    wal.sync().await.unwrap();
    wal.close().await.unwrap();
    let wal = small().open_with(disk.crash(highwater::simulation::Survival::Nothing)).await;
    assert_eq!(records(&wal.unwrap()).await[1], (second, payload));
}

#[tokio::test]
async fn a_short_write_is_completed_by_the_pool_and_the_mark_moves_only_then() {
    for bytes in [0, 1, 8, 16, 17, 40] {
        completed_by_the_pool(|faults| faults.on(Op::WriteNonblocking).once().short(bytes)).await;
    }
}

#[tokio::test]
async fn what_would_wait_is_written_by_the_pool() {
    for kind in [ErrorKind::WouldBlock, ErrorKind::Interrupted, ErrorKind::StorageFull] {
        completed_by_the_pool(|faults| faults.on(Op::WriteNonblocking).once().fail(kind)).await;
    }
}

#[tokio::test]
async fn what_the_storage_cannot_promise_is_asked_of_it_once() {
    let (disk, faults) = promising();
    faults.on(Op::WriteNonblocking).skip(2).fail(ErrorKind::Unsupported);
    let wal = small().open_with(faults.over(disk).on_pool()).await.unwrap();
    for i in 0..40u8 {
        within("append", wal.append(&[i; 20])).await.unwrap();
    }
    let failed = |event: &Event| matches!(event, Event::Failed { op: Op::WriteNonblocking, .. });
    assert_eq!((nonblocking_count(&faults), faults.count(failed)), (2, 1));
    assert_eq!(records(&wal).await.len(), 40);
}

/// An error of a write that doesn't wait is a job's to find again; then it stops the log.
#[tokio::test]
async fn an_error_in_place_is_a_jobs_to_find_again() {
    let (disk, faults) = promising();
    let wal = small().open_with(faults.over(disk).on_pool()).await.unwrap();
    let kept = wal.append(b"before").await.unwrap();
    faults.on(Op::WriteNonblocking).fail_os(EIO);
    faults.on(Op::Write).fail_os(EIO);
    let error = within("append", wal.append(b"x")).await.unwrap_err();
    assert!(cause(&error).contains("writing"), "{error}");
    assert!(wal.append(b"y").await.unwrap_err().is_poisoned());
    faults.heal();
    assert_eq!(wal.read(kept).await.unwrap().payload, "before");
}

/// A plain write that fails on a task stops the log there and then.
#[tokio::test]
async fn a_plain_write_that_fails_in_place_stops_the_log() {
    let (faults, disk) = (Faults::new(), Disk::new(1));
    let options = small().inline_writes(4096);
    let wal = options.open_with(faults.over(disk).on_pool()).await.unwrap();
    wal.append(b"before").await.unwrap();
    faults.clear();
    faults.on(Op::Write).once().fail_os(EIO);
    let error = within("append", wal.append(b"x")).await.unwrap_err();
    assert!(cause(&error).contains("writing"), "{error}");
    assert!(within("sync", wal.sync()).await.unwrap_err().is_poisoned());
    assert_eq!(faults.count(|event| matches!(event, Event::Wrote(_))), 0, "nothing behind it");
}

/// Takes its time where the log says that it has stopped.
struct Slow;

impl Subscriber for Slow {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn event(&self, _: &tracing::Event<'_>) {
        std::thread::sleep(Duration::from_millis(60));
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// A sync job waits for the writer's lock while an append fails in place under it: what the job finds
/// is a stopped log, however long it takes to tell everybody.
#[tokio::test]
async fn no_job_writes_after_a_write_that_failed_in_place() {
    let (faults, disk) = (Faults::new(), Disk::new(1));
    let options = small().inline_writes(4096);
    let wal = options.open_with(faults.over(disk).on_pool()).await.unwrap();
    wal.append_and_sync(b"before").await.unwrap();
    crate::support::settled(&wal).await;
    let gate = faults.on(Op::Write).once().gate();
    faults.on(Op::Write).once().fail_os(EIO);
    let appending = std::thread::spawn({
        let wal = wal.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            tracing::subscriber::with_default(Slow, || runtime.block_on(wal.append(b"fails")))
        }
    });
    reached(&gate, 1).await;
    let mut sync = Box::pin(wal.sync());
    poll_times(&mut sync, 1);
    // The job gets to the door.
    tokio::time::sleep(Duration::from_millis(20)).await;
    faults.clear();
    gate.open();
    let synced = within("sync", sync).await;
    assert!(synced.unwrap_err().is_poisoned());
    assert!(appending.join().unwrap().unwrap_err().is_poisoned());
    let wrote = |event: &Event| matches!(event, Event::Wrote(_));
    assert_eq!(faults.count(wrote), 0, "{:?}", faults.events());
}

/// Everything that an append can meet, and all of it read back: records and batches of all sizes,
/// those larger than the ring, and rotations.
#[tokio::test]
async fn whatever_the_size_nothing_is_lost() {
    for (inline_bytes, is_promising) in [(0, true), (64, true), (4096, false), (1 << 20, false)] {
        let (disk, faults) = promising();
        disk.set_nonblocking_writes(is_promising);
        let (storage, seen) = Watched::new(faults.over(disk.clone()).on_pool());
        let options = small().inline_writes(inline_bytes);
        let wal = options.open_with(storage).await.unwrap();
        let mut expected: Vec<(Lsn, Vec<u8>)> = Vec::new();
        for i in 0..300usize {
            let payload = vec![i as u8; i * 131 % 700];
            match i % 25 {
                24 => {
                    let large = vec![i as u8; 3000 + i];
                    expected.push((within("large", wal.append(&large)).await.unwrap(), large));
                }
                3 | 11 => {
                    let batch = [payload.clone(), vec![7; 9]];
                    let lsns = within("batch", wal.append_batch(&batch)).await.unwrap();
                    let second =
                        lsns.start.as_u64() + 16 + payload.len().next_multiple_of(8) as u64;
                    expected.push((lsns.start, payload));
                    expected.push((Lsn::new(second), vec![7; 9]));
                }
                _ => {
                    expected.push((within("append", wal.append(&payload)).await.unwrap(), payload))
                }
            }
        }
        assert_eq!(records(&wal).await, expected);
        assert!(wal.stats().rotation_count > 3);
        let here = here_count(&seen);
        assert!(here > 150, "{here} of 300 appends wrote themselves");
        wal.close().await.unwrap();
        let again = small().open_with(disk.crash(highwater::simulation::Survival::Nothing)).await;
        assert_eq!(records(&again.unwrap()).await, expected);
    }
}
