//! Imports logs that wal-db and kaya-wal wrote.

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

/// Writes 40 records in segments, and truncates the front before the record with that number.
fn segmented(path: &Path, truncated: Option<usize>) {
    let wal = wal_db::Wal::open_segmented(path, SEGMENT_BYTES).unwrap();
    let lsns: Vec<_> = (0..40).map(|i| wal.append(&payload(i)).unwrap()).collect();
    wal.sync().unwrap();
    if let Some(number) = truncated {
        assert_eq!(wal.truncate_before(lsns[number]).unwrap(), lsns[number]);
    }
}

#[test]
fn wal_db_file_is_imported() {
    let scene = Scene::new();
    let wal = wal_db::Wal::open(scene.path("old.log")).unwrap();
    let lsns: Vec<_> = (0..40).map(|i| wal.append_and_sync(&payload(i)).unwrap()).collect();
    drop(wal);
    let outcome = scene.run(&["import", "old.log", "new", "--map", "map.tsv"]);
    assert_eq!(outcome.status, 0, "{}", outcome.error);
    assert!(outcome.out.contains("from wal-db"), "{}", outcome.out);
    assert_eq!(scene.records("new"), payloads(0..40));
    let map = fs::read_to_string(scene.path("map.tsv")).unwrap();
    let old: Vec<u64> =
        map.lines().map(|line| line.split_once('\t').unwrap().0.parse().unwrap()).collect();
    assert_eq!(old, lsns.iter().map(|lsn| lsn.get()).collect::<Vec<_>>());
    // First with a torn end, as after a crash, then with a damaged middle.
    let bytes = fs::read(scene.path("old.log")).unwrap();
    fs::write(scene.path("torn.log"), &bytes[..bytes.len() - 1]).unwrap();
    let outcome = scene.run(&["import", "torn.log", "torn"]);
    assert!(
        outcome.status == 0 && outcome.out.starts_with("torn tail: "),
        "{}{}",
        outcome.out,
        outcome.error
    );
    assert_eq!(scene.records("torn"), payloads(0..39));
    let mut damaged = bytes;
    let at = lsns[20].get() as usize;
    damaged[at + 9] ^= 1;
    fs::write(scene.path("damaged.log"), &damaged).unwrap();
    let outcome = scene.run(&["import", "damaged.log", "damaged"]);
    assert_eq!(outcome.status, 2);
    assert!(outcome.error.contains(&format!("damaged.log, offset {at}: ")), "{}", outcome.error);
    assert!(!scene.path("damaged").exists());
}

#[test]
fn wal_db_segments_are_imported() {
    let scene = Scene::new();
    segmented(&scene.path("old"), None);
    assert!(fs::read_dir(scene.path("old")).unwrap().count() > 3);
    let outcome = scene.run(&["import", "--format", "wal-db", "old", "new"]);
    assert_eq!(outcome.status, 0, "{}", outcome.error);
    assert_eq!(scene.records("new"), payloads(0..40));
    fs::remove_file(scene.path("old").join(format!("{:020}.wal", 1))).unwrap();
    let outcome = scene.run(&["import", "old", "gap"]);
    assert_eq!(outcome.status, 2, "a segment is missing: {}", outcome.error);
    assert!(!scene.path("gap").exists());
}

#[test]
fn wal_db_head_marker_sets_the_start() {
    let scene = Scene::new();
    segmented(&scene.path("old"), Some(25));
    assert!(!scene.path("old").join(format!("{:020}.wal", 0)).exists(), "the front is gone");
    let outcome = scene.run(&["import", "old", "new"]);
    assert_eq!(outcome.status, 0, "{}", outcome.error);
    assert_eq!(scene.records("new"), payloads(25..40));
    // A torn marker, as after a crash. wal-db loses the log then, and `import` reads all segments.
    fs::write(scene.path("old").join("head"), [0; 5]).unwrap();
    let outcome = scene.run(&["import", "old", "torn", "--json"]);
    assert_eq!(outcome.status, 0, "{}", outcome.error);
    assert!(outcome.out.contains("`head` is missing or damaged"), "{}", outcome.out);
    let records = scene.records("torn");
    assert!(records.len() >= 15 && payloads(0..40).ends_with(&records), "{}", records.len());
}

#[test]
fn single_wal_db_segment_needs_its_size() {
    let scene = Scene::new();
    segmented(&scene.path("old"), Some(39));
    assert_eq!(fs::read_dir(scene.path("old")).unwrap().count(), 2, "a segment and the marker");
    let outcome = scene.run(&["import", "old", "new"]);
    assert_eq!(outcome.status, 4);
    assert!(outcome.error.contains("--source-segment-bytes"), "{}", outcome.error);
    let size = SEGMENT_BYTES.to_string();
    let outcome = scene.run(&["import", "old", "new", "--source-segment-bytes", &size]);
    assert_eq!(outcome.status, 0, "{}", outcome.error);
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
fn kaya_wal_segments_are_imported_as_changes() {
    let scene = Scene::new();
    let written = kaya(&scene.path("old"));
    let mut segments: Vec<_> =
        fs::read_dir(scene.path("old/wal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    assert!(segments.len() > 2);
    for source in ["old", "old/wal"] {
        let target = format!("{source} new").replace('/', " ");
        let outcome = scene.run(&["import", source, &target]);
        assert_eq!(outcome.status, 0, "{}", outcome.error);
        assert_eq!(changes(&scene, &target), written, "{source}");
    }
    // A single segment.
    let outcome = scene.run(&["import", segments[0].to_str().unwrap(), "one"]);
    assert_eq!(outcome.status, 0, "{}", outcome.error);
    assert!(written.starts_with(&changes(&scene, "one")));
    // A torn end of the last segment is reported. A torn end of another segment is damage.
    let cut = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
    };
    cut(segments.last().unwrap());
    let outcome = scene.run(&["import", "old", "torn"]);
    assert!(
        outcome.status == 0 && outcome.out.starts_with("torn tail: "),
        "{}{}",
        outcome.out,
        outcome.error
    );
    assert_eq!(changes(&scene, "torn"), written[..29]);
    cut(&segments[0]);
    let outcome = scene.run(&["import", "old", "damaged"]);
    assert_eq!(outcome.status, 2);
    assert!(outcome.error.contains("0000000000000001.wal, offset"), "{}", outcome.error);
    assert!(!scene.path("damaged").exists());
}

/// A record with a hole of 1 TiB after it, in which a search byte by byte would take hours.
#[cfg(target_os = "linux")]
#[test]
fn hole_in_wal_db_log_is_skipped() {
    let scene = Scene::new();
    let covered = [&5u32.to_le_bytes()[..], b"first"].concat();
    let record = [&crc32c::crc32c(&covered).to_le_bytes()[..], &covered].concat();
    fs::write(scene.path("old.log"), &record).unwrap();
    let file = fs::OpenOptions::new().write(true).open(scene.path("old.log")).unwrap();
    // Not every file system supports files of this length.
    if file.set_len(1 << 40).is_err() {
        eprintln!("no sparse files here: skipped");
        return;
    }
    // Also a gap between two segments.
    fs::create_dir(scene.path("old")).unwrap();
    let segment = |index: u64| scene.path(&format!("old/{index:020}.wal"));
    fs::write(segment(0), [&record[..], &[0; 64]].concat()).unwrap();
    fs::write(segment(1 << 40), [0; 8]).unwrap();
    for source in ["old.log", "old"] {
        let to = format!("{source}.new");
        let import = ["import", "--format", "wal-db", source, &to];
        let mut child = scene.command(&import).spawn().unwrap();
        let begun = std::time::Instant::now();
        while child.try_wait().unwrap().is_none() {
            if begun.elapsed().as_secs() > 60 {
                child.kill().unwrap();
                panic!("{source}: it walks the hole");
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let (status, output) = Scene::outcome(child);
        assert_eq!(status, 0, "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(scene.records(&to), [(false, b"first".to_vec())]);
    }
}
