//! Dropped futures: each call is dropped at every poll, and leaves its record whole or absent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    task::{Context, Waker},
    time::Duration,
};

use highwater::{
    Lsn, Wal,
    simulation::{Event, Faults, Gate, Op},
    storage::MemoryStorage,
};
use support::{
    PATIENCE, RING_PAYLOAD_BYTES, assert_ring_is_whole, poll_and_drop, reached, records, small,
    within,
};

/// A log on the blocking pool. One record fills its ring, and the write of that record is held.
struct Held {
    wal: Wal,
    memory: MemoryStorage,
    faults: Faults,
    writes: Gate,
    blocking: Lsn,
}

impl Held {
    async fn new() -> Self {
        let (memory, faults) = (MemoryStorage::new(), Faults::new());
        let wal = small().open_with(faults.over(memory.clone()).on_pool()).await.unwrap();
        // Holds only writes to the first segment, not the writes that prepare the spare.
        let is_first = |name: &str| name.ends_with("00001.wal");
        let writes = faults.on(Op::Write).file(is_first).gate();
        // Takes all permits. It starts at the ring's beginning, so that one write call suffices.
        let blocking =
            within("room", wal.enqueue(vec![1; RING_PAYLOAD_BYTES])).await.unwrap().lsn();
        reached(&writes, 1).await;
        Held { wal, memory, faults, writes, blocking }
    }

    /// Opens all gates and checks the log. Each group of `whole` is there completely or not at all,
    /// each record of `must` is there, and no record comes twice.
    async fn check(self, whole: &[&[&[u8]]], must: &[(Lsn, Vec<u8>)]) {
        let Held { wal, memory, faults, writes, blocking } = self;
        writes.open();
        faults.heal();
        within("sync", wal.sync()).await.unwrap();
        let found = records(&wal).await;
        let lsns: Vec<_> = found.iter().map(|(lsn, _)| *lsn).collect();
        assert!(lsns.is_sorted_by(|a, b| a < b), "{lsns:?}");
        assert!(lsns.contains(&blocking));
        for group in whole {
            let counts: BTreeSet<_> = group
                .iter()
                .map(|payload| found.iter().filter(|(_, other)| other == payload).count())
                .collect();
            assert!(
                counts.len() == 1 && counts.iter().all(|&count| count <= 1),
                "{group:?}: {counts:?}"
            );
        }
        for record in must {
            assert_eq!(found.iter().filter(|other| *other == record).count(), 1, "{record:?}");
        }
        assert_ring_is_whole(&wal).await;
        let found = records(&wal).await;
        within("close", wal.close()).await.unwrap();
        let again = small().open_with(memory).await.unwrap();
        assert_eq!(records(&again).await, found, "reopening must not change the records");
    }
}

/// The most polls a call needs: one for ring space, some for the result, and one spare.
const POLLS: usize = 5;

#[tokio::test]
async fn dropped_append_is_complete_or_absent() {
    let payload: &[u8] = b"perhaps";
    for polls in 0..=POLLS {
        let held = Held::new().await;
        let result = poll_and_drop(held.wal.append(payload), polls, |_| held.writes.allow(1));
        let must: Vec<_> = result.map(|lsn| (lsn.unwrap(), payload.to_vec())).into_iter().collect();
        // An append is pending for space, for its yield, and for the write.
        assert!(must.is_empty() || polls >= 3, "{polls}: returned too early");
        assert!(must.len() == 1 || polls < POLLS, "{polls}: did not return");
        let was_waiting = polls <= 1;
        let reserved = held.wal.watermarks().reserved;
        let blocking_end = held.blocking.as_u64() + 1024;
        assert_eq!(reserved.as_u64() == blocking_end, was_waiting, "{polls}: reserved or not");
        held.check(&[&[payload]], &must).await;
    }
}

#[tokio::test]
async fn dropped_append_and_sync_is_complete_or_absent() {
    let payload: &[u8] = b"perhaps";
    for polls in 0..=POLLS {
        let held = Held::new().await;
        let result =
            poll_and_drop(held.wal.append_and_sync(payload), polls, |_| held.writes.allow(1));
        let must: Vec<_> = result.map(|lsn| (lsn.unwrap(), payload.to_vec())).into_iter().collect();
        held.check(&[&[payload]], &must).await;
    }
}

#[tokio::test]
async fn dropped_enqueue_is_complete_or_absent() {
    let payload: &[u8] = b"perhaps";
    for polls in 0..=POLLS {
        let held = Held::new().await;
        let result = poll_and_drop(held.wal.enqueue(payload), polls, |_| held.writes.allow(1));
        let must: Vec<_> =
            result.map(|ticket| (ticket.unwrap().lsn(), payload.to_vec())).into_iter().collect();
        assert_eq!(must.len(), usize::from(polls >= 2));
        held.check(&[&[payload]], &must).await;
    }
}

#[tokio::test]
async fn dropped_batch_is_complete_or_absent() {
    // One batch goes through the ring, and one is larger than it.
    for size in [100, 700] {
        let parts: Vec<Vec<u8>> = (0..3u8).map(|i| vec![i + 10; size]).collect();
        let group: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        for polls in 0..=POLLS {
            let held = Held::new().await;
            let result =
                poll_and_drop(held.wal.append_batch(&parts), polls, |_| held.writes.allow(1));
            let must: Vec<_> =
                result.map(|lsns| (lsns.unwrap().start, parts[0].clone())).into_iter().collect();
            held.check(&[&group], &must).await;
        }
    }
}

#[tokio::test]
async fn dropped_large_append_is_complete_or_absent() {
    // The smaller one fits into the segment; the larger one needs its own.
    for size in [3000, 20_000] {
        let payload = vec![5; size];
        for polls in 0..=POLLS {
            let held = Held::new().await;
            let result = poll_and_drop(held.wal.append(&payload), polls, |_| held.writes.open());
            let must: Vec<_> =
                result.map(|lsn| (lsn.unwrap(), payload.clone())).into_iter().collect();
            held.check(&[&[&payload]], &must).await;
        }
    }
}

#[tokio::test]
async fn dropped_waits_leave_no_waiter() {
    for polls in 0..=2 {
        let held = Held::new().await;
        let syncs = held.faults.on(Op::Sync).gate();
        let queued = held.wal.clone();
        let mut queued = Box::pin(queued.append(b"queued"));
        assert!(futures::poll!(&mut queued).is_pending());
        let release = |_| {
            held.writes.open();
            syncs.open();
        };
        let wal = &held.wal;
        poll_and_drop(wal.sync(), polls, release);
        poll_and_drop(wal.sync_to(held.blocking), 1, release);
        poll_and_drop(wal.wait_synced(held.blocking), 1, release);
        poll_and_drop(wal.read(held.blocking), polls, release);
        release(0);
        let lsn = within("the queued append", queued).await.unwrap();
        let ticket = wal.enqueue(b"ticket").await.unwrap();
        poll_and_drop(ticket.synced(), polls, release);
        poll_and_drop(ticket.written(), 1, release);
        within("a wait next to dropped ones", ticket.synced()).await.unwrap();
        drop(syncs);
        let must = [(lsn, b"queued".to_vec()), (ticket.lsn(), b"ticket".to_vec())];
        held.check(&[], &must).await;
    }
}

#[tokio::test]
async fn dropped_close_continues_or_can_be_repeated() {
    for polls in 0..=3 {
        let held = Held::new().await;
        let (wal, blocking) = (held.wal.clone(), held.blocking);
        let result = poll_and_drop(wal.close(), polls, |i| {
            if i == 1 { held.writes.allow(1) } else { held.writes.open() }
        });
        assert_eq!(result.is_some(), polls == 3, "room, closed");
        if polls > 0 {
            let error = within("append", wal.append(b"late")).await.unwrap_err();
            assert!(error.is_closed(), "{polls}: {error}");
        }
        held.writes.open();
        within("close", wal.close()).await.unwrap();
        // The other handle still exists, but holds no lock.
        let again = small().open_with(held.memory.clone()).await.expect("close has freed the lock");
        assert!(again.recovery().was_closed, "{polls}");
        assert_eq!(records(&again).await.last().unwrap().0, blocking);
    }
}

/// Two tasks close one log. For both, `Ok` means that the log can be opened again.
#[tokio::test]
async fn second_close_waits_for_lock_release() {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let wal = small().open_with(faults.over(memory.clone()).on_pool()).await.unwrap();
    // Enough records for a spare, because `close` removes it last.
    while faults.count(|event| matches!(event, Event::Created { .. })) < 2 {
        wal.append_and_sync(&[1; 400]).await.unwrap();
    }
    let gate = faults.on(Op::Remove).gate();
    let first = tokio::spawn({
        let wal = wal.clone();
        async move { wal.close().await }
    });
    reached(&gate, 1).await;
    let mut second = Box::pin(wal.close());
    let early = tokio::time::timeout(Duration::from_millis(50), &mut second).await;
    let reopened = small().open_with(memory.clone()).await.map(drop);
    assert!(
        early.is_err() || reopened.is_ok(),
        "close returned {early:?}, but reopening: {reopened:?}"
    );
    gate.open();
    within("the first", first).await.unwrap().unwrap();
    if early.is_err() {
        within("the second", second).await.unwrap();
    }
    small().open_with(memory).await.expect("closed");
}

#[tokio::test]
async fn dropped_open_leaves_openable_log() {
    let memory = MemoryStorage::new();
    let wal = small().open_with(memory.clone()).await.unwrap();
    let lsn = wal.append_and_sync(b"kept").await.unwrap();
    drop(wal);
    for op in [Op::Open, Op::Read, Op::Create, Op::Write, Op::Sync, Op::SyncDir, Op::Remove] {
        for polls in 0..=3 {
            let faults = Faults::new();
            let gate = faults.on(op).once().gate();
            let opening = small().open_with(faults.over(memory.clone()).on_pool());
            let dropped = poll_and_drop(opening, polls, |_| gate.open());
            drop(dropped);
            gate.open();
            let opened = async {
                loop {
                    // The lock is free as soon as the running step has ended.
                    match small().open_with(memory.clone()).await {
                        Err(highwater::Error::Locked { .. }) => tokio::task::yield_now().await,
                        opened => break opened,
                    }
                }
            };
            let wal = within("the lock of a dropped opening", opened).await.unwrap();
            assert_eq!(records(&wal).await, [(lsn, b"kept".to_vec())], "{op:?} {polls}");
        }
    }
}

/// Many tasks append with short timeouts. Acknowledged records are there once, nothing is there
/// twice, batches are whole, and the log works as before.
#[allow(clippy::print_stdout, reason = "the coverage of a test is printed")]
async fn run_with_timeouts(tasks: u64, on_pool: bool) {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let storage = faults.over(memory.clone());
    let wal = small().open_with(if on_pool { storage.on_pool() } else { storage }).await.unwrap();
    let mut running = Vec::new();
    for task in 0..tasks {
        let wal = wal.clone();
        running.push(tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for i in 0..40u64 {
                let mut payload = format!("{task}:{i}:").into_bytes();
                payload.resize(20 + usize::try_from((task * 7 + i * 13) % 300).unwrap(), b'.');
                let patience = Duration::from_micros((task * 31 + i * 17) % 400);
                let limit = tokio::time::sleep(patience);
                let parts = [b'a', b'b', b'c'].map(|part| [&payload[..], &[part]].concat());
                tokio::select! {
                    biased;
                    () = tokio::task::yield_now(), if i % 5 == 0 => {}
                    lsn = wal.append(&payload), if i % 4 == 0 => acknowledged.push((lsn.unwrap(), payload)),
                    lsn = wal.append_and_sync(&payload), if i % 4 == 1 => acknowledged.push((lsn.unwrap(), payload)),
                    lsns = wal.append_batch(&parts), if i % 4 == 2 => {
                        acknowledged.push((lsns.unwrap().start, parts[0].clone()));
                    }
                    synced = async { wal.enqueue(&payload).await.unwrap().synced().await }, if i % 4 == 3 => synced.unwrap(),
                    () = limit => {}
                }
            }
            acknowledged
        }));
    }
    let mut acknowledged = BTreeMap::new();
    for task in running {
        for (lsn, payload) in within("a task of the run_with_timeouts", task).await.unwrap() {
            assert_eq!(acknowledged.insert(lsn, payload), None, "two records at one position");
        }
    }
    within("sync", wal.sync()).await.unwrap();
    let found = records(&wal).await;
    // Each task starts 40 calls: some complete, and some time out after their record was written.
    let (finished, there, begun) = (acknowledged.len() as u64, found.len(), tasks * 40);
    println!("{finished} of {begun} were acknowledged, {there} records are in the log");
    assert!(finished >= begun / 20, "too little was acknowledged: {finished} of {begun}");
    assert!(finished < begun, "no call timed out");
    assert!(found.is_sorted_by(|a, b| a.0 < b.0));
    let mut times: HashMap<&[u8], u32> = HashMap::new();
    for (_, payload) in &found {
        *times.entry(payload).or_default() += 1;
    }
    assert!(times.values().all(|&count| count == 1), "a record came twice");
    let by_lsn: BTreeMap<_, _> = found.iter().cloned().collect();
    for (lsn, payload) in &acknowledged {
        assert_eq!(by_lsn.get(lsn), Some(payload));
    }
    for (i, (_, payload)) in found.iter().enumerate() {
        if let Some(stem) = payload.strip_suffix(b"a").filter(|stem| !stem.ends_with(b":")) {
            let next = |n: usize| found.get(i + n).map(|(_, payload)| &payload[..]);
            assert_eq!(next(1), Some(&[stem, b"b"].concat()[..]), "a batch is incomplete");
            assert_eq!(next(2), Some(&[stem, b"c"].concat()[..]), "a batch is incomplete");
        }
    }
    assert_ring_is_whole(&wal).await;
    let found = records(&wal).await;
    within("close", wal.close()).await.unwrap();
    let again = small().open_with(memory).await.unwrap();
    assert!(again.recovery().was_closed);
    assert_eq!(records(&again).await, found);
}

#[tokio::test]
async fn timeouts_on_one_thread_keep_log_intact() {
    run_with_timeouts(20, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timeouts_on_two_threads_keep_log_intact() {
    run_with_timeouts(40, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timeouts_in_memory_keep_log_intact() {
    run_with_timeouts(40, false).await;
}

/// An append that is dropped while it waits for space must pass its turn on.
#[tokio::test]
async fn dropped_append_passes_its_turn_on() {
    let held = Held::new().await;
    let noop = &mut Context::from_waker(Waker::noop());
    let mut dropped = Box::pin(held.wal.append(vec![2; RING_PAYLOAD_BYTES]));
    let mut behind = Box::pin(held.wal.append(b"behind"));
    assert!(dropped.as_mut().poll(noop).is_pending());
    assert!(futures::poll!(&mut behind).is_pending());
    drop(dropped);
    held.writes.open();
    let lsn = tokio::time::timeout(PATIENCE, behind)
        .await
        .expect("the second append must get its turn")
        .unwrap();
    held.check(&[], &[(lsn, b"behind".to_vec())]).await;
}
