//! wal-db with its defaults: one file that all threads share.

use std::time::Instant;

use wal_db::{Lsn, SegmentedStore, Wal};

use crate::{
    churn::{self, Marks},
    log::{Log, Replayed, Writer},
    outcome::Outcome,
    threads,
    work::{Assignment, Kind},
};

/// Runs an assignment: in one file, or in segments if the log drops records.
pub fn run(assignment: &Assignment) -> Outcome {
    match assignment.work.kind {
        Kind::Churn { .. } => threads::run::<Segmented>(assignment),
        _ => threads::run::<WalDb>(assignment),
    }
}

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

/// A log in segments, which is the only form that can drop old records.
struct Segmented(Wal<SegmentedStore>);

struct SegmentedWriter<'a> {
    log: &'a Wal<SegmentedStore>,
    marks: Marks,
}

impl Log for Segmented {
    type Writer<'a> = SegmentedWriter<'a>;

    fn open(assignment: &Assignment) -> Self {
        let keep_bytes = churn::keep_bytes(&assignment.work).expect("a work that drops records");
        let file_bytes = churn::file_bytes(keep_bytes);
        Segmented(Wal::open_segmented(&assignment.directory, file_bytes).unwrap())
    }

    fn writer(&self, _lane: usize) -> SegmentedWriter<'_> {
        SegmentedWriter { log: &self.0, marks: Marks::default() }
    }

    fn replay(_assignment: &Assignment, _each: &mut dyn FnMut(&[u8])) -> Replayed {
        unreachable!("only `churn` uses segments")
    }
}

impl Writer for SegmentedWriter<'_> {
    fn append(&mut self, record: &[u8]) {
        let _ = self.log.append(record).unwrap();
    }

    fn commit(&mut self, record: &[u8]) {
        let _ = self.log.append_and_sync(record).unwrap();
    }

    fn batch(&mut self, records: &[Vec<u8>], sync: bool) {
        records.iter().for_each(|record| self.append(record));
        if sync {
            self.log.sync().unwrap();
        }
    }

    fn truncate(&mut self) {
        if let Some(first) = self.marks.push(self.log.len()) {
            let _ = self.log.truncate_before(Lsn::new(first)).unwrap();
        }
    }
}
