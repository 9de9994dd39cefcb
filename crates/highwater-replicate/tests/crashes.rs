//! The power of the replica is cut after each operation of its disk. The copy opens, can be
//! promoted, and has each record that the leader counted. Kept mistakes are the controls.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

mod support;

use std::collections::BTreeMap;

use highwater::{
    Lsn,
    simulation::{Disk, Promises},
};
use highwater_replicate::{
    Error, Replicas,
    mistake::{self, Mistake},
};
use support::{Kept, Link, caught_up, log_options, options, records, replica_on, run};

type Acknowledged = (Lsn, Vec<u8>);

/// Turns a mistake on while it lives.
struct Made;

impl Made {
    fn new(mistake: Mistake) -> Made {
        mistake::make(Some(mistake));
        Made
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        mistake::make(None);
    }
}

/// Appends records to a leader with one replica: some wait for it, some only for the leader's disk,
/// so that the replica gets several groups at once. Cuts the connection and the leader's power.
async fn workload(seed: u64, b: &Disk) -> (Promises<Acknowledged>, BTreeMap<Lsn, Vec<u8>>) {
    let promises = Promises::new(b);
    let mut appended = BTreeMap::new();
    let mut a = Disk::new(seed);
    for round in 0..3 {
        let wal = log_options().open_with(a.clone()).await.unwrap();
        let replicas = Replicas::new(&wal, options());
        let replica = replica_on(b).await;
        let link = Link::new(&replicas, &replica);
        for number in 0..12u64 {
            let bytes = usize::try_from((seed * 7 + number * 131) % 900).unwrap();
            let payload = format!("{round} {number} {:bytes$}", "").into_bytes();
            if number % 4 == 0 {
                let lsn = replicas.append_and_replicate(payload.clone(), 1).await.unwrap();
                promises.make((lsn, payload.clone()));
                appended.insert(lsn, payload);
            } else {
                let lsn = wal.append_and_sync(payload.clone()).await.unwrap();
                appended.insert(lsn, payload);
            }
        }
        let span = wal.append_batch([vec![1; 300], vec![2; 500]]).await.unwrap();
        caught_up(&wal, &replica).await;
        let batch: Vec<_> = records(&wal).await.into_iter().filter(|r| r.0 >= span.start).collect();
        batch.iter().for_each(|record| promises.make(record.clone()));
        appended.extend(batch);
        let crashed = a.crash(highwater::simulation::Survival::Random(seed + round));
        link.cut().await;
        a = crashed;
    }
    (promises, appended)
}

/// Cuts the power of the replica everywhere. Returns the first broken promise.
fn sweep(seed: u64) -> Result<usize, String> {
    let b = Disk::new(seed + 100).recording();
    let (promises, appended) = run(workload(seed, &b));
    let mut count = 0;
    for cut in b.power_cuts(2) {
        count += 1;
        let disk = cut.disk();
        let promised = promises.made_by(cut.operation);
        let checked: Result<(), String> = run(async {
            let replica = highwater_replicate::Replica::open_with("b", disk.clone(), options());
            let replica = replica.await.map_err(|error| format!("{cut}: {error}"))?;
            let epoch = replica.next_epoch().await.unwrap();
            // The rank must not be below any report, also if no frame claims the last group.
            let marks = replica.promise(epoch).await.unwrap();
            if let Some((lsn, _)) = promised.iter().find(|(lsn, _)| *lsn >= marks.rank().1) {
                return Err(format!("{cut}: the rank is below the record at {lsn}"));
            }
            let promoted = match replica.promote_with(epoch, log_options()).await {
                Ok(promoted) => promoted,
                Err(Error::Seeding { .. } | Error::NotAStandby { .. }) if promised.is_empty() => {
                    return Ok(());
                }
                Err(error) => return Err(format!("{cut}: {error}")),
            };
            let found: BTreeMap<_, _> = records(&promoted).await.into_iter().collect();
            for (lsn, payload) in promised {
                if found.get(&lsn) != Some(&payload) {
                    return Err(format!("{cut}: the record at {lsn} is lost"));
                }
            }
            let foreign = found.iter().find(|(lsn, payload)| appended.get(lsn) != Some(payload));
            match foreign {
                Some((lsn, _)) => Err(format!("{cut}: the record at {lsn} was never appended")),
                None => Ok(()),
            }
        });
        checked?;
    }
    Ok(count)
}

#[test]
fn replica_keeps_reported_records() {
    for seed in 1..=6 {
        let count = sweep(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        assert!(count > 400, "{count} cuts");
    }
}

/// A control of the sweep.
#[test]
fn early_report_is_caught() {
    let _made = Made::new(Mistake::ReportEarly);
    let caught = (1..=6).find_map(|seed| sweep(seed).err());
    assert!(caught.is_some(), "a reported record was lost, and no check noticed");
}

/// A control of the sweep: the copy looks damaged after a power cut.
#[test]
fn ignored_claims_are_caught() {
    let _made = Made::new(Mistake::IgnoreClaims);
    let caught = (1..=6).find_map(|seed| sweep(seed).err());
    assert!(caught.is_some(), "a claim outlived the bytes below it, and no check noticed");
}

/// A control of the sweep: another copy, without the record, would be promoted.
#[test]
fn rank_by_last_claim_is_caught() {
    let _made = Made::new(Mistake::RankByClaim);
    let caught = (1..=6).find_map(|seed| sweep(seed).err());
    assert!(caught.is_some_and(|broken| broken.contains("rank")));
}

/// After a crash and a restart the replica catches up, and is again equal.
#[test]
fn crashed_replica_continues_and_is_identical() {
    let b = Disk::new(50).recording();
    let (_, appended) = run(workload(3, &b));
    for cut in b.power_cuts(1).step_by(7) {
        run(async {
            let a = Disk::new(3);
            let wal = log_options().open_with(a.clone()).await.unwrap();
            drop(wal);
            // The leader of the workload is gone, so a promoted copy leads a second replica.
            let disk = cut.disk();
            let replica = replica_on(&disk).await;
            let epoch = replica.next_epoch().await.unwrap();
            let Ok(wal) = replica.promote_with(epoch, log_options()).await else { return };
            let c = Disk::new(51);
            let replicas = Replicas::new(&wal, options());
            let second = replica_on(&c).await;
            let link = Kept::new(&replicas, &second);
            replicas.append_and_replicate("after the promotion", 1).await.unwrap();
            caught_up(&wal, &second).await;
            support::assert_identical(&disk, &c, second.marks().synced);
            let kept = records(&wal).await;
            assert!(kept[..kept.len() - 1].iter().all(|(lsn, _)| appended.contains_key(lsn)));
            link.cut().await;
        });
    }
}
