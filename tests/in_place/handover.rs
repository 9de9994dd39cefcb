//! Writes that an append hands over to a job: short, blocking, unsupported, failed and large ones.

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

/// The inline write fails according to `plan`. The mark moves only after a job has
/// written everything.
async fn check_completed_by_job(plan: impl Fn(&Faults)) {
    let (disk, faults) = promising();
    let wal = small().open_with(faults.over(disk.clone()).on_pool()).await.unwrap();
    let first = wal.append(b"in place").await.unwrap();
    assert_eq!(nonblocking_count(&faults), 1, "{:?}", faults.events());
    let before = wal.watermarks().written;
    plan(&faults);
    let gate = faults.on(Op::Write).once().gate();
    let mut append = Box::pin(wal.append(b"it takes a job to write all of this"));
    // The first poll yields, the second one writes.
    poll_times(&mut append, 2);
    reached(&gate, 1).await;
    poll_times(&mut append, 3);
    assert_eq!(wal.watermarks().written, before, "`written` must not move");
    gate.open();
    let second = within("the append", append).await.unwrap();
    assert!(wal.watermarks().written > second);
    let payload = b"it takes a job to write all of this".to_vec();
    assert_eq!(records(&wal).await, [(first, b"in place".to_vec()), (second, payload.clone())]);
    // The bytes on the disk equal those read from the cache.
    wal.sync().await.unwrap();
    wal.close().await.unwrap();
    let wal = small().open_with(disk.crash(highwater::simulation::Survival::Nothing)).await;
    assert_eq!(records(&wal.unwrap()).await[1], (second, payload));
}

#[tokio::test]
async fn short_inline_write_is_completed_by_job() {
    for bytes in [0, 1, 8, 16, 17, 40] {
        check_completed_by_job(|faults| faults.on(Op::WriteNonblocking).once().short(bytes)).await;
    }
}

#[tokio::test]
async fn blocking_inline_write_is_done_by_job() {
    for kind in [ErrorKind::WouldBlock, ErrorKind::Interrupted, ErrorKind::StorageFull] {
        check_completed_by_job(|faults| faults.on(Op::WriteNonblocking).once().fail(kind)).await;
    }
}

#[tokio::test]
async fn unsupported_inline_write_is_tried_once() {
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

/// A job repeats a nonblocking write that failed. Its error poisons the log.
#[tokio::test]
async fn failed_inline_write_is_repeated_by_job() {
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

/// A blocking inline write that fails poisons the log at once.
#[tokio::test]
async fn failed_blocking_inline_write_poisons_log() {
    let (faults, disk) = (Faults::new(), Disk::new(1));
    let options = small().inline_writes(4096);
    let wal = options.open_with(faults.over(disk).on_pool()).await.unwrap();
    wal.append(b"before").await.unwrap();
    faults.clear();
    faults.on(Op::Write).once().fail_os(EIO);
    let error = within("append", wal.append(b"x")).await.unwrap_err();
    assert!(cause(&error).contains("writing"), "{error}");
    assert!(within("sync", wal.sync()).await.unwrap_err().is_poisoned());
    assert_eq!(faults.count(|event| matches!(event, Event::Wrote(_))), 0, "no write may follow");
}

/// A subscriber that delays the log's error event.
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

/// A sync job waits for the writer's lock while an inline write fails. The job must then find a
/// poisoned log, even if the failing append is slow to report.
#[tokio::test]
async fn failed_inline_write_stops_jobs() {
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
    // Gives the job time to reach the lock.
    tokio::time::sleep(Duration::from_millis(20)).await;
    faults.clear();
    gate.open();
    let synced = within("sync", sync).await;
    assert!(synced.unwrap_err().is_poisoned());
    assert!(appending.join().unwrap().unwrap_err().is_poisoned());
    let wrote = |event: &Event| matches!(event, Event::Wrote(_));
    assert_eq!(faults.count(wrote), 0, "{:?}", faults.events());
}

/// All kinds of appends, read back: records and batches of all sizes, some larger than the ring,
/// with rotations.
#[tokio::test]
async fn inline_appends_of_all_sizes_are_read_back() {
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
        // Fewer on a busy machine, where a job of the log often holds the lock.
        assert!(here > 20, "{here} of 300 appends wrote inline");
        wal.close().await.unwrap();
        let again = small().open_with(disk.crash(highwater::simulation::Survival::Nothing)).await;
        assert_eq!(records(&again.unwrap()).await, expected);
    }
}
