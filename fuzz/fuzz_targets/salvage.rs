//! Salvage of any directory ends in bounded steps, and returns all records that opening returns.
#![no_main]

use futures::StreamExt;
use highwater::{Reader, reader::SalvageError, steps};
use highwater_fuzz::{
    directory::Directory,
    mutation::Plan,
    opening::{now, read},
    repeatable::Repeatable,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|plan: Plan| check(&plan.directory()));

/// Returns the step limit: epochs to try for each file, the chain of each file, and steps per byte.
fn steps_max(directory: &Directory) -> u64 {
    let files = directory.0.len() as u64 + 1;
    16 * directory.bytes() as u64 + files * files * 4096
}

fn check(directory: &Directory) {
    let limit = steps_max(directory);
    let storage = Repeatable::with(directory, 77);
    let (salvaged, _) = steps::within(limit, || salvage(&storage));
    assert_eq!(&storage.directory(), directory, "salvage changes nothing");
    let (opened, _) = steps::within(limit, || read(&Repeatable::with(directory, 77), 1 << 20));
    let (Some(salvaged), Ok((opens, _))) = (salvaged, opened) else { return };
    for record in &opens.records {
        assert!(salvaged.contains(record), "salvage misses {record:?}, which opening returns");
    }
}

type Records = Vec<(u64, Vec<u8>)>;

/// Returns all records; `None` if salvage refuses the directory.
fn salvage(storage: &Repeatable) -> Option<Records> {
    let mut items = now(Reader::options().salvage_with(storage.clone())).ok()?;
    let mut records = Vec::new();
    let mut at = 0;
    while let Some(item) = now(items.next()) {
        match item {
            Ok(record) => {
                assert!(record.lsn.as_u64() >= at, "{} after {at}", record.lsn);
                at = record.lsn.as_u64() + 16;
                records.push((record.lsn.as_u64(), record.payload.to_vec()));
            }
            Err(SalvageError::Gap(gap)) => assert!(gap.from <= gap.to, "{gap:?}"),
            Err(error) => panic!("{error}"),
        }
    }
    Some(records)
}
