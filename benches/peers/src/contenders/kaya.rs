//! kaya-wal with its defaults. The future of an append does blocking I/O.

use std::{sync::Arc, time::Instant};

use kaya_core::{DurabilityMode, Lsn, SequenceNumber, WalConfig};
use kaya_io::FileDisk;
use kaya_wal::{WalPayload, WalWriter, recover_wal};

use crate::{
    log::{AsyncLog, Replayed},
    work::Assignment,
};

#[derive(Clone)]
pub struct Kaya(WalWriter<FileDisk>);

/// Returns the defaults, with a higher record limit if the work has larger records.
fn config(assignment: &Assignment) -> WalConfig {
    let mut config = WalConfig::default();
    let largest = crate::records::largest(assignment.work.records) as u32 + 1024;
    config.max_record_bytes = config.max_record_bytes.max(largest);
    config
}

async fn put(log: &Kaya, record: &[u8], mode: DurabilityMode) {
    let payload = WalPayload::Put { key: b"k".to_vec(), value: record.to_vec() };
    log.0.append(payload, mode).await.unwrap();
}

impl AsyncLog for Kaya {
    type Ticket = ();

    async fn open(assignment: &Assignment) -> Self {
        let disk = Arc::new(FileDisk::new(&assignment.directory));
        let found = recover_wal(config(assignment), disk.clone()).await.unwrap();
        // `open` would assign the same positions a second time.
        let next = found.last_lsn.map_or(Lsn::FIRST, Lsn::next);
        let sequence = SequenceNumber::new(found.records.len() as u64 + 1);
        Kaya(WalWriter::open_at(config(assignment), disk, next, sequence).await.unwrap())
    }

    async fn append(&self, record: &[u8]) {
        put(self, record, DurabilityMode::Relaxed).await;
    }

    async fn commit(&self, record: &[u8]) {
        put(self, record, DurabilityMode::Strict).await;
    }

    async fn enqueue(&self, record: &[u8]) {
        self.append(record).await;
    }

    async fn drain((): ()) {}

    async fn batch(&self, _records: &[Vec<u8>]) {
        unreachable!("kaya-wal has no batches");
    }

    async fn replay(assignment: &Assignment, each: &mut (dyn FnMut(&[u8]) + Send)) -> Replayed {
        let begun = Instant::now();
        let disk = Arc::new(FileDisk::new(&assignment.directory));
        for found in recover_wal(config(assignment), disk).await.unwrap().records {
            if let WalPayload::Put { value, .. } = &found.record.payload {
                each(value);
            }
        }
        Replayed { seconds: begun.elapsed().as_secs_f64() }
    }
}
