//! Helpers of the integration tests: small logs, waits with a limit, and reading everything back.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test binary uses its own part, and a mistake in a test must stop it"
)]

pub(crate) mod clocked;

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use futures::TryStreamExt;
use highwater::{
    Error, Lsn, Options, Wal,
    simulation::{Gate, Image},
};

/// The limit of every wait: long enough for a slow machine, so exceeding it means a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);

/// A record of this size takes the whole 1 KiB ring of [`small`].
pub(crate) const RING_PAYLOAD_BYTES: usize = 1024 - 16;

/// Returns options with limits that a few records reach.
pub(crate) fn small() -> Options {
    Wal::options().segment_bytes(16 << 10).ring_bytes(1 << 10)
}

/// Returns options with segments of 4 KiB of frames and a ring of 1 KiB.
pub(crate) fn tiny() -> Options {
    Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 10)
}

/// Appends `count` records of 96 bytes and syncs the log. Returns their LSNs.
pub(crate) async fn filled(wal: &Wal, count: u64) -> Vec<Lsn> {
    let mut lsns = Vec::new();
    for i in 0..count {
        lsns.push(wal.append(&i.to_le_bytes().repeat(12)).await.unwrap());
    }
    wal.sync().await.unwrap();
    lsns
}

/// Returns a copy of the image with one changed file.
pub(crate) fn edited(image: &Image, name: &str, edit: impl FnOnce(&mut Vec<u8>)) -> Image {
    let mut bytes = image.bytes(name).unwrap().to_vec();
    edit(&mut bytes);
    let mut image = image.clone();
    image.put(name, bytes);
    image
}

/// Awaits `future`. Panics with `what` if it takes longer than [`PATIENCE`].
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(result) => result,
        Err(_) => panic!("{what}: it hangs"),
    }
}

/// Waits until `count` operations have reached a gate.
pub(crate) async fn reached(gate: &Gate, count: u64) {
    within("operations at the gate", gate.reached(count)).await;
}

/// Replays all records of the log.
pub(crate) async fn records(wal: &Wal) -> Vec<(Lsn, Vec<u8>)> {
    let all: Vec<_> =
        within("replay", wal.replay(..).try_collect()).await.expect("the log can be replayed");
    all.into_iter().map(|record: highwater::Record| (record.lsn, record.payload.to_vec())).collect()
}

/// Opens a log as soon as the last job of the previous handle has freed the lock.
pub(crate) async fn open_when_free<S: highwater::storage::Storage>(storage: impl Fn() -> S) -> Wal {
    let opened = async {
        loop {
            match small().open_with(storage()).await {
                Err(Error::Locked { .. }) => tokio::task::yield_now().await,
                opened => break opened.expect("the log must open"),
            }
        }
    };
    within("opening once the lock is free", opened).await
}

/// Checks that no ring space has leaked: one record takes the whole ring of a [`small`] log.
pub(crate) async fn assert_ring_is_whole(wal: &Wal) {
    let whole = async {
        loop {
            match wal.try_enqueue(vec![0xee; RING_PAYLOAD_BYTES]) {
                Ok(ticket) => break ticket.synced().await.expect("the record must sync"),
                // A mark, or the record of a dropped future, may still occupy the ring.
                Err(Error::Full) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    within("filling the ring (have permits leaked?)", whole).await;
}

/// Returns the cause inside `Poisoned` as text. Panics for any other error.
pub(crate) fn cause(error: &Error) -> String {
    match error {
        Error::Poisoned { cause } => format!("{cause:#}"),
        other => panic!("not poisoned: {other}"),
    }
}

/// The size of the mark that a sync leaves at the end of an idle log.
pub(crate) const MARK_BYTES: u64 = 24;

/// Waits until a new, synced log has written its mark: until then a job still runs.
pub(crate) async fn settled(wal: &Wal) {
    let left = async {
        while wal.stats().written_bytes != wal.watermarks().synced.as_u64() + MARK_BYTES {
            tokio::task::yield_now().await;
        }
    };
    within("the mark of the idle log", left).await;
}

/// A waker whose wake-up a test can await.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
    pub(crate) count: AtomicU64,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap() = true;
        self.count.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_all();
    }
}

impl Bell {
    pub(crate) fn new() -> (Arc<Self>, Waker) {
        let bell = Arc::new(Self::default());
        (Arc::clone(&bell), Waker::from(bell))
    }

    /// Waits for a wake-up and resets it.
    pub(crate) fn wait(&self) {
        let guard = self.rung.lock().unwrap();
        let (mut rung, timeout) =
            self.changed.wait_timeout_while(guard, PATIENCE, |rung| !*rung).unwrap();
        assert!(!timeout.timed_out(), "a pending future was never woken");
        *rung = false;
    }
}

/// Polls `future` up to `polls` times, then drops it if it is pending. Before each later poll,
/// `step` lets the log continue, and the future must be woken.
pub(crate) fn poll_and_drop<T>(
    future: impl Future<Output = T>,
    polls: usize,
    step: impl Fn(usize),
) -> Option<T> {
    let (bell, waker) = Bell::new();
    // The task does not yield, so tokio's budget would end within one poll.
    let mut future = pin!(tokio::task::unconstrained(future));
    for i in 0..polls {
        if i > 0 {
            step(i);
            bell.wait();
        }
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(result);
        }
    }
    None
}
