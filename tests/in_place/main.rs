//! Appends that write themselves: where they do, where they give it over to the pool, and that nobody
//! can tell the difference but by the clock.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a mistake in a test must stop it"
)]

mod given_over;
mod parked;
mod runtimes;
mod simulated;
#[path = "../support/mod.rs"]
mod support;
mod syncs;

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

/// A disk that promises not to wait, the log's work on the pool, and the disk's faults.
fn promising() -> (Disk, Faults) {
    let disk = Disk::new(7);
    disk.set_nonblocking_writes(true);
    (disk, Faults::new())
}

/// Polls `count` times, without waiting to be woken.
fn poll_times<F: Future + ?Sized>(future: &mut Pin<Box<F>>, count: usize) {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..count {
        assert!(future.as_mut().poll(&mut context).is_pending(), "it has to wait");
    }
}

/// How many writes that don't wait there were.
fn nonblocking_count(faults: &Faults) -> usize {
    faults.count(|event| matches!(event, Event::Wrote(wrote) if wrote.is_nonblocking))
}

/// A write: by whom, how large, and whether it was to wait.
type Seen = Arc<Mutex<Vec<(ThreadId, usize, bool)>>>;

/// Who flushed.
type Flushed = Arc<Mutex<Vec<ThreadId>>>;

/// A storage that notes who writes, and who flushes.
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

/// How many writes this thread has done itself.
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
