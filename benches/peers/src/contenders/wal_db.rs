//! wal-db with its defaults: one file that all threads share.

use std::time::Instant;

use wal_db::Wal;

use crate::{
    log::{Log, Replayed, Writer},
    work::Assignment,
};

pub struct WalDb(Wal);

impl Log for WalDb {
    type Writer<'a> = &'a WalDb;

    fn open(assignment: &Assignment) -> Self {
        WalDb(Wal::open(assignment.log_file()).unwrap())
    }

    fn writer(&self, _lane: usize) -> &WalDb {
        self
    }

    fn replay(assignment: &Assignment, each: &mut dyn FnMut(&[u8])) -> Replayed {
        // Only `iter` is timed, because opening has read the file before.
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
