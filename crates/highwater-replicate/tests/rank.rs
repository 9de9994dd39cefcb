//! The rank of a copy, and which copies count.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod support;

use std::time::Duration;

use highwater::{
    Lsn, Wal, shipping,
    simulation::{Disk, Survival},
    storage::Storage,
};
use highwater_replicate::{Error, OnDivergence, Options, Replica, Replicas};
use support::{Link, caught_up, log_options, options, records, replica_on, run, stalled};

/// Longer than a step of a connection, and shorter than its timeout.
const A_WHILE: Duration = Duration::from_millis(500);

async fn leader(disk: &Disk, count: usize) -> (Wal, Replicas) {
    let wal = log_options().open_with(disk.clone()).await.unwrap();
    for number in 0..count {
        wal.append_and_sync(format!("{number:300}")).await.unwrap();
    }
    let replicas = Replicas::new(&wal, options());
    (wal, replicas)
}

/// A leader that was recovered below the end of the copy, and is lost again at each step of the
/// next connection.
#[test]
fn connection_to_recovered_leader_keeps_the_rank() {
    let mut count = 0;
    for (seed, stop) in (0..8).flat_map(|seed| (100..500).step_by(20).map(move |at| (seed, at))) {
        run(async {
            let a = Disk::new(1);
            let (wal, replicas) = leader(&a, 5).await;
            let replica = replica_on(&Disk::new(2)).await;
            let link = Link::new(&replicas, &replica);
            replicas.append_and_replicate("acknowledged", 1).await.unwrap();
            // Not durable, so a loss of power tears them, and a new epoch begins.
            wal.append(vec![9; 900]).await.unwrap();
            wal.append(vec![9; 900]).await.unwrap();
            let crashed = a.crash(Survival::Random(seed));
            link.cut().await;
            let before = replica.marks();

            let (wal, replicas) = leader(&crashed, 0).await;
            let (segments, _) = shipping::Source::new(&wal).segments();
            if segments.last().unwrap().base < before.synced {
                count += 1;
            }
            let stalled = stalled(&replicas, &replica, stop);
            tokio::time::sleep(A_WHILE).await;
            assert!(replica.marks().rank() >= before.rank(), "seed {seed}, {stop} bytes");
            stalled.abort();
        });
    }
    assert!(count > 0, "no leader was recovered below the end of the copy");
}

#[test]
fn incomplete_first_copy_does_not_count() {
    run(async {
        let (_wal, replicas) = leader(&Disk::new(3), 60).await;
        let replica = replica_on(&Disk::new(4)).await;
        let _stalled = stalled(&replicas, &replica, 12_000);
        tokio::time::sleep(A_WHILE).await;
        assert!(replica.marks().synced > Lsn::ZERO, "a segment has arrived");
        assert!(replicas.peers()[0].written > Lsn::ZERO, "a report has arrived");
        assert_eq!(replicas.mark(1), Lsn::ZERO);
        assert_eq!(replica.marks().rank(), (0, Lsn::ZERO));
    });
}

#[test]
fn promoted_copy_promises_nothing() {
    run(async {
        let (wal, replicas) = leader(&Disk::new(5), 5).await;
        let b = Disk::new(6);
        let replica = replica_on(&b).await;
        let link = Link::new(&replicas, &replica);
        caught_up(&wal, &replica).await;
        link.cut().await;
        let (clone, epoch) = (replica.clone(), replica.next_epoch().await.unwrap());
        let promoted = replica.promote_with(epoch, log_options()).await.unwrap();
        let next = clone.next_epoch().await.unwrap();
        let promised = clone.promise(next).await;
        assert!(matches!(promised, Err(Error::NotAStandby { .. })), "{promised:?}");
        let (_, followed) = Link::new(&replicas, &clone).ended().await;
        assert!(matches!(followed, Error::Fenced { .. }), "{followed}");
        promoted.close().await.unwrap();
        log_options().open_with(b).await.unwrap();
    });
}

fn put(disk: &Disk, name: &str, bytes: &[u8]) {
    let file = disk.create(name).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync_all().unwrap();
    disk.sync_dir().unwrap();
}

/// A power cut after the new line arrived, and before the last file of the old one was removed.
#[test]
fn old_segment_with_higher_number_is_replaced() {
    run(async {
        let (a, b) = (Disk::new(7), Disk::new(8));
        let (old, replicas) = leader(&a, 5).await;
        let replica = replica_on(&b).await;
        let link = Link::new(&replicas, &replica);
        caught_up(&old, &replica).await;
        link.cut().await;
        for number in 0..80 {
            old.append_and_sync(format!("on the old leader alone {number:300}")).await.unwrap();
        }
        old.close().await.unwrap();
        drop((old, replicas));
        let epoch = replica.next_epoch().await.unwrap();
        let wal = replica.promote_with(epoch, log_options()).await.unwrap();
        Replica::demote(a.clone()).await.unwrap();
        let (name, bytes) = support::segment_files(&a).pop_last().unwrap();

        let set_aside = || Options::default().on_divergence(OnDivergence::SetAside);
        let joined = Replica::open_with("a", a.clone(), set_aside()).await.unwrap();
        let replicas = Replicas::new(&wal, options());
        let link = Link::new(&replicas, &joined);
        caught_up(&wal, &joined).await;
        link.cut().await;
        let before = joined.marks();
        assert_eq!(before.epoch, epoch);
        drop(joined);
        assert!(!support::segment_files(&a).contains_key(&name));
        put(&a, &name, &bytes);
        let joined = Replica::open_with("a", a.clone(), set_aside()).await.unwrap();
        assert_eq!(joined.marks().rank(), before.rank());
        assert!(!support::segment_files(&a).contains_key(&name), "removed");
        let promoted = joined.next_epoch().await.unwrap();
        let promoted = joined.promote_with(promoted, log_options()).await.unwrap();
        assert_eq!(records(&promoted).await, records(&wal).await);
    });
}

#[test]
fn unreadable_newest_header_without_promise_is_damage() {
    run(async {
        let b = Disk::new(10);
        let (wal, replicas) = leader(&Disk::new(9), 40).await;
        let replica = replica_on(&b).await;
        let link = Link::new(&replicas, &replica);
        caught_up(&wal, &replica).await;
        link.cut().await;
        let before = replica.marks();
        drop(replica);
        let (name, bytes) = support::segment_files(&b).pop_last().unwrap();
        let next = shipping::file_name(shipping::sequence_of(&name).unwrap() + 1);

        // Prepared and never begun.
        put(&b, &next, &[0; 9000]);
        let replica = replica_on(&b).await;
        assert_eq!(replica.marks(), before);
        drop(replica);

        let mut damaged = bytes;
        damaged[..4096].fill(7);
        put(&b, &next, &damaged);
        let opened = Replica::open_with("b", b.clone(), options()).await;
        assert!(matches!(opened, Err(Error::Damaged { .. })), "{opened:?}");

        b.remove(&next).unwrap();
        let replica = replica_on(&b).await;
        replica.promise(replica.next_epoch().await.unwrap()).await.unwrap();
        drop(replica);
        // Now it is the file of an interrupted promotion.
        put(&b, &next, &damaged);
        let replica = replica_on(&b).await;
        assert_eq!(replica.marks().rank(), before.rank());
    });
}

#[test]
fn wait_for_replicas_ends_with_the_log() {
    run(async {
        let (wal, replicas) = leader(&Disk::new(11), 5).await;
        let kept = wal.append_and_sync("kept").await.unwrap();
        let ticket = wal.enqueue("truncated").await.unwrap();
        let lost = ticket.lsn();
        let waiting = replicas.clone();
        let waiting = tokio::spawn(async move { waiting.replicated(&ticket, 1).await });
        tokio::time::sleep(A_WHILE).await;
        wal.truncate_after(kept).await.unwrap();
        let ended = waiting.await.unwrap();
        assert!(matches!(ended, Err(Error::Truncated { to }) if to <= lost), "{ended:?}");

        let ticket = wal.enqueue("closed").await.unwrap();
        let waiting = tokio::spawn(async move { replicas.replicated(&ticket, 1).await });
        tokio::time::sleep(A_WHILE).await;
        wal.close().await.unwrap();
        let ended = waiting.await.unwrap();
        assert!(matches!(ended, Err(Error::Log(_))), "{ended:?}");
    });
}

/// A copy whose newest segment is complete, and that has not received the next one. The leader is
/// truncated as far as the slots allow.
#[test]
fn truncation_keeps_the_newest_segment_of_a_copy() {
    let mut count = 0;
    for stop in (500..16_000).step_by(250) {
        run(async {
            let (wal, replicas) = leader(&Disk::new(12), 5).await;
            let replica = replica_on(&Disk::new(13)).await;
            let link = Link::new(&replicas, &replica);
            caught_up(&wal, &replica).await;
            link.cut().await;
            for number in 0..40 {
                wal.append_and_sync(format!("{number:300}")).await.unwrap();
            }
            let stalled = stalled(&replicas, &replica, stop);
            // Reports come meanwhile, and move the slot.
            tokio::time::sleep(6 * A_WHILE).await;
            let (segments, _) = shipping::Source::new(&wal).segments();
            let synced = replica.marks().synced;
            count += usize::from(segments.iter().skip(1).any(|segment| segment.base == synced));
            let last = wal.append_and_sync("last").await.unwrap();
            let _ = wal.truncate_before(last).await;
            stalled.abort();
            let link = Link::new(&replicas, &replica);
            let ended = tokio::select! {
                () = caught_up(&wal, &replica) => None,
                ended = link.ended() => Some(ended),
            };
            assert!(ended.is_none(), "{stop} bytes: {ended:?}");
        });
    }
    assert!(count > 0, "no copy ended with a segment");
}

/// The disk has room for the bytes of the newest segment, and not for the file of the next one.
#[test]
fn copy_without_room_for_the_next_file_continues() {
    run(async {
        let b = Disk::new(15);
        let (wal, replicas) = leader(&Disk::new(14), 5).await;
        let replica = replica_on(&b).await;
        let link = Link::new(&replicas, &replica);
        caught_up(&wal, &replica).await;
        link.cut().await;
        drop(replica);
        // The opening removes the prepared file.
        let replica = replica_on(&b).await;
        let used: usize = support::segment_files(&b).values().map(Vec::len).sum();
        b.set_capacity_bytes(used as u64 + 2000);
        let link = Link::new(&replicas, &replica);
        for _ in 0..3 {
            let counted = replicas.append_and_replicate("in the newest segment", 1);
            tokio::time::timeout(20 * A_WHILE, counted).await.unwrap().unwrap();
        }
        assert!(replicas.peers()[0].is_connected);
        assert!(b.list().unwrap().iter().all(|name| !shipping::is_receiving(name)));
        link.cut().await;
    });
}
