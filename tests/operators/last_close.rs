//! A closed log whose newest segment is emptied or removed must be corrupt, not just shorter.

use highwater::{
    Error, OnDamage, Wal, Warning,
    sabotage::{self, Sabotage},
    simulation::{Disk, Image, Op, Survival},
};

use crate::{
    after_kill, block_on, segments,
    support::{records, tiny},
};

fn closed(record_count: u8) -> Image {
    let disk = Disk::new(3);
    block_on(async {
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        for i in 0..record_count {
            wal.append_and_sync(&[i; 100]).await.unwrap();
        }
        wal.close().await.unwrap();
    });
    disk.image()
}

async fn open(image: Image) -> highwater::Result<Wal> {
    tiny().open_with(Disk::with_image(image, 4)).await
}

/// Returns each way of losing the newest segment.
fn losses(image: &Image) -> Vec<(&'static str, Image)> {
    let newest = segments(image).pop().unwrap();
    let with = |bytes: Option<Vec<u8>>| {
        let mut image = image.clone();
        match bytes {
            Some(bytes) => image.put(&newest, bytes),
            None => image.delete(&newest),
        }
        image
    };
    vec![
        ("cut to 0 bytes", with(Some(Vec::new()))),
        ("cut within the header", with(Some(image.bytes(&newest).unwrap()[..100].to_vec()))),
        ("all zeros", with(Some(vec![0; 8192]))),
        ("removed", with(None)),
    ]
}

#[test]
fn lost_newest_segment_is_corrupt() {
    // Logs with one segment, and with several.
    for record_count in [5, 80] {
        let image = closed(record_count);
        for (what, image) in losses(&image) {
            let error = block_on(open(image)).expect_err(what);
            assert!(matches!(error, Error::Corrupt { .. }), "{what}: {error}");
        }
    }
}

/// A segment that ends with a close frame looks like the end of the log.
#[test]
fn lost_segment_after_older_close_is_corrupt() {
    let disk = Disk::new(3);
    block_on(async {
        for round in 0..30u8 {
            let wal = tiny().open_with(disk.clone()).await.unwrap();
            wal.append_and_sync(&[round; 400]).await.unwrap();
            wal.close().await.unwrap();
        }
    });
    for (what, image) in losses(&disk.image()) {
        let error = block_on(open(image)).expect_err(what);
        assert!(matches!(error, Error::Corrupt { .. }), "{what}: {error}");
    }
}

/// The note stays valid when the log continues, is truncated at its end, and is killed.
#[test]
fn old_note_does_not_refuse_continued_log() {
    let disk = Disk::with_image(closed(80), 5);
    block_on(async {
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        let kept = records(&wal).await[10].0;
        wal.truncate_after(Some(kept)).await.unwrap();
        wal.append_and_sync(b"after the cut").await.unwrap();
        drop(wal);
        for survival in [Survival::Nothing, Survival::Everything] {
            let wal = tiny().open_with(disk.crash(survival)).await.unwrap();
            assert_eq!(records(&wal).await.len(), 12);
        }
        let wal = tiny().open_with(after_kill(&disk)).await.unwrap();
        let first = records(&wal).await[5].0;
        wal.truncate_before(first).await.unwrap();
        wal.close().await.unwrap();
    });
}

/// The policy accepts the loss: existing records stay, or a new log begins.
#[test]
fn truncate_at_damage_accepts_the_loss() {
    for record_count in [5, 80] {
        for (what, image) in losses(&closed(record_count)) {
            block_on(async {
                let options = tiny().on_damage(OnDamage::TruncateAtDamage);
                let wal = options.open_with(Disk::with_image(image, 4)).await.expect(what);
                let left = records(&wal).await.len();
                assert!(left < usize::from(record_count), "{what}");
                wal.append_and_sync(b"later").await.unwrap();
                assert_eq!(records(&wal).await.len(), left + 1, "{what}");
                wal.close().await.unwrap();
            });
        }
    }
}

/// Negative control: without the note the log is shorter without an error.
#[test]
fn close_without_note_loses_without_error() {
    let image = sabotage::with(Sabotage::ForgetClosedNote, || closed(80));
    for (what, image) in losses(&image) {
        let left = block_on(async { records(&open(image).await.expect(what)).await.len() });
        assert!(left < 80, "{what}");
    }
}

/// The beginning is recorded right before the close frame, which claims everything before it.
#[test]
fn close_of_truncated_log_is_clean() {
    block_on(async {
        let disk = Disk::new(1);
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        let mut lsns = Vec::new();
        for i in 0..8u8 {
            lsns.push(wal.append_and_sync(&[i; 100]).await.unwrap());
        }
        wal.truncate_before(lsns[4]).await.unwrap();
        wal.close().await.unwrap();
        let wal = tiny().open_with(after_kill(&disk)).await.unwrap();
        assert!(wal.recovery().was_closed, "{}", wal.recovery());
        assert_eq!(records(&wal).await.len(), 4);
    });
}

/// Only the lost segment had its epoch and its number: a repair must reuse neither.
#[test]
fn repaired_log_opens_after_a_kill() {
    block_on(async {
        let disk = Disk::new(2);
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        let mut lsns = Vec::new();
        for i in 0..10u8 {
            lsns.push(wal.append_and_sync(&[i; 100]).await.unwrap());
        }
        wal.truncate_after(Some(lsns[8])).await.unwrap();
        for i in 0..10u8 {
            wal.append_and_sync(&[100 + i; 100]).await.unwrap();
        }
        wal.close().await.unwrap();
        let mut image = disk.image();
        let newest = segments(&image).pop().unwrap();
        image.delete(&newest);
        let disk = Disk::with_image(image, 3);
        let repair = tiny().on_damage(OnDamage::TruncateAtDamage);
        let wal = repair.open_with(disk.clone()).await.unwrap();
        let lsn = wal.append_and_sync(b"acknowledged after the repair").await.unwrap();
        assert!(!segments(&disk.image()).contains(&newest), "the number must not be reused");
        drop(wal);
        let wal = tiny().open_with(after_kill(&disk)).await.unwrap();
        assert_eq!(records(&wal).await.last().unwrap().0, lsn);
    });
}

/// An unreadable note is a warning, because its loss loses no record.
#[test]
fn unreadable_note_is_a_warning() {
    let disk = Disk::with_image(closed(5), 4);
    block_on(async {
        let faults = disk.faults();
        faults.on(Op::Read).file(|name| name == "LAST-CLOSE").fail_os(13);
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        let is_unreadable = |warning: &Warning| matches!(warning, Warning::UnreadableNote { .. });
        assert!(wal.recovery().warnings.iter().any(is_unreadable), "{}", wal.recovery());
        assert_eq!(records(&wal).await.len(), 5);
    });
}
