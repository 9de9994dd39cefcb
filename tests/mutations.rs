//! What a review by mutation found: each of these fails with a mistake that the rest overlooked.

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

/// The close frame is the only frame of its segment, and the flush of both it and the header
/// failed. `go_on` must write the header again, too.
#[test]
fn a_close_alone_in_its_segment_whose_flush_failed() {
    for seed in 0..20 {
        block_on(async {
            let disk = Disk::new(seed);
            let wal = open(&disk).await.unwrap();
            wal.append(vec![1; 2000]).await.unwrap();
            wal.append(vec![2; 2048]).await.unwrap();
            // The second file: prepared with one flush, then the close frame's fails.
            disk.faults()
                .on(Op::Sync)
                .file(|name| name.starts_with("00000000000000000002"))
                .skip(u64::from(!disk.image().names().iter().any(|n| n.contains("02.wal"))))
                .once()
                .fail_os(5);
            assert!(wal.close().await.is_err(), "the flush of the close failed");
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

/// A3: `close` answers when the close frame is durable.
#[test]
fn a_closed_log_is_closed_after_a_loss_of_power() {
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

/// What a cut does away with is kept, also if the recovery that cut it was interrupted.
#[test]
fn an_interrupted_recovery_keeps_what_it_cut() {
    block_on(async {
        let disk = Disk::new(1);
        let wal = open(&disk).await.unwrap();
        wal.append(vec![1; 600]).await.unwrap();
        wal.append(vec![2; 600]).await.unwrap();
        drop(wal);
        // The first record never arrived, the second did.
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

/// A read of the close frame that goes wrong once, on the way to be written again,
/// must not become durable damage.
#[test]
fn a_read_that_goes_wrong_once_is_not_made_durable() {
    block_on(async {
        let disk = Disk::new(1);
        let wal = open(&disk).await.unwrap();
        wal.append_and_sync(b"first").await.unwrap();
        wal.close().await.unwrap();
        let image = disk.image();
        for skip in 0..40 {
            let disk = Disk::with_image(image.clone(), 1);
            disk.faults().on(Op::Read).skip(skip).once().flip_bit();
            // Refused is fine: it was found out, and the next opening reads it well.
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

/// More than one chunk (1 MiB) lies above the commitment of one segment.
#[test]
fn a_large_unsynced_tail_is_written_anew_as_a_whole() {
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

/// A unit larger than the ring leaves room for the close, or is refused.
#[test]
fn a_large_unit_on_a_full_device_leaves_room_for_the_close() {
    block_on(async {
        let disk = Disk::new(1);
        let wal = open(&disk).await.unwrap();
        disk.faults().on(Op::Create).fail(std::io::ErrorKind::StorageFull);
        // To the last byte of the segment.
        let appended = wal.append(vec![1; 4096 - 16]).await;
        assert!(matches!(appended, Err(highwater::Error::NoSpace { .. })), "{appended:?}");
        wal.close().await.unwrap();
    });
}

/// Whoever opens a log that is being closed waits for the last I/O of the closing.
#[test]
fn nothing_lands_behind_who_opens_a_log_that_is_being_closed() {
    simulation::for_each_seed(100, |seed| {
        let disk = Disk::new(seed);
        Simulation::new(seed).run(async {
            let wal = open(&disk).await.unwrap();
            wal.append(b"record").await.unwrap();
            // The first flush of the closing takes very long.
            for _ in 0..20 {
                disk.faults().on(Op::Sync).once().delay(Duration::from_millis(1));
            }
            let closing = simulation::spawn(async move { wal.close().await });
            for _ in 0..seed % 8 {
                simulation::yield_now().await;
            }
            // Kept out for too long is fine.
            let again = open(&disk).await;
            let count = disk.operation_count();
            closing.await.unwrap().unwrap();
            if again.is_ok() {
                assert_eq!(disk.operation_count(), count, "seed {seed}: the old handle wrote");
            }
        });
    });
}

/// What a torn rotation left under a blank header is a cut: reported, and kept.
#[test]
fn torn_bytes_under_a_blank_header_are_reported_and_kept() {
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
