//! A Raft log opens any records or refuses them. An opened log can be read, and reopens with the
//! same state.
#![no_main]

use arbitrary::Arbitrary;
use highwater::raft::{GroupInfo, RaftLog};
use highwater_fuzz::{
    directory::Directory,
    opening::{now, options},
    repeatable::Repeatable,
};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    begins_as_raft_log: bool,
    records: Vec<Record>,
}

#[derive(Arbitrary, Debug)]
enum Record {
    Raw(Vec<u8>),
    /// A record of a known kind: encoded numbers, and then any bytes.
    Known {
        kind: u8,
        numbers: Vec<u16>,
        rest: Vec<u8>,
    },
}

impl Record {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Record::Raw(bytes) => bytes.clone(),
            Record::Known { kind, numbers, rest } => {
                let mut bytes = vec![0x10 | kind & 0x0f];
                numbers.iter().for_each(|number| put_varint(&mut bytes, u64::from(*number)));
                bytes.extend_from_slice(rest);
                bytes
            }
        }
    }
}

fn put_varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

const RECORD_BYTES_MAX: u64 = 1 << 16;

fuzz_target!(|input: Input| {
    let storage = Repeatable::with(&Directory::default(), 77);
    let wal = now(options(RECORD_BYTES_MAX).open_with(storage.clone())).unwrap();
    if input.begins_as_raft_log {
        now(wal.append(&[0x11, 0][..])).unwrap();
    }
    for record in input.records.iter().take(64) {
        let bytes = record.bytes();
        now(wal.append(&bytes[..bytes.len().min(1 << 10)])).unwrap();
    }
    now(wal.close()).unwrap();
    drop(wal);
    let Some(found) = groups(&storage) else { return };
    assert_eq!(groups(&storage), Some(found), "the log reopens with the same state");
});

/// Returns the state of each group; `None` if the log refuses the records.
fn groups(storage: &Repeatable) -> Option<Vec<(u64, GroupInfo)>> {
    let raft = RaftLog::options().wal(options(RECORD_BYTES_MAX)).tail_cache_bytes(0);
    let log = now(raft.open_with(storage.clone())).ok()?;
    let mut found = Vec::new();
    for id in log.groups() {
        let group = log.group(id);
        let _ = now(group.read(0..u64::MAX, 1 << 20));
        let _ = now(group.last_entry());
        found.push((id, group.state()));
    }
    now(log.close()).unwrap();
    Some(found)
}
