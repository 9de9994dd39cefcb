//! Followers: they yield the records of a replay, in order and once, and each only when it is
//! durable.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod contract;
mod support;

use std::{
    cell::RefCell,
    rc::Rc,
    sync::atomic::Ordering,
    task::{Context, Poll},
    time::Duration,
};

use contract::{
    Found, open, read_all,
    workload::{Action, Running, Session, random_script},
};
use futures::{FutureExt, Stream, StreamExt, TryStreamExt, future::join_all};
use highwater::{
    Error, Follow, Lsn, Wal,
    sabotage::{self, Sabotage},
    simulation::{self, Disk, Event, Faults, Op, Random, Simulation, Survival},
    storage::MemoryStorage,
};
use support::{Bell, cause, open_when_free, records, settled, small, within};
use tokio::runtime::Builder;

/// Returns all records of a follower, and the error that ended it.
async fn drain(
    mut follower: impl Stream<Item = highwater::Result<highwater::Record>> + Unpin,
) -> (Found, Option<Error>) {
    let mut found = Vec::new();
    while let Some(item) = follower.next().await {
        match item {
            Ok(record) => found.push((record.lsn, record.payload.to_vec())),
            // Drops the truncated records; the stream continues.
            Err(Error::Truncated { to }) => found.retain(|(lsn, _)| *lsn < to),
            Err(error) => {
                assert!(follower.next().await.is_none(), "an error is the last item");
                return (found, Some(error));
            }
        }
    }
    assert!(follower.next().await.is_none(), "an ended stream must stay ended");
    (found, None)
}

async fn all_of(follower: Follow) -> Found {
    let (found, error) = within("a follower", drain(follower)).await;
    assert!(error.is_none(), "{error:?}");
    found
}

fn assert_idle(follower: &mut Follow) {
    assert!(follower.next().now_or_never().is_none(), "the follower must be pending");
}

/// Follows durable records. Looks up every 4th one on the disk that a power cut would leave.
async fn follow_and_crash(mut follower: Follow, disk: Disk, seed: u64) -> Result<Found, String> {
    let mut random = Random::new(seed);
    let mut found = Vec::new();
    while let Some(item) = follower.next().await {
        let Ok(record) = item else { break };
        let after = random.one_in(4).then(|| disk.crash(Survival::Nothing));
        if let Some(after) = after {
            let again = open(after).await.map_err(|error| format!("{error:#}"))?;
            let read = again.read(record.lsn).await.map(|again| again.payload);
            if read.as_ref().ok() != Some(&record.payload) {
                return Err(format!("{} was yielded and is lost: {read:?}", record.lsn));
            }
        }
        found.push((record.lsn, record.payload.to_vec()));
    }
    Ok(found)
}

/// Truncations are left out here, because they remove records; other tests cover them.
fn keeps_all(action: &Action) -> bool {
    match action {
        Action::TruncateBefore(_) | Action::TruncateAfter(_) => false,
        Action::Dropped(action, _) => keeps_all(action),
        _ => true,
    }
}

#[tokio::test]
async fn follower_of_truncated_position_ends_with_error() {
    let wal = open(Disk::new(1)).await.unwrap();
    let mut lsns = Vec::new();
    for _ in 0..200 {
        lsns.push(wal.append(vec![1; 100]).await.unwrap());
    }
    wal.sync().await.unwrap();
    let (mut behind, mut ahead) = (wal.follow(Lsn::ZERO), wal.follow(lsns[150]));
    let lease = wal.retain(lsns[10]).unwrap();
    let mut held = wal.follow(lsns[10]);
    wal.truncate_before(lsns[150]).await.unwrap();
    assert!(
        matches!(behind.next().await, Some(Err(Error::BelowFirst { first, .. })) if first == lsns[10])
    );
    assert!(behind.next().await.is_none());
    assert_eq!(ahead.next().await.unwrap().unwrap().lsn, lsns[150]);
    assert_eq!(held.next().await.unwrap().unwrap().lsn, lsns[10], "a lease holds it");
    drop(lease);
    assert!(matches!(wal.follow(lsns[149]).next().await, Some(Err(Error::BelowFirst { .. }))));
}

/// The way in which a simulated log ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Close,
    Drop,
    Poison,
}

/// Runs a seed's script beside followers from the beginning, from later, and from the middle.
async fn simulated(seed: u64, disk: Disk, end: End) -> Result<(), String> {
    let wal = open(disk.clone()).await.unwrap();
    let mut random = Random::new(seed ^ 0xf011);
    if end == End::Poison {
        disk.faults().on(Op::Sync).skip(random.below(12) as u64).once().fail_os(5);
    }
    let durable =
        |from, seed| simulation::spawn(follow_and_crash(wal.follow(from), disk.clone(), seed));
    let mut early: Vec<_> = (0..2).map(|i| durable(Lsn::ZERO, seed + i)).collect();
    let written = simulation::spawn(drain(wal.follow_written(Lsn::ZERO)));
    let session = Session {
        wal: wal.clone(),
        disk: disk.clone(),
        oracle: Rc::default(),
        next_id: Rc::new(RefCell::new(seed << 20)),
        handles: Rc::default(),
    };
    let scripts = random_script(seed).sessions.into_iter().flat_map(|(tasks, _)| tasks);
    let tasks: Vec<_> = scripts
        .map(|actions| {
            let session = session.clone();
            simulation::spawn(async move {
                for action in actions.iter().filter(|action| keeps_all(action)) {
                    if session.run(action, Running::Simulated).await.is_err() {
                        break;
                    }
                }
            })
        })
        .collect();
    for _ in 0..random.below(200) {
        simulation::yield_now().await;
    }
    early.push(durable(Lsn::ZERO, seed + 7));
    // Starts at the synced mark, or at a record that may not be durable yet.
    let middle = if random.one_in(2) { wal.watermarks().synced } else { wal.watermarks().reserved };
    let late = simulation::spawn(drain(wal.follow(middle)));
    for task in tasks {
        task.await.unwrap();
    }
    drop(session);
    let synced_before = wal.watermarks().synced;
    let mut is_poisoned = end == End::Poison && wal.sync().await.is_err();
    let ended = match end {
        End::Poison if is_poisoned => Some(wal),
        End::Close | End::Poison => {
            is_poisoned = wal.close().await.is_err();
            Some(wal)
        }
        End::Drop => {
            drop(wal);
            None
        }
    };
    let (all, error) = written.await.unwrap();
    if error.as_ref().is_some_and(|error| !error.is_poisoned()) || error.is_some() != is_poisoned {
        return Err(format!("poisoned: {is_poisoned}, but a follower ended with {error:?}"));
    }
    let mut followed = Vec::new();
    for follower in early {
        followed.push((Lsn::ZERO, follower.await.unwrap()?));
    }
    followed.push((middle, late.await.unwrap().0));
    drop(ended);
    disk.faults().heal();
    let must = if end == End::Close { Lsn::new(u64::MAX) } else { synced_before };
    let again = open(disk).await.map_err(|error| format!("{error:#}"))?;
    let replayed = read_all(&again).await?;
    let (short, long) =
        if all.len() < replayed.len() { (&all, &replayed) } else { (&replayed, &all) };
    // After a failed sync, opening may find fewer records than were written. It may also find more
    // than the follower saw, because a write was still running.
    let is_same = if is_poisoned { long.starts_with(short) } else { replayed == all };
    if !is_same {
        return Err(format!("{} replayed, {} followed", replayed.len(), all.len()));
    }
    judge(long, &followed, must)
}

/// Checks that each follower yielded the records of `all` from its start, at least up to `must`.
fn judge(all: &Found, followed: &[(Lsn, Found)], must: Lsn) -> Result<(), String> {
    for (from, found) in followed {
        let expected: Vec<_> = all.iter().filter(|(lsn, _)| lsn >= from).cloned().collect();
        if !expected.starts_with(found) {
            return Err(format!("from {from}: {} differ from the written records", found.len()));
        }
        if let Some((missing, _)) = expected.get(found.len()).filter(|(lsn, _)| *lsn < must) {
            return Err(format!(
                "from {from}: {missing} is missing, all below {must} must be yielded"
            ));
        }
    }
    Ok(())
}

fn run_simulated(seed: u64) -> Result<(), String> {
    let end = [End::Close, End::Drop, End::Poison][(seed % 3) as usize];
    let disk = Disk::new(seed);
    Simulation::new(seed).run(simulated(seed, disk, end)).map_err(|what| format!("{end:?}: {what}"))
}

#[test]
fn followers_match_replay_and_survive_crashes() {
    simulation::for_each_seed(90, |seed| run_simulated(seed).unwrap());
}

#[test]
fn follower_of_unsynced_records_is_caught() {
    let caught = sabotage::with(Sabotage::FollowUnsynced, || {
        (0..9).find_map(|seed| run_simulated(seed).err())
    });
    assert!(caught.is_some_and(|what| what.contains("was yielded and is lost")));
}

/// Runs tasks and followers on a runtime's threads, over real files.
async fn load() {
    let directory = tempfile::tempdir().unwrap();
    let options = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
    let wal = options.clone().open(directory.path()).await.unwrap();
    let begin = |written: bool, from| {
        let follower = if written { wal.follow_written(from) } else { wal.follow(from) };
        tokio::spawn(drain(follower))
    };
    let mut followers: Vec<_> = (0..8).map(|i| begin(i % 4 == 0, Lsn::ZERO)).collect();
    let tasks = (0..16u8).map(|task| {
        let wal = wal.clone();
        tokio::spawn(async move {
            let mut random = Random::new(u64::from(task));
            for _ in 0..25 {
                let bytes = if random.one_in(20) { 5000 } else { random.below(300) };
                let payload = vec![task; bytes];
                match random.below(4) {
                    0 => drop(wal.append(payload).await.unwrap()),
                    1 => drop(wal.append_batch([&payload, &payload]).await.unwrap()),
                    2 => drop(wal.enqueue(payload).await.unwrap()),
                    _ => drop(wal.append_and_sync(payload).await.unwrap()),
                }
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    tokio::task::yield_now().await;
    followers.extend((0..8).map(|i| begin(i % 4 == 0, Lsn::ZERO)));
    for task in tasks {
        task.await.unwrap();
    }
    within("close", wal.close()).await.unwrap();
    let mut found = Vec::new();
    for follower in followers {
        found.push(within("a follower's end", follower).await.unwrap());
    }
    drop(wal);
    let replayed = records(&options.open(directory.path()).await.unwrap()).await;
    for (found, error) in found {
        assert!(error.is_none(), "{error:?}");
        assert!(found == replayed, "{} followed, {} replayed", found.len(), replayed.len());
    }
}

#[test]
fn followers_work_on_both_runtime_flavors() {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(load());
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(load());
}

#[tokio::test]
async fn idle_followers_do_no_io() {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let wal = small().open_with(faults.over(memory).on_pool()).await.unwrap();
    let mut followers: Vec<_> = (0..100).map(|_| wal.follow(Lsn::ZERO)).collect();
    for i in 0..5u8 {
        let lsn = wal.append_and_sync(&[i]).await.unwrap();
        for record in within("all", join_all(followers.iter_mut().map(|f| f.next()))).await {
            assert_eq!(record.unwrap().unwrap().lsn, lsn);
        }
    }
    settled(&wal).await;
    followers.push(wal.follow_written(wal.watermarks().written));
    let (bell, waker) = Bell::new();
    for follower in &mut followers {
        let polled = follower.poll_next_unpin(&mut Context::from_waker(&waker));
        assert!(polled.is_pending() && follower.lag() == 0, "{follower:?}");
    }
    faults.clear();
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(faults.events(), [], "idle followers must not read");
    assert_eq!(bell.count.load(Ordering::Relaxed), 0, "idle followers must not be woken");
}

/// Mark frames move the marks, but are no records: a follower neither reads nor counts them.
#[tokio::test]
async fn mark_frames_are_not_followed() {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let wal = small().open_with(faults.over(memory).on_pool()).await.unwrap();
    let mut followers = [wal.follow(Lsn::ZERO), wal.follow_written(Lsn::ZERO)];
    wal.append_and_sync("record").await.unwrap();
    for follower in &mut followers {
        within("record", follower.next()).await.unwrap().unwrap();
    }
    settled(&wal).await;
    faults.clear();
    let is_read = |event: &Event| matches!(event, Event::Read { .. } | Event::Opened { .. });
    for follower in &mut followers {
        assert_idle(follower);
        assert_eq!(follower.lag(), 0);
    }
    wal.sync().await.unwrap();
    wal.close().await.unwrap();
    for follower in followers {
        assert_eq!(all_of(follower).await, []);
    }
    assert_eq!(faults.count(is_read), 0, "{:?}", faults.events());
}

#[tokio::test]
async fn follower_of_closed_log_yields_the_rest() {
    let memory = MemoryStorage::new();
    let wal = small().open_with(memory.clone()).await.unwrap();
    let payloads: Vec<_> = (0..200u8).map(|i| vec![i; 300]).collect();
    wal.append_batch(&payloads).await.unwrap();
    let (early, late) = (wal.follow(Lsn::ZERO), wal.follow_written(Lsn::ZERO));
    let (mut half, expected) = (wal.follow(Lsn::ZERO), records(&wal).await);
    wal.close().await.unwrap();
    assert!(early.lag() > 200 * 300);
    for _ in 0..100 {
        half.next().await.unwrap().unwrap();
    }
    let error = wal.follow(Lsn::ZERO).next().await.unwrap().unwrap_err();
    assert!(error.is_closed(), "{error}");
    let again = small().open_with(memory).await.unwrap();
    assert_eq!(half.position(), expected[100].0);
    for (follower, from) in [(early, 0), (late, 0), (half, 100)] {
        assert_eq!(all_of(follower).await, expected[from..]);
    }
    drop(again);
}

#[tokio::test]
async fn follower_of_poisoned_log_yields_durable_then_error() {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let wal = small().open_with(faults.over(memory).on_pool()).await.unwrap();
    let (mut idle, late) = (wal.follow(Lsn::ZERO), wal.follow(Lsn::ZERO));
    wal.append_and_sync("durable").await.unwrap();
    idle.next().await.unwrap().unwrap();
    let waiting = tokio::spawn(drain(idle));
    wal.append("written").await.unwrap();
    faults.on(Op::Sync).fail_os(5);
    wal.sync().await.unwrap_err();
    let (found, error) = within("idle", waiting).await.unwrap();
    assert!(found.is_empty() && cause(&error.unwrap()).contains("00001.wal"));
    for (follower, count) in
        [(late, 1), (wal.follow(Lsn::ZERO), 1), (wal.follow_written(Lsn::ZERO), 2)]
    {
        let (found, error) = within("late", drain(follower)).await;
        assert!(found.len() == count && error.unwrap().is_poisoned(), "{found:?}");
    }
}

#[tokio::test]
async fn followers_end_after_last_handle_and_free_lock() {
    let memory = MemoryStorage::new();
    let storage = || Faults::new().over(memory.clone()).on_pool();
    let wal = small().open_with(storage()).await.unwrap();
    let (unpolled, written) = (wal.follow(Lsn::ZERO), wal.follow_written(Lsn::ZERO));
    let waiting = tokio::spawn(all_of(wal.follow(Lsn::ZERO)));
    tokio::task::yield_now().await;
    wal.append_and_sync("durable").await.unwrap();
    // No call waits for this record: the job that writes it outlives all handles.
    drop(wal.enqueue("written").await.unwrap());
    let ticket = wal.enqueue("synced by a ticket").await.unwrap();
    drop(wal);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(!waiting.is_finished(), "a ticket is a handle");
    ticket.synced().await.unwrap();
    drop(ticket);
    assert_eq!(within("waiting", waiting).await.unwrap().len(), 3);
    assert_eq!(all_of(written).await.len(), 3);
    let error =
        small().open_with(storage()).await.expect_err("an unfinished follower holds the lock");
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    let mut unpolled = unpolled;
    assert_eq!((&mut unpolled).try_collect::<Vec<_>>().await.unwrap().len(), 3);
    // The follower has ended, so it holds nothing of the log.
    open_when_free(storage).await;
    assert_eq!(unpolled.lag(), 0);
}

/// Reads are held, so that the future can be dropped at each poll.
#[tokio::test]
async fn dropped_next_loses_no_record() {
    let (memory, faults) = (MemoryStorage::new(), Faults::new());
    let wal = small().open_with(faults.over(memory).on_pool()).await.unwrap();
    let payloads: Vec<_> = (0..60u8).map(|i| vec![i; 700]).collect();
    for half in payloads.chunks(30) {
        wal.append_batch(half).await.unwrap();
    }
    wal.sync().await.unwrap();
    let reads = faults.on(Op::Read).gate();
    let (mut follower, mut dropped_count, mut found) = (wal.follow(Lsn::ZERO), 0, Vec::new());
    while found.len() < 60 {
        match futures::poll!(follower.next()) {
            Poll::Ready(item) => found.push(item.unwrap().unwrap()),
            Poll::Pending => {
                dropped_count += 1;
                reads.allow(1);
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(
            follower.position() > found.last().map_or(Lsn::ZERO, |r| r.lsn),
            !found.is_empty()
        );
    }
    assert!(dropped_count >= 2, "{dropped_count}");
    reads.open();
    drop(wal.follow(Lsn::ZERO).next().now_or_never());
    let expected = records(&wal).await;
    assert!(found.iter().map(|record| (record.lsn, record.payload.to_vec())).eq(expected));
}

#[tokio::test]
async fn follower_start_positions_are_checked() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    for i in 0..20u8 {
        wal.append_and_sync(vec![i; 100]).await.unwrap();
    }
    let unsynced = wal.append(vec![20; 100]).await.unwrap();
    let all = records(&wal).await;
    let marks = wal.watermarks();
    let refused = async |from: Lsn| {
        let (found, error) = drain(wal.follow(from)).await;
        assert!(found.is_empty(), "{from}");
        error.unwrap()
    };
    assert!(matches!(refused(Lsn::new(3)).await, Error::NotABoundary { .. }));
    assert!(matches!(refused(Lsn::new(all[5].0.as_u64() + 8)).await, Error::NotABoundary { .. }));
    let beyond = Lsn::new(marks.reserved.as_u64() + 1024);
    let error = refused(beyond).await;
    assert!(matches!(error, Error::AboveEnd { lsn, .. } if lsn == beyond), "{error}");
    let from = [all[7].0, marks.synced, unsynced, marks.reserved];
    let followers = from.map(|from| wal.follow(from));
    let mut positions = followers.iter().map(Follow::position);
    assert!(positions.by_ref().eq(from));
    wal.append_and_sync("last").await.unwrap();
    let all = records(&wal).await;
    wal.close().await.unwrap();
    for (follower, from) in followers.into_iter().zip(from) {
        let expected: Vec<_> = all.iter().filter(|(lsn, _)| *lsn >= from).cloned().collect();
        assert_eq!(all_of(follower).await, expected, "{from}");
    }
}

/// A follower's position can start another follower, after each record and within batches.
#[tokio::test]
async fn follower_position_resumes_another() {
    let memory = MemoryStorage::new();
    let wal = small().open_with(memory.clone()).await.unwrap();
    for i in 0..10u8 {
        wal.append_batch([vec![i; 40], vec![], vec![i; 9]]).await.unwrap();
        wal.sync().await.unwrap();
    }
    let all = records(&wal).await;
    wal.close().await.unwrap();
    let wal = small().open_with(memory).await.unwrap();
    let mut follower = wal.follow(Lsn::ZERO);
    for rest in 1..=all.len() {
        follower.next().await.unwrap().unwrap();
        let following: Vec<_> =
            wal.follow(follower.position()).take(all.len() - rest).collect().await;
        let lsns = following.into_iter().map(|record| record.unwrap().lsn);
        assert!(lsns.eq(all[rest..].iter().map(|(lsn, _)| *lsn)), "{rest}");
    }
}

#[test]
fn follower_without_runtime_is_closed() {
    let opener = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let storage = Faults::new().over(MemoryStorage::new()).on_pool();
    let wal = opener.block_on(small().open_with(storage)).unwrap();
    let follower = wal.follow(Lsn::ZERO);
    opener.shutdown_background();
    futures::executor::block_on(wal.append("x")).unwrap_err();
    let (found, error) = futures::executor::block_on(drain(follower));
    assert!(found.is_empty() && error.unwrap().is_closed());
}
