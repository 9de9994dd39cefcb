//! The supply of segments: a full disk, and other failures to prepare a file.

use std::io::ErrorKind;

use highwater::{Error, Health, simulation::Op};

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
