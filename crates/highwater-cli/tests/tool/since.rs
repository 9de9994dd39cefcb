//! Tests `--since`: with fixed times against golden output, and beside a writer.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use highwater::storage::{Locking, Storage, StorageFile};

use super::*;

/// A disk with a clock that the test sets.
#[derive(Clone, Debug)]
struct Clocked {
    disk: Disk,
    unix_ms: Arc<AtomicU64>,
}

impl Storage for Clocked {
    fn location(&self) -> String {
        self.disk.location()
    }
    fn is_nonblocking(&self) -> bool {
        self.disk.is_nonblocking()
    }
    fn lock(&self) -> io::Result<Locking> {
        self.disk.lock()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.disk.create(name)
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.disk.open(name)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
    fn random(&self) -> io::Result<[u8; 16]> {
        self.disk.random()
    }
    fn unix_ms(&self) -> u64 {
        self.unix_ms.load(Ordering::Relaxed)
    }
}

/// 2025-06-15T10:00:00Z, in milliseconds of Unix time.
const TEN: u64 = 1_749_981_600_000;

/// Returns a closed log with a record and a time mark a minute, from 10:00 to 10:29.
fn minutes() -> Image {
    let clocked = Clocked { disk: Disk::new(12), unix_ms: Arc::new(AtomicU64::new(TEN)) };
    block_on(async {
        let options = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
        let options = options.time_marks(Duration::from_secs(60));
        let wal = options.open_with(clocked.clone()).await.unwrap();
        for minute in 0..30 {
            clocked.unix_ms.store(TEN + minute * 60_000, Ordering::Relaxed);
            let record = format!("10:{minute:02} {}", "x".repeat(400));
            wal.append_and_sync(record.get(..60).unwrap()).await.unwrap();
            wal.append_and_sync(vec![b'-'; 400]).await.unwrap();
        }
        wal.close().await.unwrap();
    });
    clocked.disk.image().crash(Survival::Everything)
}

#[test]
fn since_begins_at_the_records_of_a_time() {
    let scene = Scene::with(&minutes());
    scene.put("plain", &image(true));
    fs::create_dir(scene.path("none")).unwrap();
    let commands: [&[&str]; 9] = [
        &["dump", "log", "--since", "2025-06-15T10:27:00Z"],
        &["dump", "log", "--since", "2025-06-15T12:28:30+02:00", "--json"],
        &["tail", "log", "--since", "2025-06-15T10:27:00Z"],
        &["tail", "log", "--since", "2025-06-15T10:40:00Z"],
        &["dump", "plain", "--since", "2025-06-15T10:00:00Z"],
        &["dump", "plain", "--since", "1d", "--skip-damaged"],
        &["tail", "plain", "--since", "15m"],
        &["tail", "none", "--since", "1d"],
        &["dump", "none", "--since", "1d"],
    ];
    assert_golden("since.txt", &scene.transcript(&commands));
    // Each record since a time is printed, and at most three older minutes.
    for minute in 0..30 {
        let time = format!("2025-06-15T10:{minute:02}:00Z");
        for command in [&["dump", "log", "--since", &time][..], &["tail", "log", "--since", &time]]
        {
            let out = scene.run(command).out;
            let has = |minute: u64| out.contains(&format!(" 10:{minute:02} "));
            assert!((minute..30).all(has), "{command:?}: {out}");
            assert!(!(0..minute.saturating_sub(3)).any(has), "{command:?}: {out}");
        }
    }
}

#[test]
fn bad_time_ends_with_status_64() {
    let scene = Scene::with(&minutes());
    for (arguments, reason) in [
        (&["dump", "log", "--since", "noon"][..], "such as 2026-11-29T12:00:00Z"),
        (&["tail", "log", "--since", "2025-06-15"], "or a duration ago, such as 15m"),
        (&["dump", "log", "--since", "2999-01-01T00:00:00Z"], "the time is in the future"),
        (&["tail", "log", "--since", "2mo"], "write a number of days"),
        (&["dump", "log", "--since", "1h", "--from", "0"], "cannot be used with"),
        (&["tail", "log", "--since", "1h", "-n", "1"], "cannot be used with"),
    ] {
        let outcome = scene.run(arguments);
        assert_eq!(outcome.status, 64, "{arguments:?}: {}", outcome.error);
        assert!(outcome.error.contains(reason), "{arguments:?}: {}", outcome.error);
    }
}

#[test]
fn since_in_damaged_log_names_another_way() {
    let intact = minutes();
    let at = find(&intact, &first(), b"10:00");
    let second = format!("{:020}.wal", 2);
    let mut damaged = edited(&intact, &first(), |bytes| bytes[at] ^= 1);
    damaged.delete(&second);
    let scene = Scene::with(&damaged);
    let outcome = scene.run(&["dump", "log", "--since", "2025-06-15T10:27:00Z"]);
    assert_eq!(outcome.status, 2, "{}", outcome.error);
    assert!(outcome.error.contains("use --from LSN"), "{}", outcome.error);
    assert_eq!(scene.run(&["tail", "log", "--since", "2025-06-15T10:27:00Z"]).status, 2);
}

/// The writer holds the lock, and its records of today come first, then each new one.
#[test]
#[cfg(unix)]
fn tail_follows_from_a_time_beside_the_writer() {
    use std::io::{BufRead, BufReader};
    let scene = Scene::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options = Wal::options().segment_bytes(8 << 10).ring_bytes(2 << 10);
    let options = options.time_marks(Duration::from_millis(1));
    let wal = runtime.block_on(options.open(scene.path("log"))).unwrap();
    let append = |i: usize| {
        let record = format!("record {i} {}", "x".repeat(700));
        runtime.block_on(wal.append_and_sync(&record)).unwrap();
    };
    (0..30).for_each(append);
    let mut child = scene.command(&["tail", "-f", "log", "--since", "1h"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for i in 0..40 {
        if i >= 29 {
            append(i + 1);
        }
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains(&format!("  record {i} ")), "{line}, not {i}");
    }
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupted.unwrap().success());
    assert_eq!(Scene::outcome(child).0, 0);
    runtime.block_on(wal.close()).unwrap();
}
