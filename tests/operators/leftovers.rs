//! Files that no longer belong to the log and cannot be removed must not prevent opening.

use highwater::{
    Warning,
    simulation::{Disk, Op, Survival},
    storage::Storage,
};

use crate::{
    after_kill, block_on, segments,
    support::{records, tiny},
};

/// Returns a log whose beginning was truncated while its files could not be removed.
async fn with_leftovers() -> Disk {
    let disk = Disk::new(21);
    let wal = tiny().open_with(disk.clone()).await.unwrap();
    let mut lsns = Vec::new();
    for i in 0..40u8 {
        lsns.push(wal.append_and_sync(&[i; 400]).await.unwrap());
    }
    disk.faults().on(Op::Remove).fail_os(1);
    wal.truncate_before(lsns[30]).await.unwrap();
    wal.close().await.unwrap();
    disk
}

#[test]
fn leftovers_that_stay_are_a_warning() {
    block_on(async {
        let disk = with_leftovers().await;
        let before = segments(&disk.image());
        let disk = after_kill(&disk);
        disk.faults().on(Op::Remove).fail_os(1);
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        let stays = wal.recovery().warnings.iter().filter(
            |warning| matches!(warning, Warning::NotRemoved { name, .. } if before.contains(name)),
        );
        assert!(stays.count() > 0, "{}", wal.recovery());
        assert_eq!(records(&wal).await.len(), 10);
        wal.append_and_sync(b"later").await.unwrap();
        wal.close().await.unwrap();
        disk.faults().heal();
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        assert_eq!(records(&wal).await.len(), 11);
        assert!(segments(&disk.image()).len() < before.len(), "the next opening must remove them");
    });
}

/// The same for an unclosed log, and for recycled files.
#[test]
fn unclosed_log_opens_beside_leftovers() {
    for count in [0, 2] {
        block_on(async {
            let disk = Disk::new(22);
            let options = || tiny().recycle_segments(count);
            let wal = options().open_with(disk.clone()).await.unwrap();
            let mut lsns = Vec::new();
            for i in 0..40u8 {
                lsns.push(wal.append_and_sync(&[i; 400]).await.unwrap());
            }
            disk.faults().on(Op::Remove).fail_os(1);
            wal.truncate_before(lsns[30]).await.unwrap();
            drop(wal);
            for _ in 0..3 {
                let killed = after_kill(&disk);
                killed.faults().on(Op::Remove).fail_os(1);
                let wal = options().open_with(killed.clone()).await.unwrap();
                assert_eq!(records(&wal).await.len(), 10);
            }
        });
    }
}

/// A recovery is interrupted, its file cannot be removed, and the log continues. The file holds
/// frames of an epoch that only a later one explains.
#[test]
fn leftover_of_interrupted_recovery_stays_harmless() {
    let mut interrupted_count = 0;
    block_on(async {
        for cut in 1..12 {
            let disk = Disk::new(4);
            let wal = tiny().open_with(disk.clone()).await.unwrap();
            for i in 0..5u8 {
                wal.append_and_sync(&[i; 100]).await.unwrap();
            }
            drop(wal);
            let disk = after_kill(&disk);
            let name = segments(&disk.image())[0].clone();
            // With a second name of the newest file, opening begins a new epoch.
            disk.link(&name, "backup").unwrap();
            disk.sync_dir().unwrap();
            let cutting = disk.clone().cut_after(disk.operation_count() + cut);
            let _ = tiny().open_with(cutting.clone()).await;
            let mut image = cutting.image().crash(Survival::Nothing);
            image.delete("backup");
            let disk = Disk::with_image(image, 5);
            disk.faults().on(Op::Remove).fail_os(1);
            let Ok(wal) = tiny().open_with(disk.clone()).await else { continue };
            interrupted_count += 1;
            let mut last = highwater::Lsn::ZERO;
            for i in 0..5u8 {
                last = wal.append_and_sync(&[50 + i; 100]).await.unwrap();
            }
            drop(wal);
            let wal = tiny().open_with(after_kill(&disk)).await.unwrap();
            assert_eq!(records(&wal).await.last().unwrap().0, last, "cut {cut}");
        }
    });
    assert!(interrupted_count > 8, "{interrupted_count}");
}
