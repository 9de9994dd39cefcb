//! A storage in memory whose writes a gate can block.
//!
//! The storage reports that it may block, so the log writes on the runtime's pool. While the gate
//! is closed, the single write job waits in its write. So the records that are enqueued meanwhile
//! do not depend on the speed of the threads.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use highwater::storage::{Locking, MemoryStorage, Storage, StorageFile};

#[derive(Clone, Debug, Default)]
pub struct GatedStorage {
    memory: MemoryStorage,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    is_closed: bool,
    is_reached: bool,
}

impl GatedStorage {
    pub fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, is_over: impl Fn(&GateState) -> bool) {
        let is_on = |state: &mut GateState| !is_over(state);
        drop(self.changed.wait_while(self.state(), is_on).unwrap_or_else(PoisonError::into_inner));
    }

    pub fn close(&self) {
        *self.state() = GateState { is_closed: true, is_reached: false };
    }

    pub fn open(&self) {
        self.state().is_closed = false;
        self.changed.notify_all();
    }

    /// Blocks until a write waits at the closed gate.
    pub fn wait_for_a_write(&self) {
        self.wait(|state| state.is_reached);
    }

    fn pass(&self) {
        self.state().is_reached = true;
        self.changed.notify_all();
        self.wait(|state| !state.is_closed);
    }
}

impl Storage for GatedStorage {
    fn location(&self) -> String {
        "memory behind a gate".to_owned()
    }

    fn lock(&self) -> io::Result<Locking> {
        self.memory.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.memory.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(GatedFile { file: self.memory.create(name)?, gate: self.gate() }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(GatedFile { file: self.memory.open(name)?, gate: self.gate() }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.memory.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.memory.rename(from, to)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.memory.sync_dir()
    }
}

#[derive(Debug)]
struct GatedFile {
    file: Box<dyn StorageFile>,
    gate: Arc<Gate>,
}

impl StorageFile for GatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.gate.pass();
        self.file.write_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}
