//! The directory of an open log is renamed, replaced or removed, or its lock or a segment is
//! removed. No acknowledged record is lost without an error, and no second writer opens the log.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a mistake in a test must stop it, and a child process prints its result"
)]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Barrier},
};

use futures::TryStreamExt;
use highwater::{
    Error, LockOwner, Lsn, Reader, Wal,
    simulation::Disk,
    storage::{FileStorage, Locking, Place, Storage},
};
use support::{records, small};

const CHILD_PATH: &str = "HIGHWATER_TEST_PATH";

/// Returns the names of a directory's files, except `LOCK`.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name != "LOCK").collect();
    names.sort();
    names
}

/// Appends until the log stops. Returns the acknowledged records and the error.
async fn append_until_stopped(wal: &Wal) -> (Vec<Lsn>, Error) {
    let mut acknowledged = Vec::new();
    for _ in 0..300 {
        match wal.append_and_sync(&[7; 500]).await {
            Ok(lsn) => acknowledged.push(lsn),
            Err(error) => return (acknowledged, error),
        }
    }
    panic!("300 records of {} segments were acknowledged", wal.stats().rotation_count + 1);
}

fn is_displaced(error: &Error) -> bool {
    let Error::Poisoned { cause } = error else { return false };
    matches!(cause.as_ref(), Error::Displaced { .. })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Displacement {
    Renamed,
    ReplacedByEmpty,
    ReplacedByLog,
    Removed,
}

const DISPLACEMENTS: [Displacement; 4] = [
    Displacement::Renamed,
    Displacement::ReplacedByEmpty,
    Displacement::ReplacedByLog,
    Displacement::Removed,
];

/// Returns the new path of the log's files, if any, and the log that replaced it.
async fn displace(path: &Path, how: Displacement) -> (Option<PathBuf>, Option<Wal>) {
    let away = path.with_file_name("away");
    if how == Displacement::Removed {
        fs::remove_dir_all(path).unwrap();
        return (None, None);
    }
    fs::rename(path, &away).unwrap();
    let other = match how {
        Displacement::ReplacedByEmpty => {
            fs::create_dir(path).unwrap();
            None
        }
        Displacement::ReplacedByLog => Some(small().open(path).await.unwrap()),
        _ => None,
    };
    (Some(away), other)
}

#[tokio::test]
async fn displaced_directory_stops_log_at_rotation() {
    for how in DISPLACEMENTS {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("log");
        let wal = small().open(&path).await.unwrap();
        let mut kept = vec![wal.append_and_sync(b"before").await.unwrap()];
        let (away, other) = displace(&path, how).await;
        let in_its_place = path.exists().then(|| names(&path));
        let (acknowledged, error) = append_until_stopped(&wal).await;
        assert!(is_displaced(&error), "{how:?}: {error}");
        assert!(format!("{error:#}").contains(path.to_str().unwrap()), "{how:?}: {error}");
        let closed = wal.close().await;
        assert!(closed.as_ref().is_err_and(is_displaced), "{how:?}: {closed:?}");
        assert_eq!(
            path.exists().then(|| names(&path)),
            in_its_place,
            "{how:?}: the replacement must not change"
        );
        kept.extend(acknowledged);
        if let Some(away) = away {
            let wal = small().open(away).await.unwrap();
            let found: Vec<_> = records(&wal).await.into_iter().map(|(lsn, _)| lsn).collect();
            // A record that was written but not acknowledged may follow.
            assert!(found.starts_with(&kept), "{how:?}: all of {kept:?} in {found:?}");
        }
        if let Some(other) = other {
            other.close().await.unwrap();
            assert!(records(&small().open(&path).await.unwrap()).await.is_empty(), "{how:?}");
        }
    }
}

#[tokio::test]
async fn displaced_directory_fails_close() {
    for how in DISPLACEMENTS {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("log");
        let wal = small().open(&path).await.unwrap();
        wal.append_and_sync(b"before").await.unwrap();
        let _other = displace(&path, how).await;
        let closed = wal.close().await;
        assert!(closed.as_ref().is_err_and(is_displaced), "{how:?}: {closed:?}");
        let error = wal.append(b"later").await.unwrap_err();
        assert!(is_displaced(&error), "{how:?}: {error}");
    }
}

#[tokio::test]
async fn close_after_directory_returns_succeeds() {
    let parent = tempfile::tempdir().unwrap();
    let (path, away) = (parent.path().join("log"), parent.path().join("away"));
    let wal = small().open(&path).await.unwrap();
    fs::rename(&path, &away).unwrap();
    let lsn = wal.append_and_sync(b"meanwhile").await.unwrap();
    fs::rename(&away, &path).unwrap();
    wal.close().await.unwrap();
    let wal = small().open(&path).await.unwrap();
    assert!(wal.recovery().was_closed);
    assert_eq!(wal.read(lsn).await.unwrap().payload, "meanwhile");
}

#[tokio::test]
async fn removed_segment_stops_log() {
    for closes in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let wal = small().open(directory.path()).await.unwrap();
        wal.append_and_sync(b"before").await.unwrap();
        fs::remove_file(directory.path().join("00000000000000000001.wal")).unwrap();
        let error = match closes {
            false => append_until_stopped(&wal).await.1,
            true => wal.close().await.unwrap_err(),
        };
        assert!(is_displaced(&error), "{error}");
        assert!(format!("{error:#}").contains("00000000000000000001.wal"), "{error}");
    }
}

#[tokio::test]
async fn removed_spare_stops_log_at_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let wal = small().open(directory.path()).await.unwrap();
    let spare = directory.path().join("00000000000000000002.wal");
    while !spare.exists() {
        wal.append_and_sync(&[1; 500]).await.unwrap();
    }
    // The full length shows that the preparing job has ended.
    while fs::metadata(&spare).unwrap().len() < 16 << 10 {
        tokio::task::yield_now().await;
    }
    fs::remove_file(&spare).unwrap();
    let (_, error) = append_until_stopped(&wal).await;
    assert!(is_displaced(&error), "{error}");
}

/// The simulated disk detects the same, so the crash sweeps can use it.
#[tokio::test]
async fn simulated_displacement_stops_log() {
    for place in [Place::Moved, Place::Replaced, Place::Removed, Place::Unlocked] {
        let disk = Disk::new(1);
        let wal = small().open_with(disk.clone()).await.unwrap();
        wal.append_and_sync(b"before").await.unwrap();
        disk.set_place(place);
        let (_, error) = append_until_stopped(&wal).await;
        assert!(is_displaced(&error), "{place:?}: {error}");
        assert!(wal.close().await.as_ref().is_err_and(is_displaced), "{place:?}");
    }
}

#[tokio::test]
async fn truncate_after_on_displaced_log_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("log");
    let wal = small().open(&path).await.unwrap();
    let lsn = wal.append_and_sync(b"kept").await.unwrap();
    wal.append_and_sync(b"cut").await.unwrap();
    let (away, _) = displace(&path, Displacement::ReplacedByEmpty).await;
    let error = wal.truncate_after(Some(lsn)).await.unwrap_err();
    assert!(is_displaced(&error), "{error}");
    drop(wal);
    assert!(names(&path).is_empty());
    let wal =
        support::open_when_free(|| FileStorage::create(away.as_ref().unwrap()).unwrap()).await;
    assert_eq!(records(&wal).await.len(), 2);
}

#[test]
fn changed_working_directory_changes_no_log() {
    let parent = tempfile::tempdir().unwrap();
    let (home, elsewhere) = (parent.path().join("home"), parent.path().join("elsewhere"));
    fs::create_dir(&home).unwrap();
    fs::create_dir(&elsewhere).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_changes_directory", "--ignored", "--nocapture"])
        .env(CHILD_PATH, &elsewhere)
        .current_dir(&home)
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    assert!(names(&elsewhere).is_empty(), "{:?}", names(&elsewhere));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = runtime.block_on(async {
        let wal = small().open(home.join("log")).await.unwrap();
        assert!(wal.recovery().was_closed, "{}", wal.recovery());
        records(&wal).await.len()
    });
    assert_eq!(found, 300);
}

#[tokio::test]
#[ignore = "the child of changed_working_directory_changes_no_log"]
async fn child_changes_directory() {
    let wal = small().open("log").await.unwrap();
    std::env::set_current_dir(std::env::var(CHILD_PATH).unwrap()).unwrap();
    for _ in 0..300 {
        wal.append_and_sync(&[7; 500]).await.unwrap();
    }
    wal.close().await.unwrap();
}

/// A reader that opens files by path would show another log's records, or wait forever.
#[tokio::test]
async fn reader_of_replaced_directory_fails() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("log");
    let wal = small().open(&path).await.unwrap();
    let lsn = wal.append_and_sync(b"of the old log").await.unwrap();
    let reader = Reader::open(&path).await.unwrap();
    let mut follow = reader.follow(lsn);
    assert_eq!(follow.try_next().await.unwrap().unwrap().payload, "of the old log");
    let _other = displace(&path, Displacement::ReplacedByLog).await;
    let error = support::within("the follower", follow.try_next()).await.unwrap_err();
    assert!(format!("{error:#}").contains("another directory"), "{error}");
}

#[tokio::test]
async fn copy_of_replaced_log_ignores_replacement() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("log");
    let wal = small().open(&path).await.unwrap();
    for _ in 0..100 {
        wal.append_and_sync(&[7; 500]).await.unwrap();
    }
    // The other log has files with the same names and other contents.
    let (_, other) = displace(&path, Displacement::ReplacedByLog).await;
    let other = other.unwrap();
    for _ in 0..100 {
        other.append_and_sync(&[8; 500]).await.unwrap();
    }
    let copied = wal.copy_to(parent.path().join("copy")).await.unwrap();
    assert_eq!(copied.linked_count, 0);
    let copy = small().open(parent.path().join("copy")).await.unwrap();
    let found = records(&copy).await;
    assert!(found.len() >= 100 && found.iter().all(|(_, payload)| payload[0] == 7));
}

fn lock_inode(directory: &Path) -> Option<u64> {
    Some(fs::metadata(directory.join("LOCK")).ok()?.ino())
}

#[tokio::test]
async fn removed_lock_admits_no_second_writer() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let wal = small().open(path).await.unwrap();
    let removals: [&dyn Fn(); 3] = [
        &|| fs::remove_file(path.join("LOCK")).unwrap(),
        &|| {
            fs::remove_file(path.join("LOCK")).unwrap();
            fs::write(path.join("LOCK"), "").unwrap();
        },
        &|| fs::write(path.join("LOCK"), "").unwrap(),
    ];
    for remove in removals {
        remove();
        let error = small().open(path).await.unwrap_err();
        assert!(matches!(&error, Error::Locked { owner: LockOwner::ThisProcess, .. }), "{error}");
        let output = open_in_a_child(path);
        assert!(output.starts_with("Locked"), "{output}");
        // The check at the next rotation creates the lock file again.
        for _ in 0..60 {
            wal.append_and_sync(&[7; 500]).await.unwrap();
        }
        assert!(lock_inode(path).is_some());
        assert!(open_in_a_child(path).starts_with("Locked"));
    }
    let text = fs::read_to_string(path.join("LOCK")).unwrap();
    wal.close().await.unwrap();
    assert!(text.is_empty() || text.contains(&format!("pid {}", std::process::id())), "{text}");
    assert!(open_in_a_child(path).starts_with("180 records"), "{}", open_in_a_child(path));
}

/// Opens the log in a child process and returns what the child prints.
fn open_in_a_child(path: &Path) -> String {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_opens_log", "--ignored", "--nocapture"])
        .env(CHILD_PATH, path)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout).into_owned();
    output.split_once("found: ").map(|(_, found)| found.to_owned()).unwrap_or(output)
}

#[tokio::test]
#[ignore = "a child of other tests"]
async fn child_opens_log() {
    match small().open(std::env::var(CHILD_PATH).unwrap()).await {
        Ok(wal) => println!("found: {} records", records(&wal).await.len()),
        Err(error @ Error::Locked { .. }) => println!("found: Locked: {error}"),
        Err(error) => println!("found: {error:#}"),
    }
}

/// The lock file must not name another process, not even for a moment.
#[test]
fn concurrent_opens_name_this_process() {
    let directory = tempfile::tempdir().unwrap();
    let storages: Vec<_> =
        (0..4).map(|_| Arc::new(FileStorage::create(directory.path()).unwrap())).collect();
    let barrier = Barrier::new(storages.len());
    // Checked after the threads have ended: a panic would leave the others at the barrier.
    let (mut held, mut refused) = (0, Vec::new());
    std::thread::scope(|scope| {
        let lock = |storage: &Arc<FileStorage>| {
            let (storage, barrier) = (Arc::clone(storage), &barrier);
            scope.spawn(move || {
                let (mut held, mut refused) = (0, Vec::new());
                for _ in 0..300 {
                    barrier.wait();
                    match storage.lock().unwrap() {
                        Locking::Held(lock) => {
                            held += 1;
                            drop(lock);
                        }
                        Locking::Busy { owner } => refused.push(owner),
                    }
                }
                (held, refused)
            })
        };
        let threads: Vec<_> = storages.iter().map(lock).collect();
        for thread in threads {
            let counts = thread.join().unwrap();
            held += counts.0;
            refused.extend(counts.1);
        }
    });
    println!("{held} held, {} refused", refused.len());
    assert!(held >= 300 && !refused.is_empty());
    let wrong: Vec<_> = refused.iter().filter(|owner| **owner != LockOwner::ThisProcess).collect();
    assert!(wrong.is_empty(), "{} of {}: {:?}", wrong.len(), refused.len(), wrong[0]);
}

#[tokio::test]
async fn same_pid_in_container_is_another_process() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_holds_log", "--ignored", "--nocapture"])
        .env(CHILD_PATH, directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("holds the log")));
    // The lock file as the other process would write it with this pid in its own container.
    let lock = directory.path().join("LOCK");
    let text = fs::read_to_string(&lock).unwrap();
    let own = format!("pid {}", std::process::id());
    fs::write(&lock, text.replace(&format!("pid {}", child.id()), &own)).unwrap();
    let error = small().open(directory.path()).await.unwrap_err();
    let pid = std::process::id();
    assert!(
        matches!(&error, Error::Locked { owner: LockOwner::Process { pid: owner, host: None }, .. }
            if *owner == pid),
        "{error}"
    );
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[tokio::test]
#[ignore = "a child of other tests"]
async fn child_holds_log() {
    let wal = small().open(std::env::var(CHILD_PATH).unwrap()).await.unwrap();
    println!("holds the log");
    std::io::stdin().lines().for_each(drop);
    drop(wal);
}

#[tokio::test]
async fn lock_symlink_is_refused_and_target_kept() {
    let parent = tempfile::tempdir().unwrap();
    let (path, victim) = (parent.path().join("log"), parent.path().join("victim"));
    fs::create_dir(&path).unwrap();
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, path.join("LOCK")).unwrap();
    let error = small().open(&path).await.unwrap_err();
    assert!(format!("{error:#}").contains("LOCK"), "{error}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    // Creating through a dangling link would create its target.
    fs::remove_file(&victim).unwrap();
    small().open(&path).await.unwrap_err();
    assert!(!victim.exists());
}

#[tokio::test]
async fn foreign_lock_file_is_locked_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let lock = directory.path().join("LOCK");
    fs::write(&lock, "precious").unwrap();
    let wal = small().open(directory.path()).await.unwrap();
    assert!(small().open(directory.path()).await.is_err());
    wal.close().await.unwrap();
    assert_eq!(fs::read_to_string(&lock).unwrap(), "precious");
}

#[tokio::test]
async fn huge_lock_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let lock = directory.path().join("LOCK");
    fs::File::create(&lock).unwrap().set_len(1 << 42).unwrap();
    let wal = small().open(directory.path()).await.unwrap();
    // The child must not read the whole file.
    let output = open_in_a_child(directory.path());
    assert!(output.starts_with("Locked"), "{output}");
    wal.close().await.unwrap();
    assert_eq!(fs::metadata(&lock).unwrap().len(), 1 << 42, "the file must not change");
}

#[tokio::test]
async fn lock_directory_or_fifo_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("LOCK")).unwrap();
    let error = small().open(directory.path()).await.unwrap_err();
    assert!(format!("{error:#}").contains("LOCK"), "{error}");
    fs::remove_dir(directory.path().join("LOCK")).unwrap();
    let made = Command::new("mkfifo").arg(directory.path().join("LOCK")).status();
    if made.is_ok_and(|status| status.success()) {
        let opened = support::within("opening", small().open(directory.path())).await;
        assert!(format!("{:#}", opened.unwrap_err()).contains("LOCK"));
    }
}

#[tokio::test]
async fn new_log_has_private_permissions() {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for (option, file, directory) in [(None, 0o600, 0o700), (Some(0o640), 0o640, 0o750)] {
        let parent = tempfile::tempdir().unwrap();
        let (path, copy) = (parent.path().join("new/log"), parent.path().join("copy"));
        let options = || option.map_or(small(), |mode| small().file_mode(mode));
        let wal = options().open(&path).await.unwrap();
        for _ in 0..100 {
            wal.append_and_sync(&[7; 500]).await.unwrap();
        }
        wal.copy_to(&copy).await.unwrap();
        wal.close().await.unwrap();
        let expected =
            [(&path, directory), (&parent.path().join("new"), directory), (&copy, directory)];
        for (path, expected) in expected {
            assert_eq!(mode(path), expected, "{}", path.display());
        }
        for directory in [&path, &copy] {
            assert!(names(directory).len() > 2);
            for entry in fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap().path();
                assert_eq!(mode(&entry), file, "{}", entry.display());
            }
        }
        // Existing directories keep their permissions.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        small().open(&path).await.unwrap().close().await.unwrap();
        assert_eq!(mode(&path), 0o755);
    }
}

#[tokio::test]
async fn file_mode_without_owner_access_is_refused() {
    for mode in [0o440, 0o700, 0o1600] {
        let refused = small().file_mode(mode).open("/nowhere").await;
        assert!(
            matches!(refused, Err(Error::InvalidOption { option: "file_mode", .. })),
            "{mode:o}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn platform_files_are_no_foreign_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for name in ["lost+found", ".snapshot", ".Trash-1000"] {
        fs::create_dir(path.join(name)).unwrap();
    }
    for name in [".DS_Store", "desktop.ini", ".nfs000000000a3c0f2500000001"] {
        fs::write(path.join(name), "").unwrap();
    }
    let wal = small().open(path).await.unwrap();
    assert!(wal.recovery().is_new && wal.recovery().warnings.is_empty(), "{}", wal.recovery());
    // A copy may also go to the root of a new volume.
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("lost+found")).unwrap();
    wal.copy_to(copy.path()).await.unwrap();
    wal.close().await.unwrap();
    assert!(path.join("lost+found").exists());
}

#[tokio::test]
async fn foreign_directory_error_lists_files() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a.txt", "b.txt", "lost+found"] {
        fs::write(directory.path().join(name), "").unwrap();
    }
    let error = small().open(directory.path()).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("it holds `a.txt` and `b.txt` and no segment"),
        "{error}"
    );
}

/// A user that is not root: the parent directory can be entered but not read.
#[test]
fn empty_directory_of_unreadable_parent_opens() {
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("log");
    fs::create_dir(&path).unwrap();
    // Copies the test program, because this user may have no access to the build directories.
    let program = parent.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mode = fs::Permissions::from_mode;
    fs::set_permissions(&program, mode(0o755)).unwrap();
    fs::set_permissions(parent.path(), mode(0o711)).unwrap();
    if std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).is_err() {
        println!("skipped: only root can run as another user");
        return;
    }
    let run = |path: &Path| {
        let child = Command::new(&program)
            .args(["--exact", "child_opens_log", "--ignored", "--nocapture"])
            .env(CHILD_PATH, path)
            .current_dir("/")
            .gid(NOBODY)
            .uid(NOBODY)
            .output()
            .unwrap();
        String::from_utf8_lossy(&child.stdout).into_owned()
    };
    let output = run(&path);
    assert!(output.contains("found: 0 records"), "{output}");
    // The error names the directory that cannot be created, not its parent.
    let output = run(&parent.path().join("other/log"));
    let refused = format!("creating directory {}:", parent.path().join("other").display());
    assert!(output.contains(&refused), "{output}");
}
