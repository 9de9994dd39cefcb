//! wal-db: one file, opened with defaults, shared by threads.

use std::time::Instant;

use wal_db::Wal;

use super::{Log, Replayed, Writer, one_file};
use crate::work::Assignment;

pub struct WalDb(Wal);

impl Log for WalDb {
    type Writer<'a> = &'a WalDb;

    fn open(assignment: &Assignment) -> Self {
        WalDb(Wal::open(one_file(&assignment.directory)).unwrap())
    }

    fn writer(&self, _lane: usize) -> &WalDb {
        self
    }

    fn replay(assignment: &Assignment, each: &mut dyn FnMut(&[u8])) -> Replayed {
        // Its `iter` alone: opening has read the file once already.
        let log = WalDb::open(assignment);
        let begun = Instant::now();
        for entry in log.0.iter().unwrap() {
            each(entry.unwrap().data());
        }
        Replayed { seconds: begun.elapsed().as_secs_f64() }
    }
}

impl Writer for &WalDb {
    fn append(&mut self, record: &[u8]) {
        let _ = self.0.append(record).unwrap();
    }

    fn commit(&mut self, record: &[u8]) {
        let _ = self.0.append_and_sync(record).unwrap();
    }

    fn batch(&mut self, records: &[Vec<u8>], sync: bool) {
        for record in records {
            let _ = self.0.append(record).unwrap();
        }
        if sync {
            self.0.sync().unwrap();
        }
    }
}
