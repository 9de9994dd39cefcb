//! Highwater, with its defaults and what the command line and a work set; and with what it may do on
//! the threads of the runtime.

use std::time::Instant;

use futures::TryStreamExt;
use highwater::{Options, Preallocation, Ticket, Wal};

use super::{AsyncLog, Replayed};
use crate::work::Assignment;

/// `IN_PLACE`: small writes, and flushes of who waits alone, are done by the tasks themselves.
#[derive(Clone)]
pub struct Highwater<const IN_PLACE: bool = false>(pub Wal);

/// What `inline_writes` allows where tasks write themselves.
const INLINE_BYTES_MAX: u64 = 64 << 10;

impl<const IN_PLACE: bool> AsyncLog for Highwater<IN_PLACE> {
    type Ticket = Ticket;

    async fn open(assignment: &Assignment) -> Self {
        let mut options = options(&assignment.settings);
        if IN_PLACE {
            options = options.inline_writes(INLINE_BYTES_MAX).inline_syncs(true);
        }
        Highwater(options.open(&assignment.directory).await.unwrap())
    }

    async fn append(&self, record: &[u8]) {
        self.0.append(record).await.unwrap();
    }

    async fn commit(&self, record: &[u8]) {
        self.0.append_and_sync(record).await.unwrap();
    }

    async fn enqueue(&self, record: &[u8]) -> Ticket {
        self.0.enqueue(record).await.unwrap()
    }

    async fn drain(ticket: Ticket) {
        ticket.written().await.unwrap();
    }

    async fn batch(&self, records: &[Vec<u8>]) {
        self.0.append_batch(records.iter().map(Vec::as_slice)).await.unwrap();
        self.0.sync().await.unwrap();
    }

    async fn replay(assignment: &Assignment, each: &mut (dyn FnMut(&[u8]) + Send)) -> Replayed {
        let log = Self::open(assignment).await;
        let begun = Instant::now();
        let mut records = log.0.replay(..);
        while let Some(record) = records.try_next().await.unwrap() {
            each(&record.payload);
        }
        let seconds = begun.elapsed().as_secs_f64();
        drop(records);
        log.close().await;
        Replayed { seconds }
    }

    async fn close(self) {
        self.0.close().await.unwrap();
    }
}

/// `KEY=VALUE` as the command line has it.
pub fn options(settings: &[String]) -> Options {
    let mut options = Wal::options();
    for setting in settings {
        let (key, value) = setting.split_once('=').expect("a setting is KEY=VALUE");
        let number = || value.parse().expect("this setting is a number");
        options = match key {
            "segment_bytes" => options.segment_bytes(number()),
            "ring_bytes" => options.ring_bytes(number()),
            "record_bytes_max" => options.record_bytes_max(number()),
            "inline_writes" => options.inline_writes(number()),
            "inline_syncs" => options.inline_syncs(value.parse().expect("true or false")),
            "recycle_segments" => options.recycle_segments(value.parse().expect("a count")),
            "preallocation" => options.preallocation(match value {
                "adaptive" => Preallocation::Adaptive,
                "zero" => Preallocation::ZeroFill,
                "reserve" => Preallocation::Reserve,
                "sparse" => Preallocation::Sparse,
                _ => panic!("preallocation is adaptive, zero, reserve or sparse"),
            }),
            _ => panic!("no setting {key}"),
        };
    }
    options
}
