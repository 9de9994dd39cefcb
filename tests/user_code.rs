//! User code that the log runs: wakers, subscribers, payloads and watch conditions. It may call the
//! log, wait or panic, because the log holds no lock while it runs.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a mistake in a test must stop it")]

mod support;

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use highwater::{
    Lsn, Wal,
    simulation::{Faults, Op},
    storage::MemoryStorage,
};
use support::{RING_PAYLOAD_BYTES, reached, settled, small, within};

/// Runs `work` on its own thread. A deadlock fails after 10 s.
fn ends(what: &str, work: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    match ended.recv_timeout(Duration::from_secs(10)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: it hangs"),
        _ => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Calls everything that user code may call.
fn call(wal: &Wal) {
    drop((wal.watermarks(), wal.stats(), wal.watch(), wal.follow(Lsn::ZERO), wal.replay(..)));
    drop(wal.retain(wal.watermarks().first));
    drop(wal.try_enqueue("from user code"));
    drop(wal.sync().now_or_never());
    drop(wal.append_and_sync("from user code").now_or_never());
}

#[tokio::test]
async fn kept_watermarks_block_no_other_task() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let mut watch = wal.watch();
    let kept = watch.get();
    let other = wal.clone();
    let append = tokio::spawn(async move { other.append_and_sync("x").await });
    within("append while a watch holds marks", append).await.unwrap().unwrap();
    assert!(kept.synced < within("a change", watch.changed()).await.unwrap().synced);
}

#[tokio::test]
async fn watch_reports_changes_and_the_end() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let (mut watch, mut never_polled) = (wal.watch(), wal.watch());
    assert!(watch.changed().now_or_never().is_none(), "nothing has changed");
    let lsn = wal.append_and_sync("x").await.unwrap();
    let marks = within("wait_for", watch.wait_for(|marks| marks.synced > lsn)).await.unwrap();
    assert_eq!((marks, watch.get()), (wal.watermarks(), wal.watermarks()));
    let mut clone = watch.clone();
    let unmet = tokio::spawn(async move { clone.wait_for(|_| false).await });
    wal.close().await.unwrap();
    assert!(within("wait_for", unmet).await.unwrap().unwrap_err().is_closed());
    assert!(
        never_polled.changed().await.unwrap().synced > lsn,
        "the last marks come before the end"
    );
    assert!(never_polled.changed().await.unwrap_err().is_closed());
    assert!(wal.watch().changed().await.unwrap_err().is_closed());
    assert!(wal.watch().wait_for(|marks| marks.synced > lsn).await.is_ok());
}

#[tokio::test]
async fn watch_ends_with_the_last_handle() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let mut watch = wal.watch();
    drop(wal);
    let ended = async { while watch.changed().await.is_ok() {} };
    within("the end", ended).await;
}

/// A condition that calls the log while the log evaluates it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn condition_of_a_watch_may_call_the_log() {
    let wal = small().open_with(MemoryStorage::new()).await.unwrap();
    let other = wal.clone();
    let mut watch = wal.watch();
    let met = watch.wait_for(|marks| {
        call(&other);
        marks.synced > Lsn::ZERO
    });
    wal.append_and_sync("x").await.unwrap();
    within("the condition", met).await.unwrap();
}

/// A waker that calls the log when it is woken and when it is dropped.
struct Calls(Wal);

thread_local!(static IS_CALLING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });

fn call_once(wal: &Wal) {
    // Not recursively: these calls drop wakers and payloads, too.
    if !IS_CALLING.replace(true) {
        call(wal);
        IS_CALLING.set(false);
    }
}

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        call_once(&self.0);
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        call_once(&self.0);
    }
}

/// Polls with a waker that only the log holds.
fn poll<T>(wal: &Wal, future: &mut Pin<Box<impl Future<Output = T> + ?Sized>>) -> Poll<T> {
    let waker = Waker::from(Arc::new(Calls(wal.clone())));
    future.as_mut().poll(&mut Context::from_waker(&waker))
}

type Waits<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Returns each kind of future that leaves a waker in the log.
fn waiting(wal: &Wal) -> Vec<(&'static str, Waits<'_>)> {
    let end = wal.watermarks().reserved;
    vec![
        ("space in the ring", Box::pin(wal.append(vec![2; RING_PAYLOAD_BYTES]).map(drop))),
        ("a sync", Box::pin(wal.sync().map(drop))),
        ("a commit", Box::pin(wal.append_and_sync("x").map(drop))),
        ("a position", Box::pin(wal.wait_synced(end).map(drop))),
        ("other marks", Box::pin(async { drop(wal.watch().changed().await) })),
        ("a follower", Box::pin(async move { drop(wal.follow(end).next().await) })),
        ("a replay", Box::pin(async { drop(wal.replay(..).collect::<Vec<_>>().await) })),
        ("a truncation", Box::pin(wal.truncate_after(None).map(drop))),
        ("a close", Box::pin(wal.close().map(drop))),
    ]
}

#[test]
fn wakers_may_call_the_log() {
    let count = block_on(async {
        let wal = small().open_with(MemoryStorage::new()).await.unwrap();
        waiting(&wal).len()
    });
    for kind in 0..count {
        for is_dropped in [false, true] {
            ends(&format!("kind {kind}, dropped: {is_dropped}"), move || {
                block_on(waker_calls(kind, is_dropped));
            });
        }
    }
}

async fn waker_calls(kind: usize, is_dropped: bool) {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    wal.append_and_sync("first").await.unwrap();
    // Otherwise the gate holds the write of the mark, and the next record waits for its room.
    settled(&wal).await;
    let writes = faults.on(Op::Write).gate();
    drop(wal.enqueue(vec![1; RING_PAYLOAD_BYTES]).await.unwrap());
    reached(&writes, 1).await;
    let (_, mut waits) = waiting(&wal).swap_remove(kind);
    let mut is_ready = false;
    for _ in 0..4 {
        is_ready = is_ready || poll(&wal, &mut waits).is_ready();
    }
    if is_dropped {
        drop(waits);
        writes.open();
    } else {
        writes.open();
        let ended = async {
            while !is_ready {
                is_ready = poll(&wal, &mut waits).is_ready();
                tokio::task::yield_now().await;
                drop(wal.try_enqueue("more"));
                drop(wal.sync().await);
            }
        };
        within("the pending call", ended).await;
    }
    drop(within("close", wal.close()).await);
}

/// The same on nonblocking storage, where the log's work runs in the calling task.
#[test]
fn wakers_may_call_the_log_in_place() {
    for kind in 0..3 {
        ends(&format!("kind {kind}"), move || {
            block_on(async {
                let wal = small().open_with(MemoryStorage::new()).await.unwrap();
                let end = wal.watermarks().reserved;
                let mut watch = wal.watch();
                let mut follow = wal.follow(end);
                let mut waits: Waits<'_> = match kind {
                    0 => Box::pin(watch.changed().map(drop)),
                    1 => Box::pin(follow.next().map(drop)),
                    _ => Box::pin(wal.wait_synced(end).map(drop)),
                };
                for round in 0..40u8 {
                    if poll(&wal, &mut waits).is_ready() {
                        return;
                    }
                    wal.append_and_sync(vec![round; 900]).await.unwrap();
                }
                panic!("the future never completes");
            });
        });
    }
}

/// A payload that calls the log when it is dropped.
struct Owner(Wal, Vec<u8>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.1
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        call_once(&self.0);
    }
}

#[test]
fn payloads_may_call_the_log_when_dropped() {
    for bytes in [10, RING_PAYLOAD_BYTES, 4096] {
        for is_on_pool in [false, true] {
            ends(&format!("{bytes} bytes, on the pool: {is_on_pool}"), move || {
                block_on(async {
                    let faults = Faults::new();
                    let storage = faults.over(MemoryStorage::new());
                    let storage = if is_on_pool { storage.on_pool() } else { storage };
                    let wal = small().open_with(storage).await.unwrap();
                    let payload = || Bytes::from_owner(Owner(wal.clone(), vec![7; bytes]));
                    for _ in 0..3 {
                        within("append", wal.append_and_sync(payload())).await.unwrap();
                        within("batch", wal.append_batch([payload()])).await.unwrap();
                        within("enqueue", wal.enqueue(payload())).await.unwrap();
                        drop(wal.try_enqueue(payload()));
                    }
                    within("sync", wal.sync()).await.unwrap();
                });
            });
        }
    }
}

#[test]
fn raft_values_may_call_their_group_when_dropped() {
    use highwater::raft::{RaftGroup, RaftLog};
    struct Value(RaftGroup);
    impl AsRef<[u8]> for Value {
        fn as_ref(&self) -> &[u8] {
            b"value"
        }
    }
    impl Drop for Value {
        fn drop(&mut self) {
            drop((self.0.state(), self.0.term(1)));
            drop(self.0.set_vote("other").now_or_never());
        }
    }
    ends("a group", || {
        block_on(async {
            let log = RaftLog::options().open_with(MemoryStorage::new()).await.unwrap();
            let group = log.group(1);
            let value = || Bytes::from_owner(Value(group.clone()));
            for index in 1..4 {
                group.set_vote(value()).await.unwrap().synced().await.unwrap();
                group.set_committed(value()).await.unwrap();
                drop(group.set_user(value()).await.unwrap());
                drop(group.purge(index, 1, value()).await.unwrap());
            }
        });
    });
}

/// A subscriber that appends, as in a program that keeps its events in a log.
struct Appends(OnceLock<Wal>, Arc<AtomicU64>);

impl tracing::Subscriber for Appends {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        if let Some(wal) = self.0.get() {
            self.1.fetch_add(1, Ordering::Relaxed);
            call_once(wal);
        }
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn subscribers_may_call_the_log() {
    ends("a subscriber", || {
        let count = Arc::new(AtomicU64::new(0));
        let subscriber = Arc::new(Appends(OnceLock::new(), Arc::clone(&count)));
        let dispatch = tracing::Dispatch::new(Arc::clone(&subscriber));
        tracing::dispatcher::with_default(&dispatch, || {
            block_on(async {
                let wal =
                    small().recycle_segments(2).open_with(MemoryStorage::new()).await.unwrap();
                subscriber.0.set(wal.clone()).ok().unwrap();
                for round in 0..100u8 {
                    let lsn = wal.append_and_sync(vec![round; 900]).await.unwrap();
                    if round % 10 == 3 {
                        wal.truncate_before(lsn).await.unwrap();
                    }
                    if round % 10 == 7 {
                        wal.append("cut").await.unwrap();
                        wal.truncate_after(lsn).await.unwrap();
                    }
                }
                wal.close().await.unwrap();
            });
        });
        assert!(count.load(Ordering::Relaxed) > 20, "events of rotations and truncations");
    });
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a user's waker panics");
    }
}

/// The other tasks are woken, and the log does not stop.
#[tokio::test]
async fn panicking_wakers_leave_no_task_waiting() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    wal.append_and_sync("first").await.unwrap();
    let panics = Waker::from(Arc::new(Panics));
    let syncs = faults.on(Op::Sync).once().gate();
    drop(wal.enqueue("x").await.unwrap().synced().now_or_never());
    reached(&syncs, 1).await;
    let end = wal.watermarks().reserved;
    let mut tasks = Vec::new();
    let mut held = Vec::new();
    for number in 0..96 {
        let wal = wal.clone();
        let wait = move |wal: Wal| async move {
            match number % 4 {
                0 => wal.append_and_sync("y").await.map(drop),
                1 => wal.wait_synced(end).await,
                2 => wal.watch().changed().await.map(drop),
                _ => wal.follow(end).next().await.map_or(Ok(()), |record| record.map(drop)),
            }
        };
        if number % 3 == 0 {
            let mut waits = Box::pin(wait(wal));
            assert!(waits.as_mut().poll(&mut Context::from_waker(&panics)).is_pending());
            held.push(waits);
        } else {
            tasks.push(tokio::spawn(wait(wal)));
        }
    }
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
    syncs.open();
    wal.append_and_sync("after them").await.unwrap();
    for (number, task) in tasks.into_iter().enumerate() {
        within(&format!("task {number}"), task).await.unwrap().unwrap();
    }
    within("close", wal.close()).await.unwrap();
}

/// Tasks wait for the next segment's file; `close` waits for the lock.
#[tokio::test]
async fn panicking_wakers_leave_no_task_without_space() {
    let faults = Faults::new();
    let wal = small().open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    let gate = faults.on(Op::Create).gate();
    let panics = Waker::from(Arc::new(Panics));
    let mut held = Vec::new();
    let mut tasks = Vec::new();
    for number in 0..80 {
        let wal = wal.clone();
        if number % 3 == 0 && number > 30 {
            let mut append = Box::pin(async move { wal.append(vec![1; 900]).await });
            drop(append.as_mut().poll(&mut Context::from_waker(&panics)));
            held.push(append);
        } else {
            tasks.push(tokio::spawn(async move { wal.append(vec![2; 900]).await }));
        }
        tokio::task::yield_now().await;
    }
    gate.open();
    for (number, task) in tasks.into_iter().enumerate() {
        within(&format!("task {number}"), task).await.unwrap().unwrap();
    }
    drop(held);
    within("close", wal.close()).await.unwrap();
}
