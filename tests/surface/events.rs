//! The events that a log reports through `tracing`, and calls that must report none.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::SinkExt;
use highwater::{
    Durability, Error, SyncEvery, Wal,
    simulation::{Disk, Faults, Op, Survival},
    storage::MemoryStorage,
    typed::{Change, KeyValue},
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::support::small;

/// Records all events and spans of the thread whose default it is.
#[derive(Clone, Default)]
struct Recorder {
    events: Arc<Mutex<Vec<(Level, String)>>>,
    span_count: Arc<AtomicU64>,
}

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("highwater")
    }
    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        self.push(*span.metadata().level(), |line| {
            line.0.push_str(&format!("span {} ", span.metadata().name()));
            span.record(line);
        });
        span::Id::from_u64(self.span_count.fetch_add(1, Ordering::Relaxed) + 1)
    }
    fn event(&self, event: &Event<'_>) {
        self.push(*event.metadata().level(), |line| event.record(line));
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

impl Recorder {
    fn push(&self, level: Level, write: impl FnOnce(&mut Line<'_>)) {
        let mut line = String::new();
        write(&mut Line(&mut line));
        self.events.lock().unwrap().push((level, line));
    }

    /// Takes the events since the last call.
    fn take(&self) -> Vec<(Level, String)> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    /// Returns how many events of `level` contain `text`.
    fn count(events: &[(Level, String)], level: Level, text: &str) -> usize {
        events.iter().filter(|line| line.0 == level && line.1.contains(text)).count()
    }
}

/// Runs `work` with a recorder. In memory all work of the log is in this thread.
fn with_recorder<T>(work: impl AsyncFnOnce(Recorder) -> T) -> T {
    let recorder = Recorder::default();
    let dispatch = tracing::Dispatch::new(recorder.clone());
    tracing::dispatcher::with_default(&dispatch, || futures::executor::block_on(work(recorder)))
}

#[test]
fn records_report_no_events() {
    with_recorder(async |recorder| {
        let wal = Wal::options().open_with(MemoryStorage::new()).await.unwrap();
        let policy = wal.sync_every(SyncEvery::records(7)).unwrap();
        recorder.take();
        let changes = wal.typed::<Change, KeyValue>();
        let mut sink = wal.sink();
        for _ in 0..20 {
            wal.append(b"x").await.unwrap();
            wal.append_and_sync(b"x").await.unwrap();
            wal.append_with(b"x", Durability::Written).await.unwrap();
            let lsn = wal.append_with(b"x", Durability::Synced).await.unwrap().lsn;
            wal.append_batch([b"x", b"y"]).await.unwrap();
            wal.enqueue(b"x").await.unwrap().synced().await.unwrap();
            wal.try_enqueue(b"x").unwrap();
            changes.append(Change::NoOp).await.unwrap();
            sink.send(Bytes::from_static(b"x")).await.unwrap();
            wal.sync().await.unwrap();
            wal.read(lsn).await.unwrap();
        }
        let _ = wal.stats();
        drop(policy);
        assert_eq!(recorder.take(), [], "appends must report no event and no span");
    });
}

#[test]
fn open_rotate_and_close_report_at_their_levels() {
    with_recorder(async |recorder| {
        let disk = Disk::new(1);
        let wal = small().open_with(disk.clone()).await.unwrap();
        let events = recorder.take();
        assert_eq!(Recorder::count(&events, Level::INFO, "log="), 1, "{events:?}");
        assert!(Recorder::count(&events, Level::DEBUG, "span opening log=") > 0, "{events:?}");
        while wal.stats().rotation_count < 3 {
            wal.append(vec![1; 500]).await.unwrap();
        }
        let events = recorder.take();
        assert_eq!(Recorder::count(&events, Level::DEBUG, "rotated"), 3, "{events:?}");
        assert!(
            Recorder::count(&events, Level::DEBUG, "prepared the next segment") >= 3,
            "{events:?}"
        );
        assert!(events.iter().all(|line| line.0 == Level::DEBUG), "{events:?}");
        let crashed = disk.crash(Survival::Nothing);
        wal.close().await.unwrap();
        let events = recorder.take();
        assert_eq!(Recorder::count(&events, Level::DEBUG, "the log is closed"), 1, "{events:?}");
        assert_eq!(events.len(), 1, "{events:?}");
        let again = small().open_with(crashed).await.unwrap();
        let report = format!("{}", again.recovery());
        let events = recorder.take();
        let reports = events.iter().filter(|line| line.1.contains(&report));
        assert_eq!(reports.count(), 1, "{report}: {events:?}");
    });
}

#[test]
fn failures_and_slow_flushes_are_reported_once() {
    with_recorder(async |recorder| {
        let faults = Faults::new();
        let wal = small().open_with(faults.over(MemoryStorage::new())).await.unwrap();
        faults.on(Op::Sync).once().delay(Duration::from_millis(1001));
        recorder.take();
        wal.append_and_sync(b"slow").await.unwrap();
        wal.append_and_sync(b"fast").await.unwrap();
        let events = recorder.take();
        assert_eq!(Recorder::count(&events, Level::WARN, "a slow flush"), 1, "{events:?}");
        assert_eq!(events.len(), 1, "{events:?}");
        // A full device, and then free space again.
        faults.on(Op::Create).fail(std::io::ErrorKind::StorageFull);
        let error = loop {
            if let Err(error) = wal.append(vec![1; 900]).await {
                break error;
            }
        };
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        let events = recorder.take();
        assert!(Recorder::count(&events, Level::WARN, "are refused") > 0, "{events:?}");
        faults.heal();
        wal.append(vec![1; 900]).await.unwrap();
        let events = recorder.take();
        assert_eq!(Recorder::count(&events, Level::INFO, "can be prepared again"), 1, "{events:?}");
        faults.on(Op::Write).fail(std::io::ErrorKind::Other);
        for _ in 0..3 {
            wal.append(b"x").await.unwrap_err();
        }
        let events = recorder.take();
        assert_eq!(Recorder::count(&events, Level::ERROR, "the log has stopped"), 1, "{events:?}");
        assert_eq!(events.len(), 1, "{events:?}");
    });
}
