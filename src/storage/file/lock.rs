//! The lock that excludes a second writer.
//!
//! The directory itself is locked, because that lock does not depend on a name. The file `LOCK` is
//! locked too, and names the owner. If a directory cannot be locked (some network file systems),
//! `LOCK` is the only lock: its loss stops the log.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    sync::{Arc, Mutex},
};

use super::{
    owner::{OWNER_BYTES_MAX, Process, is_ours},
    platform::{self, Directory, OnDirectory},
};
use crate::{lock_owner::LockOwner, storage::Place, sync::LockAlways};

/// The name of the file that names the owner of the lock.
pub(super) const LOCK_FILE: &str = "LOCK";

/// The directories that this process has locked or is about to lock.
static SLOTS: Mutex<Vec<Key>> = Mutex::new(Vec::new());

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    /// Distinguishes a forked child, which has its parent's memory but none of its handles.
    pid: u32,
    directory: (u64, u64),
}

/// This process's claim on a directory. It does not depend on files.
#[derive(Debug)]
struct Slot(Key);

impl Slot {
    fn take(directory: (u64, u64)) -> Option<Self> {
        let key = Key { pid: std::process::id(), directory };
        let mut slots = SLOTS.lock_always();
        if slots.contains(&key) {
            return None;
        }
        slots.push(key);
        Some(Slot(key))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut slots = SLOTS.lock_always();
        slots.retain(|key| *key != self.0);
    }
}

/// The lock. It is held until this value is dropped.
#[derive(Debug)]
pub(super) struct HeldLock {
    /// `None` if the directory cannot be locked.
    on_directory: Option<File>,
    /// `None` if the disk was full.
    on_file: Mutex<Option<File>>,
    process: Process,
    /// The last field, so that it is dropped after the files.
    slot: Slot,
}

impl HeldLock {
    /// Checks `LOCK`. If it is gone while the directory itself is locked, creates it again.
    pub(super) fn check(&self, directory: &Directory, mode: u32) -> io::Result<Place> {
        let mut on_file = self.on_file.lock_always();
        let is_there = match on_file.as_ref() {
            Some(file) => directory.is_named(file, LOCK_FILE)?,
            None => false,
        };
        if is_there {
            return Ok(Place::Kept);
        }
        if self.on_directory.is_none() {
            return Ok(Place::Unlocked);
        }
        // The file only informs people here, so a failure does not stop the log.
        match directory.lock_file(LOCK_FILE, mode) {
            Ok(Some(file)) => {
                tracing::warn!(log = %directory.path().display(), "LOCK was missing; it was created again");
                note_owner(&file, &self.process, directory);
                *on_file = Some(file);
            }
            Ok(None) => tracing::warn!(log = %directory.path().display(), "LOCK was replaced"),
            Err(error) => {
                tracing::warn!(log = %directory.path().display(), %error, "LOCK is missing and could not be created");
            }
        }
        Ok(Place::Kept)
    }
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        // A forked child that inherited the descriptors must not free its parent's lock. It must
        // not keep the lock either, so the parent unlocks explicitly.
        if self.slot.0.pid == std::process::id() {
            let on_file = self.on_file.lock_always();
            for file in self.on_directory.iter().chain(on_file.iter()) {
                platform::unlock(file);
            }
        }
    }
}

/// Takes the lock, or returns its owner.
pub(super) fn lock(
    directory: &Directory,
    mode: u32,
) -> io::Result<Result<Arc<HeldLock>, LockOwner>> {
    let process = Process::current()?;
    let Some(slot) = Slot::take(directory.identity()?) else {
        return Ok(Err(LockOwner::ThisProcess));
    };
    let on_directory = match directory.lock()? {
        OnDirectory::Held(file) => Some(file),
        OnDirectory::Unsupported => None,
        OnDirectory::Busy => return Ok(Err(busy(directory, &process))),
    };
    let on_file = match directory.lock_file(LOCK_FILE, mode) {
        Ok(Some(file)) => Some(file),
        Ok(None) => return Ok(Err(busy(directory, &process))),
        Err(error) if on_directory.is_some() && is_full(&error) => None,
        Err(error) => return Err(error),
    };
    if let Some(file) = &on_file {
        note_owner(file, &process, directory);
    }
    Ok(Ok(Arc::new(HeldLock { on_directory, on_file: Mutex::new(on_file), process, slot })))
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn busy(directory: &Directory, process: &Process) -> LockOwner {
    let text = directory.open_plain(LOCK_FILE).and_then(|file| read_limited(&file));
    let text = text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    process.owner(&text.unwrap_or_default())
}

/// Reads at most one byte more than the longest text of an owner.
fn read_limited(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; OWNER_BYTES_MAX + 1];
    let read = platform::read_at(file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// Writes the owner of the lock, unless the file is not a log's. The text only informs people, so a
/// full disk does not prevent opening the log.
fn note_owner(mut file: &File, process: &Process, directory: &Directory) {
    let found = read_limited(file);
    if !found.is_ok_and(|bytes| bytes.len() <= OWNER_BYTES_MAX && is_ours(&bytes)) {
        tracing::warn!(
            log = %directory.path().display(),
            "LOCK has contents that no log wrote; it is locked and left unchanged"
        );
        return;
    }
    // The file is never empty, because the new text is written before the rest of the old text is
    // cut.
    let text = process.to_text();
    let noted = file
        .seek(SeekFrom::Start(0))
        .and_then(|_| file.write_all(text.as_bytes()))
        .and_then(|()| file.set_len(text.len() as u64));
    if let Err(error) = noted {
        tracing::debug!(log = %directory.path().display(), %error, "could not write the owner to LOCK");
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    const MODE: u32 = 0o600;

    fn directory() -> (tempfile::TempDir, Directory) {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        (temporary, directory)
    }

    fn held(directory: &Directory) -> Arc<HeldLock> {
        lock(directory, MODE).unwrap().unwrap()
    }

    /// Returns descriptors of the same open files, as a forked child has them.
    fn inherit(lock: &HeldLock) -> (File, File) {
        let on_file = lock.on_file.lock().unwrap();
        let files = (lock.on_directory.as_ref().unwrap(), on_file.as_ref().unwrap());
        (files.0.try_clone().unwrap(), files.1.try_clone().unwrap())
    }

    #[test]
    fn dropped_lock_is_free_although_a_child_inherited_it() {
        let (_temporary, directory) = directory();
        let lock = held(&directory);
        let _inherited = inherit(&lock);
        drop(lock);
        drop(held(&directory));
    }

    #[test]
    fn child_that_drops_an_inherited_lock_frees_nothing() {
        let (_temporary, directory) = directory();
        let lock = held(&directory);
        let (on_directory, on_file) = inherit(&lock);
        let slot = Slot(Key { pid: 1, ..lock.slot.0 });
        let process = lock.process.clone();
        let on_directory = Some(on_directory);
        drop(HeldLock { on_directory, on_file: Mutex::new(Some(on_file)), process, slot });
        assert!(matches!(directory.lock().unwrap(), OnDirectory::Busy));
        drop(lock);
    }

    #[test]
    fn lock_kept_by_a_child_is_not_blamed_on_this_process() {
        let (_temporary, directory) = directory();
        let lock = held(&directory);
        // The process has no handle any more, but a child has.
        let _inherited = inherit(&lock);
        SLOTS.lock().unwrap().retain(|key| *key != lock.slot.0);
        assert_eq!(self::lock(&directory, MODE).unwrap().unwrap_err(), LockOwner::ForkedChild);
    }

    #[test]
    fn lock_file_alone_stops_the_log_when_it_is_removed() {
        let (temporary, directory) = directory();
        let Slot(key) = &Slot::take(directory.identity().unwrap()).unwrap();
        let file = directory.lock_file(LOCK_FILE, MODE).unwrap();
        let lock = HeldLock {
            on_directory: None,
            on_file: Mutex::new(file),
            process: Process::current().unwrap(),
            slot: Slot(*key),
        };
        assert_eq!(lock.check(&directory, MODE).unwrap(), Place::Kept);
        std::fs::remove_file(temporary.path().join(LOCK_FILE)).unwrap();
        assert_eq!(lock.check(&directory, MODE).unwrap(), Place::Unlocked);
        // A second writer has created its own.
        let _other = directory.lock_file(LOCK_FILE, MODE).unwrap().unwrap();
        assert_eq!(lock.check(&directory, MODE).unwrap(), Place::Unlocked);
    }

    #[test]
    fn removed_lock_file_is_recreated_under_lock() {
        let (temporary, directory) = directory();
        let lock = held(&directory);
        let path = temporary.path().join(LOCK_FILE);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(lock.check(&directory, MODE).unwrap(), Place::Kept);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, lock.process.to_text());
        assert!(directory.lock_file(LOCK_FILE, MODE).unwrap().is_none(), "it is locked");
    }
}
