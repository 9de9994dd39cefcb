//! Tasks that do what users do, in any order, and give up at any point; and what must be true of
//! the log afterwards.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    task::Poll,
};

use futures::TryStreamExt;
use highwater::{Error, Lsn, Options, Record, Result, Wal, Watermarks, storage::Storage};
use shuttle::{
    future::yield_now,
    rand::{Rng, thread_rng},
};

/// What has been promised of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    /// Its future was dropped, or failed: it is there whole or not at all.
    Nothing,
    /// It has its place.
    Ordered,
    Written,
    Synced,
}

/// One unit that a task tried to append.
#[derive(Debug)]
pub(crate) struct Attempt {
    payloads: Vec<Vec<u8>>,
    lsn: Option<Lsn>,
    promise: Promise,
}

/// The smallest ring and segments there can be. One log in two writes small ones in place, one in
/// four syncs there.
pub(crate) fn small() -> Options {
    let inline_bytes = [0, 0, 150, 4096][thread_rng().gen_range(0..4)];
    let options = Wal::options().ring_bytes(1 << 10).segment_bytes(8 << 10);
    options.inline_writes(inline_bytes).inline_syncs(thread_rng().gen_range(0..4) == 0)
}

/// Opens a log whose last job may still be ending.
pub(crate) async fn open_when_free<S: Storage + Clone>(storage: &S) -> Wal {
    loop {
        match small().open_with(storage.clone()).await {
            Err(Error::Locked { .. }) => yield_now().await,
            opened => return opened.expect("it opens"),
        }
    }
}

pub(crate) async fn records(wal: &Wal) -> Vec<(Lsn, Vec<u8>)> {
    let all: Vec<Record> = wal.replay(..).try_collect().await.expect("it can be replayed");
    all.into_iter().map(|record| (record.lsn, record.payload.to_vec())).collect()
}

/// Polls `future` as often as it pleases chance, and drops it some time later.
async fn perhaps<T>(future: impl Future<Output = T>) -> Option<T> {
    if thread_rng().gen_range(0..3) > 0 {
        return Some(future.await);
    }
    let mut polls = thread_rng().gen_range(0..4);
    let mut future = Box::pin(future);
    let answer = poll_fn(|context| {
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if polls == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    let answer = answer.await;
    if answer.is_none() {
        for _ in 0..thread_rng().gen_range(0..3) {
            yield_now().await;
        }
    }
    answer
}

/// A task of `op_count` operations. Errors for which `is_fine` holds are taken for an answer.
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

/// Different for each record; one in eight is larger than the ring.
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

/// Looks at the marks `count` times.
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
    let mut last = *watching.borrow_and_update();
    while watching.changed().await.is_ok() {
        last = in_order(last, *watching.borrow_and_update());
    }
}

fn in_order(before: Watermarks, now: Watermarks) -> Watermarks {
    assert!(now.first <= now.synced && now.synced <= now.written, "{now:?}");
    assert!(now.written <= now.reserved, "{now:?}");
    assert!(before.synced <= now.synced && before.written <= now.written, "{before:?} {now:?}");
    assert!(before.reserved <= now.reserved, "{before:?} {now:?}");
    now
}

/// What `found` is compared with: all that tasks tried. Of what was promised `at_least` so much all
/// is there; of the rest each unit is whole or not there; nothing is twice, or out of order.
pub(crate) fn verify(found: &[(Lsn, Vec<u8>)], tasks: &[Vec<Attempt>], at_least: Promise) {
    assert!(found.is_sorted_by(|a, b| a.0 < b.0), "the log's order");
    let places: BTreeMap<&[u8], usize> =
        found.iter().enumerate().map(|(place, (_, payload))| (&payload[..], place)).collect();
    assert_eq!(places.len(), found.len(), "a record is there twice");
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
            assert_eq!(here.len(), attempt.payloads.len(), "a part of a batch");
            assert!(here.iter().enumerate().all(|(i, other)| **other == place + i), "a torn batch");
            assert!(attempt.lsn.is_none_or(|lsn| found[place].0 == lsn), "not where it was said");
            assert!(last < Some(place), "a task's order");
            last = Some(place);
        }
    }
    assert_eq!(known, found.len(), "there is what nobody appended");
}
