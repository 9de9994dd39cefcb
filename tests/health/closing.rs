//! Closing a log whose disk hangs.

use futures::FutureExt;
use highwater::{
    OnStall,
    simulation::{self, Op, pass_time},
};

use crate::{
    AFTER, SECOND, rest, simulated,
    support::{cause, small},
};

/// Holds the first operation of a kind that a close begins, for longer than waiters wait.
fn close_over_held(op: Op, report: &str, policy: OnStall) {
    let options = small().on_stall(policy);
    simulated(&options, async |wal, disk| {
        let kept = wal.append_and_sync("kept").await.unwrap();
        rest().await;
        let gate = disk.faults().on(op).once().gate();
        let mut close = {
            let wal = wal.clone();
            simulation::spawn(async move { wal.close().await })
        };
        gate.reached(1).await;
        let health = wal.health();
        for _ in 0..3 {
            pass_time(AFTER);
            rest().await;
            assert!((&mut close).now_or_never().is_none(), "the close waits");
            assert!(health.get().to_string().starts_with(report), "{}", health.get());
        }
        assert_eq!((wal.stats().stall_count, wal.stats().stalled_time), (1, 3 * AFTER));
        assert!(wal.append("late").await.unwrap_err().is_closed());
        gate.open();
        close.await.unwrap().unwrap();
        assert!(health.get().to_string().starts_with("stopped"), "{}", health.get());
        pass_time(20 * SECOND);
        let wal = options.clone().open_with(disk.clone()).await.unwrap();
        assert!(wal.recovery().was_closed, "{:?}", wal.recovery());
        assert_eq!(wal.read(kept).await.unwrap().payload, "kept");
    });
}

#[test]
fn close_on_a_hanging_disk_waits_and_completes() {
    for policy in [OnStall::Report, OnStall::FailWaiters { after: AFTER }] {
        close_over_held(Op::Write, "stalled: writing", policy);
        close_over_held(Op::Sync, "stalled: flushing", policy);
        // The note of the close.
        close_over_held(Op::Create, "stalled: closing", policy);
    }
}

/// The close gets the reason of the stop, but only once no call is in flight any more.
#[test]
fn close_that_stop_interrupts_waits_too() {
    let options = small().on_stall(OnStall::Stop { after: AFTER });
    simulated(&options, async |wal, disk| {
        wal.append("written").await.unwrap();
        let gate = disk.faults().on(Op::Sync).once().gate();
        let mut close = {
            let wal = wal.clone();
            simulation::spawn(async move { wal.close().await })
        };
        gate.reached(1).await;
        pass_time(AFTER);
        rest().await;
        assert!(wal.health().get().to_string().starts_with("stopped"), "{}", wal.health().get());
        assert!((&mut close).now_or_never().is_none(), "the close waits");
        gate.open();
        let error = close.await.unwrap().unwrap_err();
        assert!(cause(&error).contains("has not returned for 5.0s"), "{error:#}");
    });
}
