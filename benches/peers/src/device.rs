//! Counts the bytes that reached the block device of a directory.
//!
//! `/proc/self/io` counts a page when it becomes dirty, and a small write makes a whole large folio
//! dirty. The device's counter has only the sectors that the device got.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// The unit of the kernel's counters, whatever the sectors of the device are.
const SECTOR_BYTES: u64 = 512;
/// The index of the sectors written among the fields of a `stat` file.
const SECTORS_WRITTEN: usize = 6;

/// The counter file of the block device that this process measures.
static COUNTER: OnceLock<Option<PathBuf>> = OnceLock::new();

/// Selects the device that holds `dir`. Call it before the first measurement.
pub fn select(dir: &Path) {
    let _ = COUNTER.set(counter_of(dir));
}

/// Returns the bytes that all processes have written to the selected device.
///
/// Returns `None` if the file system has no block device in sysfs: overlayfs, btrfs or tmpfs.
pub fn written_bytes() -> Option<u64> {
    let counter = COUNTER.get()?.as_ref()?;
    parse_written_bytes(&fs::read_to_string(counter).ok()?)
}

/// Returns the counter file of the device that holds `dir`. Disks, partitions, loop devices and
/// device-mapper targets have one.
fn counter_of(dir: &Path) -> Option<PathBuf> {
    let device = fs::metadata(dir).ok()?.dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let counter = PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"));
    counter.exists().then_some(counter)
}

/// Returns the bytes written according to the text of a `stat` file.
fn parse_written_bytes(stat: &str) -> Option<u64> {
    let sectors: u64 = stat.split_whitespace().nth(SECTORS_WRITTEN)?.parse().ok()?;
    sectors.checked_mul(SECTOR_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_disk_gives_written_bytes() {
        let stat = "  4721  1188  389362  1063  9151  8316  1443992  7391  0  4136  8860  \
                    96  0  2097152  12  3001  393\n";
        assert_eq!(parse_written_bytes(stat), Some(1_443_992 * 512));
    }

    #[test]
    fn stat_of_an_old_kernel_gives_written_bytes() {
        assert_eq!(parse_written_bytes("1 2 3 4 5 6 7 8 9 10 11"), Some(7 * 512));
    }

    #[test]
    fn stat_without_the_field_gives_none() {
        assert_eq!(parse_written_bytes(""), None);
        assert_eq!(parse_written_bytes("1 2 3 4 5 6"), None);
        assert_eq!(parse_written_bytes("1 2 3 4 5 6 x 8"), None);
    }

    #[test]
    fn directory_without_device_has_no_counter() {
        assert_eq!(counter_of(Path::new("/proc")), None);
        assert_eq!(counter_of(Path::new("/nonexistent")), None);
    }
}
