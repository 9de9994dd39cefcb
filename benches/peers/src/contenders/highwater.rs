//! Highwater with its defaults, changed by the settings of the work and of the command line.

use std::time::Instant;

use futures::TryStreamExt;
use highwater::{InlineSyncs, Options, Preallocation, Retention, Ticket, Wal};

use crate::{
    churn,
    contenders::delayed::DelayedStorage,
    log::{AsyncLog, Replayed},
    work::Assignment,
};

/// With `IN_PLACE` the tasks do small writes, and the sync of a single waiter, on the runtime's
/// threads. With `DELAYED` each flush takes 1 ms more.
#[derive(Clone)]
pub struct Highwater<const IN_PLACE: bool = false, const DELAYED: bool = false>(pub Wal);

/// The limit of `inline_writes` with `IN_PLACE`.
const INLINE_BYTES_MAX: u64 = 64 << 10;

impl<const IN_PLACE: bool, const DELAYED: bool> AsyncLog for Highwater<IN_PLACE, DELAYED> {
    type Ticket = Ticket;

    async fn open(assignment: &Assignment) -> Self {
        let mut options = options(&assignment.settings);
        if IN_PLACE {
            options = options.inline_writes(INLINE_BYTES_MAX).inline_syncs(InlineSyncs::Always);
        }
        if let Some(bytes) = churn::keep_bytes(&assignment.work) {
            options = options.retention(Retention::default().bytes(bytes));
        }
        let wal = if DELAYED {
            options.open_with(DelayedStorage::create(&assignment.directory)).await
        } else {
            options.open(&assignment.directory).await
        };
        Highwater(wal.unwrap())
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

/// Parses settings of the form `KEY=VALUE`.
///
/// # Panics
///
/// If a key is unknown or a value is invalid.
pub fn options(settings: &[String]) -> Options {
    let mut options = Wal::options();
    for setting in settings {
        let (key, value) = setting.split_once('=').expect("a setting has the form KEY=VALUE");
        let number = || value.parse().expect("the value is a number");
        options = match key {
            "segment_bytes" => options.segment_bytes(number()),
            "ring_bytes" => options.ring_bytes(number()),
            "record_bytes_max" => options.record_bytes_max(number()),
            "inline_writes" => options.inline_writes(number()),
            "inline_syncs" => options.inline_syncs(match value {
                "never" => InlineSyncs::Never,
                "alone" => InlineSyncs::WhenAlone,
                "always" => InlineSyncs::Always,
                _ => panic!("the value is never, alone or always"),
            }),
            "recycle_segments" => {
                options.recycle_segments(value.parse().expect("the value is a count"))
            }
            "preallocation" => options.preallocation(match value {
                "adaptive" => Preallocation::Adaptive,
                "zero" => Preallocation::ZeroFill,
                "reserve" => Preallocation::Reserve,
                "sparse" => Preallocation::Sparse,
                _ => panic!("preallocation is adaptive, zero, reserve or sparse"),
            }),
            _ => panic!("there is no setting {key}"),
        };
    }
    options
}
