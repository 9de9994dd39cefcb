//! The code lines of `docs/MIGRATION.md`. Each is here, so it compiles, and most of them run.

#![allow(
    unused,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::let_underscore_must_use,
    reason = "excerpts for readers, not a program"
)]

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use highwater::{
    Durability, Error, Lsn, OnDamage, Reader, SyncEvery, Wal, Warning, inspect,
    simulation::{Disk, Event, Image, Op, Survival},
    storage::{FileStorage, MemoryStorage, Storage},
    typed::{self, Change, KeyValue, Postcard},
};
use serde::{Deserialize, Serialize};
use tokio_util::codec::{Decoder, Encoder};

type Any = Result<(), Box<dyn std::error::Error>>;

#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Happened {
    number: u32,
}

#[tokio::test]
async fn opening() -> Any {
    let parent = tempfile::tempdir()?;
    let directory = parent.path().join("log");
    let wal = Wal::open(&directory).await?;
    wal.close().await?;
    let wal = Wal::options().record_bytes_max(1 << 20).open(&directory).await?;
    wal.close().await?;
    let wal = Wal::options().segment_bytes(1 << 20).open(&directory).await?;
    let cut_bytes = wal.recovery().cut.as_ref().map_or(0, |cut| cut.bytes);
    assert_eq!(cut_bytes, 0);
    wal.close().await?;
    let wal = Wal::options().open_with(MemoryStorage::new()).await?;
    wal.close().await?;
    let options = Wal::options();
    let options = options.record_bytes_max(1 << 20);
    let options = Wal::options().segment_bytes(1 << 20);
    let options = Wal::options().segment_bytes(1 << 20).record_bytes_max(1 << 16);
    options.open(&directory).await?.close().await?;
    let found = inspect::directory(&directory)?;
    let snapshot = inspect::Snapshot::of_directory(&directory)?;
    for frame in snapshot.frames(&snapshot.outline().segments[0])? {
        let frame = frame?;
    }
    Ok(())
}

#[tokio::test]
async fn appending_and_reading() -> Any {
    type Event = Happened;
    let event = Event { number: 7 };
    let wal = Wal::options().open_with(MemoryStorage::new()).await?;
    let is_empty = wal.watermarks().first == wal.watermarks().written;
    assert!(is_empty);
    let lsn = wal.append(b"record").await?;
    let synced = wal.sync().await?;
    assert!(lsn < synced);
    let lsn = wal.append_and_sync(b"record").await?;
    let mut records = wal.replay(..);
    assert_eq!(records.try_collect::<Vec<_>>().await?.len(), 2);
    let end = wal.truncate_after(lsn).await?;
    assert!(end > lsn);
    let mut records = wal.replay(lsn..);
    let mut count = 0;
    while let Some(record) = records.try_next().await? {
        let lsn = record.lsn;
        let data: &[u8] = &record.payload;
        assert_eq!(data, b"record");
        let bytes = record.payload.len();
        let data: Bytes = record.payload;
        count += 1;
    }
    assert_eq!(count, 1);
    let record = wal.read(lsn).await?;
    let lsn = wal.typed::<Event, Postcard<Event>>().append(&event).await?;
    let event = wal.typed::<Event, Postcard<Event>>().read(lsn).await?;
    assert_eq!(event.number, 7);
    wal.truncate_before(lsn).await?;
    assert_eq!(wal.watermarks().first, lsn);
    let end = wal.watermarks().written;
    let first_damage = wal.replay(..).try_collect::<Vec<_>>().await.err();
    assert!(first_damage.is_none());
    let position = Lsn::new(64).as_u64();
    let periodic = wal.sync_every(SyncEvery::records(100))?;
    drop(periodic);
    wal.close().await?;
    Ok(())
}

#[tokio::test]
async fn append_results() -> Any {
    let wal = Wal::options().open_with(MemoryStorage::new()).await?;
    let appended = wal.append_with(b"record", Durability::Written).await?;
    assert!(!appended.synced);
    let appended = wal.append_with(b"record", Durability::Synced).await?;
    let lsn = appended.lsn;
    let (number, file) = (appended.segment, appended.segment_name());
    let offset = appended.offset;
    let is_durable = appended.synced;
    assert!(is_durable);
    let sync_time = appended.sync_time;
    let change = Change::put("key", "value");
    let is_put = matches!(&change, Change::Put { key, .. } if !key.is_empty());
    assert!(is_put);
    let lsn = wal.typed::<Change, KeyValue>().append(&change).await?;
    let change = Change::delete("key");
    let mut buffer = BytesMut::new();
    KeyValue.encode(&change, &mut buffer)?;
    let decoded = KeyValue.decode_eof(&mut buffer)?;
    assert_eq!(decoded, Some(change));
    let change = Change::NoOp;
    wal.close().await?;
    Ok(())
}

#[tokio::test]
async fn recovering() -> Any {
    let parent = tempfile::tempdir()?;
    let directory = parent.path().join("log");
    let storage = FileStorage::create(&directory)?;
    let place = storage.location();
    drop(storage);
    let mut recovery = Wal::recover(&directory).await?;
    while let Some(recovered) = recovery.try_next().await? {
        println!("{recovered:?}");
    }
    let wal = recovery.into_wal().await?;
    let report = wal.recovery();
    let (first, end) = (report.first, report.end);
    let kept_in = report.cut.as_ref().map(|cut| &cut.kept_in);
    let warnings: &[Warning] = &report.warnings;
    wal.append_and_sync(b"record").await?;
    wal.close().await?;
    let damaged = directory;
    for entry in std::fs::read_dir(&damaged)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wal") {
            let mut bytes = std::fs::read(&path)?;
            bytes.fill(7);
            std::fs::write(&path, bytes)?;
        }
    }
    let refused = Wal::open(&damaged).await.is_err_and(|error| error.is_corrupt());
    assert!(refused);
    let mut left = Reader::options().salvage(&damaged).await?;
    assert!(left.next().await.is_some_and(|item| item.is_err()));
    let options = Wal::options().on_damage(OnDamage::TruncateAtDamage);
    let wal = options.open(&damaged).await?;
    assert!(wal.recovery().cut.is_some());
    Ok(())
}

#[tokio::test]
async fn errors_and_storages() -> Any {
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
    let storage = MemoryStorage::new();
    let storage = Disk::with_image(Image::new(), 1);
    let disk = Disk::new(7);
    let wal = Wal::options().record_bytes_max(8).open_with(disk.clone()).await?;
    let error = wal.append(b"more than eight").await.unwrap_err();
    let is_expected = matches!(error, Error::RecordTooLarge { .. });
    assert!(is_expected);
    disk.faults().on(Op::Sync).skip(2).once().fail(ErrorKind::Other);
    wal.append_and_sync(b"one").await?;
    let events = disk.faults().events();
    let count = disk.faults().count(|event| matches!(event, Event::SyncEnded { .. }));
    let disk = disk.crash(Survival::Nothing);
    let wal = Wal::options().open_with(disk).await?;
    assert_eq!(wal.replay(..).try_collect::<Vec<_>>().await?.len(), 1);
    let is_expected = matches!(error, Error::Io { .. } | Error::Corrupt { .. });
    let error = typed::Error::from(error);
    let is_expected = matches!(error, typed::Error::Encode { .. } | typed::Error::Decode { .. });
    assert!(!is_expected);
    Ok(())
}

/// Returns the code in the third column of each table row, with `\|` as `|`.
fn document_lines() -> Vec<String> {
    let text = std::fs::read_to_string("docs/MIGRATION.md").unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    let column = |row: &str| {
        let row = row.replace("\\|", "\u{1}");
        let code = row.trim_end_matches(" |").rsplit(" | ").next()?.trim().replace('\u{1}', "|");
        Some(code.strip_prefix('`')?.strip_suffix('`')?.to_owned())
    };
    rows.map(|row| column(row).unwrap_or_else(|| panic!("no line in {row}"))).collect()
}

fn dense(text: &str) -> String {
    text.split_whitespace().collect()
}

fn missing(lines: &[String]) -> Vec<&String> {
    let here = dense(include_str!("migration.rs"));
    lines.iter().filter(|line| !here.contains(&dense(line))).collect()
}

#[test]
fn document_lines_are_in_this_file() {
    let lines = document_lines();
    assert!(lines.len() > 60, "only {} lines were found", lines.len());
    assert_eq!(missing(&lines), Vec::<&String>::new());
    let doctored = [lines[0].replace("Wal", "Log")];
    assert_eq!(missing(&doctored).len(), 1, "a changed line must be noticed");
}
