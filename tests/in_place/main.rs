//! Inline writes and syncs: when a task does them itself, when it hands over to the pool, and that
//! both have the same results.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a mistake in a test must stop it"
)]

mod alone;
mod handover;
mod runtimes;
mod simulated;
#[path = "../support/mod.rs"]
mod support;
mod syncs;
mod yielding;

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Waker},
    thread::ThreadId,
};

use highwater::{
    simulation::{Disk, Event, Faults},
    storage::{Locking, Storage, StorageFile},
};

/// Returns a disk that promises not to block, and faults for its use on the pool.
fn promising() -> (Disk, Faults) {
    let disk = Disk::new(7);
    disk.set_nonblocking_writes(true);
    (disk, Faults::new())
}

/// Polls `count` times without waiting for a wake-up.
fn poll_times<F: Future + ?Sized>(future: &mut Pin<Box<F>>, count: usize) {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..count {
        assert!(future.as_mut().poll(&mut context).is_pending(), "the future must be pending");
    }
}

/// Returns the number of nonblocking writes.
fn nonblocking_count(faults: &Faults) -> usize {
    faults.count(|event| matches!(event, Event::Wrote(wrote) if wrote.is_nonblocking))
}

/// A write: its thread, its size, and whether it was nonblocking.
type Seen = Arc<Mutex<Vec<(ThreadId, usize, bool)>>>;

/// The threads that flushed.
type Flushed = Arc<Mutex<Vec<ThreadId>>>;

/// A storage that notes the threads of writes and flushes.
#[derive(Debug)]
struct Watched<S> {
    inner: S,
    seen: Seen,
    flushed: Flushed,
}

#[derive(Debug)]
struct WatchedFile {
    inner: Box<dyn StorageFile>,
    seen: Seen,
    flushed: Flushed,
}

impl<S: Storage> Watched<S> {
    fn new(inner: S) -> (Self, Seen) {
        let seen = Seen::default();
        (Watched { inner, seen: Arc::clone(&seen), flushed: Flushed::default() }, seen)
    }

    fn file(&self, inner: Box<dyn StorageFile>) -> Box<dyn StorageFile> {
        let (seen, flushed) = (Arc::clone(&self.seen), Arc::clone(&self.flushed));
        Box::new(WatchedFile { inner, seen, flushed })
    }
}

/// Returns how many writes this thread has done.
fn here_count(seen: &Seen) -> usize {
    let here = std::thread::current().id();
    seen.lock().unwrap().iter().filter(|(thread, ..)| *thread == here).count()
}

impl<S: Storage> Storage for Watched<S> {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn is_nonblocking(&self) -> bool {
        self.inner.is_nonblocking()
    }
    fn lock(&self) -> io::Result<Locking> {
        self.inner.lock()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.inner.create(name).map(|file| self.file(file))
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.inner.open(name).map(|file| self.file(file))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }
    fn random(&self) -> io::Result<[u8; 16]> {
        self.inner.random()
    }
}

impl WatchedFile {
    fn note(&self, count: io::Result<usize>, is_nonblocking: bool) -> io::Result<usize> {
        if let Ok(count) = count {
            let thread = std::thread::current().id();
            self.seen.lock().unwrap().push((thread, count, is_nonblocking));
        }
        count
    }
}

impl StorageFile for WatchedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.note(self.inner.write_at(bytes, offset), false)
    }
    fn write_at_nonblocking(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.note(self.inner.write_at_nonblocking(bytes, offset), true)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn link_count(&self) -> io::Result<u64> {
        self.inner.link_count()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.inner.set_len(bytes)
    }
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.inner.reserve(bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.flushed.lock().unwrap().push(std::thread::current().id());
        self.inner.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.inner.sync_all()
    }
}
