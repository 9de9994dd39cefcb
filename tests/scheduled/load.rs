//! Random tasks that use and drop all calls, and the check of the log afterwards.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    task::Poll,
};

use futures::TryStreamExt;
use highwater::{
    Error, InlineSyncs, Lsn, Options, Record, Result, Wal, Watermarks, storage::Storage,
};
use shuttle::{
    future::yield_now,
    rand::{Rng, thread_rng},
};

/// The state of a record as its task knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    /// Its future was dropped or failed: the record is complete or absent.
    Nothing,
    /// Its position is known.
    Ordered,
    Written,
    Synced,
}

/// A record or batch that a task tried to append.
#[derive(Debug)]
pub(crate) struct Attempt {
    payloads: Vec<Vec<u8>>,
    lsn: Option<Lsn>,
    promise: Promise,
}

/// Returns options with the smallest ring and segments. One log in two writes small records inline,
/// one in four syncs inline.
pub(crate) fn small() -> Options {
    let inline_bytes = [0, 0, 150, 4096][thread_rng().gen_range(0..4)];
    let options = Wal::options().ring_bytes(1 << 10).segment_bytes(8 << 10);
    let syncs_inline = thread_rng().gen_range(0..4) == 0;
    let inline_syncs = if syncs_inline { InlineSyncs::Always } else { InlineSyncs::Never };
    options.inline_writes(inline_bytes).inline_syncs(inline_syncs)
}

/// Opens a log as soon as the last job of the previous handle has freed the lock.
pub(crate) async fn open_when_free<S: Storage + Clone>(storage: &S) -> Wal {
    loop {
        match small().open_with(storage.clone()).await {
            Err(Error::Locked { .. }) => yield_now().await,
            opened => return opened.expect("the log must open"),
        }
    }
}

pub(crate) async fn records(wal: &Wal) -> Vec<(Lsn, Vec<u8>)> {
    let all: Vec<Record> = wal.replay(..).try_collect().await.expect("the log must replay");
    all.into_iter().map(|record| (record.lsn, record.payload.to_vec())).collect()
}

/// Polls `future` a random number of times, and drops it some time later.
async fn perhaps<T>(future: impl Future<Output = T>) -> Option<T> {
    if thread_rng().gen_range(0..3) > 0 {
        return Some(future.await);
    }
    let mut polls = thread_rng().gen_range(0..4);
    let mut future = Box::pin(future);
    let result = poll_fn(|context| {
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if polls == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    let result = result.await;
    if result.is_none() {
        for _ in 0..thread_rng().gen_range(0..3) {
            yield_now().await;
        }
    }
    result
}

/// Runs `op_count` random operations. Errors for which `is_fine` holds are allowed.
pub(crate) async fn work(
    wal: Wal,
    task: u8,
    op_count: u8,
    is_fine: fn(&Error) -> bool,
) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for op in 0..op_count {
        let mut attempt =
            Attempt { payloads: vec![payload(task, op, 0)], lsn: None, promise: Promise::Nothing };
        match operate(&wal, task, op, &mut attempt).await {
            Ok(()) => {}
            Err(error) if is_fine(&error) => {}
            Err(error) => panic!("task {task}, operation {op}: {error}"),
        }
        attempts.push(attempt);
    }
    attempts
}

/// Returns a unique payload; one in eight is larger than the ring.
fn payload(task: u8, op: u8, part: u8) -> Vec<u8> {
    let mut rng = thread_rng();
    let bytes = if rng.gen_range(0..8) == 0 { 1200 } else { rng.gen_range(0..300) };
    let mut payload = vec![0xa0 | task; bytes + 4];
    payload[..4].copy_from_slice(&[b'#', task, op, part]);
    payload
}

async fn operate(wal: &Wal, task: u8, op: u8, attempt: &mut Attempt) -> Result<()> {
    use Promise::{Ordered, Synced, Written};
    let first = attempt.payloads[0].clone();
    let mut promised = |lsn, promise| {
        attempt.lsn = Some(lsn);
        attempt.promise = promise;
    };
    match thread_rng().gen_range(0..8) {
        0 => {
            if let Some(lsn) = perhaps(wal.append(&first)).await {
                promised(lsn?, Written);
            }
        }
        1 => {
            if let Some(lsn) = perhaps(wal.append_and_sync(&first)).await {
                promised(lsn?, Synced);
            }
        }
        2 => {
            let ticket = wal.enqueue(&first).await?;
            promised(ticket.lsn(), Ordered);
            if let Some(written) = perhaps(ticket.written()).await {
                written?;
                promised(ticket.lsn(), Written);
            }
        }
        3 => {
            let ticket = wal.enqueue(first).await?;
            promised(ticket.lsn(), Ordered);
            if let Some(synced) = perhaps(ticket.synced()).await {
                synced?;
                promised(ticket.lsn(), Synced);
            }
        }
        4 => {
            if let Some(lsn) = perhaps(wal.append(&first)).await {
                let lsn = lsn?;
                promised(lsn, Written);
                wal.sync_to(lsn).await?;
                promised(lsn, Synced);
            }
        }
        5 => match wal.try_enqueue(&first) {
            Ok(ticket) => promised(ticket.lsn(), Ordered),
            Err(Error::Full) => {}
            Err(error) => return Err(error),
        },
        6 => {
            attempt.payloads.extend((1..3).map(|part| payload(task, op, part)));
            let payloads = attempt.payloads.clone();
            if let Some(lsns) = perhaps(wal.append_batch(payloads)).await {
                attempt.lsn = Some(lsns?.start);
                attempt.promise = Written;
            }
        }
        _ => {
            attempt.payloads.clear();
            if let Some(synced) = perhaps(wal.sync()).await {
                assert!(synced? <= wal.watermarks().synced);
            }
        }
    }
    Ok(())
}

/// Checks the order of the marks `count` times.
pub(crate) async fn look(wal: Wal, count: usize) {
    let mut last = wal.watermarks();
    for _ in 0..count {
        yield_now().await;
        last = in_order(last, wal.watermarks());
    }
}

/// Watches the marks until the log ends.
pub(crate) async fn watch(wal: Wal) {
    let mut watching = wal.watch();
    drop(wal);
    let mut last = watching.get();
    while let Ok(now) = watching.changed().await {
        last = in_order(last, now);
    }
}

fn in_order(before: Watermarks, now: Watermarks) -> Watermarks {
    assert!(now.first <= now.synced && now.synced <= now.written, "{now:?}");
    assert!(now.written <= now.reserved, "{now:?}");
    assert!(before.synced <= now.synced && before.written <= now.written, "{before:?} {now:?}");
    assert!(before.reserved <= now.reserved, "{before:?} {now:?}");
    now
}

/// Compares `found` with all attempts. Records with at least the promise `at_least` are there. Of
/// the others each unit is complete or absent. No record is duplicate or out of order.
pub(crate) fn verify(found: &[(Lsn, Vec<u8>)], tasks: &[Vec<Attempt>], at_least: Promise) {
    assert!(found.is_sorted_by(|a, b| a.0 < b.0), "records must be in order");
    let places: BTreeMap<&[u8], usize> =
        found.iter().enumerate().map(|(place, (_, payload))| (&payload[..], place)).collect();
    assert_eq!(places.len(), found.len(), "a record came twice");
    let mut known = 0;
    for attempts in tasks {
        let mut last = None;
        for attempt in attempts {
            let here: Vec<_> =
                attempt.payloads.iter().filter_map(|payload| places.get(&payload[..])).collect();
            known += here.len();
            let Some(&&place) = here.first() else {
                let is_missing = attempt.promise >= at_least && !attempt.payloads.is_empty();
                assert!(!is_missing, "lost: {:?}, {:?}", attempt.lsn, attempt.promise);
                continue;
            };
            assert_eq!(here.len(), attempt.payloads.len(), "a batch is incomplete");
            assert!(
                here.iter().enumerate().all(|(i, other)| **other == place + i),
                "a batch is torn"
            );
            assert!(
                attempt.lsn.is_none_or(|lsn| found[place].0 == lsn),
                "a record is at another LSN than returned"
            );
            assert!(last < Some(place), "a task's records must be in order");
            last = Some(place);
        }
    }
    assert_eq!(known, found.len(), "a record was never appended");
}
