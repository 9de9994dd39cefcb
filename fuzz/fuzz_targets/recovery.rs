//! Any directory is opened or refused, and then it is what was said.
#![no_main]

use futures::StreamExt;
use highwater::{Error, Lsn, Wal};
use highwater_fuzz::{
    directory::Directory,
    largest,
    mutation::Plan,
    opening::{assert_honest, now, options, read},
    reference::Opens,
    repeatable::Repeatable,
};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: largest::Watched = largest::Watched;

fuzz_target!(|plan: Plan| check(&plan.directory(), plan.record_bytes_max()));

fn check(directory: &Directory, max: u64) {
    largest::reset();
    let storage = Repeatable::with(directory, 77);
    let opened = open(&storage, max);
    let bound = 4 * directory.bytes() + (2 << 20);
    assert!(largest::bytes() <= bound, "{} of {} bytes", largest::bytes(), directory.bytes());
    let again = open(&Repeatable::with(directory, 77), max);
    let Some((opens, wal)) = opened else {
        assert!(again.is_none(), "refused once, opened once");
        assert_eq!(&storage.directory(), directory, "what is refused isn't changed");
        return;
    };
    assert_eq!(again.map(|(again, _)| again).as_ref(), Some(&opens), "opened twice");
    assert_eq!(replay(&wal, opens.first), (opens.records.clone(), opens.is_damaged));
    go_on(&storage, wal, opens, max);
}

/// Opens as a stream and then for writing.
fn open(storage: &Repeatable, max: u64) -> Option<(Opens, Wal)> {
    let before = storage.directory();
    let refused = |error| {
        assert_honest(&error);
        None
    };
    let (opens, recovery) = match read(storage, max) {
        Ok(read) => read,
        Err(error) => return refused(error),
    };
    assert_eq!(storage.directory(), before, "reading changes nothing");
    assert!(opens.committed <= opens.end && opens.first <= opens.end, "{opens:?}");
    let is_in_order = opens.records.is_sorted_by(|a, b| a.0 + a.1.len() as u64 + 16 <= b.0);
    assert!(is_in_order, "records follow each other");
    let wal = if opens.is_damaged {
        // What is durable and damaged is found by reading alone; opening doesn't look at it.
        let last = opens.records.last().map_or(opens.first, |(lsn, _)| *lsn);
        assert!(last < opens.committed, "damage above the commitment is no error");
        assert!(now(recovery.into_wal()).is_err(), "a stream's error is the opening's");
        now(options(max).open_with(storage.clone()))
    } else {
        now(recovery.into_wal())
    };
    match wal {
        Ok(wal) => Some((opens, wal)),
        Err(error) => refused(error),
    }
}

type Records = Vec<(u64, Vec<u8>)>;

fn replay(wal: &Wal, first: u64) -> (Records, bool) {
    let mut records = Vec::new();
    let mut replay = wal.replay(Lsn::new(first)..);
    while let Some(record) = now(replay.next()) {
        match record {
            Ok(record) => records.push((record.lsn.as_u64(), record.payload.to_vec())),
            Err(error) => {
                // A header may claim that the log begins within a record: then its beginning, named
                // here, is no boundary.
                let is_unnamed =
                    matches!(error, Error::NotABoundary { lsn } if lsn.as_u64() == first);
                if !is_unnamed || !records.is_empty() {
                    assert_honest(&error);
                }
                assert!(now(replay.next()).is_none(), "an error ends the stream");
                return (records, true);
            }
        }
    }
    (records, false)
}

/// A log that was opened is a log: what is appended is there when it is opened again.
fn go_on(storage: &Repeatable, wal: Wal, mut opens: Opens, max: u64) {
    for i in 0..3u8 {
        let payload = vec![i; 8 << i];
        let lsn = now(wal.append_and_sync(&payload)).unwrap().as_u64();
        assert!(lsn >= opens.end, "{lsn} was appended before the end {}", opens.end);
        opens.records.push((lsn, payload));
    }
    if opens.is_damaged {
        // The next opening may look there, and refuse.
        return;
    }
    assert_eq!(replay(&wal, opens.first), (opens.records.clone(), false));
    let mut wal = wal;
    for closes in [false, true, true] {
        if closes {
            now(wal.close()).unwrap();
        }
        drop(wal);
        let (again, next) = open(storage, max).expect("what was opened opens again");
        assert!(!again.is_cut && again.was_closed == closes, "{again:?}");
        assert!(!again.is_damaged);
        assert_eq!(again.records, opens.records);
        wal = next;
    }
}
