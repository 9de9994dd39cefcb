//! The supply of segments: a full disk, and other failures to prepare a file.

use std::io::ErrorKind;

use highwater::{Error, Health, Wal, simulation::Op};

use crate::{simulated, support::small};

#[test]
fn full_disk_is_reported_until_space_is_back() {
    simulated(&small(), async |wal, disk| {
        let mut health = wal.health();
        disk.faults().on(Op::Create).fail(ErrorKind::StorageFull);
        let error = loop {
            if let Err(error) = wal.append(vec![1; 900]).await {
                break error;
            }
        };
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        let full = health.wait_for(|health| matches!(health, Health::Full { .. })).await.unwrap();
        assert!(full.to_string().contains("no space"), "{full}");
        wal.sync().await.unwrap();
        assert!(matches!(health.get(), Health::Full { .. }), "{}", health.get());
        disk.faults().heal();
        wal.append(vec![1; 900]).await.unwrap();
        assert!(health.wait_for(Health::is_good).await.is_ok());
    });
}

/// The next file is prepared when an eighth of the segment is used. So an operator has the rest of
/// the segment to free space.
#[test]
fn full_disk_is_reported_before_appends_fail() {
    let options = Wal::options().segment_bytes(64 << 10).ring_bytes(1 << 10);
    simulated(&options, async |wal, disk| {
        disk.faults().on(Op::Create).fail(ErrorKind::StorageFull);
        let mut accepted_count = 0;
        while !matches!(wal.health().get(), Health::Full { .. }) {
            wal.append(vec![1; 900]).await.unwrap();
            accepted_count += 1;
        }
        assert!(accepted_count < 20, "{accepted_count} of 900 bytes");
        for _ in 0..20 {
            wal.append(vec![1; 900]).await.unwrap();
        }
    });
}

#[test]
fn other_failure_to_prepare_is_reported_too() {
    simulated(&small(), async |wal, disk| {
        disk.faults().on(Op::Create).fail(ErrorKind::PermissionDenied);
        while wal.append(vec![1; 900]).await.is_ok() {}
        let health = wal.health().get();
        assert!(matches!(health, Health::Refusing { .. }), "{health}");
        disk.faults().heal();
        wal.append(vec![1; 900]).await.unwrap();
        assert!(wal.health().wait_for(Health::is_good).await.is_ok());
    });
}

#[test]
fn failed_log_is_stopped() {
    simulated(&small(), async |wal, disk| {
        let mut health = wal.health();
        disk.faults().on(Op::Sync).once().fail(ErrorKind::Other);
        wal.append_and_sync("lost").await.unwrap_err();
        let stopped =
            health.wait_for(|health| matches!(health, Health::Stopped { .. })).await.unwrap();
        assert!(stopped.to_string().contains("syncing"), "{stopped}");
        assert!(health.wait_for(Health::is_good).await.unwrap_err().is_poisoned());
    });
}
