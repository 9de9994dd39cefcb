//! A storage in memory that the log takes for a device, and whose writes can be held back.
//!
//! Not being non-blocking, it makes the log use its runtime's pool. While the gate is closed the
//! one write job stands in its write, so what is enqueued meanwhile doesn't depend on which thread
//! is faster.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use highwater::storage::{Locking, MemoryStorage, Storage, StorageFile};

#[derive(Clone, Debug, Default)]
pub struct Gated {
    memory: MemoryStorage,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_closed: bool,
    is_reached: bool,
}

impl Gated {
    pub fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, is_over: impl Fn(&State) -> bool) {
        let is_on = |state: &mut State| !is_over(state);
        drop(self.changed.wait_while(self.state(), is_on).unwrap_or_else(PoisonError::into_inner));
    }

    pub fn close(&self) {
        *self.state() = State { is_closed: true, is_reached: false };
    }

    pub fn open(&self) {
        self.state().is_closed = false;
        self.changed.notify_all();
    }

    /// Blocks until a write stands before the closed gate.
    pub fn wait_for_a_write(&self) {
        self.wait(|state| state.is_reached);
    }

    fn pass(&self) {
        self.state().is_reached = true;
        self.changed.notify_all();
        self.wait(|state| !state.is_closed);
    }
}

impl Storage for Gated {
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
        Ok(Box::new(Opened { file: self.memory.create(name)?, gate: self.gate() }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(Opened { file: self.memory.open(name)?, gate: self.gate() }))
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
struct Opened {
    file: Box<dyn StorageFile>,
    gate: Arc<Gate>,
}

impl StorageFile for Opened {
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
