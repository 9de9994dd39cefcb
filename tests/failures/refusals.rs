//! Calls and directories that are refused: the error names the cause, and nothing changes on disk.

use std::{fs, io::ErrorKind, path::Path, process::Command};

use futures::TryStreamExt;
use highwater::{
    Error, LockOwner, Lsn, Wal, Warning,
    simulation::{Faults, Op},
    storage::{FileStorage, MemoryStorage},
};

use crate::{
    EIO,
    support::{records, small, within},
};

#[tokio::test]
async fn invalid_option_is_named_before_any_io() {
    let faults = Faults::new();
    let options = [
        ("segment_bytes", Wal::options().segment_bytes(0)),
        ("segment_bytes", Wal::options().segment_bytes(u64::MAX)),
        ("ring_bytes", Wal::options().ring_bytes(0)),
        ("ring_bytes", Wal::options().ring_bytes(u64::MAX)),
        ("record_bytes_max", Wal::options().record_bytes_max(0)),
        ("record_bytes_max", Wal::options().record_bytes_max(u64::MAX)),
        ("batch_bytes_max", Wal::options().batch_bytes_max(0)),
        ("batch_bytes_max", Wal::options().batch_bytes_max(u64::MAX)),
    ];
    for (name, options) in options {
        let opened = options.open_with(faults.over(MemoryStorage::new())).await;
        let Err(Error::InvalidOption { option, .. }) = opened else {
            panic!("{name}: {opened:?}");
        };
        assert_eq!(option, name);
    }
    assert_eq!(faults.events(), []);
    let odd = Wal::options().segment_bytes(8 << 10).ring_bytes(1 << 30).record_bytes_max(1);
    let wal = odd.open_with(MemoryStorage::new()).await.expect("extreme but valid options");
    wal.append_and_sync(b"x").await.unwrap();
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn open_of_regular_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, b"precious").unwrap();
    for path in [path.clone(), path.join("below")] {
        let error = Wal::open(&path).await.unwrap_err();
        assert!(
            matches!(&error, Error::Io { path: named, .. } if named.contains("file")),
            "{error}"
        );
    }
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[tokio::test]
async fn foreign_directory_is_refused_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("thesis.txt"), b"precious").unwrap();
    let error = Wal::open(directory.path()).await.unwrap_err();
    assert!(matches!(&error, Error::NotALog { found, .. } if found == "`thesis.txt`"), "{error}");
    assert_eq!(names(directory.path()), ["thesis.txt"], "nothing was changed");
}

#[tokio::test]
async fn foreign_file_in_log_is_reported_as_warning() {
    let directory = tempfile::tempdir().unwrap();
    let wal = small().open(directory.path()).await.unwrap();
    let lsn = wal.append(b"x").await.unwrap();
    wal.close().await.unwrap();
    fs::write(directory.path().join("notes.txt"), b"precious").unwrap();
    let wal = small().open(directory.path()).await.unwrap();
    let warning = Warning::ForeignFile { name: "notes.txt".to_owned() };
    assert_eq!(wal.recovery().warnings, [warning]);
    assert_eq!(wal.read(lsn).await.unwrap().payload, "x");
    wal.close().await.unwrap();
    assert_eq!(fs::read(directory.path().join("notes.txt")).unwrap(), b"precious");
}

#[tokio::test]
async fn second_open_names_lock_owner() {
    let directory = tempfile::tempdir().unwrap();
    let wal = small().open(directory.path()).await.unwrap();
    let error = small().open(directory.path()).await.unwrap_err();
    assert!(matches!(error, Error::Locked { owner: LockOwner::ThisProcess, .. }), "{error}");
    wal.append_and_sync(b"unharmed").await.unwrap();

    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "refusals::child_opens_locked_log", "--ignored", "--nocapture"])
        .env("HIGHWATER_TEST_LOG", directory.path())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(stdout.contains(&format!("Locked by {}", std::process::id())), "{stdout}");
    assert_eq!(records(&wal).await.len(), 1);
}

#[tokio::test]
#[ignore = "the other process of second_open_names_lock_owner"]
async fn child_opens_locked_log() {
    let path = std::env::var("HIGHWATER_TEST_LOG").unwrap();
    match small().open(path).await {
        Err(Error::Locked { owner: LockOwner::Process { pid, host: None }, .. }) => {
            println!("Locked by {pid}");
        }
        other => println!("{other:?}"),
    }
}

#[tokio::test]
async fn invalid_positions_are_classified() {
    for on_pool in [false, true] {
        let storage = Faults::new().over(MemoryStorage::new());
        let wal =
            small().open_with(if on_pool { storage.on_pool() } else { storage }).await.unwrap();
        let empty = [wal.read(Lsn::ZERO).await.map(drop), wal.sync_to(Lsn::ZERO).await];
        assert!(
            empty.iter().all(|result| matches!(result, Err(Error::AboveEnd { .. }))),
            "{empty:?}"
        );
        let first = wal.append(&[0x11; 100]).await.unwrap();
        let second = wal.append_and_sync(b"second").await.unwrap();
        let end = wal.watermarks().reserved;
        for lsn in first.as_u64() + 1..second.as_u64() {
            let result = within("read", wal.read(Lsn::new(lsn))).await;
            assert!(matches!(result, Err(Error::NotABoundary { .. })), "{lsn}: {result:?}");
        }
        for lsn in [end, Lsn::new(end.as_u64() + 8), Lsn::new(u64::MAX - 7), Lsn::new(u64::MAX)] {
            let result = within("read", wal.read(lsn)).await;
            assert!(matches!(result, Err(Error::AboveEnd { .. })), "{lsn}: {result:?}");
            let result = within("sync_to", wal.sync_to(lsn)).await;
            assert!(matches!(result, Err(Error::AboveEnd { .. })), "{lsn}: {result:?}");
        }
        let from_within: Result<Vec<_>, _> =
            wal.replay(Lsn::new(first.as_u64() + 8)..).try_collect().await;
        assert!(matches!(from_within, Err(Error::NotABoundary { .. })), "{from_within:?}");
        let past: Result<Vec<_>, _> = wal.replay(Lsn::new(u64::MAX - 7)..).try_collect().await;
        assert!(matches!(past, Err(Error::AboveEnd { .. })), "{past:?}");
        assert_eq!(wal.read(second).await.unwrap().payload, "second");
    }
}

#[tokio::test]
async fn oversized_is_refused_and_empty_is_accepted() {
    let memory = MemoryStorage::new();
    let options = || small().record_bytes_max(3000).batch_bytes_max(5000);
    let wal = options().open_with(memory.clone()).await.unwrap();
    let before = wal.watermarks();
    let large = vec![1; 3001];
    let results = [
        wal.append(&large).await.map(drop),
        wal.append_and_sync(&large).await.map(drop),
        wal.enqueue(&large).await.map(drop),
        wal.try_enqueue(&large).map(drop),
        wal.append_batch([&[1u8; 10][..], &large]).await.map(drop),
    ];
    for result in results {
        assert!(
            matches!(result, Err(Error::RecordTooLarge { bytes: 3001, max: 3000 })),
            "{result:?}"
        );
    }
    let result = wal.append_batch([&large[1..], &large[1..]]).await;
    assert!(matches!(result, Err(Error::BatchTooLarge { max: 5000, .. })), "{result:?}");
    let nothing = wal.append_batch(Vec::<&[u8]>::new()).await.unwrap();
    assert!(nothing.is_empty());
    assert_eq!(wal.watermarks(), before);

    let empty = wal.append_and_sync(b"").await.unwrap();
    let largest = wal.append_and_sync(&large[1..]).await.unwrap();
    wal.append_batch([b"", b""]).await.unwrap();
    drop(wal);
    let wal = options().open_with(memory).await.unwrap();
    let found = records(&wal).await;
    assert_eq!(found.len(), 4);
    assert_eq!(found[0], (empty, Vec::new()));
    assert_eq!(found[1], (largest, large[1..].to_vec()));
    assert!(found[2].1.is_empty() && found[3].1.is_empty());
}

#[cfg(unix)]
#[tokio::test]
async fn unwritable_directory_is_named_in_error() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("closed");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(path.join("probe"), b"").is_ok() {
        return; // Root may write anywhere.
    }
    let error = Wal::open(&path).await.unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path.contains("closed")), "{error}");
}

/// Every error names its log's directory, because one process may have several logs.
#[tokio::test]
async fn errors_name_their_log_directory() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("orders");
    let log = path.display().to_string();
    let named = |what: &str, error: Error| {
        assert!(format!("{error:#}").contains(&log), "{what}: {error:#}");
        error
    };
    let faults = Faults::new();
    let storage = || faults.over(FileStorage::create(&path).unwrap());
    let wal = small().open_with(storage()).await.unwrap();
    let lsn = wal.append_and_sync(b"kept").await.unwrap();
    faults.on(Op::Read).once().fail_os(EIO);
    named("a read", wal.read(lsn).await.unwrap_err());
    faults.on(Op::Create).fail(ErrorKind::StorageFull);
    let error = loop {
        match wal.append(&[7; 900]).await {
            Ok(_) => {}
            Err(error) => break named("no space", error),
        }
    };
    assert!(matches!(&error, Error::NoSpace { directory, .. } if *directory == log), "{error:?}");
    faults.heal();
    faults.on(Op::Sync).once().fail_os(EIO);
    named("a flush", wal.append_and_sync(b"lost").await.unwrap_err());
    named("a copy", wal.copy_to(&path).await.unwrap_err());
    drop(wal);
    faults.heal();
    faults.on(Op::Open).once().fail_os(EIO);
    let error = loop {
        match small().open_with(storage()).await {
            Err(Error::Locked { .. }) => tokio::task::yield_now().await,
            opened => break opened.unwrap_err(),
        }
    };
    named("opening", error);
    faults.heal();
    small().open(&path).await.unwrap().close().await.unwrap();
    // Damages the newest segment: its close frame claims that everything was durable.
    let mut names = names(&path);
    names.retain(|name| name.ends_with(".wal"));
    let newest = path.join(names.last().unwrap());
    let mut bytes = fs::read(&newest).unwrap();
    bytes[..8192].fill(0xff);
    fs::write(&newest, bytes).unwrap();
    let error = named("damage", small().open(&path).await.unwrap_err());
    assert!(matches!(&error, Error::Corrupt { directory, .. } if *directory == log), "{error:?}");
    let error = highwater::Reader::open(&path).await.map(drop).unwrap_err();
    named("a reader", error);
}
