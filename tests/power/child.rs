//! The child process of `power_cut.rs`: a log under load, and the functions to start and kill it.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{self, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use highwater::{
    Lsn, Wal,
    simulation::WriteBack,
    storage::{FileStorage, Locking, Storage, StorageFile},
};

use super::{mixed, options, payload};

const DIRECTORY: &str = "HIGHWATER_POWER_DIRECTORY";
const CUT: &str = "HIGHWATER_POWER_CUT";
const LIE: &str = "HIGHWATER_POWER_LIE";

pub(crate) const TASKS: u64 = 10;
pub(crate) const BATCH_COUNT: u64 = 3;
/// A child exits after this time if it is not killed.
const LIFETIME: Duration = Duration::from_secs(5);
const ENDED_BY_ITSELF: i32 = 3;

pub(crate) fn is_batching(task: u64) -> bool {
    task % 5 == 2
}

/// A lie of the storage. The test must catch each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    /// `sync_data` returns `Ok` and does nothing.
    SkipSync,
    /// One `sync_data` in four does nothing.
    SkipSomeSyncs,
    /// `sync_dir` does nothing.
    SkipSyncDir,
}

impl Lie {
    const ALL: [Lie; 4] = [Lie::None, Lie::SkipSync, Lie::SkipSomeSyncs, Lie::SkipSyncDir];
}

/// The output of a child before it was killed.
pub(crate) struct Run {
    /// LSN, task and number.
    pub(crate) acknowledged: Vec<(Lsn, u64, u64)>,
    /// The exit status, if it was not killed.
    pub(crate) ended: Option<String>,
    after: Duration,
    early_one_in: u32,
    pause: Option<Duration>,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {:?}, {} acknowledged", self.after, self.acknowledged.len())?;
        match self.early_one_in {
            0 => write!(f, ", no early write-back")?,
            one_in => write!(f, ", early write-back one in {one_in}")?,
        }
        write!(f, ", flushes {}", if self.pause.is_some() { "slow" } else { "fast" })
    }
}

/// Returns how many unsynced writes reach the disk early: one in 2, 8 or 40; 0 means none.
fn early_one_in(cut: u64) -> u32 {
    if cut % 2 == 0 { 0 } else { [2, 8, 40][mixed(cut ^ 1, 3) as usize] }
}

/// Returns the time between a flush's effect and its return. Writes in it are not covered.
fn pause(cut: u64) -> Option<Duration> {
    (cut % 5 < 2).then_some(Duration::from_millis(1))
}

/// The least number of records that a paced cut must check.
pub(crate) const ACKNOWLEDGED_MIN: usize = 10;

/// Returns whether a cut waits for acknowledgements. One in three does not, to hit a creation or a
/// recovery.
fn is_paced(cut: u64) -> bool {
    cut % 3 != 0
}

/// Returns the time from the child's opening of the log to its kill.
fn killed_after(cut: u64) -> Duration {
    let most_us = if !is_paced(cut) { 8_000 } else { 120_000 };
    Duration::from_micros(mixed(cut, most_us))
}

/// Starts a child, kills it, and returns its acknowledgements.
pub(crate) fn run_and_kill(directory: &Path, cut: u64, lie: Lie) -> Run {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_under_power_cut", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(CUT, cut.to_string())
        .env(LIE, format!("{lie:?}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (opens, opening) = mpsc::channel();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let reader = thread::spawn(move || read_acknowledgements(stdout, &opens, &counter));
    let after = killed_after(cut);
    if opening.recv_timeout(LIFETIME).is_ok() {
        thread::sleep(after);
    }
    let began = Instant::now();
    let has_time = || began.elapsed() < LIFETIME / 2;
    while is_paced(cut) && count.load(Ordering::Relaxed) < ACKNOWLEDGED_MIN && has_time() {
        thread::sleep(Duration::from_millis(1));
    }
    let ended = child.try_wait().unwrap().map(|status| status.to_string());
    child.kill().unwrap();
    child.wait().unwrap();
    let acknowledged = reader.join().unwrap();
    Run { acknowledged, ended, after, early_one_in: early_one_in(cut), pause: pause(cut) }
}

fn read_acknowledgements(
    mut from: impl BufRead,
    opens: &Sender<()>,
    count: &AtomicUsize,
) -> Vec<(Lsn, u64, u64)> {
    let mut acknowledged = Vec::new();
    let mut line = String::new();
    // A line cut off by the kill does not count as acknowledged.
    while from.read_line(&mut line).is_ok_and(|count| count > 0) && line.ends_with('\n') {
        // The test harness may have written text before the first line.
        if line.contains("opening") {
            let _ = opens.send(());
        } else if let Some((_, ack)) = line.split_once("ack ") {
            let numbers: Vec<u64> = ack.split_whitespace().map(|n| n.parse().unwrap()).collect();
            acknowledged.push((Lsn::new(numbers[0]), numbers[1], numbers[2]));
            count.fetch_add(1, Ordering::Relaxed);
        }
        line.clear();
    }
    acknowledged
}

/// Opens the log and appends from many tasks until it is killed, if this process is a child.
pub(crate) fn run_if_child() {
    let (Ok(directory), Ok(cut)) = (std::env::var(DIRECTORY), std::env::var(CUT)) else {
        return;
    };
    let lie = std::env::var(LIE).unwrap();
    let lie = Lie::ALL.into_iter().find(|known| format!("{known:?}") == lie).unwrap();
    let cut: u64 = cut.parse().unwrap();
    thread::spawn(|| {
        thread::sleep(LIFETIME);
        std::process::exit(ENDED_BY_ITSELF);
    });
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let files = FileStorage::create(&directory).unwrap();
        let storage = WriteBack::new(files).with_early_write_back(cut, early_one_in(cut));
        print_line("opening\n");
        let device = Device { inner: storage, lie, pause: pause(cut) };
        let wal = options().open_with(device).await.unwrap();
        let tasks =
            (0..TASKS).map(|task| tokio::spawn(append_until_killed(wal.clone(), cut, task)));
        futures::future::join_all(tasks).await;
    });
}

/// Prints a line in one write, so that it appears whole or not at all.
fn print_line(line: &str) {
    io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

/// Appends in one of five ways, and acknowledges synced records.
async fn append_until_killed(wal: Wal, cut: u64, task: u64) {
    let mut number = 0;
    loop {
        let payload = |i: u64| payload(cut, task, number + i);
        let mut lsns: Vec<Lsn> = Vec::new();
        match task % 5 {
            0 => lsns.push(wal.append_and_sync(payload(0)).await.unwrap()),
            1 => {
                let mut tickets = Vec::new();
                for i in 0..1 + number % 5 {
                    tickets.push(wal.enqueue(payload(i)).await.unwrap());
                }
                tickets.last().unwrap().synced().await.unwrap();
                lsns.extend(tickets.iter().map(|ticket| ticket.lsn()));
            }
            2 => {
                let batch: Vec<_> = (0..BATCH_COUNT).map(payload).collect();
                let range = wal.append_batch(&batch).await.unwrap();
                wal.sync().await.unwrap();
                let mut at = range.start;
                for part in batch {
                    lsns.push(at);
                    at = Lsn::new(at.as_u64() + 16 + (part.len() as u64).next_multiple_of(8));
                }
            }
            3 => {
                for i in 0..1 + number % 4 {
                    lsns.push(wal.append(payload(i)).await.unwrap());
                }
                wal.sync_to(*lsns.last().unwrap()).await.unwrap();
            }
            // Written during the others' flushes, and never acknowledged.
            _ => {
                wal.append(payload(0)).await.unwrap();
                tokio::time::sleep(Duration::from_micros(300)).await;
                number += 1;
            }
        }
        for lsn in lsns {
            print_line(&format!("ack {} {task} {number}\n", lsn.as_u64()));
            number += 1;
        }
    }
}

/// A storage that is slow or lies.
#[derive(Debug)]
struct Device<S> {
    inner: S,
    lie: Lie,
    pause: Option<Duration>,
}

#[derive(Debug)]
struct DeviceFile {
    inner: Box<dyn StorageFile>,
    lie: Lie,
    pause: Option<Duration>,
    sync_count: AtomicU64,
}

impl<S> Device<S> {
    fn file(&self, inner: Box<dyn StorageFile>) -> Box<dyn StorageFile> {
        let (lie, pause) = (self.lie, self.pause);
        Box::new(DeviceFile { inner, lie, pause, sync_count: 0.into() })
    }
}

impl<S: Storage> Storage for Device<S> {
    fn location(&self) -> String {
        self.inner.location()
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
        if self.lie == Lie::SkipSyncDir { Ok(()) } else { self.inner.sync_dir() }
    }
}

impl StorageFile for DeviceFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.inner.write_at(bytes, offset)
    }
    fn write_at_nonblocking(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.inner.write_at_nonblocking(bytes, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.inner.set_len(bytes)
    }
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.inner.reserve(bytes)
    }
    fn sync_data(&self) -> io::Result<()> {
        let count = self.sync_count.fetch_add(1, Ordering::Relaxed);
        match self.lie {
            Lie::SkipSync => {}
            Lie::SkipSomeSyncs if count % 4 == 3 => {}
            _ => self.inner.sync_data()?,
        }
        if let Some(pause) = self.pause {
            thread::sleep(pause);
        }
        Ok(())
    }
    fn sync_all(&self) -> io::Result<()> {
        self.inner.sync_all()
    }
}
