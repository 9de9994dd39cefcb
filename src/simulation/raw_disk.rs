//! The simulated disk below its faults: its state, its operations and their count.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::{
    simulation::{
        image::{EntryChange, Image, InodeNumber},
        random::Random,
    },
    storage::{LockFlag, Locking, Place, Storage, StorageFile, copy_out, not_found, to_usize},
    sync::LockAlways,
};

#[derive(Debug)]
pub(super) struct DiskState {
    pub(super) image: Image,
    pub(super) random: Random,
    pub(super) operation_count: u64,
    pub(super) cut_after: u64,
    pub(super) capacity_bytes: u64,
    pub(super) promises_not_to_wait: bool,
    pub(super) place: Place,
    /// The contents after each operation, if they are recorded.
    pub(super) history: Option<Vec<Image>>,
}

/// The disk below its faults.
#[derive(Clone, Debug)]
pub(super) struct RawDisk {
    state: Arc<Mutex<DiskState>>,
    lock: LockFlag,
}

impl RawDisk {
    pub(super) fn new(image: Image, seed: u64) -> Self {
        let state = DiskState {
            image,
            random: Random::new(seed),
            operation_count: 0,
            cut_after: u64::MAX,
            capacity_bytes: u64::MAX,
            promises_not_to_wait: false,
            place: Place::Kept,
            history: None,
        };
        RawDisk { state: Arc::new(Mutex::new(state)), lock: LockFlag::default() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, DiskState> {
        self.state.lock_always()
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, DiskState>> {
        let state = self.state();
        if state.operation_count >= state.cut_after {
            return Err(io::Error::other("the power of the simulated disk is off"));
        }
        Ok(state)
    }

    /// Opens a file even without power, because its creation may have been the last operation with
    /// power.
    pub(super) fn opened(&self, name: &str) -> io::Result<RawFile> {
        let number = self.state().image.find(name).ok_or_else(not_found)?;
        Ok(RawFile { disk: self.clone(), number })
    }

    /// Runs one changing operation, and counts it.
    fn change<T>(&self, change: impl FnOnce(&mut DiskState) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.alive()?;
        let changed = change(&mut state)?;
        state.operation_count += 1;
        let DiskState { image, history, .. } = &mut *state;
        if let Some(history) = history {
            history.push(image.clone());
        }
        Ok(changed)
    }
}

impl Storage for RawDisk {
    fn location(&self) -> String {
        "simulated disk".to_owned()
    }

    fn is_nonblocking(&self) -> bool {
        true
    }

    fn lock(&self) -> io::Result<Locking> {
        Ok(self.lock.lock())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.alive()?.image.names())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.change(|state| {
            if state.place == Place::Removed {
                return Err(not_found());
            }
            if state.image.find(name).is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let number = state.image.add_inode();
            state.image.change(EntryChange::Create(name.to_owned(), number));
            Ok(())
        })?;
        Ok(Box::new(self.opened(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        drop(self.alive()?);
        Ok(Box::new(self.opened(name)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(|state| {
            state.image.find(name).ok_or_else(not_found)?;
            state.image.change(EntryChange::Remove(name.to_owned()));
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|state| {
            state.image.find(from).ok_or_else(not_found)?;
            state.image.change(EntryChange::Rename(from.to_owned(), to.to_owned()));
            Ok(())
        })
    }

    /// Adds an entry for the same bytes. As any entry, it is durable after a sync of the directory.
    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(|state| {
            let number = state.image.find(from).ok_or_else(not_found)?;
            if state.image.find(to).is_some() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.image.change(EntryChange::Create(to.to_owned(), number));
            Ok(())
        })
    }

    fn check_place(&self) -> io::Result<Place> {
        Ok(self.alive()?.place)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.change(|state| {
            state.image.sync_entries();
            Ok(())
        })
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        let mut state = self.alive()?;
        let (a, b) = (state.random.next_u64(), state.random.next_u64());
        Ok((u128::from(a) << 64 | u128::from(b)).to_le_bytes())
    }

    /// Returns a constant, because there is no clock.
    fn unix_ms(&self) -> u64 {
        1_800_000_000_000
    }
}

#[derive(Clone, Debug)]
pub(super) struct RawFile {
    disk: RawDisk,
    number: InodeNumber,
}

impl RawFile {
    fn sync(&self) -> io::Result<()> {
        self.disk.change(|state| {
            state.image.write_back(self.number, || true);
            Ok(())
        })
    }

    /// Fails a sync: writes some of the dirty sectors, and marks the lost rest clean.
    pub(super) fn fail_sync(&self) {
        let number = self.number;
        // The call changes nothing if the power is off.
        let _ = self.disk.change(|state| {
            let random = &mut state.random;
            state.image.write_back(number, || random.one_in(3));
            Ok(())
        });
    }

    fn set_len_to(&self, length: impl FnOnce(u64) -> u64) -> io::Result<()> {
        self.disk.change(|state| {
            let bytes = length(state.image.file(self.number).len() as u64);
            self.check_room(state, bytes)?;
            state.image.set_len(self.number, to_usize(bytes)?);
            Ok(())
        })
    }

    /// Fails if the disk has no space for `bytes` bytes of this file.
    fn check_room(&self, state: &DiskState, bytes: u64) -> io::Result<()> {
        let before = state.image.file(self.number).len() as u64;
        let others = state.image.used_bytes().saturating_sub(before);
        // A mistake in a test must not use up the machine's memory.
        let room = state.capacity_bytes.saturating_sub(others).min(FILE_BYTES_MAX);
        if bytes > room.max(before) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

const FILE_BYTES_MAX: u64 = 1 << 30;

impl StorageFile for RawFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.alive()?;
        copy_out(state.image.file(self.number), buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.disk.change(|state| {
            self.check_room(state, offset.saturating_add(bytes.len() as u64))?;
            state.image.write(self.number, bytes, to_usize(offset)?);
            Ok(bytes.len())
        })
    }

    fn write_at_nonblocking(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if !self.disk.state().promises_not_to_wait {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.write_at(bytes, offset)
    }

    /// Two operations, so that the power may go while the write is under way. Only the sectors of
    /// this write become durable.
    fn write_at_durably(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let count = self.write_at(bytes, offset)?;
        let start = to_usize(offset)?;
        self.disk.change(|state| {
            state.image.write_back_range(self.number, start..start + count);
            Ok(count)
        })
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.alive()?.image.file(self.number).len() as u64)
    }

    fn link_count(&self) -> io::Result<u64> {
        Ok(self.disk.alive()?.image.link_count(self.number))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.set_len_to(|_| bytes)
    }

    /// As `fallocate`: never shortens a file.
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.set_len_to(|before| before.max(bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }
}
