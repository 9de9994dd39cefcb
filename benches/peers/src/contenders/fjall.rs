//! fjall: the journal of an LSM tree, through its only public interface, keys and values.

use std::time::Instant;

use fjall::{Config, Keyspace, Partition, PartitionCreateOptions, PersistMode};

use crate::{
    log::{Log, Replayed, Writer},
    records::key,
    work::Assignment,
};

pub struct Fjall {
    keyspace: Keyspace,
    records: Partition,
}

pub struct FjallWriter<'a> {
    log: &'a Fjall,
    lane: usize,
    next: u64,
}

impl Log for Fjall {
    type Writer<'a> = FjallWriter<'a>;

    fn open(assignment: &Assignment) -> Self {
        let keyspace = Config::new(&assignment.directory).open().unwrap();
        let options = PartitionCreateOptions::default();
        let records = keyspace.open_partition("records", options).unwrap();
        Fjall { keyspace, records }
    }

    fn writer(&self, lane: usize) -> FjallWriter<'_> {
        FjallWriter { log: self, lane, next: 0 }
    }

    fn replay(assignment: &Assignment, each: &mut dyn FnMut(&[u8])) -> Replayed {
        // Opening reads the journal into memory. The scan is in key order.
        let begun = Instant::now();
        let log = Fjall::open(assignment);
        for pair in log.records.iter() {
            each(&pair.unwrap().1);
        }
        Replayed { seconds: begun.elapsed().as_secs_f64() }
    }
}

impl FjallWriter<'_> {
    fn key(&mut self) -> [u8; 12] {
        self.next += 1;
        key(self.lane, self.next)
    }
}

impl Writer for FjallWriter<'_> {
    fn append(&mut self, record: &[u8]) {
        let key = self.key();
        self.log.records.insert(key, record).unwrap();
    }

    fn commit(&mut self, record: &[u8]) {
        self.append(record);
        self.log.keyspace.persist(PersistMode::SyncData).unwrap();
    }

    fn batch(&mut self, records: &[Vec<u8>], sync: bool) {
        let durability = sync.then_some(PersistMode::SyncData);
        let mut batch = self.log.keyspace.batch().durability(durability);
        for record in records {
            batch.insert(&self.log.records, self.key(), record.as_slice());
        }
        batch.commit().unwrap();
    }
}
