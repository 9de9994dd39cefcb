//! Any directory is opened or refused. An opened log has the reported records and stays usable.
#![no_main]

use futures::StreamExt;
use highwater::{Error, Lsn, Wal};
use highwater_fuzz::{
    largest,
    mutation::Plan,
    opening::{assert_expected, now, options, read},
    reference::Opens,
    repeatable::Repeatable,
};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: largest::Watched = largest::Watched;

fuzz_target!(|plan: Plan| check(&plan));

fn check(plan: &Plan) {
    let (directory, max) = (&plan.directory(), plan.record_bytes_max());
    largest::reset();
    let storage = Repeatable::with(directory, 77);
    let opened = open(&storage, max);
    let bound = 4 * directory.bytes() + (2 << 20);
    assert!(largest::bytes() <= bound, "{} of {} bytes", largest::bytes(), directory.bytes());
    let again = open(&Repeatable::with(directory, 77), max);
    let Some((opens, wal)) = opened else {
        assert!(again.is_none(), "the same directory was refused and opened");
        assert_eq!(&storage.directory(), directory, "a refused directory is not changed");
        return;
    };
    assert_eq!(
        again.map(|(again, _)| again).as_ref(),
        Some(&opens),
        "a second recovery finds the same"
    );
    assert_eq!(replay(&wal, opens.first), (opens.records.clone(), opens.is_damaged));
    use_log(&storage, wal, opens, max, plan.forges_position());
}

/// Reads a log during recovery, and then opens it for writing.
fn open(storage: &Repeatable, max: u64) -> Option<(Opens, Wal)> {
    let before = storage.directory();
    let refused = |error| {
        assert_expected(&error);
        None
    };
    let (opens, recovery) = match read(storage, max) {
        Ok(read) => read,
        Err(error) => return refused(error),
    };
    assert_eq!(storage.directory(), before, "reading changes nothing");
    assert!(opens.committed <= opens.end && opens.first <= opens.end, "{opens:?}");
    let is_in_order = opens.records.is_sorted_by(|a, b| a.0 + a.1.len() as u64 + 16 <= b.0);
    assert!(is_in_order, "records do not overlap");
    let wal = if opens.is_damaged {
        // Only reading finds damage to durable records, because opening does not check them.
        let last = opens.records.last().map_or(opens.first, |(lsn, _)| *lsn);
        assert!(last < opens.committed, "damage above the commitment is not an error");
        assert!(now(recovery.into_wal()).is_err(), "an error of the stream fails the opening");
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
                // A header may claim that the log begins inside a record. Then the beginning is not
                // a record boundary.
                let is_inside_record =
                    matches!(error, Error::NotABoundary { lsn } if lsn.as_u64() == first);
                if !is_inside_record || !records.is_empty() {
                    assert_expected(&error);
                }
                assert!(now(replay.next()).is_none(), "an error ends the stream");
                return (records, true);
            }
        }
    }
    (records, false)
}

/// Appends records, and checks that they are there after the log is reopened.
fn use_log(storage: &Repeatable, wal: Wal, mut opens: Opens, max: u64, forges_position: bool) {
    for i in 0..3u8 {
        let payload = vec![i; 8 << i];
        let lsn = now(wal.append_and_sync(&payload)).unwrap().as_u64();
        assert!(lsn >= opens.end, "{lsn} was appended before the end {}", opens.end);
        opens.records.push((lsn, payload));
    }
    let was_closed = opens.was_closed;
    if opens.is_damaged {
        // The next opening may find the damage and refuse.
        return;
    }
    assert_eq!(replay(&wal, opens.first), (opens.records.clone(), false));
    let mut wal = wal;
    for closes in [false, true, true] {
        if closes {
            now(wal.close()).unwrap();
        }
        drop(wal);
        let Some((again, next)) = open(storage, max) else {
            // A closed log shows its slots at its end, so its opening does not read the position
            // that the header names. An unclosed one does, and finds a forged position there.
            assert!(forges_position && was_closed, "an opened log reopens");
            return;
        };
        assert!(!again.is_cut && again.was_closed == closes, "{again:?}");
        assert!(!again.is_damaged);
        assert_eq!(again.records, opens.records);
        wal = next;
    }
}
