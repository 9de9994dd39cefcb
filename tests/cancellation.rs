//! Dropping futures, at every point where they can be dropped.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on panics"
)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use highwater::{
    Lsn, Wal,
    simulation::{Event, Faults, Gate, Op},
    storage::MemoryStorage,
};
use support::{
    Bell, PATIENCE, RING_PAYLOAD_BYTES, assert_ring_is_whole, reached, records, small, within,
};

/// Polls `future` up to `polls` times and drops it if it is still pending then. After each poll but
/// the last, `step` lets things go on and the future must be woken.
fn poll_and_drop<T>(
    future: impl Future<Output = T>,
    polls: usize,
    step: impl Fn(usize),
) -> Option<T> {
    let (bell, waker) = Bell::new();
    // The test's task doesn't yield, so it would use up tokio's budget for one poll.
    let mut future = pin!(tokio::task::unconstrained(future));
    for i in 0..polls {
        if i > 0 {
            step(i);
            bell.wait();
        }
        if let Poll::Ready(answer) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(answer);
        }
    }
    None
}

/// A log on the pool whose ring is full of one record, which is held on its way to the file.
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
        // Not the spare, which is prepared beside it.
        let is_first = |name: &str| name.ends_with("00001.wal");
        let writes = faults.on(Op::Write).file(is_first).gate();
        // Takes all permits; at the beginning of a lap, so that it is one write.
        let blocking =
            within("room", wal.enqueue(vec![1; RING_PAYLOAD_BYTES])).await.unwrap().lsn();
        reached(&writes, 1).await;
        Held { wal, memory, faults, writes, blocking }
    }

    /// Lets everything go, and checks the log: the payloads given by `whole` are there as whole
    /// groups or not at all, `must` are there, and everything is once.
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
        assert_eq!(records(&again).await, found, "reopening changes nothing");
    }
}

/// How many polls it takes at most: for room in the ring, for the answer, and one to spare.
const POLLS: usize = 5;

#[tokio::test]
async fn a_dropped_append_is_there_whole_or_not_at_all() {
    let payload: &[u8] = b"perhaps";
    for polls in 0..=POLLS {
        let held = Held::new().await;
        let answer = poll_and_drop(held.wal.append(payload), polls, |_| held.writes.allow(1));
        let must: Vec<_> = answer.map(|lsn| (lsn.unwrap(), payload.to_vec())).into_iter().collect();
        // Room, others that may go first, written, answered.
        assert!(must.is_empty() || polls >= 3, "{polls}: answered too early");
        assert!(must.len() == 1 || polls < POLLS, "{polls}: not answered");
        let was_waiting = polls <= 1;
        let reserved = held.wal.watermarks().reserved;
        let blocking_end = held.blocking.as_u64() + 1024;
        assert_eq!(reserved.as_u64() == blocking_end, was_waiting, "{polls}: reserved or not");
        held.check(&[&[payload]], &must).await;
    }
}

#[tokio::test]
async fn a_dropped_append_and_sync_is_there_whole_or_not_at_all() {
    let payload: &[u8] = b"perhaps";
    for polls in 0..=POLLS {
        let held = Held::new().await;
        let answer =
            poll_and_drop(held.wal.append_and_sync(payload), polls, |_| held.writes.allow(1));
        let must: Vec<_> = answer.map(|lsn| (lsn.unwrap(), payload.to_vec())).into_iter().collect();
        held.check(&[&[payload]], &must).await;
    }
}

#[tokio::test]
async fn a_dropped_enqueue_is_there_whole_or_not_at_all() {
    let payload: &[u8] = b"perhaps";
    for polls in 0..=POLLS {
        let held = Held::new().await;
        let answer = poll_and_drop(held.wal.enqueue(payload), polls, |_| held.writes.allow(1));
        let must: Vec<_> =
            answer.map(|ticket| (ticket.unwrap().lsn(), payload.to_vec())).into_iter().collect();
        assert_eq!(must.len(), usize::from(polls >= 2));
        held.check(&[&[payload]], &must).await;
    }
}

#[tokio::test]
async fn a_dropped_batch_is_there_whole_or_not_at_all() {
    // One that goes through the ring, and one that is larger than it.
    for size in [100, 700] {
        let parts: Vec<Vec<u8>> = (0..3u8).map(|i| vec![i + 10; size]).collect();
        let group: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        for polls in 0..=POLLS {
            let held = Held::new().await;
            let answer =
                poll_and_drop(held.wal.append_batch(&parts), polls, |_| held.writes.allow(1));
            let must: Vec<_> =
                answer.map(|lsns| (lsns.unwrap().start, parts[0].clone())).into_iter().collect();
            held.check(&[&group], &must).await;
        }
    }
}

#[tokio::test]
async fn a_dropped_append_larger_than_the_ring_is_there_whole_or_not_at_all() {
    // Fits into the segment; needs one of its own.
    for size in [3000, 20_000] {
        let payload = vec![5; size];
        for polls in 0..=POLLS {
            let held = Held::new().await;
            let answer = poll_and_drop(held.wal.append(&payload), polls, |_| held.writes.open());
            let must: Vec<_> =
                answer.map(|lsn| (lsn.unwrap(), payload.clone())).into_iter().collect();
            held.check(&[&[&payload]], &must).await;
        }
    }
}

#[tokio::test]
async fn dropped_waits_leave_nobody_behind() {
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
        let lsn = within("the one in the queue", queued).await.unwrap();
        let ticket = wal.enqueue(b"ticket").await.unwrap();
        poll_and_drop(ticket.synced(), polls, release);
        poll_and_drop(ticket.written(), 1, release);
        within("a wait beside dropped ones", ticket.synced()).await.unwrap();
        drop(syncs);
        let must = [(lsn, b"queued".to_vec()), (ticket.lsn(), b"ticket".to_vec())];
        held.check(&[], &must).await;
    }
}

#[tokio::test]
async fn a_dropped_close_can_be_called_again_or_goes_on_by_itself() {
    for polls in 0..=3 {
        let held = Held::new().await;
        let (wal, blocking) = (held.wal.clone(), held.blocking);
        let answer = poll_and_drop(wal.close(), polls, |i| {
            if i == 1 { held.writes.allow(1) } else { held.writes.open() }
        });
        assert_eq!(answer.is_some(), polls == 3, "room, closed");
        if polls > 0 {
            let error = within("append", wal.append(b"late")).await.unwrap_err();
            assert!(error.is_closed(), "{polls}: {error}");
        }
        held.writes.open();
        within("close", wal.close()).await.unwrap();
        // Another handle is still there: it holds no lock.
        let again = small().open_with(held.memory.clone()).await.expect("close has freed the lock");
        assert!(again.recovery().was_closed, "{polls}");
        assert_eq!(records(&again).await.last().unwrap().0, blocking);
    }
}

/// Two may close one log: to both, `Ok` means that it can be opened again.
#[tokio::test]
async fn whoever_closes_second_waits_for_the_lock_as_well() {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let wal = small().open_with(faults.over(memory.clone()).on_pool()).await.unwrap();
    // Enough for a spare, whose removal is what closing does last.
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
    assert!(early.is_err() || reopened.is_ok(), "closed, says {early:?}, and yet: {reopened:?}");
    gate.open();
    within("the first", first).await.unwrap().unwrap();
    if early.is_err() {
        within("the second", second).await.unwrap();
    }
    small().open_with(memory).await.expect("closed");
}

#[tokio::test]
async fn a_dropped_opening_leaves_a_log_that_opens() {
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
                    // "As soon as the step that was running has ended."
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

/// Many tasks, all of which give up now and then. What was acknowledged is there once, nothing is
/// there twice, batches are whole, and in the end the log is as good as new.
async fn storm(tasks: u64, on_pool: bool) {
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
        for (lsn, payload) in within("a task of the storm", task).await.unwrap() {
            assert_eq!(acknowledged.insert(lsn, payload), None, "one position, two records");
        }
    }
    within("sync", wal.sync()).await.unwrap();
    let found = records(&wal).await;
    assert!(found.is_sorted_by(|a, b| a.0 < b.0));
    let mut times: HashMap<&[u8], u32> = HashMap::new();
    for (_, payload) in &found {
        *times.entry(payload).or_default() += 1;
    }
    assert!(times.values().all(|&count| count == 1), "nothing twice");
    let by_lsn: BTreeMap<_, _> = found.iter().cloned().collect();
    for (lsn, payload) in &acknowledged {
        assert_eq!(by_lsn.get(lsn), Some(payload));
    }
    for (i, (_, payload)) in found.iter().enumerate() {
        if let Some(stem) = payload.strip_suffix(b"a").filter(|stem| !stem.ends_with(b":")) {
            let next = |n: usize| found.get(i + n).map(|(_, payload)| &payload[..]);
            assert_eq!(next(1), Some(&[stem, b"b"].concat()[..]), "a batch is whole");
            assert_eq!(next(2), Some(&[stem, b"c"].concat()[..]), "a batch is whole");
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
async fn a_storm_of_timeouts_on_one_thread_harms_nothing() {
    storm(20, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_timeouts_on_two_threads_harms_nothing() {
    storm(40, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_timeouts_in_memory_harms_nothing() {
    storm(40, false).await;
}

/// An append that gives up while it waits for room must pass its turn on.
#[tokio::test]
async fn those_behind_a_dropped_append_get_its_room() {
    let held = Held::new().await;
    let noop = &mut Context::from_waker(Waker::noop());
    let mut gives_up = Box::pin(held.wal.append(vec![2; RING_PAYLOAD_BYTES]));
    let mut behind = Box::pin(held.wal.append(b"behind"));
    assert!(gives_up.as_mut().poll(noop).is_pending());
    assert!(futures::poll!(&mut behind).is_pending());
    drop(gives_up);
    held.writes.open();
    let lsn = tokio::time::timeout(PATIENCE, behind).await.expect("its turn never came").unwrap();
    held.check(&[], &[(lsn, b"behind".to_vec())]).await;
}
