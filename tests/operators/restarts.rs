//! Processes that end without a close: on a full disk, and many in a row.

use highwater::{
    Error, Lsn,
    simulation::{Disk, Op, Survival},
};

use crate::{
    after_kill, block_on, segments,
    support::{records, small, tiny, within},
};

fn bytes_on(disk: &Disk) -> usize {
    let image = disk.image();
    image.names().iter().map(|name| image.bytes(name).unwrap().len()).sum()
}

/// A hundred processes append two records each and are killed.
#[test]
fn repeated_kills_leave_no_segments() {
    let mut disk = Disk::new(9);
    block_on(async {
        for round in 0..100u8 {
            let wal = small().open_with(disk.clone()).await.unwrap();
            assert_eq!(wal.recovery().cut, None);
            wal.append_and_sync(&[round; 20]).await.unwrap();
            wal.append(&[round; 20]).await.unwrap();
            drop(wal);
            disk = after_kill(&disk);
        }
        let wal = small().open_with(disk.clone()).await.unwrap();
        let found = records(&wal).await;
        let expected = (0..100u8).flat_map(|round| [round, round]);
        assert!(found.iter().map(|(_, payload)| payload[0]).eq(expected));
    });
    let (count, bytes) = (segments(&disk.image()).len(), bytes_on(&disk));
    assert!(count <= 2 && bytes <= 2 * (16 << 10) + 512, "{count} segments, {bytes} bytes");
}

/// The same with power cuts, which may tear the tail. The unused end of a cut segment must be given
/// back to the file system.
#[test]
fn repeated_power_cuts_free_space() {
    let mut disk = Disk::new(9);
    let mut acknowledged = Vec::new();
    block_on(async {
        for round in 0..100u8 {
            let wal = small().open_with(disk.clone()).await.unwrap();
            acknowledged.push(wal.append_and_sync(&[round; 20]).await.unwrap());
            wal.append(&[round; 600]).await.unwrap();
            drop(wal);
            disk = disk.crash(Survival::Random(u64::from(round)));
        }
        let wal = small().open_with(disk.clone()).await.unwrap();
        let found: Vec<Lsn> = records(&wal).await.iter().map(|(lsn, _)| *lsn).collect();
        assert!(acknowledged.iter().all(|lsn| found.contains(lsn)));
    });
    let image = disk.image();
    let cut_bytes: usize = image
        .names()
        .iter()
        .filter(|name| name.contains(".cut"))
        .map(|name| image.bytes(name).unwrap().len())
        .sum();
    // Each round may cost a header and some records; only the newest segment is whole.
    let bytes = bytes_on(&disk) - cut_bytes;
    assert!(bytes < 100 * (4096 + 2048) + (32 << 10), "{bytes} bytes");
}

/// Fills the disk, with this error number.
fn full(disk: &Disk, reason: i32) {
    for op in [Op::Create, Op::Resize] {
        disk.faults().on(op).fail_os(reason);
    }
}

/// `ENOSPC`, `EDQUOT` and `EFBIG` on Linux.
const REASONS: [i32; 3] = [28, 122, 27];

/// A log whose process ended on a full disk opens, and can be truncated.
#[test]
fn log_killed_on_full_disk_opens_and_truncates() {
    for reason in REASONS {
        let disk = Disk::new(11);
        block_on(async {
            let wal = tiny().open_with(disk.clone()).await.unwrap();
            let mut lsns = Vec::new();
            for i in 0..24u8 {
                lsns.push(wal.append_and_sync(&[i; 400]).await.unwrap());
            }
            full(&disk, reason);
            let refused = loop {
                match wal.append_and_sync(&[99; 400]).await {
                    Ok(lsn) => lsns.push(lsn),
                    Err(error) => break error,
                }
            };
            assert!(matches!(refused, Error::NoSpace { .. }), "{refused}");
            drop(wal);
            let disk = after_kill(&disk);
            full(&disk, reason);
            let wal = within("opening", tiny().open_with(disk.clone())).await.unwrap();
            let found: Vec<Lsn> = records(&wal).await.iter().map(|(lsn, _)| *lsn).collect();
            assert_eq!(found, lsns);
            let before = segments(&disk.image()).len();
            wal.truncate_before(lsns[20]).await.unwrap();
            assert!(segments(&disk.image()).len() < before, "files must be removed");
            disk.faults().heal();
            wal.append_and_sync(b"after the full disk").await.unwrap();
            wal.close().await.unwrap();
        });
    }
}

/// A torn tail on a nearly full disk needs only a small segment.
#[test]
fn torn_tail_on_a_nearly_full_disk_opens() {
    let options = || highwater::Wal::options().segment_bytes(1 << 20).ring_bytes(64 << 10);
    let disk = Disk::new(12);
    block_on(async {
        let wal = options().open_with(disk.clone()).await.unwrap();
        let lsn = wal.append_and_sync(&[1; 400]).await.unwrap();
        wal.append(&[2; 4000]).await.unwrap();
        drop(wal);
        let torn = (0..64).map(|seed| disk.crash(Survival::Random(seed))).find(|disk| {
            let copy = Disk::with_image(disk.image(), 1);
            let report = block_on_report(&copy, &options());
            report.cut.is_some()
        });
        let disk = torn.expect("one of the cuts must tear the tail");
        disk.set_capacity_bytes(bytes_on(&disk) as u64 + (80 << 10));
        let wal = options().open_with(disk.clone()).await.unwrap();
        assert!(wal.recovery().cut.is_some());
        assert_eq!(records(&wal).await[0].0, lsn);
        wal.append_and_sync(b"small, but a segment").await.unwrap();
        wal.truncate_before(lsn).await.unwrap();
        wal.close().await.unwrap();
    });
}

/// Returns the recovery report. Opens on another thread, because this one runs a runtime.
fn block_on_report(disk: &Disk, options: &highwater::Options) -> highwater::RecoveryReport {
    let (disk, options) = (disk.clone(), options.clone());
    let opened = std::thread::spawn(move || {
        block_on(async { options.open_with(disk).await.unwrap().recovery().clone() })
    });
    opened.join().unwrap()
}

/// A full log keeps space for one truncation; restarts must not use it twice.
#[test]
fn restarts_on_full_disk_use_the_reserve_once() {
    let mut disk = Disk::new(13);
    block_on(async {
        let wal = tiny().open_with(disk.clone()).await.unwrap();
        full(&disk, 28);
        while wal.append_and_sync(&[7; 100]).await.is_ok() {}
        drop(wal);
        for _ in 0..6 {
            disk = after_kill(&disk);
            full(&disk, 28);
            let wal = tiny().open_with(disk.clone()).await.unwrap();
            let second = records(&wal).await[1].0;
            match wal.truncate_before(second).await {
                Ok(_) | Err(Error::NoSpace { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            assert!(wal.sync().await.is_ok(), "the log must not be poisoned");
        }
    });
}
