//! What the integration tests share: small logs, bounded waits, and reading everything back.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "each test binary uses its own part, and a test that can't go on panics"
)]

use std::{
    future::Future,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use futures::TryStreamExt;
use highwater::{Error, Lsn, Options, Wal, simulation::Gate};

/// Long enough for a slow machine; a test that gets here has found a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);

/// The ring of [`small`]: 1 KiB, so that one record of [`RING_PAYLOAD_BYTES`] takes all of it.
pub(crate) const RING_PAYLOAD_BYTES: usize = 1024 - 16;

/// A log whose limits are reached by a handful of records.
pub(crate) fn small() -> Options {
    Wal::options().segment_bytes(16 << 10).ring_bytes(1 << 10)
}

/// The answer of `future`, which must come: a hang fails with a name instead of stopping the run.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(answer) => answer,
        Err(_) => panic!("{what}: no answer"),
    }
}

/// Waits until `count` operations have come to a gate.
pub(crate) async fn reached(gate: &Gate, count: u64) {
    within("nothing came to the gate", gate.reached(count)).await;
}

/// Everything in the log, through `replay`.
pub(crate) async fn records(wal: &Wal) -> Vec<(Lsn, Vec<u8>)> {
    let all: Vec<_> =
        within("replay", wal.replay(..).try_collect()).await.expect("the log can be replayed");
    all.into_iter().map(|record: highwater::Record| (record.lsn, record.payload.to_vec())).collect()
}

/// Opens a log whose last job may still be ending: it frees the lock when it has.
pub(crate) async fn open_when_free<S: highwater::storage::Storage>(storage: impl Fn() -> S) -> Wal {
    let opened = async {
        loop {
            match small().open_with(storage()).await {
                Err(Error::Locked { .. }) => tokio::task::yield_now().await,
                opened => break opened.expect("it opens"),
            }
        }
    };
    within("the lock was never freed", opened).await
}

/// Every permit of the ring of a [`small`] log is there: one record takes them all.
pub(crate) async fn assert_ring_is_whole(wal: &Wal) {
    let whole = async {
        loop {
            match wal.try_enqueue(vec![0xee; RING_PAYLOAD_BYTES]) {
                Ok(ticket) => break ticket.synced().await.expect("it syncs"),
                // A mark frame, or a record of a dropped future, may still be on its way.
                Err(Error::Full) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    within("permits have leaked: filling the ring", whole).await;
}

/// The cause inside `Poisoned`, as text; panics for any other error.
pub(crate) fn cause(error: &Error) -> String {
    match error {
        Error::Poisoned { cause } => cause.to_string(),
        other => panic!("not poisoned: {other}"),
    }
}

/// The mark that a sync leaves behind an idle log.
pub(crate) const MARK_BYTES: u64 = 24;

/// Waits until a log that was created by this handle, and synced, has left its mark: until then a
/// job of it is still at work.
pub(crate) async fn settled(wal: &Wal) {
    let left = async {
        while wal.stats().written_bytes != wal.watermarks().synced.as_u64() + MARK_BYTES {
            tokio::task::yield_now().await;
        }
    };
    within("the mark of an idle log", left).await;
}

/// A waker that a test can wait for.
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

    /// Waits for a ring, and takes it.
    pub(crate) fn wait(&self) {
        let guard = self.rung.lock().unwrap();
        let (mut rung, timeout) =
            self.changed.wait_timeout_while(guard, PATIENCE, |rung| !*rung).unwrap();
        assert!(!timeout.timed_out(), "a pending future was never woken");
        *rung = false;
    }
}
