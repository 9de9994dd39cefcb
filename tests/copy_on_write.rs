//! Copy-on-write file systems: the log writes no zeros ahead, because they would take space twice.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and a skipped test prints the reason"
)]

mod support;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use highwater::{
    Error, Wal,
    simulation::{Event, Faults, Wrote},
    storage::{FileStorage, Locking, MemoryStorage, Storage, StorageFile},
};
use support::{cause, small};

/// Files in memory that claim to be on a copy-on-write file system.
#[derive(Debug, Default)]
struct CopiesOnWrite(MemoryStorage);

impl Storage for CopiesOnWrite {
    fn location(&self) -> String {
        self.0.location()
    }

    fn is_nonblocking(&self) -> bool {
        true
    }

    fn overwrites_in_place(&self) -> bool {
        false
    }

    fn lock(&self) -> io::Result<Locking> {
        self.0.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.0.create(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.0.open(name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
}

/// Returns how many writes of zeros a log makes, and how many files it recycles.
async fn blank_writes(storage: impl Storage) -> (usize, u64) {
    let faults = Faults::new();
    let options = small().recycle_segments(2);
    let wal = options.open_with(faults.over(storage)).await.unwrap();
    for _ in 0..200 {
        let lsn = wal.append_and_sync(&[7; 500]).await.unwrap();
        wal.truncate_before(lsn).await.unwrap();
    }
    assert!(wal.stats().rotation_count > 3);
    let is_blank = |event: &Event| matches!(event, Event::Wrote(Wrote { is_blank: true, .. }));
    (faults.count(is_blank), wal.stats().recycled_count)
}

#[tokio::test]
async fn copy_on_write_storage_gets_no_zeros() {
    assert_eq!(blank_writes(CopiesOnWrite::default()).await, (0, 0));
    let (blank_count, recycled_count) = blank_writes(MemoryStorage::new()).await;
    assert!(blank_count > 0 && recycled_count > 0, "control: other storages get zeros");
}

/// A btrfs in an image file.
struct Btrfs {
    at: PathBuf,
    _files: tempfile::TempDir,
}

impl Btrfs {
    /// Returns `None` where btrfs cannot be created and mounted.
    fn mount(bytes: u64) -> Option<Self> {
        let files = tempfile::tempdir().unwrap();
        let (image, at) = (files.path().join("image"), files.path().join("mounted"));
        File::create(&image).unwrap().set_len(bytes).unwrap();
        std::fs::create_dir(&at).unwrap();
        let run = |program: &str, arguments: &[&Path]| {
            let ran = Command::new(program)
                .args(arguments)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            ran.is_ok_and(|status| status.success())
        };
        let is_made = run("mkfs.btrfs", &[Path::new("-q"), &image]);
        if !is_made || !run("mount", &[Path::new("-o"), Path::new("loop"), &image, &at]) {
            println!("skipped: btrfs cannot be created and mounted");
            return None;
        }
        Some(Btrfs { at, _files: files })
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).status();
    }
}

#[tokio::test]
async fn full_btrfs_returns_no_space() {
    let Some(btrfs) = Btrfs::mount(128 << 20) else { return };
    let path = btrfs.at.join("log");
    assert!(!FileStorage::create(&path).unwrap().overwrites_in_place());
    let room_bytes = {
        let found = rustix::fs::statvfs(&path).unwrap();
        found.f_bavail * found.f_frsize
    };
    let wal = Wal::options().segment_bytes(2 << 20).open(&path).await.unwrap();
    let mut appended_bytes = 0;
    let error = loop {
        match wal.append_and_sync(&[7; 30_000]).await {
            Ok(_) => appended_bytes += 30_000,
            Err(error) => break error,
        }
        assert!(appended_bytes < 256 << 20, "the file system never gets full");
    };
    println!("{appended_bytes} of {room_bytes} bytes, then: {error}");
    if error.is_poisoned() {
        panic!("{appended_bytes} of {room_bytes} bytes: {}", cause(&error));
    }
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    assert!(appended_bytes > room_bytes / 2, "{appended_bytes} of {room_bytes}");
    wal.close().await.unwrap();
}
