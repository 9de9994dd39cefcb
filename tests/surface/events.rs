//! What the log tells an operator through `tracing`, and what it keeps to itself.

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

/// Keeps every event and span of the thread it is the default of.
#[derive(Clone, Default)]
struct Ear {
    heard: Arc<Mutex<Vec<(Level, String)>>>,
    span_count: Arc<AtomicU64>,
}

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("highwater")
    }
    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        self.hear(*span.metadata().level(), |line| {
            line.0.push_str(&format!("span {} ", span.metadata().name()));
            span.record(line);
        });
        span::Id::from_u64(self.span_count.fetch_add(1, Ordering::Relaxed) + 1)
    }
    fn event(&self, event: &Event<'_>) {
        self.hear(*event.metadata().level(), |line| event.record(line));
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

impl Ear {
    fn hear(&self, level: Level, write: impl FnOnce(&mut Line<'_>)) {
        let mut line = String::new();
        write(&mut Line(&mut line));
        self.heard.lock().unwrap().push((level, line));
    }

    /// What was heard since it was last asked.
    fn take(&self) -> Vec<(Level, String)> {
        std::mem::take(&mut self.heard.lock().unwrap())
    }

    /// How many lines of `level` contain `text`.
    fn count(heard: &[(Level, String)], level: Level, text: &str) -> usize {
        heard.iter().filter(|line| line.0 == level && line.1.contains(text)).count()
    }
}

/// In memory the log works on the caller's thread, so all of it is heard.
fn listening<T>(work: impl AsyncFnOnce(Ear) -> T) -> T {
    let ear = Ear::default();
    let dispatch = tracing::Dispatch::new(ear.clone());
    tracing::dispatcher::with_default(&dispatch, || futures::executor::block_on(work(ear)))
}

#[test]
fn nothing_is_said_for_a_record() {
    listening(async |ear| {
        let wal = Wal::options().open_with(MemoryStorage::new()).await.unwrap();
        let policy = wal.sync_every(SyncEvery::records(7)).unwrap();
        ear.take();
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
        assert_eq!(ear.take(), [], "neither an event nor a span");
    });
}

#[test]
fn openings_rotations_and_ends_are_told_at_their_levels() {
    listening(async |ear| {
        let disk = Disk::new(1);
        let wal = small().open_with(disk.clone()).await.unwrap();
        let heard = ear.take();
        assert_eq!(Ear::count(&heard, Level::INFO, "log="), 1, "{heard:?}");
        assert!(Ear::count(&heard, Level::DEBUG, "span opening log=") > 0, "{heard:?}");
        while wal.stats().rotation_count < 3 {
            wal.append(vec![1; 500]).await.unwrap();
        }
        let heard = ear.take();
        assert_eq!(Ear::count(&heard, Level::DEBUG, "rotated"), 3, "{heard:?}");
        assert!(Ear::count(&heard, Level::DEBUG, "prepared the next segment") >= 3, "{heard:?}");
        assert!(heard.iter().all(|line| line.0 == Level::DEBUG), "{heard:?}");
        let crashed = disk.crash(Survival::Nothing);
        wal.close().await.unwrap();
        let heard = ear.take();
        assert_eq!(Ear::count(&heard, Level::DEBUG, "the log is closed"), 1, "{heard:?}");
        assert_eq!(heard.len(), 1, "{heard:?}");
        let again = small().open_with(crashed).await.unwrap();
        let told = format!("{}", again.recovery());
        let heard = ear.take();
        let reports = heard.iter().filter(|line| line.1.contains(&told));
        assert_eq!(reports.count(), 1, "{told}: {heard:?}");
    });
}

#[test]
fn failures_and_slowness_are_told_once_and_loudly() {
    listening(async |ear| {
        let faults = Faults::new();
        let wal = small().open_with(faults.over(MemoryStorage::new())).await.unwrap();
        faults.on(Op::Sync).once().delay(Duration::from_millis(1001));
        ear.take();
        wal.append_and_sync(b"slow").await.unwrap();
        wal.append_and_sync(b"fast").await.unwrap();
        let heard = ear.take();
        assert_eq!(Ear::count(&heard, Level::WARN, "a slow flush"), 1, "{heard:?}");
        assert_eq!(heard.len(), 1, "{heard:?}");
        // A full device, and one that has space again.
        faults.on(Op::Create).fail(std::io::ErrorKind::StorageFull);
        let error = loop {
            if let Err(error) = wal.append(vec![1; 900]).await {
                break error;
            }
        };
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        let heard = ear.take();
        assert!(Ear::count(&heard, Level::WARN, "are refused") > 0, "{heard:?}");
        faults.heal();
        wal.append(vec![1; 900]).await.unwrap();
        let heard = ear.take();
        assert_eq!(Ear::count(&heard, Level::INFO, "there is space again"), 1, "{heard:?}");
        faults.on(Op::Write).fail(std::io::ErrorKind::Other);
        for _ in 0..3 {
            wal.append(b"x").await.unwrap_err();
        }
        let heard = ear.take();
        assert_eq!(Ear::count(&heard, Level::ERROR, "the log has stopped"), 1, "{heard:?}");
        assert_eq!(heard.len(), 1, "{heard:?}");
    });
}
