//! A copy stays identical: live, over many segments, after reconnects and restarts of both sides.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod support;

use highwater::{Lsn, Wal, simulation::Disk};
use highwater_replicate::{Error, Options, Replicas};
use support::{
    Kept, Link, assert_identical, caught_up, log_options, options, records, reopened, replica_on,
    run,
};

async fn append(wal: &Wal, count: usize, bytes: usize) {
    for number in 0..count {
        wal.append(format!("{number:0bytes$}")).await.unwrap();
        if number % 5 == 0 {
            wal.sync().await.unwrap();
        }
    }
}

#[test]
fn live_records_are_copied_bit_for_bit() {
    run(async {
        let (a, b) = (Disk::new(1), Disk::new(2));
        let wal = log_options().open_with(a.clone()).await.unwrap();
        let replicas = Replicas::new(&wal, options());
        let replica = replica_on(&b).await;
        let link = Link::new(&replicas, &replica);
        for number in 0..100 {
            let lsn = replicas.append_and_replicate(vec![number; 300], 1).await.unwrap();
            assert!(replica.marks().synced > lsn && replicas.mark(1) > lsn);
        }
        wal.append_batch([vec![1; 700], vec![2; 900], vec![3; 10]]).await.unwrap();
        caught_up(&wal, &replica).await;
        assert_identical(&a, &b, replica.marks().synced);
        assert!(support::segment_files(&b).len() > 4);
        link.cut().await;
    });
}

#[test]
fn copy_catches_up_and_resumes_after_each_cut() {
    run(async {
        let (a, b) = (Disk::new(3), Disk::new(4));
        let wal = log_options().open_with(a.clone()).await.unwrap();
        append(&wal, 200, 200).await;
        let replicas = Replicas::new(&wal, options());
        let replica = replica_on(&b).await;
        // Cut after some progress, again and again.
        for round in 0..8 {
            let link = Link::new(&replicas, &replica);
            for _ in 0..40 * round {
                tokio::task::yield_now().await;
            }
            link.cut().await;
            append(&wal, 10, 300).await;
        }
        let link = Link::new(&replicas, &replica);
        caught_up(&wal, &replica).await;
        assert_identical(&a, &b, replica.marks().synced);
        link.cut().await;
    });
}

#[test]
fn copy_resumes_after_restart_of_either_side() {
    run(async {
        let (a, b) = (Disk::new(5), Disk::new(6));
        for round in 0..6 {
            let wal = log_options().open_with(a.clone()).await.unwrap();
            let replicas = Replicas::new(&wal, options());
            let replica = reopened(&b).await;
            let link = Link::new(&replicas, &replica);
            append(&wal, 30, 250).await;
            caught_up(&wal, &replica).await;
            assert_identical(&a, &b, replica.marks().synced);
            link.cut().await;
            append(&wal, 3, 250).await;
            if round % 2 == 0 {
                wal.close().await.unwrap();
            }
        }
    });
}

#[test]
fn standby_is_refused_for_writing_and_readable() {
    run(async {
        let (a, b) = (Disk::new(7), Disk::new(8));
        let wal = log_options().open_with(a.clone()).await.unwrap();
        let replicas = Replicas::new(&wal, options());
        let replica = replica_on(&b).await;
        let link = Link::new(&replicas, &replica);
        append(&wal, 50, 200).await;
        caught_up(&wal, &replica).await;
        let second = highwater_replicate::Replica::open_with("c", b.clone(), options()).await;
        let is_locked =
            |error: &Error| matches!(error, Error::Log(highwater::Error::Locked { .. }));
        assert!(second.is_err_and(|error| is_locked(&error)));
        link.cut().await;
        drop(replica);
        let opened = log_options().open_with(b.clone()).await;
        assert!(matches!(opened, Err(highwater::Error::Standby { .. })), "{opened:?}");
        // A log is no standby.
        drop((replicas, wal));
        let opened = highwater_replicate::Replica::open_with("b", a.clone(), options()).await;
        assert!(matches!(opened, Err(Error::NotAStandby { .. })), "{opened:?}");
    });
}

#[test]
fn truncated_beginning_frees_the_copy() {
    run(async {
        let (a, b) = (Disk::new(9), Disk::new(10));
        let wal = log_options().open_with(a.clone()).await.unwrap();
        let replicas = Replicas::new(&wal, options());
        let replica = replica_on(&b).await;
        let link = Link::new(&replicas, &replica);
        append(&wal, 100, 300).await;
        caught_up(&wal, &replica).await;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let lsn = wal.append_and_sync("the slot moves with this").await.unwrap();
        let before = support::segment_files(&b).len();
        let first = wal.truncate_before(lsn).await.unwrap();
        assert!(first > Lsn::ZERO, "the slot has moved");
        append(&wal, 60, 300).await;
        caught_up(&wal, &replica).await;
        assert!(support::segment_files(&b).len() < before);
        assert_identical(&a, &b, replica.marks().synced);
        link.cut().await;
    });
}

#[test]
fn truncated_end_is_followed() {
    run(async {
        let (a, b) = (Disk::new(11), Disk::new(12));
        let wal = log_options().open_with(a.clone()).await.unwrap();
        let replicas = Replicas::new(&wal, options());
        let replica = replica_on(&b).await;
        let link = Kept::new(&replicas, &replica);
        for round in 0..6 {
            append(&wal, 20, 300).await;
            let kept = wal.append_and_sync("kept").await.unwrap();
            append(&wal, 10 * round, 300).await;
            caught_up(&wal, &replica).await;
            wal.truncate_after(kept).await.unwrap();
            assert!(replicas.mark(1) <= wal.watermarks().reserved, "no mark above the cut");
            wal.append_and_sync("after the cut").await.unwrap();
            replicas.append_and_replicate("again", 1).await.unwrap();
            caught_up(&wal, &replica).await;
        }
        link.cut().await;
        let epoch = replica.next_epoch().await.unwrap();
        let expected = records(&wal).await;
        let promoted = replica.promote_with(epoch, log_options()).await.unwrap();
        assert_eq!(records(&promoted).await, expected);
    });
}

#[test]
fn recovered_leader_is_followed_into_its_epoch() {
    run(async {
        let (mut a, b) = (Disk::new(13), Disk::new(14));
        let mut expected = Vec::new();
        for round in 0..8 {
            let wal = log_options().open_with(a.clone()).await.unwrap();
            let replicas = Replicas::new(&wal, options());
            let replica = reopened(&b).await;
            let link = Link::new(&replicas, &replica);
            for number in 0..7 {
                let payload = format!("{round} {number:200}");
                let lsn = replicas.append_and_replicate(payload.clone(), 1).await.unwrap();
                expected.push((lsn, payload.into_bytes()));
            }
            // Not durable, so a loss of power tears them.
            wal.append(vec![9; 900]).await.unwrap();
            wal.append(vec![9; 900]).await.unwrap();
            let crashed = a.crash(highwater::simulation::Survival::Random(round));
            link.cut().await;
            assert_identical(&a, &b, replica.marks().synced);
            a = crashed;
        }
        let replica = reopened(&b).await;
        let epoch = replica.next_epoch().await.unwrap();
        let promoted = replica.promote_with(epoch, log_options()).await.unwrap();
        let found = records(&promoted).await;
        for record in expected {
            assert!(found.contains(&record), "{}", record.0);
        }
    });
}

#[test]
fn replica_beyond_its_limit_needs_a_new_copy() {
    run(async {
        let (a, b) = (Disk::new(15), Disk::new(16));
        let wal = log_options().open_with(a.clone()).await.unwrap();
        let limited = Options::default().keep_at_most(20_000);
        let replicas = Replicas::new(&wal, limited);
        let replica = replica_on(&b).await;
        let link = Link::new(&replicas, &replica);
        append(&wal, 10, 300).await;
        caught_up(&wal, &replica).await;
        link.cut().await;
        append(&wal, 20, 300).await;
        let end = wal.sync().await.unwrap();
        assert!(
            wal.truncate_before(end).await.unwrap() < Lsn::new(10_000),
            "the slot holds it back"
        );
        append(&wal, 200, 300).await;
        let last = wal.append_and_sync("last").await.unwrap();
        assert_eq!(wal.truncate_before(last).await.unwrap(), last, "the slot is beyond its limit");
        append(&wal, 60, 300).await;
        let (leader, copy) = Link::new(&replicas, &replica).ended().await;
        assert!(matches!(leader, Error::TooFarBehind { .. }), "{leader}");
        assert!(matches!(copy, Error::TooFarBehind { .. }), "{copy}");
        // An empty directory gets a new copy of the shorter log.
        let c = Disk::new(17);
        let fresh = replica_on(&c).await;
        let link = Kept::new(&replicas, &fresh);
        caught_up(&wal, &fresh).await;
        assert_identical(&a, &c, fresh.marks().synced);
        link.cut().await;
        let epoch = fresh.next_epoch().await.unwrap();
        let promoted = fresh.promote_with(epoch, log_options()).await.unwrap();
        assert_eq!(records(&promoted).await, records(&wal).await);
    });
}
