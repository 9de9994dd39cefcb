//! Inspection: its verdict is that of opening, it finds the damage that readers would meet, and it
//! changes nothing.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a mistake in a test must stop it"
)]

mod support;

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use futures::{FutureExt, TryStreamExt};
use highwater::{
    Error, Lsn, Recovery, Wal,
    inspect::{
        self, FrameKind, FrameState, HeaderState, Inspection, ProblemKind, Role, Snapshot, Verdict,
    },
    simulation::{Disk, Image},
    storage::{Locking, MemoryStorage, Storage, StorageFile},
};
use support::edited;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn options() -> highwater::Options {
    Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10)
}

/// Returns three segments with 30 records, two of them in one batch.
fn image(is_closed: bool) -> Image {
    let disk = Disk::new(3);
    block_on(async {
        let wal = options().open_with(disk.clone()).await.unwrap();
        for i in 0..14u8 {
            wal.append(vec![i | 1; 300]).await.unwrap();
        }
        wal.append_batch([b"all of this".as_slice(), b"or nothing"]).await.unwrap();
        wal.sync().await.unwrap();
        for i in 0..14u8 {
            wal.append(vec![i | 1; 300]).await.unwrap();
        }
        if is_closed {
            wal.close().await.unwrap();
        }
    });
    disk.image()
}

fn inspected(image: &Image) -> Inspection {
    inspect::storage(Disk::with_image(image.clone(), 1)).unwrap()
}

fn segments(image: &Image) -> Vec<String> {
    let is_begun = |name: &String| image.bytes(name).unwrap()[..8] != [0; 8];
    image.names().into_iter().filter(|n| n.ends_with(".wal") && is_begun(n)).collect()
}

#[test]
fn intact_log_is_counted_to_its_end() {
    for is_closed in [true, false] {
        let found = inspected(&image(is_closed));
        let expected = if is_closed { Verdict::Closed } else { Verdict::CleanEnd };
        assert_eq!(found.verdict, expected);
        assert!(found.damage.is_empty(), "{:?}", found.damage);
        let log: Vec<_> = found.segments.iter().filter(|s| s.role == Role::Log).collect();
        assert!(log.len() > 1);
        let sum = |of: fn(&inspect::Contents) -> u64| -> u64 {
            log.iter().map(|segment| of(&segment.contents.unwrap())).sum()
        };
        assert_eq!(sum(|contents| contents.record_count), 30);
        assert_eq!(sum(|contents| contents.batch_count), 1);
        assert_eq!(sum(|contents| contents.payload_bytes), 28 * 300 + 21);
        assert_eq!(log.last().unwrap().contents.unwrap().end, found.end.unwrap());
        for (segment, next) in log.iter().zip(&log[1..]) {
            let (header, next) = (segment.header.unwrap(), next.header.unwrap());
            assert_eq!(segment.header_state, HeaderState::Intact);
            assert_eq!(segment.end, Some(next.base));
            assert_eq!(segment.contents.unwrap().end, next.base);
            assert_eq!(next.previous.map(|link| link.incarnation), Some(header.incarnation));
            assert_eq!(next.log_id.to_string(), header.log_id.to_string());
        }
    }
}

#[test]
fn empty_foreign_and_missing_directories() {
    let found = inspect::storage(MemoryStorage::new()).unwrap();
    assert_eq!((found.verdict, found.segments.len()), (Verdict::New, 0));
    let mut image = Image::new();
    image.put("notes.txt", b"hello".to_vec());
    let refused = inspect::storage(Disk::with_image(image, 1));
    assert!(matches!(refused, Err(Error::NotALog { .. })), "{refused:?}");
    let parent = tempfile::tempdir().unwrap();
    let missing = inspect::directory(parent.path().join("missing"));
    assert!(matches!(missing, Err(Error::Io { .. })), "{missing:?}");
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0, "nothing was created");
}

/// Returns the result of opening, and whether a replay reads everything.
fn opened(image: &Image) -> (Result<Recovery, Error>, bool) {
    block_on(async {
        let recover = || options().recover_with(Disk::with_image(image.clone(), 1));
        let reads = match recover().await {
            Ok(recovery) => recovery.try_for_each(|_| async { Ok(()) }).await.is_ok(),
            Err(_) => false,
        };
        (recover().await, reads)
    })
}

fn assert_agrees(image: &Image, what: &str) {
    let found = inspected(image);
    let (opened, reads) = opened(image);
    match (&opened, &found.verdict) {
        (Err(error), Verdict::Refused(problem)) => {
            // An inspection's message has no directory, because its caller has named it.
            let message = format!("{error:#}");
            let message = message.strip_prefix("simulated disk: ").unwrap_or(&message);
            assert_eq!(problem.message, message, "{what}");
            assert_eq!(problem.kind == ProblemKind::Corrupt, error.is_corrupt(), "{what}");
        }
        (Ok(recovery), verdict) => {
            let report = recovery.report();
            let expected = match (&report.cut, report.was_closed) {
                (Some(cut), _) => Verdict::TornTail(cut.clone()),
                (None, true) => Verdict::Closed,
                (None, false) => Verdict::CleanEnd,
            };
            assert_eq!(*verdict, expected, "{what}");
            assert_eq!(found.end, Some(report.end), "{what}");
            assert_eq!(found.committed, Some(report.committed), "{what}");
            assert_eq!(found.warnings, report.warnings, "{what}");
            assert_eq!(found.damage.is_empty(), reads, "{what}: {:?}", found.damage);
        }
        (Err(error), verdict) => panic!("{what}: {verdict:?}, but opening fails: {error}"),
    }
}

/// Inspection and opening use the same judge: they agree for every damage, and inspection finds
/// damage exactly where a reader fails.
#[test]
fn verdict_equals_open_for_each_damage() {
    for is_closed in [true, false] {
        let intact = image(is_closed);
        assert_agrees(&intact, "intact");
        for name in segments(&intact) {
            let mut missing = intact.clone();
            missing.delete(&name);
            assert_agrees(&missing, &format!("without {name}"));
            let length = intact.bytes(&name).unwrap().len();
            for at in (0..length).step_by(41).chain(0..24) {
                let damaged = edited(&intact, &name, |bytes| bytes[at] ^= 0x20);
                assert_agrees(&damaged, &format!("{name}, byte {at}"));
            }
            for kept in (0..length).step_by(509) {
                let cut = edited(&intact, &name, |bytes| bytes.truncate(kept));
                assert_agrees(&cut, &format!("{name}, cut at {kept}"));
            }
            for at in (0..length).step_by(512) {
                let torn = edited(&intact, &name, |bytes| bytes[at..at + 512].fill(0));
                assert_agrees(&torn, &format!("{name}, sector at {at} zero"));
            }
        }
    }
}

#[test]
fn frames_past_damage_are_marked() {
    let intact = image(true);
    let name = segments(&intact)[0].clone();
    let second = 4096 + 16 + 304;
    let damaged = edited(&intact, &name, |bytes| bytes[second + 20] ^= 1);
    let snapshot = Snapshot::of_storage(Disk::with_image(damaged.clone(), 1)).unwrap();
    let segment = &snapshot.outline().segments[0];
    let frames: Vec<_> = snapshot.frames(segment).unwrap().map(Result::unwrap).collect();
    assert_eq!((frames[0].state, frames[0].payload.len()), (FrameState::Intact, 300));
    assert!(matches!(frames[1].state, FrameState::Damaged(_)), "{:?}", frames[1]);
    assert_eq!((frames[1].offset, frames[1].kind), (second as u64, FrameKind::Record));
    assert_eq!(frames[1].payload.len(), 300, "the length of an intact header");
    assert!(frames[2..].iter().all(|frame| frame.state == FrameState::Past));
    let contents = inspected(&damaged).segments[0].contents.unwrap();
    assert_eq!((contents.frame_count, contents.past_count as usize), (1, frames.len() - 2));
    // The LSNs equal those of the intact log.
    let snapshot = Snapshot::of_storage(Disk::with_image(intact, 1)).unwrap();
    let all = snapshot.frames(&snapshot.outline().segments[0]).unwrap();
    let lsns: Vec<_> = all.map(|frame| frame.unwrap().lsn).collect();
    assert_eq!(frames.iter().map(|frame| frame.lsn).collect::<Vec<_>>(), lsns);
}

#[test]
fn header_states_are_distinguished() {
    let intact = image(true);
    let name = segments(&intact)[0].clone();
    let state = |edit: &dyn Fn(&mut Vec<u8>)| {
        let found = inspected(&edited(&intact, &name, |bytes| edit(bytes)));
        (found.segments[0].header_state, found.segments[0].header.is_some(), found.verdict)
    };
    let (main, has_header, verdict) = state(&|bytes| bytes[20] ^= 1);
    assert_eq!((main, has_header, verdict), (HeaderState::MainDamaged, true, Verdict::Closed));
    let (copy, has_header, verdict) = state(&|bytes| bytes[2048 + 20] ^= 1);
    assert_eq!((copy, has_header, verdict), (HeaderState::CopyDamaged, true, Verdict::Closed));
    let (both, has_header, verdict) = state(&|bytes| bytes[..4096].fill(7));
    assert_eq!((both, has_header), (HeaderState::Damaged, false));
    assert!(matches!(verdict, Verdict::Refused(p) if p.kind == ProblemKind::Corrupt));
    let (newer, _, verdict) = state(&|bytes| {
        bytes[8] = 2;
        let crc = crc32c::crc32c(&bytes[..120]);
        bytes[120..124].copy_from_slice(&crc.to_le_bytes());
    });
    assert_eq!(newer, HeaderState::Newer { version: 2 });
    assert!(matches!(verdict, Verdict::Refused(p) if p.kind == ProblemKind::Unsupported));
}

type Stat = (Vec<u8>, SystemTime);

fn stat(directory: &Path) -> BTreeMap<String, Stat> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let stat =
        |path: &Path| (fs::read(path).unwrap(), fs::metadata(path).unwrap().modified().unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), stat(&entry.path()))).collect()
}

/// Bytes, times and names stay the same, also in a log that opening would recover.
#[test]
fn inspection_changes_nothing() {
    let closed = image(true);
    let unclosed = image(false);
    let name = segments(&closed)[0].clone();
    let corrupt = edited(&unclosed, &name, |bytes| bytes[4096] ^= 1);
    let headless = edited(&closed, &name, |bytes| bytes[..4096].fill(7));
    for image in [closed, unclosed, corrupt, headless, Image::new()] {
        let directory = tempfile::tempdir().unwrap();
        for name in image.names() {
            fs::write(directory.path().join(&name), image.bytes(&name).unwrap()).unwrap();
        }
        let times = fs::metadata(directory.path()).unwrap().modified().unwrap();
        let before = stat(directory.path());
        let snapshot = Snapshot::of_directory(directory.path()).unwrap();
        let found = snapshot.read_all(&mut |_| {});
        for segment in found.segments.iter().filter(|segment| segment.header.is_some()) {
            assert!(snapshot.frames(segment).unwrap().count() > 0);
        }
        assert_eq!(stat(directory.path()), before);
        assert_eq!(fs::metadata(directory.path()).unwrap().modified().unwrap(), times);
    }
}

/// A storage that appends a record before each read: a fast writer beside a slow reader.
#[derive(Clone, Debug)]
struct Growing {
    storage: MemoryStorage,
    wal: Arc<Wal>,
}

#[derive(Debug)]
struct GrowingFile {
    file: Box<dyn StorageFile>,
    wal: Arc<Wal>,
}

impl Storage for Growing {
    fn location(&self) -> String {
        self.storage.location()
    }
    fn lock(&self) -> io::Result<Locking> {
        panic!("inspection takes the lock")
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.storage.list()
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        panic!("{name} is created")
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        let file = self.storage.open(name)?;
        Ok(Box::new(GrowingFile { file, wal: Arc::clone(&self.wal) }))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        panic!("{name} is removed")
    }
    fn rename(&self, from: &str, _: &str) -> io::Result<()> {
        panic!("{from} is renamed")
    }
    fn sync_dir(&self) -> io::Result<()> {
        panic!("the directory is synced")
    }
}

impl StorageFile for GrowingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        // In memory, `append_and_sync` completes at its first poll.
        self.wal.append_and_sync(vec![0x5au8; 100]).now_or_never().unwrap().unwrap();
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, _: &[u8], offset: u64) -> io::Result<usize> {
        panic!("something is written at {offset}")
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        panic!("a length is set to {bytes}")
    }
    fn sync_data(&self) -> io::Result<()> {
        panic!("a file is synced")
    }
    fn sync_all(&self) -> io::Result<()> {
        panic!("a file is synced")
    }
}

/// Fails unless inspection first freezes its view. Otherwise a frame appended between two reads
/// lies beyond the zeros that the judge saw, and claims to be synced.
#[test]
fn concurrent_append_is_not_inspected() {
    let storage = MemoryStorage::new();
    let wal = Arc::new(block_on(options().open_with(storage.clone())).unwrap());
    for count in 0..150 {
        block_on(wal.append(vec![1u8; 40])).unwrap();
        let before = wal.watermarks().written;
        let growing = Growing { storage: storage.clone(), wal: Arc::clone(&wal) };
        let found = inspect::storage(growing).unwrap();
        assert_eq!(found.verdict, Verdict::CleanEnd, "look {count}");
        assert!(found.damage.is_empty(), "look {count}: {:?}", found.damage);
        let end = found.end.unwrap();
        assert!(end >= before && end <= wal.watermarks().written, "look {count}: {end}");
        if wal.watermarks().written > Lsn::new(400_000) {
            break;
        }
    }
}

/// The number of bytes that the log may grow between two inspections.
const BYTES_PER_LOOK: u64 = 128 << 10;

/// A log under inspection never looks damaged, and its writer is never blocked.
#[test]
fn log_being_written_never_looks_damaged() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("log");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let is_over = AtomicBool::new(false);
    // An inspection reads the whole log, so the growth per inspection is limited.
    let look_count = AtomicU64::new(1);
    let wal = runtime.block_on(Wal::options().segment_bytes(64 << 10).open(&path)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut length = 0;
            while !is_over.load(Ordering::Relaxed) {
                let reserved = wal.watermarks().reserved.as_u64();
                if reserved > look_count.load(Ordering::Relaxed) * BYTES_PER_LOOK {
                    std::thread::yield_now();
                    continue;
                }
                length = (length + 97) % 3000;
                runtime.block_on(wal.append(vec![0xa5u8; length])).unwrap();
                if length < 97 {
                    runtime.block_on(wal.sync()).unwrap();
                }
            }
        });
        let (mut end, mut advanced_count) = (None, 0);
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..60 {
                // Waits until the log has grown since the last inspection.
                while end.is_some_and(|end| wal.watermarks().written <= end) {
                    std::thread::yield_now();
                }
                let found = inspect::directory(&path).unwrap();
                let is_refused = matches!(found.verdict, Verdict::Refused(_) | Verdict::Closed);
                assert!(!is_refused, "{:?}", found.verdict);
                assert!(found.damage.is_empty(), "{:?}", found.damage);
                assert!(found.end >= end, "{:?} after {end:?}", found.end);
                advanced_count += u32::from(found.end > end);
                end = found.end;
                look_count.fetch_add(1, Ordering::Relaxed);
            }
            println!("{advanced_count} of 60 inspections saw the log grow, to {end:?}");
            assert!(
                advanced_count >= 50,
                "the log grew in only: {advanced_count} of 60 inspections"
            );
        }));
        is_over.store(true, Ordering::Relaxed);
        assert!(looked.is_ok());
    });
    runtime.block_on(wal.close()).unwrap();
    assert_eq!(inspect::directory(&path).unwrap().verdict, Verdict::Closed);
}

/// The name of a special file in errors, and a function that creates it.
#[cfg(unix)]
type SpecialFile = (&'static str, fn(&Path));

#[cfg(unix)]
fn special_files() -> Vec<SpecialFile> {
    use std::{os::unix::fs::symlink, os::unix::net::UnixListener, process::Command};
    let fifo = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    vec![
        ("a FIFO", fifo),
        ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
        ("a character device", |path| symlink("/dev/zero", path).unwrap()),
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("which doesn't exist", |path| symlink("nowhere", path).unwrap()),
    ]
}

/// Runs `work` on its own thread, and panics if it takes longer than 20 s.
#[cfg(unix)]
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || drop(send.send(work())));
    let patience = std::time::Duration::from_secs(20);
    receive.recv_timeout(patience).unwrap_or_else(|_| panic!("{what}: it hangs"))
}

/// An ordinary open of a FIFO blocks until a writer opens it.
#[cfg(unix)]
#[test]
fn special_file_named_as_segment_is_refused_by_kind() {
    let tokio = || tokio::runtime::Runtime::new().unwrap();
    for (kind, make) in special_files() {
        for name in ["00000000000000000002.wal", "00000000000000000009.wal"] {
            let directory = tempfile::tempdir().unwrap();
            let image = image(true);
            for file in image.names() {
                fs::write(directory.path().join(&file), image.bytes(&file).unwrap()).unwrap();
            }
            let path = directory.path().to_owned();
            let _ = fs::remove_file(path.join(name));
            make(&path.join(name));
            let mut messages = in_time("inspect", {
                let path = path.clone();
                move || {
                    let found = inspect::directory(path).unwrap();
                    let Verdict::Refused(problem) = found.verdict else { panic!("{found:?}") };
                    vec![problem.message]
                }
            });
            messages.push(in_time("reader", {
                let path = path.clone();
                move || {
                    format!("{:#}", tokio().block_on(highwater::Reader::open(path)).unwrap_err())
                }
            }));
            messages.push(in_time("open", {
                let path = path.clone();
                move || format!("{:#}", tokio().block_on(Wal::open(path)).unwrap_err())
            }));
            messages.push(in_time("salvage", {
                let path = path.clone();
                move || {
                    tokio().block_on(async {
                        let items = highwater::Reader::options().salvage(path).await.unwrap();
                        let items: Vec<_> = futures::StreamExt::collect(items).await;
                        let gaps = items.iter().filter_map(|item| item.as_ref().err());
                        gaps.map(ToString::to_string).collect::<String>()
                    })
                }
            }));
            for message in messages {
                assert!(message.contains(kind) && message.contains(name), "{kind}: {message}");
            }
        }
    }
}

/// Kept cuts are not read, so special files with such names must not block opening.
#[cfg(unix)]
#[test]
fn special_file_named_as_kept_cut_blocks_nothing() {
    for (kind, make) in special_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let closed = image(true);
        for file in closed.names() {
            fs::write(path.join(&file), closed.bytes(&file).unwrap()).unwrap();
        }
        for name in ["00000000000000000007.wal.cut", "00000000000000000007.cut.manifest"] {
            make(&path.join(name));
        }
        let found = in_time(kind, {
            let path = path.clone();
            move || inspect::directory(path).unwrap()
        });
        assert_eq!((found.verdict, found.kept.len()), (Verdict::Closed, 2), "{kind}");
        let opened = in_time(kind, {
            let path = path.clone();
            move || tokio::runtime::Runtime::new().unwrap().block_on(Wal::open(path)).map(drop)
        });
        assert!(opened.is_ok(), "{kind}: {opened:?}");
    }
}
