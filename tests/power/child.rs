//! The process whose power is cut: a log under load on unsynced memory, and how it is run and killed.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Sender},
    },
    thread,
    time::Duration,
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
/// A child that nobody kills is gone after this.
const LIFETIME: Duration = Duration::from_secs(5);
const ENDED_BY_ITSELF: i32 = 3;

pub(crate) fn is_batching(task: u64) -> bool {
    task % 5 == 2
}

/// What a storage only says it does: each must be caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    /// `sync_data` answers Ok and does nothing.
    SkipSync,
    /// One `sync_data` in four does.
    SkipSomeSyncs,
    /// `sync_dir` does.
    SkipSyncDir,
}

impl Lie {
    const ALL: [Lie; 4] = [Lie::None, Lie::SkipSync, Lie::SkipSomeSyncs, Lie::SkipSyncDir];
}

/// What a child said before it was killed.
pub(crate) struct Run {
    /// LSN, task and number.
    pub(crate) acknowledged: Vec<(Lsn, u64, u64)>,
    /// How it ended, if it wasn't killed.
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

/// Every other cut finds that some of the unsynced bytes had gone ahead: few, or most of them.
fn early_one_in(cut: u64) -> u32 {
    if cut % 2 == 0 { 0 } else { [2, 8, 40][mixed(cut ^ 1, 3) as usize] }
}

/// On some devices a flush has done its work a while before it answers, and more is written then.
fn pause(cut: u64) -> Option<Duration> {
    (cut % 5 < 2).then_some(Duration::from_millis(1))
}

/// From the moment at which the child opens the log.
fn killed_after(cut: u64) -> Duration {
    // One in three is to come upon a creation or a recovery, or soon after it.
    let most_us = if cut % 3 == 0 { 8_000 } else { 120_000 };
    Duration::from_micros(mixed(cut, most_us))
}

/// Starts a child, kills it at some moment and says what it had acknowledged by then.
pub(crate) fn run_and_kill(directory: &Path, cut: u64, lie: Lie) -> Run {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_whose_power_is_cut", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(CUT, cut.to_string())
        .env(LIE, format!("{lie:?}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (opens, opening) = mpsc::channel();
    let reader = thread::spawn(move || read_acknowledgements(stdout, &opens));
    let after = killed_after(cut);
    if opening.recv_timeout(LIFETIME).is_ok() {
        thread::sleep(after);
    }
    let ended = child.try_wait().unwrap().map(|status| status.to_string());
    child.kill().unwrap();
    child.wait().unwrap();
    let acknowledged = reader.join().unwrap();
    Run { acknowledged, ended, after, early_one_in: early_one_in(cut), pause: pause(cut) }
}

fn read_acknowledgements(mut from: impl BufRead, opens: &Sender<()>) -> Vec<(Lsn, u64, u64)> {
    let mut acknowledged = Vec::new();
    let mut line = String::new();
    // A line that was cut by the kill was not acknowledged.
    while from.read_line(&mut line).is_ok_and(|count| count > 0) && line.ends_with('\n') {
        // The test harness may have written something in front of the first line.
        if line.contains("opening") {
            let _ = opens.send(());
        } else if let Some((_, ack)) = line.split_once("ack ") {
            let numbers: Vec<u64> = ack.split_whitespace().map(|n| n.parse().unwrap()).collect();
            acknowledged.push((Lsn::new(numbers[0]), numbers[1], numbers[2]));
        }
        line.clear();
    }
    acknowledged
}

/// Opens the log and appends from many tasks until it is killed, if this process is a child.
pub(crate) fn run_if_told() {
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
        say("opening\n");
        let device = Device { inner: storage, lie, pause: pause(cut) };
        let wal = options().open_with(device).await.unwrap();
        let tasks = (0..TASKS).map(|task| tokio::spawn(append_for_ever(wal.clone(), cut, task)));
        futures::future::join_all(tasks).await;
    });
}

/// One write: a line is said whole or not at all.
fn say(line: &str) {
    io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

/// Appends in the one way or the other, and acknowledges what is synced.
async fn append_for_ever(wal: Wal, cut: u64, task: u64) {
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
            // Written beside the others' flushes, and never acknowledged.
            _ => {
                wal.append(payload(0)).await.unwrap();
                tokio::time::sleep(Duration::from_micros(300)).await;
                number += 1;
            }
        }
        for lsn in lsns {
            say(&format!("ack {} {task} {number}\n", lsn.as_u64()));
            number += 1;
        }
    }
}

/// A storage that takes its time, or doesn't do all that it says.
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
