//! Promotion, fencing, and old leaders that join again.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod support;

use std::collections::BTreeMap;

use highwater::{Wal, simulation::Disk};
use highwater_replicate::{
    Error, OnDivergence, Options, Replica, Replicas,
    mistake::{self, Mistake},
};
use support::{Kept, Link, assert_identical, caught_up, log_options, options, records, run};

async fn named(name: &str, disk: &Disk) -> Replica {
    Replica::open_with(name, disk.clone(), options()).await.unwrap()
}

/// A leader on `a` with a replica on `b` that has its records.
async fn pair(a: &Disk, b: &Disk) -> (Wal, Replicas, Replica) {
    let wal = log_options().open_with(a.clone()).await.unwrap();
    let replicas = Replicas::new(&wal, options());
    let replica = named("b", b).await;
    let link = Link::new(&replicas, &replica);
    for number in 0..30 {
        replicas.append_and_replicate(format!("{number:300}"), 1).await.unwrap();
    }
    caught_up(&wal, &replica).await;
    link.cut().await;
    (wal, replicas, replica)
}

#[test]
fn old_leader_is_refused() {
    run(async {
        let (wal, replicas, replica) = pair(&Disk::new(1), &Disk::new(2)).await;
        let epoch = replica.next_epoch().await.unwrap();
        let marks = replica.promise(epoch).await.unwrap();
        assert_eq!(marks, replica.promise(epoch).await.unwrap(), "a second promise has no effect");
        let link = Link::new(&replicas, &replica);
        let waiting = replicas.append_and_replicate("not acknowledged", 1).await;
        assert!(matches!(waiting, Err(Error::Fenced { promised }) if promised == epoch));
        let (leader, copy) = link.ended().await;
        assert!(matches!(leader, Error::Fenced { .. }), "{leader}");
        assert!(matches!(copy, Error::Fenced { .. }), "{copy}");
        wal.append_and_sync("the log itself continues").await.unwrap();
    });
}

/// A control: a replica that accepts a lower line acknowledges records of the old leader.
#[test]
fn acceptance_of_lower_line_is_caught() {
    run(async {
        let (_wal, replicas, replica) = pair(&Disk::new(3), &Disk::new(4)).await;
        let epoch = replica.next_epoch().await.unwrap();
        replica.promise(epoch).await.unwrap();
        mistake::make(Some(Mistake::AcceptLowerEpoch));
        let link = Link::new(&replicas, &replica);
        let acknowledged = replicas.append_and_replicate("acknowledged by mistake", 1).await;
        mistake::make(None);
        assert!(acknowledged.is_ok(), "the check of old_leader_is_refused would fail");
        link.cut().await;
    });
}

#[test]
fn promise_ends_a_running_connection() {
    run(async {
        let (_wal, replicas, replica) = pair(&Disk::new(5), &Disk::new(6)).await;
        let link = Kept::new(&replicas, &replica);
        replicas.append_and_replicate("acknowledged", 1).await.unwrap();
        let epoch = replica.next_epoch().await.unwrap();
        let before = replica.promise(epoch).await.unwrap();
        let waiting = replicas.append_and_replicate("too late", 1).await;
        assert!(matches!(waiting, Err(Error::Fenced { .. })), "{waiting:?}");
        assert_eq!(replica.marks(), before, "no byte after the promise");
        link.cut().await;
    });
}

#[test]
fn promoted_copy_has_all_records_and_leads_the_others() {
    run(async {
        let (a, b, c) = (Disk::new(7), Disk::new(8), Disk::new(9));
        let wal = log_options().open_with(a.clone()).await.unwrap();
        let replicas = Replicas::new(&wal, options());
        let (second, third) = (named("b", &b).await, named("c", &c).await);
        let mut acknowledged = BTreeMap::new();
        for round in 0..6 {
            // Each is away for a while, so that records are on one of them alone.
            let one = (round % 3 != 0).then(|| Link::new(&replicas, &second));
            let other = (round % 3 != 1).then(|| Link::new(&replicas, &third));
            for number in 0..10 {
                let payload = format!("{round} {number:250}");
                let lsn = replicas.append_and_replicate(payload.clone(), 1).await.unwrap();
                acknowledged.insert(lsn, payload.into_bytes());
            }
            for link in [one, other].into_iter().flatten() {
                link.cut().await;
            }
        }
        wal.append_and_sync("on the old leader alone").await.unwrap();
        drop((replicas, wal));

        let epoch = second.next_epoch().await.unwrap();
        let ranks = [second.promise(epoch).await.unwrap(), third.promise(epoch).await.unwrap()];
        let (best, other, other_disk) = match ranks[0].rank() > ranks[1].rank() {
            true => (second, third, &c),
            false => (third, second, &b),
        };
        let wal = best.promote_with(epoch, log_options()).await.unwrap();
        let found: BTreeMap<_, _> = records(&wal).await.into_iter().collect();
        assert_eq!(found, acknowledged);

        let replicas = Replicas::new(&wal, options());
        let link = Kept::new(&replicas, &other);
        replicas.append_and_replicate("of the new term", 1).await.unwrap();
        caught_up(&wal, &other).await;
        link.cut().await;
        let epoch = other.next_epoch().await.unwrap();
        let wal_again = other.promote_with(epoch, log_options()).await.unwrap();
        assert_eq!(records(&wal_again).await, records(&wal).await, "{other_disk:?}");
    });
}

/// A replica whose log is still below the base of the leader's epoch does not count. Otherwise a
/// later candidate with a newer line and a shorter log would win, and cut the record.
#[test]
fn replica_without_the_leaders_line_does_not_count() {
    run(async {
        let (a, b) = (Disk::new(10), Disk::new(11));
        let (wal, replicas, replica) = pair(&a, &b).await;
        let c = Disk::new(12);
        let third = named("c", &c).await;
        let link = Link::new(&replicas, &third);
        caught_up(&wal, &third).await;
        link.cut().await;
        drop((replicas, wal));
        let epoch = replica.next_epoch().await.unwrap();
        let wal = replica.promote_with(epoch, log_options()).await.unwrap();
        let replicas = Replicas::new(&wal, options());
        assert_eq!(replicas.mark(1), highwater::Lsn::ZERO);
        let link = Kept::new(&replicas, &third);
        // The mark of the promotion is enough: a quiet leader counts its replicas.
        caught_up(&wal, &third).await;
        while replicas.mark(1) == highwater::Lsn::ZERO {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(third.marks().epoch, epoch);
        link.cut().await;
    });
}

#[test]
fn power_cut_during_promotion_keeps_records() {
    let b = Disk::new(14);
    let expected = run(async {
        let (wal, replicas, replica) = pair(&Disk::new(13), &b).await;
        drop((replicas, replica));
        records(&wal).await
    });
    let recorded = Disk::with_image(b.image(), 15).recording();
    run(async {
        let replica = named("b", &recorded).await;
        let epoch = replica.next_epoch().await.unwrap();
        replica.promote_with(epoch, log_options()).await.unwrap();
    });
    let mut count = 0;
    for cut in recorded.power_cuts(3) {
        count += 1;
        run(async {
            let disk = cut.disk();
            let wal = match Replica::open_with("b", disk.clone(), options()).await {
                Ok(replica) => {
                    let opened = log_options().open_with(disk.clone()).await;
                    assert!(opened.is_err(), "{cut}: a standby was opened for writing");
                    let epoch = replica.next_epoch().await.unwrap();
                    replica.promote_with(epoch, log_options()).await.unwrap()
                }
                Err(Error::NotAStandby { .. }) => log_options().open_with(disk).await.unwrap(),
                Err(error) => panic!("{cut}: {error}"),
            };
            assert_eq!(records(&wal).await, expected, "{cut}");
        });
    }
    assert!(count > 50, "{count}");
}

#[test]
fn old_leader_joins_and_diverged_records_are_refused() {
    run(async {
        let (a, b) = (Disk::new(16), Disk::new(17));
        let (old, replicas, replica) = pair(&a, &b).await;
        drop((replicas, old));
        let epoch = replica.next_epoch().await.unwrap();
        let wal = replica.promote_with(epoch, log_options()).await.unwrap();
        wal.append_and_sync("of the new term").await.unwrap();
        // It has no other records, so it joins.
        Replica::demote(a.clone()).await.unwrap();
        let replicas = Replicas::new(&wal, options());
        let joined = named("a", &a).await;
        let link = Kept::new(&replicas, &joined);
        caught_up(&wal, &joined).await;
        link.cut().await;
        let expected = records(&wal).await;
        drop(joined);

        // A third one with another record does not, and nothing is changed.
        let c = Disk::with_image(b.image(), 18);
        let own = log_options().open_with(c.clone()).await.unwrap();
        own.append_and_sync("only here").await.unwrap();
        drop(own);
        Replica::demote(c.clone()).await.unwrap();
        wal.append_and_sync("another record at that position").await.unwrap();
        let third = named("c", &c).await;
        let before = support::segment_files(&c);
        let link = Link::new(&replicas, &third);
        let (leader, copy) = link.ended().await;
        let is_refused =
            |error: &Error| matches!(error, Error::Diverged { .. } | Error::Ahead { .. });
        assert!(is_refused(&copy), "{copy}; {leader}");
        assert_eq!(support::segment_files(&c), before);
        let _ = expected;
    });
}

#[test]
fn diverged_records_are_set_aside_on_request() {
    run(async {
        let (a, b) = (Disk::new(19), Disk::new(20));
        let (old, replicas, replica) = pair(&a, &b).await;
        for number in 0..20 {
            old.append_and_sync(format!("on the old leader alone {number:300}")).await.unwrap();
        }
        drop((replicas, old));
        let epoch = replica.next_epoch().await.unwrap();
        let wal = replica.promote_with(epoch, log_options()).await.unwrap();
        wal.append_and_sync("of the new term").await.unwrap();
        let replicas = Replicas::new(&wal, options());
        Replica::demote(a.clone()).await.unwrap();
        let refused = named("a", &a).await;
        let before = support::segment_files(&a);
        let (_, copy) = Link::new(&replicas, &refused).ended().await;
        assert!(matches!(copy, Error::Diverged { .. }), "{copy}");
        assert_eq!(support::segment_files(&a), before, "nothing was cut");
        drop(refused);

        let options = Options::default().on_divergence(OnDivergence::SetAside);
        let joined = Replica::open_with("a", a.clone(), options).await.unwrap();
        let link = Kept::new(&replicas, &joined);
        caught_up(&wal, &joined).await;
        link.cut().await;
        assert_identical(&b, &a, joined.marks().synced);
        let kept: Vec<_> = {
            use highwater::storage::Storage;
            let names = a.list().unwrap().into_iter();
            names.filter(|name| name.contains(".wal.cut")).collect()
        };
        let bytes: Vec<u8> = kept.iter().flat_map(|name| support::read_file(&a, name)).collect();
        for number in 0..20 {
            let text = format!("on the old leader alone {number:300}").into_bytes();
            let is_kept = bytes.windows(text.len()).any(|window| window == text);
            assert!(is_kept, "record {number} in {kept:?}");
        }
    });
}

#[test]
fn two_promotions_to_one_term_differ() {
    run(async {
        let (a, b, c) = (Disk::new(21), Disk::new(22), Disk::new(23));
        let (wal, replicas, second) = pair(&a, &b).await;
        let third = named("c", &c).await;
        let link = Link::new(&replicas, &third);
        caught_up(&wal, &third).await;
        link.cut().await;
        drop((replicas, wal));
        // Without a promise of the other one: a mistake of the operator.
        let (one, two) = (second.next_epoch().await.unwrap(), third.next_epoch().await.unwrap());
        assert_eq!(one >> 48, two >> 48);
        assert_ne!(one, two, "the tags differ");
        let low = one.min(two);
        let (lower, higher) = if one == low { (second, third) } else { (third, second) };
        let leader = lower.promote_with(one.min(two), log_options()).await.unwrap();
        higher.promise(one.max(two)).await.unwrap();
        let (refused, _) = Link::new(&Replicas::new(&leader, options()), &higher).ended().await;
        assert!(matches!(refused, Error::Fenced { promised } if promised == one.max(two)));
    });
}

#[test]
fn unfinished_first_copy_is_not_promoted() {
    run(async {
        let (a, b) = (Disk::new(24), Disk::new(25));
        let wal = log_options().open_with(a.clone()).await.unwrap();
        for number in 0..60 {
            wal.append_and_sync(format!("{number:300}")).await.unwrap();
        }
        let replicas = Replicas::new(&wal, options());
        let replica = named("b", &b).await;
        let mut marks = replica.watch();
        let link = Link::new(&replicas, &replica);
        marks.wait_for(|marks| marks.synced > highwater::Lsn::ZERO).await.unwrap();
        link.cut().await;
        if replica.marks().synced < wal.watermarks().synced {
            let epoch = replica.next_epoch().await.unwrap();
            let promoted = replica.clone().promote_with(epoch, log_options()).await;
            assert!(matches!(promoted, Err(Error::Seeding { .. })), "{promoted:?}");
        }
        drop(replica);
        let replica = named("b", &b).await;
        let link = Kept::new(&replicas, &replica);
        caught_up(&wal, &replica).await;
        link.cut().await;
    });
}
