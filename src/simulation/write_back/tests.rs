//! Simulates a kill by dropping the storage and reading the inner one.

use super::*;
use crate::storage::MemoryStorage;

const SECTOR: usize = cached::SECTOR_BYTES;

fn read(file: &dyn StorageFile) -> Vec<u8> {
    let mut bytes = vec![0xff; usize::try_from(file.len().unwrap()).unwrap() + 10];
    let count = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(count);
    bytes
}

fn content(storage: &impl Storage, name: &str) -> Vec<u8> {
    read(storage.open(name).unwrap().as_ref())
}

/// A disk with one durable file `a`.
fn disk(bytes: &[u8]) -> MemoryStorage {
    let disk = MemoryStorage::new();
    disk.create("a").unwrap().write_at(bytes, 0).unwrap();
    disk
}

#[test]
fn unsynced_changes_are_visible_and_lost() {
    let disk = disk(&[1; 1000]);
    let storage = WriteBack::new(disk.clone());
    let file = storage.open("a").unwrap();
    file.write_at(&[2; 700], 400).unwrap();
    let newest = [&[1; 400][..], &[2; 700]].concat();
    assert_eq!(read(file.as_ref()), newest);
    assert_eq!(content(&storage, "a"), newest, "through another handle");
    assert_eq!(content(&disk, "a"), [1; 1000]);
    file.sync_data().unwrap();
    assert_eq!(content(&disk, "a"), newest);
    file.set_len(10).unwrap();
    file.write_at(&[3], 0).unwrap();
    assert_eq!(file.len().unwrap(), 10);
    drop((storage, file));
    assert_eq!(content(&disk, "a"), newest, "the power went");
}

#[test]
fn cut_file_that_grows_again_has_zeros() {
    let disk = disk(&[1; 2000]);
    let storage = WriteBack::new(disk.clone());
    let file = storage.open("a").unwrap();
    file.write_at(&[2; 100], 600).unwrap();
    file.set_len(650).unwrap();
    file.reserve(100).unwrap();
    assert_eq!(file.len().unwrap(), 650, "reserving never cuts");
    file.reserve(1200).unwrap();
    file.write_at(&[3; 10], 1100).unwrap();
    let expected = [&[1; 600][..], &[2; 50], &[0; 450], &[3; 10], &[0; 90]].concat();
    assert_eq!(read(file.as_ref()), expected);
    file.sync_all().unwrap();
    assert_eq!(read(file.as_ref()), expected);
    assert_eq!(content(&disk, "a"), expected);
}

#[test]
fn file_with_unsynced_name_is_usable_and_lost() {
    let disk = MemoryStorage::new();
    let storage = WriteBack::new(disk.clone());
    let file = storage.create("a").unwrap();
    assert!(storage.create("a").is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists));
    file.write_at(b"bytes", 0).unwrap();
    file.sync_all().unwrap();
    drop(file);
    assert_eq!(content(&storage, "a"), b"bytes");
    assert_eq!(storage.list().unwrap(), ["a"]);
    assert!(disk.open("a").is_err());
    drop(storage);

    let storage = WriteBack::new(disk.clone());
    assert_eq!(storage.list().unwrap(), Vec::<String>::new());
    assert!(storage.open("a").is_err());
    assert_eq!(disk.list().unwrap().len(), 1, "the lost file is still there");
    let lock = storage.lock().unwrap();
    assert!(matches!(lock, Locking::Held(_)));
    assert_eq!(disk.list().unwrap().len(), 0);
}

#[test]
fn another_process_discards_nothing_without_the_lock() {
    let disk = MemoryStorage::new();
    let storage = WriteBack::new(disk.clone());
    let lock = storage.lock().unwrap();
    storage.create("a").unwrap().write_at(b"bytes", 0).unwrap();
    assert!(matches!(WriteBack::new(disk.clone()).lock().unwrap(), Locking::Busy { .. }));
    drop(lock);
    // The same process opens its log again, so its own files are no leftovers.
    let again = storage.clone();
    let _lock = again.lock().unwrap();
    assert_eq!(content(&again, "a"), b"bytes");
    assert!(again.create(".unsynced-0").is_err());
    assert!(again.rename("a", ".unsynced-0").is_err());
}

#[test]
fn inner_names_change_in_order_at_directory_sync() {
    let disk = disk(b"old");
    let storage = WriteBack::new(disk.clone());
    let old = storage.open("a").unwrap();
    storage.rename("a", "b").unwrap();
    let new = storage.create("a").unwrap();
    new.write_at(b"new", 0).unwrap();
    new.sync_data().unwrap();
    // Synced while its rename is not: the bytes are durable under the old name.
    old.write_at(b"OLD", 0).unwrap();
    old.sync_data().unwrap();
    assert_eq!(content(&storage, "a"), b"new");
    assert_eq!(content(&storage, "b"), b"OLD");
    assert_eq!(content(&disk, "a"), b"OLD");
    storage.rename("b", "c").unwrap();
    storage.create("d").unwrap();
    storage.remove("d").unwrap();
    assert!(storage.remove("d").is_err() && storage.rename("d", "e").is_err());
    assert_eq!(storage.list().unwrap(), ["a", "c"]);
    storage.sync_dir().unwrap();
    assert_eq!(disk.list().unwrap(), ["a", "c"]);
    assert_eq!((content(&disk, "a"), content(&disk, "c")), (b"new".to_vec(), b"OLD".to_vec()));
    // Open handles still refer to the same files.
    old.write_at(b"o", 0).unwrap();
    assert_eq!(content(&storage, "c"), b"oLD");
    storage.rename("c", "a").unwrap();
    assert_eq!(content(&storage, "a"), b"oLD");
    storage.sync_dir().unwrap();
    assert_eq!(content(&disk, "a"), b"OLD", "its name is synced, its bytes aren't");
}

#[test]
fn unsynced_removal_is_undone_by_power_cut() {
    let disk = disk(b"old");
    let storage = WriteBack::new(disk.clone());
    let old = storage.open("a").unwrap();
    storage.remove("a").unwrap();
    assert_eq!(storage.list().unwrap(), Vec::<String>::new());
    assert_eq!(read(old.as_ref()), b"old");
    let new = storage.create("a").unwrap();
    assert_eq!(new.len().unwrap(), 0);
    assert_eq!(content(&disk, "a"), b"old");
    storage.sync_dir().unwrap();
    assert_eq!(content(&disk, "a"), b"", "the name of the new one, and no bytes yet");
}

#[test]
fn failed_directory_change_is_reported_by_sync() {
    let disk = disk(b"old");
    let storage = WriteBack::new(disk.clone());
    storage.rename("a", "b").unwrap();
    disk.remove("a").unwrap();
    assert!(storage.sync_dir().is_err());
    assert!(storage.sync_dir().is_err());
    disk.create("a").unwrap();
    storage.sync_dir().unwrap();
    assert_eq!(disk.list().unwrap(), ["b"]);
}

#[test]
fn synced_file_without_handle_is_closed() {
    let storage = WriteBack::new(MemoryStorage::new());
    for i in 0..20 {
        let file = storage.create(&format!("{i}")).unwrap();
        file.write_at(b"bytes", 0).unwrap();
        if i % 2 == 0 {
            file.sync_data().unwrap();
        }
    }
    storage.sync_dir().unwrap();
    storage.open("0").unwrap();
    assert_eq!(storage.directory().open_count(), 11);
    assert!((0..20).all(|i| content(&storage, &format!("{i}")) == b"bytes"));
}

/// Runs random writes, cuts and syncs of one file, and compares it with a model. The process sees
/// the model. The disk has the state of the last sync or, with early write-back, each sector as it
/// was at some time since. Returns how often the disk was ahead.
fn compare_with_a_model(seed: u64, one_in: u32) -> usize {
    let random = Early::new(seed, 3);
    let below = |end: u64| random.below(end);
    let disk = disk(b"");
    let storage = WriteBack::new(disk.clone()).with_early_write_back(seed, one_in);
    let mut model: Vec<u8> = Vec::new();
    let mut since_sync = vec![model.clone()];
    let mut early_count = 0;
    for step in 1..300u64 {
        let file = storage.open("a").unwrap();
        match below(10) {
            0 => {
                let bytes = below(6000);
                file.set_len(bytes).unwrap();
                model.resize(usize::try_from(bytes).unwrap(), 0);
            }
            1 => {
                file.sync_data().unwrap();
                assert_eq!(content(&disk, "a"), model);
                since_sync.clear();
            }
            _ => {
                let start = usize::try_from(below(5000)).unwrap();
                let new = vec![u8::try_from(step % 255).unwrap() + 1; 1 + start % 1300];
                assert_eq!(file.write_at(&new, start as u64).unwrap(), new.len());
                model.resize(model.len().max(start + new.len()), 0);
                model[start..start + new.len()].copy_from_slice(&new);
            }
        }
        assert_eq!(read(file.as_ref()), model);
        let mut middle = [0xff; 700];
        let from = usize::try_from(below(5000)).unwrap();
        let count = file.read_at(&mut middle, from as u64).unwrap();
        let expected = model.get(from..).unwrap_or_default();
        assert_eq!(middle[..count], expected[..expected.len().min(700)]);
        since_sync.push(model.clone());
        early_count += usize::from(!disk_is_a_past(&content(&disk, "a"), &since_sync));
    }
    early_count
}

/// Asserts that each sector has a past state. Returns whether all sectors have the state of the
/// last sync.
fn disk_is_a_past(found: &[u8], since_sync: &[Vec<u8>]) -> bool {
    for start in (0..found.len()).step_by(SECTOR) {
        let sector = |bytes: &[u8]| {
            let mut sector = bytes.get(start..).unwrap_or_default().to_vec();
            sector.resize(SECTOR, 0);
            sector
        };
        let found = sector(found);
        // A cut that was written back early leaves the front of the old contents, and zeros.
        let used = found.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let is_known = since_sync.iter().any(|bytes| sector(bytes)[..used] == found[..used]);
        assert!(is_known, "the sector at {start} was never so");
    }
    found == since_sync[0]
}

#[test]
fn file_matches_model_and_keeps_synced_bytes() {
    for seed in 0..20 {
        assert_eq!(compare_with_a_model(seed, 0), 0, "seed {seed}");
    }
}

#[test]
fn early_write_back_leaves_past_sector_states() {
    for seed in 0..20 {
        assert!(compare_with_a_model(seed, 4) > 10, "seed {seed}: something goes early");
        assert!(compare_with_a_model(seed, 1) > 10, "seed {seed}: something goes early");
    }
}

#[test]
fn early_write_back_takes_first_name_changes() {
    let mut counts = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let disk = MemoryStorage::new();
        let storage = WriteBack::new(disk.clone()).with_early_write_back(seed, 2);
        let names = ["a", "b", "c", "d"];
        names.iter().for_each(|name| drop(storage.create(name).unwrap()));
        let mut there = disk.list().unwrap();
        there.retain(|name| !name.starts_with(TEMPORARY_PREFIX));
        assert_eq!(there, names[..there.len()]);
        assert_eq!(storage.list().unwrap(), names);
        counts.insert(there.len());
    }
    assert_eq!(counts.len(), 5, "any number of them");
}

/// Each thread writes its own bytes of one sector. After its own sync they are on the disk.
#[test]
fn sync_covers_earlier_writes_beside_other_threads() {
    for one_in in [0, 3] {
        let disk = disk(&[0; SECTOR]);
        let storage = WriteBack::new(disk.clone()).with_early_write_back(7, one_in);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (storage, disk) = (&storage, &disk);
                scope.spawn(move || {
                    let (file, within) = (storage.open("a").unwrap(), disk.open("a").unwrap());
                    for round in 1..500u64 {
                        for offset in [thread * 8, 100_000 + thread * SECTOR as u64] {
                            file.write_at(&round.to_le_bytes(), offset).unwrap();
                        }
                        let mut found = [0; 8];
                        file.read_at(&mut found, thread * 8).unwrap();
                        assert_eq!(u64::from_le_bytes(found), round);
                        file.sync_data().unwrap();
                        for offset in [thread * 8, 100_000 + thread * SECTOR as u64] {
                            within.read_at(&mut found, offset).unwrap();
                            assert_eq!(u64::from_le_bytes(found), round);
                        }
                        if round % 50 == thread {
                            file.set_len(200_000 + round).unwrap();
                        }
                    }
                });
            }
        });
    }
}
