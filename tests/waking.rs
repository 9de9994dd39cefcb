//! Wake-ups after a flush: a worker of the runtime may do them, and none depends on it.

#![allow(clippy::unwrap_used, reason = "a mistake in a test must stop it")]

mod support;

use std::{sync::mpsc, thread, time::Duration};

use highwater::{
    Wal,
    simulation::{Disk, Faults, Op},
};
use support::{reached, within};
use tokio::runtime::Builder;

/// More than enough for a group that a worker wakes.
const COMMITS: u64 = 40;

const RECORD: [u8; 104] = [7; 104];
const HEADER_BYTES: u64 = 16;

/// Commits from threads that are not the runtime's share a flush while all workers are blocked.
#[test]
fn blocked_workers_delay_no_wake_up() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let faults = Faults::new();
    let storage = faults.over(Disk::new(1)).on_pool();
    let wal = runtime.block_on(Wal::options().open_with(storage)).unwrap();
    let gate = faults.on(Op::Sync).once().gate();
    let (done, is_done) = mpsc::channel();
    for _ in 0..COMMITS {
        let (wal, done) = (wal.clone(), done.clone());
        thread::spawn(move || {
            futures::executor::block_on(wal.append_and_sync(&RECORD)).unwrap();
            done.send(()).unwrap();
        });
    }
    // One flush is held at the gate, and the next one serves all other commits.
    let others_wait = async {
        reached(&gate, 1).await;
        while wal.watermarks().reserved.as_u64() < COMMITS * (HEADER_BYTES + RECORD.len() as u64) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    runtime.block_on(within("all commits", others_wait));
    let (blocked, is_blocked) = mpsc::channel();
    let releases: Vec<_> = (0..2)
        .map(|_| {
            let ((release, is_released), blocked) = (mpsc::channel::<()>(), blocked.clone());
            runtime.spawn(async move {
                blocked.send(()).unwrap();
                let _ = is_released.recv();
            });
            release
        })
        .collect();
    (0..2).for_each(|_| is_blocked.recv_timeout(Duration::from_secs(20)).unwrap());
    gate.open();
    for _ in 0..COMMITS {
        is_done.recv_timeout(Duration::from_secs(20)).expect("no commit waits for a worker");
    }
    drop(releases);
    runtime.block_on(wal.close()).unwrap();
}
