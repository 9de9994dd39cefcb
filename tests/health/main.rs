//! Health: stalls are seen while they last, waiters get an honest answer, and nothing is lost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod closing;
mod events;
mod frozen;
mod real;
mod supply;
mod waiters;

#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use highwater::{
    Options, Wal,
    simulation::{self, Disk, Gate, Op, Simulation, pass_time},
};
use support::small;

const SECOND: Duration = Duration::from_secs(1);

/// The time after which waiters fail, or the log stops, in these tests.
const AFTER: Duration = Duration::from_secs(5);

/// Runs a test on a log over a simulated disk, in several schedules.
fn simulated(options: &Options, run: impl AsyncFn(Wal, Disk)) {
    simulation::for_each_seed(20, |seed| {
        Simulation::new(seed).run(async {
            let disk = Disk::new(seed);
            let wal = options.clone().open_with(disk.clone()).await.unwrap();
            run(wal, disk).await;
        });
    });
}

/// Holds the next operation of a kind, and begins a commit that reaches it.
async fn held_commit(wal: &Wal, disk: &Disk, op: Op) -> (Gate, simulation::Task<highwater::Lsn>) {
    let gate = disk.faults().on(op).once().gate();
    let wal = wal.clone();
    let commit = simulation::spawn(async move { wal.append_and_sync("held").await.unwrap() });
    gate.reached(1).await;
    (gate, commit)
}

/// Lets all woken tasks and jobs run, except for held ones.
async fn rest() {
    for _ in 0..200 {
        simulation::yield_now().await;
    }
}

/// Opens a gate, and returns when the held call has returned.
async fn thaw(wal: &Wal, gate: &Gate) {
    gate.open();
    while wal.health().get().is_stalled() {
        rest().await;
        pass_time(Duration::ZERO);
    }
}

#[test]
fn stall_is_reported_while_it_lasts() {
    simulated(&small(), async |wal, disk| {
        wal.append_and_sync("before").await.unwrap();
        let mut health = wal.health();
        let (gate, commit) = held_commit(&wal, &disk, Op::Sync).await;
        pass_time(SECOND - Duration::from_millis(1));
        assert!(health.get().is_good(), "{}", health.get());
        pass_time(Duration::from_millis(1));
        let stalled = health.changed().await.unwrap();
        assert!(stalled.is_stalled(), "{stalled}");
        let text = stalled.to_string();
        assert_eq!(text, "stalled: flushing 00000000000000000001.wal has not returned for 1.0s");
        pass_time(6 * SECOND);
        assert!(health.get().to_string().ends_with("7.0s"), "{}", health.get());
        assert_eq!((wal.stats().stall_count, wal.stats().stalled_time), (1, 7 * SECOND));
        gate.open();
        commit.await.unwrap();
        pass_time(Duration::ZERO);
        assert_eq!(wal.stats().stall_count, 1);
    });
}

#[test]
fn health_is_slow_for_15_s_after_a_stall() {
    simulated(&small(), async |wal, disk| {
        let health = wal.health();
        let (gate, commit) = held_commit(&wal, &disk, Op::Sync).await;
        pass_time(2 * SECOND);
        assert!(health.get().is_stalled());
        thaw(&wal, &gate).await;
        commit.await.unwrap();
        assert!(health.get().to_string().starts_with("slow"), "{}", health.get());
        wal.append_and_sync("fast").await.unwrap();
        rest().await;
        pass_time(14 * SECOND);
        assert!(!health.get().is_good(), "{}", health.get());
        pass_time(SECOND);
        assert!(health.get().is_good(), "{}", health.get());
    });
}

#[test]
fn many_fast_calls_are_no_stall() {
    simulated(&small(), async |wal, _| {
        for _ in 0..20 {
            wal.append_and_sync(vec![1; 700]).await.unwrap();
            rest().await;
            pass_time(Duration::from_millis(900));
            assert!(wal.health().get().is_good());
        }
        assert!(wal.stats().rotation_count > 0);
        assert_eq!(wal.stats().stall_count, 0);
    });
}

/// `serde` is a feature of the tests.
#[test]
fn health_can_be_serialized() {
    fn is_serializable<T: serde::Serialize>() {}
    is_serializable::<highwater::Health>();
    is_serializable::<highwater::Operation>();
}
