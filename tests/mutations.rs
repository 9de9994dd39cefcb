//! Mutations that a review made in the code and no other test caught; each test here catches one.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a mistake in a test must stop it"
)]

use std::time::Duration;

use futures::TryStreamExt;
use highwater::{
    Wal,
    simulation::{self, Disk, Image, Op, Simulation, Survival},
};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

async fn open(disk: &Disk) -> highwater::Result<Wal> {
    Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10).open_with(disk.clone()).await
}

async fn records(wal: &Wal) -> Vec<Vec<u8>> {
    wal.replay(..).map_ok(|record| record.payload.to_vec()).try_collect().await.unwrap()
}

/// The close frame is alone in its segment, and the flush of frame and header failed. Opening must
/// write the header again, too.
#[test]
fn failed_flush_of_lone_close_frame_is_repaired() {
    for seed in 0..20 {
        block_on(async {
            let disk = Disk::new(seed);
            let wal = open(&disk).await.unwrap();
            wal.append(vec![1; 2000]).await.unwrap();
            wal.append(vec![2; 2048]).await.unwrap();
            // The second file is prepared with one flush; then the flush of the close frame fails.
            disk.faults()
                .on(Op::Sync)
                .file(|name| name.starts_with("00000000000000000002"))
                .skip(u64::from(!disk.image().names().iter().any(|n| n.contains("02.wal"))))
                .once()
                .fail_os(5);
            assert!(wal.close().await.is_err(), "the flush of the close frame must fail");
            drop(wal);
            let wal = open(&disk).await.unwrap();
            assert!(wal.recovery().was_closed, "{}", wal.recovery());
            wal.append_and_sync(b"acknowledged").await.unwrap();
            drop(wal);
            let wal = open(&disk.crash(Survival::Nothing)).await.unwrap();
            assert_eq!(records(&wal).await.len(), 3, "seed {seed}: {}", wal.recovery());
        });
    }
}

/// `close` returns after the close frame is durable.
#[test]
fn closed_log_is_closed_after_power_cut() {
    block_on(async {
        let disk = Disk::new(1);
        let wal = open(&disk).await.unwrap();
        wal.append(b"record").await.unwrap();
        wal.close().await.unwrap();
        let wal = open(&disk.crash(Survival::Nothing)).await.unwrap();
        assert!(wal.recovery().was_closed, "{}", wal.recovery());
        assert_eq!(records(&wal).await.len(), 1);
    });
}

/// Bytes that recovery cuts are kept, also if that recovery is interrupted.
#[test]
fn interrupted_recovery_keeps_cut_bytes() {
    block_on(async {
        let disk = Disk::new(1);
        let wal = open(&disk).await.unwrap();
        wal.append(vec![1; 600]).await.unwrap();
        wal.append(vec![2; 600]).await.unwrap();
        drop(wal);
        // Simulates that only the second record reached the disk.
        let mut image: Image = disk.crash(Survival::Everything).image();
        let name = "00000000000000000001.wal";
        let mut bytes = image.bytes(name).unwrap().to_vec();
        bytes[4096 + 100] ^= 1;
        image.put(name, bytes);
        let whole = Disk::with_image(image.clone(), 1);
        let wal = open(&whole).await.unwrap();
        assert!(wal.recovery().cut.is_some());
        drop(wal);
        for cut in 0..=whole.operation_count() {
            let disk = Disk::with_image(image.clone(), 1).cut_after(cut);
            drop(open(&disk).await);
            for survival in [Survival::Nothing, Survival::Everything] {
                let disk = disk.crash(survival);
                drop(open(&disk).await.unwrap());
                let image = disk.image();
                let is_kept = image.names().iter().any(|name| {
                    image.bytes(name).unwrap().windows(600).any(|part| part == [2; 600])
                });
                assert!(is_kept, "cut after {cut}, {survival:?}: {:?}", image.names());
            }
        }
    });
}

/// Opening rewrites the close frame. A bit error in that read must not become durable damage.
#[test]
fn transient_read_error_is_not_made_durable() {
    block_on(async {
        let disk = Disk::new(1);
        let wal = open(&disk).await.unwrap();
        wal.append_and_sync(b"first").await.unwrap();
        wal.close().await.unwrap();
        let image = disk.image();
        for skip in 0..40 {
            let disk = Disk::with_image(image.clone(), 1);
            disk.faults().on(Op::Read).skip(skip).once().flip_bit();
            // A refusal is fine: the error was detected, and the next opening succeeds.
            let Ok(wal) = open(&disk).await else { continue };
            disk.faults().heal();
            wal.append_and_sync(b"second").await.unwrap();
            drop(wal);
            match open(&disk.crash(Survival::Nothing)).await {
                Ok(wal) => assert_eq!(records(&wal).await.len(), 2, "read {skip} was wrong"),
                Err(error) => panic!("read {skip} was wrong: {error}"),
            }
        }
    });
}

/// The uncommitted part of one segment is larger than a chunk (1 MiB).
#[test]
fn large_unsynced_tail_is_rewritten_whole() {
    block_on(async {
        let disk = Disk::new(1);
        let open = || Wal::options().segment_bytes(4 << 20).open_with(disk.clone());
        let wal = open().await.unwrap();
        for i in 1..=50u8 {
            wal.append(vec![i; 50_000]).await.unwrap();
        }
        drop(wal);
        let wal = open().await.unwrap();
        let found = records(&wal).await;
        assert!(found.iter().map(|payload| payload[0]).eq(1..=50), "{}", found.len());
    });
}

/// A unit larger than the ring leaves space for the close frame, or is refused.
#[test]
fn large_unit_on_full_disk_leaves_space_for_close() {
    block_on(async {
        let disk = Disk::new(1);
        let wal = open(&disk).await.unwrap();
        disk.faults().on(Op::Create).fail(std::io::ErrorKind::StorageFull);
        // The record would fill the segment to its last byte.
        let appended = wal.append(vec![1; 4096 - 16]).await;
        assert!(matches!(appended, Err(highwater::Error::NoSpace { .. })), "{appended:?}");
        wal.close().await.unwrap();
    });
}

/// Opening during a close waits for the last write of that close.
#[test]
fn closing_handle_writes_nothing_after_reopen() {
    let mut opened_count = 0;
    simulation::for_each_seed(100, |seed| {
        let disk = Disk::new(seed);
        opened_count += Simulation::new(seed).run(async {
            let wal = open(&disk).await.unwrap();
            wal.append(b"record").await.unwrap();
            // The first flush of the close is slow, depending on the seed.
            for _ in 0..seed % 20 {
                disk.faults().on(Op::Sync).once().delay(Duration::from_millis(1));
            }
            let closing = simulation::spawn(async move { wal.close().await });
            for _ in 0..seed % 8 {
                simulation::yield_now().await;
            }
            // `Locked` is fine.
            let again = open(&disk).await;
            let count = disk.operation_count();
            closing.await.unwrap().unwrap();
            if again.is_ok() {
                assert_eq!(disk.operation_count(), count, "seed {seed}: the old handle wrote");
            }
            u32::from(again.is_ok())
        });
    });
    println!("{opened_count} logs were opened during their close");
    assert!(opened_count >= 10, "too few opens during a close: {opened_count}");
}

/// Bytes under a blank header, left by a torn rotation, are reported as cut and kept.
#[test]
fn bytes_under_blank_header_are_reported_and_kept() {
    block_on(async {
        let disk = Disk::new(1);
        let wal = open(&disk).await.unwrap();
        wal.append_and_sync(b"record").await.unwrap();
        drop(wal);
        let mut image = disk.image();
        let mut bytes = vec![0; 8192];
        bytes[4608..5120].fill(7);
        image.put("00000000000000000002.wal", bytes);
        let disk = Disk::with_image(image, 1);
        let wal = open(&disk).await.unwrap();
        assert!(wal.recovery().cut.is_some(), "{}", wal.recovery());
        let image = disk.image();
        let mut files = image.names().into_iter().map(|name| image.bytes(&name).unwrap().to_vec());
        assert!(files.any(|file| file.windows(512).any(|part| part == [7; 512])));
    });
}
