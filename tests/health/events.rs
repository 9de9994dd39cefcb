//! The events about a stall.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use highwater::{
    simulation::{Faults, Op, Simulation, pass_time},
    storage::MemoryStorage,
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::{
    SECOND, held_commit,
    real::is_alone_with,
    rest,
    support::{small, within},
    thaw,
};

/// Records the events of the thread whose default it is.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<(Level, String)>>>);

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push_str(&format!("{}={value:?} ", field.name()));
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("highwater") && *metadata.level() <= Level::INFO
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn event(&self, event: &Event<'_>) {
        let mut line = String::new();
        event.record(&mut Line(&mut line));
        self.0.lock().unwrap().push((*event.metadata().level(), line));
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// In a simulation the events are reported by the task that lets time pass.
#[test]
fn stall_is_reported_by_events() {
    let recorder = Recorder::default();
    let dispatch = tracing::Dispatch::new(recorder.clone());
    tracing::dispatcher::with_default(&dispatch, || {
        Simulation::new(1).run(async {
            let disk = highwater::simulation::Disk::new(1);
            let wal = small().open_with(disk.clone()).await.unwrap();
            let (gate, commit) = held_commit(&wal, &disk, Op::Sync).await;
            recorder.0.lock().unwrap().clear();
            for _ in 0..9 {
                pass_time(SECOND);
            }
            thaw(&wal, &gate).await;
            commit.await.unwrap();
            rest().await;
        });
    });
    let events = recorder.0.lock().unwrap().clone();
    let levels: Vec<_> = events.iter().map(|(level, _)| *level).collect();
    let warnings = [Level::WARN; 4];
    assert_eq!(levels, [&warnings[..], &[Level::INFO]].concat(), "after 1, 2, 4 and 8 s");
    for part in ["log=", "operation=flushing", "file=\"00000000000000000001.wal\"", "time=1s"] {
        assert!(events[0].1.contains(part), "{part}: {}", events[0].1);
    }
    assert!(events[4].1.contains("returns again"), "{}", events[4].1);
}

/// Runs in a separate process, in which a thread with a stack of the default size can't be started,
/// because no address space has room for that stack. The runtime's threads have another size.
#[test]
#[cfg(target_os = "linux")]
fn missing_watching_thread_is_reported_once() {
    let stack = ("RUST_MIN_STACK", "140737488355328");
    if !is_alone_with("events::missing_watching_thread_is_reported_once", &[stack]) {
        return;
    }
    let recorder = Recorder::default();
    tracing::subscriber::set_global_default(recorder.clone()).unwrap();
    let warnings = || {
        let events = recorder.0.lock().unwrap();
        let warnings = events.iter().filter(|(level, _)| *level == Level::WARN);
        warnings.map(|(_, text)| text.clone()).collect::<Vec<_>>()
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(1).thread_stack_size(1 << 20).enable_all().build().unwrap().block_on(
        async {
            let open = || small().open_with(Faults::new().over(MemoryStorage::new()).on_pool());
            let (wal, other) = (open().await.unwrap(), open().await.unwrap());
            wal.append_and_sync("first").await.unwrap();
            let reported = async {
                while warnings().is_empty() {
                    tokio::task::yield_now().await;
                }
            };
            within("the warning", reported).await;
            for _ in 0..20 {
                wal.append_and_sync("later").await.unwrap();
                other.append_and_sync("other").await.unwrap();
            }
            tokio::time::sleep(2 * SECOND).await;
            wal.append_and_sync("the next attempt").await.unwrap();
            wal.close().await.unwrap();
            other.close().await.unwrap();
        },
    );
    let warnings = warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in ["log=", "error=", "no thread can be started"] {
        assert!(warnings[0].contains(part), "{part}: {}", warnings[0]);
    }
}
