//! Logs that wal-db and kaya-wal themselves wrote.

use std::sync::Arc;

use highwater::typed::{Change, KeyValue};
use kaya_core::{DurabilityMode, WalConfig};
use kaya_io::FileDisk;
use kaya_wal::{WalPayload, WalWriter};
use tokio_util::{bytes::BytesMut, codec::Decoder};

use super::*;

fn payload(i: usize) -> Vec<u8> {
    vec![i as u8; i * 7 % 50]
}

fn payloads(range: std::ops::Range<usize>) -> Vec<(bool, Vec<u8>)> {
    range.map(|i| (false, payload(i))).collect()
}

const SEGMENT_BYTES: u64 = 256;

/// 40 records in segments; the front truncated as `truncate_before` of the record with that number does.
fn segmented(path: &Path, truncated: Option<usize>) {
    let wal = wal_db::Wal::open_segmented(path, SEGMENT_BYTES).unwrap();
    let lsns: Vec<_> = (0..40).map(|i| wal.append(&payload(i)).unwrap()).collect();
    wal.sync().unwrap();
    if let Some(number) = truncated {
        assert_eq!(wal.truncate_before(lsns[number]).unwrap(), lsns[number]);
    }
}

#[test]
fn a_file_of_wal_db_is_imported() {
    let scene = Scene::new();
    let wal = wal_db::Wal::open(scene.path("old.log")).unwrap();
    let lsns: Vec<_> = (0..40).map(|i| wal.append_and_sync(&payload(i)).unwrap()).collect();
    drop(wal);
    let told = scene.run(&["import", "old.log", "new", "--map", "map.tsv"]);
    assert_eq!(told.status, 0, "{}", told.error);
    assert!(told.out.contains("from wal-db"), "{}", told.out);
    assert_eq!(scene.records("new"), payloads(0..40));
    let map = fs::read_to_string(scene.path("map.tsv")).unwrap();
    let old: Vec<u64> =
        map.lines().map(|line| line.split_once('\t').unwrap().0.parse().unwrap()).collect();
    assert_eq!(old, lsns.iter().map(|lsn| lsn.get()).collect::<Vec<_>>());
    // The end torn, as by a crash; then the middle damaged.
    let bytes = fs::read(scene.path("old.log")).unwrap();
    fs::write(scene.path("torn.log"), &bytes[..bytes.len() - 1]).unwrap();
    let told = scene.run(&["import", "torn.log", "torn"]);
    assert!(told.status == 0 && told.out.starts_with("torn tail: "), "{}{}", told.out, told.error);
    assert_eq!(scene.records("torn"), payloads(0..39));
    let mut damaged = bytes;
    let at = lsns[20].get() as usize;
    damaged[at + 9] ^= 1;
    fs::write(scene.path("damaged.log"), &damaged).unwrap();
    let told = scene.run(&["import", "damaged.log", "damaged"]);
    assert_eq!(told.status, 2);
    assert!(told.error.contains(&format!("damaged.log, offset {at}: ")), "{}", told.error);
    assert!(!scene.path("damaged").exists());
}

#[test]
fn segments_of_wal_db_are_imported() {
    let scene = Scene::new();
    segmented(&scene.path("old"), None);
    assert!(fs::read_dir(scene.path("old")).unwrap().count() > 3);
    let told = scene.run(&["import", "--format", "wal-db", "old", "new"]);
    assert_eq!(told.status, 0, "{}", told.error);
    assert_eq!(scene.records("new"), payloads(0..40));
    fs::remove_file(scene.path("old").join(format!("{:020}.wal", 1))).unwrap();
    let told = scene.run(&["import", "old", "gap"]);
    assert_eq!(told.status, 2, "a segment is missing: {}", told.error);
    assert!(!scene.path("gap").exists());
}

#[test]
fn the_head_marker_of_wal_db_is_heeded() {
    let scene = Scene::new();
    segmented(&scene.path("old"), Some(25));
    assert!(!scene.path("old").join(format!("{:020}.wal", 0)).exists(), "the front is gone");
    let told = scene.run(&["import", "old", "new"]);
    assert_eq!(told.status, 0, "{}", told.error);
    assert_eq!(scene.records("new"), payloads(25..40));
    // Torn, as by a crash while it was rewritten: wal-db loses the log; here all that is left comes.
    fs::write(scene.path("old").join("head"), [0; 5]).unwrap();
    let told = scene.run(&["import", "old", "torn", "--json"]);
    assert_eq!(told.status, 0, "{}", told.error);
    assert!(told.out.contains("`head` is missing or damaged"), "{}", told.out);
    let records = scene.records("torn");
    assert!(records.len() >= 15 && payloads(0..40).ends_with(&records), "{}", records.len());
}

#[test]
fn one_segment_that_is_left_needs_its_size_told() {
    let scene = Scene::new();
    segmented(&scene.path("old"), Some(39));
    assert_eq!(fs::read_dir(scene.path("old")).unwrap().count(), 2, "a segment and the marker");
    let told = scene.run(&["import", "old", "new"]);
    assert_eq!(told.status, 4);
    assert!(told.error.contains("--source-segment-bytes"), "{}", told.error);
    let size = SEGMENT_BYTES.to_string();
    let told = scene.run(&["import", "old", "new", "--source-segment-bytes", &size]);
    assert_eq!(told.status, 0, "{}", told.error);
    assert_eq!(scene.records("new"), payloads(39..40));
}

/// Puts, deletes and no-ops in segments of 512 bytes under `root/wal`.
fn kaya(root: &Path) -> Vec<Change> {
    fs::create_dir_all(root.join("wal")).unwrap();
    let mut changes = Vec::new();
    block_on(async {
        let config = WalConfig { segment_max_bytes: 512, ..WalConfig::default() };
        let disk = Arc::new(FileDisk::new(root));
        let writer = WalWriter::open(config, disk).await.unwrap();
        for i in 0..30 {
            let (key, value) = (format!("key {i}").into_bytes(), payload(i));
            let (theirs, ours) = match i % 3 {
                0 => (WalPayload::Delete { key: key.clone() }, Change::delete(key)),
                1 => (WalPayload::Noop, Change::NoOp),
                _ => (
                    WalPayload::Put { key: key.clone(), value: value.clone() },
                    Change::put(key, value),
                ),
            };
            writer.append(theirs, DurabilityMode::Strict).await.unwrap();
            changes.push(ours);
        }
    });
    changes
}

fn changes(scene: &Scene, name: &str) -> Vec<Change> {
    let decode = |(_, payload): (bool, Vec<u8>)| {
        KeyValue.decode_eof(&mut BytesMut::from(&payload[..])).unwrap().unwrap()
    };
    scene.records(name).into_iter().map(decode).collect()
}

#[test]
fn segments_of_kaya_wal_are_imported_as_changes() {
    let scene = Scene::new();
    let written = kaya(&scene.path("old"));
    let mut segments: Vec<_> =
        fs::read_dir(scene.path("old/wal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    assert!(segments.len() > 2);
    for source in ["old", "old/wal"] {
        let target = format!("{source} new").replace('/', " ");
        let told = scene.run(&["import", source, &target]);
        assert_eq!(told.status, 0, "{}", told.error);
        assert_eq!(changes(&scene, &target), written, "{source}");
    }
    // One alone.
    let told = scene.run(&["import", segments[0].to_str().unwrap(), "one"]);
    assert_eq!(told.status, 0, "{}", told.error);
    assert!(written.starts_with(&changes(&scene, "one")));
    // The end of the last torn: told. The end of another: damage.
    let cut = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
    };
    cut(segments.last().unwrap());
    let told = scene.run(&["import", "old", "torn"]);
    assert!(told.status == 0 && told.out.starts_with("torn tail: "), "{}{}", told.out, told.error);
    assert_eq!(changes(&scene, "torn"), written[..29]);
    cut(&segments[0]);
    let told = scene.run(&["import", "old", "damaged"]);
    assert_eq!(told.status, 2);
    assert!(told.error.contains("0000000000000001.wal, offset"), "{}", told.error);
    assert!(!scene.path("damaged").exists());
}
