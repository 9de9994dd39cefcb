//! The cost of an idle follower's polling, and its clock.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use highwater::{
    Lsn, Reader, Wal,
    reader::Tail,
    storage::{Locking, MemoryStorage, Storage, StorageFile},
};

use crate::{next, quick, support, tiny};

/// Counts the calls and the bytes that polling costs.
#[derive(Debug, Default)]
struct Cost {
    looks: AtomicU64,
    lists: AtomicU64,
    opens: AtomicU64,
    bytes: AtomicU64,
    /// If not 0, the stamp to return: changes of names are then invisible.
    stamp: AtomicU64,
}

impl Cost {
    fn now(&self) -> [u64; 4] {
        [&self.looks, &self.lists, &self.opens, &self.bytes]
            .map(|count| count.load(Ordering::Relaxed))
    }
}

#[derive(Clone, Debug)]
struct Counting {
    memory: MemoryStorage,
    cost: Arc<Cost>,
}

#[derive(Debug)]
struct CountingFile(Box<dyn StorageFile>, Arc<Cost>);

impl StorageFile for CountingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

impl Storage for Counting {
    fn location(&self) -> String {
        self.memory.location()
    }
    fn is_nonblocking(&self) -> bool {
        true
    }
    fn lock(&self) -> io::Result<Locking> {
        self.memory.lock()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.cost.lists.fetch_add(1, Ordering::Relaxed);
        self.memory.list()
    }
    fn stamp(&self) -> io::Result<Option<u128>> {
        self.cost.looks.fetch_add(1, Ordering::Relaxed);
        match self.cost.stamp.load(Ordering::Relaxed) {
            0 => self.memory.stamp(),
            stamp => Ok(Some(u128::from(stamp))),
        }
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.memory.create(name)
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.cost.opens.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(CountingFile(self.memory.open(name)?, Arc::clone(&self.cost))))
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

/// Returns a log with `segments` segments, and a counting storage to read it.
async fn log_of(segments: u64) -> (Wal, Counting) {
    let memory = MemoryStorage::new();
    let wal = tiny().open_with(memory.clone()).await.unwrap();
    while wal.stats().rotation_count + 1 < segments {
        wal.append(vec![1; 1800]).await.unwrap();
    }
    wal.sync().await.unwrap();
    (wal, Counting { memory, cost: Arc::default() })
}

/// Polls a follower at the end of the log until `until` holds.
async fn idle(tail: &mut Tail, until: impl Fn() -> bool) {
    while !until() {
        let quiet = tokio::time::timeout(Duration::from_millis(5), tail.next()).await;
        assert!(quiet.is_err(), "nothing was appended: {quiet:?}");
    }
}

/// Returns the cost of `looks` polls of an idle follower, after it has settled.
async fn idle_cost(tail: &mut Tail, cost: &Cost, looks: u64) -> [u64; 4] {
    let settled = std::time::Instant::now() + Duration::from_millis(2500);
    idle(tail, || std::time::Instant::now() > settled).await;
    let before = cost.now();
    idle(tail, || cost.now()[0] >= before[0] + looks).await;
    let after = cost.now();
    [0, 1, 2, 3].map(|at| after[at] - before[at])
}

/// A poll must not list the directory or copy the view: both grow with the number of segments.
#[tokio::test]
async fn idle_follower_cost_is_independent_of_segments() {
    const LOOKS: u64 = 100;
    let mut costs = Vec::new();
    for segments in [10, 2000] {
        let (wal, storage) = log_of(segments).await;
        let reader = quick().open_with(storage.clone()).await.unwrap();
        let mut tail = reader.follow(reader.end());
        let cost = idle_cost(&mut tail, &storage.cost, LOOKS).await;
        let [looks, lists, opens, bytes] = cost;
        assert!(looks >= LOOKS && lists <= 1, "{segments} segments: {cost:?}");
        assert!(opens <= 2 * looks && bytes <= 12 * 1024 * looks, "{segments} segments: {cost:?}");
        costs.push((opens / looks, bytes / looks));
        // The follower still sees appended records, also in later segments.
        for i in 0..10 {
            let lsn = wal.append_and_sync(vec![i; 1800]).await.unwrap();
            wal.append_and_sync(b"commits it").await.unwrap();
            assert_eq!(next(&mut tail).await.unwrap().lsn, lsn);
            assert_eq!(next(&mut tail).await.unwrap().payload, "commits it");
        }
    }
    assert_eq!(costs[0], costs[1], "files opened and bytes read per poll");
}

/// A segment with a gap in its number, created within one tick of the directory's time stamp.
#[tokio::test]
async fn follower_finds_segment_with_unchanged_stamp() {
    let (wal, storage) = log_of(3).await;
    let reader = quick().open_with(storage.clone()).await.unwrap();
    let mut tail = reader.follow(reader.end());
    storage.cost.stamp.store(7, Ordering::Relaxed);
    idle_cost(&mut tail, &storage.cost, 10).await;
    drop(wal);
    // A kept file reserves all numbers up to its own.
    drop(storage.memory.create("00000000000000000500.wal.cut").unwrap());
    let newest = storage.memory.list().unwrap().into_iter().rfind(|name| name.ends_with(".wal"));
    let file = storage.memory.open(&newest.unwrap()).unwrap();
    file.write_at(&[0xff; 8], 8100).unwrap();
    let wal = tiny().open_with(storage.memory.clone()).await.unwrap();
    let lsn = wal.append_and_sync(b"in segment 501").await.unwrap();
    wal.append_and_sync(b"commits it").await.unwrap();
    let names = storage.memory.list().unwrap();
    assert!(names.iter().any(|name| name == "00000000000000000501.wal"), "{names:?}");
    assert_eq!(next(&mut tail).await.unwrap().lsn, lsn);
}

/// `tokio::time::timeout` around a follower on tokio's paused clock: both use the same clock.
#[tokio::test(start_paused = true)]
async fn follower_with_runtime_clock_obeys_paused_time() {
    let memory = MemoryStorage::new();
    let wal = tiny().open_with(memory.clone()).await.unwrap();
    let minute = Duration::from_secs(60);
    let options = Reader::options().written(true).poll_interval(minute).runtime_clock(true);
    let mut tail = options.open_with(memory).await.unwrap().follow(Lsn::ZERO);
    let began = std::time::Instant::now();
    for round in 0..20u8 {
        let nothing = tokio::time::timeout(minute / 2, tail.next()).await;
        assert!(nothing.is_err(), "round {round}: nothing is appended yet");
        wal.append(vec![round; 10]).await.unwrap();
        let found = tokio::time::timeout(2 * minute, tail.next()).await;
        let found = found.expect("a record within two poll intervals").unwrap().unwrap();
        assert_eq!(found.payload, vec![round; 10]);
    }
    assert!(began.elapsed() < support::PATIENCE, "the test waited in real time");
}
