//! raft-engine with its defaults: a Raft group per thread, and one write per record.

use std::time::Instant;

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use crate::{
    churn::{self, Marks},
    log::{Log, Replayed, Writer},
    work::Assignment,
};

pub struct RaftEngine(Engine);

/// The entry type. An entry must know its index, so its first 8 bytes hold the index.
#[derive(Clone)]
struct Entries;

impl MessageExt for Entries {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        u64::from_le_bytes(entry.value[..8].try_into().unwrap())
    }
}

pub struct GroupWriter<'a> {
    engine: &'a Engine,
    group: u64,
    next: u64,
    batch: LogBatch,
    entry: BytesValue,
    marks: Marks,
}

impl Log for RaftEngine {
    type Writer<'a> = GroupWriter<'a>;

    fn open(assignment: &Assignment) -> Self {
        let dir = assignment.directory.to_str().unwrap().to_owned();
        let mut config = Config { dir, ..Config::default() };
        if let Some(keep) = churn::keep_bytes(&assignment.work) {
            config.target_file_size = ReadableSize(churn::file_bytes(keep));
            // More than the log keeps, because it rewrites records in the oldest part of its files.
            config.purge_threshold = ReadableSize(keep + keep / 2);
        }
        RaftEngine(Engine::open(config).unwrap())
    }

    fn writer(&self, lane: usize) -> GroupWriter<'_> {
        let (group, batch) = (lane as u64 + 1, LogBatch::with_capacity(4));
        let (entry, marks) = (BytesValue::new(), Marks::default());
        GroupWriter { engine: &self.0, group, next: 1, batch, entry, marks }
    }

    fn replay(assignment: &Assignment, each: &mut dyn FnMut(&[u8])) -> Replayed {
        let log = RaftEngine::open(assignment);
        let begun = Instant::now();
        let mut entries = Vec::new();
        for group in log.0.raft_groups() {
            let first = log.0.first_index(group).unwrap();
            let end = log.0.last_index(group).unwrap() + 1;
            for from in (first..end).step_by(1024) {
                let to = end.min(from + 1024);
                log.0.fetch_entries_to::<Entries>(group, from, to, None, &mut entries).unwrap();
                for entry in entries.drain(..) {
                    each(&entry.value[8..]);
                }
            }
        }
        Replayed { seconds: begun.elapsed().as_secs_f64() }
    }
}

impl GroupWriter<'_> {
    /// Adds a record, 8 bytes longer than in other contenders because of the index.
    fn add(&mut self, record: &[u8]) {
        self.entry.value.clear();
        self.entry.value.extend_from_slice(&self.next.to_le_bytes());
        self.entry.value.extend_from_slice(record);
        self.next += 1;
        let entries = std::slice::from_ref(&self.entry);
        self.batch.add_entries::<Entries>(self.group, entries).unwrap();
    }

    fn write(&mut self, sync: bool) {
        self.engine.write(&mut self.batch, sync).unwrap();
    }
}

impl Writer for GroupWriter<'_> {
    fn append(&mut self, record: &[u8]) {
        self.add(record);
        self.write(false);
    }

    fn commit(&mut self, record: &[u8]) {
        self.add(record);
        self.write(true);
    }

    fn batch(&mut self, records: &[Vec<u8>], sync: bool) {
        for record in records {
            self.add(record);
        }
        self.write(sync);
    }

    fn truncate(&mut self) {
        if let Some(first) = self.marks.push(self.next) {
            self.engine.compact_to(self.group, first);
        }
        self.engine.purge_expired_files().unwrap();
    }
}
