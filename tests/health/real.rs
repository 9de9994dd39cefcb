//! Real threads and real time: the watching thread, both runtimes, paused time, events.

use std::time::Duration;

use highwater::{
    Error, Health, InlineSyncs, OnStall, Wal,
    simulation::{Faults, Op},
    storage::MemoryStorage,
};
use tokio::runtime::{Builder, Runtime};
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::support::{reached, small, within};

const SHORT: Duration = Duration::from_millis(40);

fn runtimes() -> [Runtime; 2] {
    let current = Builder::new_current_thread().enable_all().build().unwrap();
    let multi = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    [current, multi]
}

/// Holds a flush until waiters have failed, then lets it land.
async fn stall_and_recover(wal: Wal, faults: &Faults) {
    let mut health = wal.health();
    let gate = faults.on(Op::Sync).once().gate();
    let commit = tokio::spawn({
        let wal = wal.clone();
        async move { wal.append_and_sync("held").await }
    });
    reached(&gate, 1).await;
    let stalled = within("the stall", health.wait_for(Health::is_stalled)).await.unwrap();
    assert!(stalled.to_string().contains("flushing"), "{stalled}");
    let failed = within("the waiter", commit).await.unwrap().unwrap_err();
    let Error::Indeterminate { lsn } = failed else { panic!("{failed}") };
    assert!(wal.append_and_sync("late").await.unwrap_err().is_indeterminate());
    gate.open();
    let is_slow = |health: &Health| matches!(health, Health::Slow);
    within("the end of the stall", health.wait_for(is_slow)).await.unwrap();
    within("the next commit", wal.append_and_sync("after")).await.unwrap();
    assert!(wal.watermarks().synced > lsn);
    assert_eq!(wal.stats().stall_count, 1);
    assert!(wal.stats().stalled_time >= SHORT);
    wal.close().await.unwrap();
}

#[test]
fn stall_is_seen_on_both_runtimes() {
    for runtime in runtimes() {
        runtime.block_on(async {
            let faults = Faults::new();
            let policy = OnStall::FailWaiters { after: 2 * SHORT };
            let options = small().stall_after(SHORT).on_stall(policy);
            let wal = options.open_with(faults.over(MemoryStorage::new()).on_pool());
            stall_and_recover(wal.await.unwrap(), &faults).await;
        });
    }
}

#[test]
fn stall_is_seen_with_an_io_handle_and_one_thread() {
    let io = Builder::new_multi_thread().worker_threads(1).max_blocking_threads(1).build().unwrap();
    let [current, _] = runtimes();
    current.block_on(async {
        let faults = Faults::new();
        let policy = OnStall::FailWaiters { after: 2 * SHORT };
        let options = small().stall_after(SHORT).on_stall(policy).io_handle(io.handle().clone());
        let wal = options.open_with(faults.over(MemoryStorage::new()).on_pool());
        stall_and_recover(wal.await.unwrap(), &faults).await;
    });
}

/// `within` would end at once, because paused time runs ahead.
#[tokio::test(start_paused = true)]
async fn stall_is_seen_while_tokio_time_is_paused() {
    let faults = Faults::new();
    let options = small().stall_after(SHORT);
    let wal = options.open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
    let mut health = wal.health();
    let gate = faults.on(Op::Sync).once().gate();
    let commit = tokio::spawn({
        let wal = wal.clone();
        async move { wal.append_and_sync("held").await }
    });
    health.wait_for(Health::is_stalled).await.unwrap();
    gate.open();
    commit.await.unwrap().unwrap();
}

/// Returns the names of this process's threads.
#[cfg(target_os = "linux")]
fn thread_names() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).collect()
}

/// Returns whether this process was started for one test. If not, starts such a process, and checks
/// that the test passes there.
pub(crate) fn is_alone(test: &str) -> bool {
    is_alone_with(test, &[])
}

/// As [`is_alone`], with further environment variables.
pub(crate) fn is_alone_with(test: &str, variables: &[(&str, &str)]) -> bool {
    const CHILD: &str = "HIGHWATER_HEALTH_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let test = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .envs(variables.iter().copied())
        .status();
    assert!(test.unwrap().success());
    false
}

/// A subscriber that never returns from a warning, as one does that writes to the disk that hangs.
struct Hangs;

impl Subscriber for Hangs {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn event(&self, event: &Event<'_>) {
        while *event.metadata().level() == Level::WARN {
            std::thread::park();
        }
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// Runs in a separate process, because the subscriber is that of all threads.
#[test]
fn hanging_subscriber_does_not_hide_the_stall() {
    if !is_alone("real::hanging_subscriber_does_not_hide_the_stall") {
        return;
    }
    tracing::subscriber::set_global_default(Hangs).unwrap();
    runtimes()[1].block_on(async {
        let faults = Faults::new();
        let policy = OnStall::FailWaiters { after: 4 * SHORT };
        // A flush that took longer is reported by the job that did it, which would hang here.
        let options = small().stall_after(SHORT).on_stall(policy);
        let wal = options.open_with(faults.over(MemoryStorage::new()).on_pool()).await.unwrap();
        let mut health = wal.health();
        let gate = faults.on(Op::Sync).once().gate();
        let commit = wal.append_and_sync("held");
        let failed = within("the waiter", commit).await.unwrap_err();
        assert!(failed.is_indeterminate(), "{failed}");
        gate.open();
        let is_slow = |health: &Health| matches!(health, Health::Slow);
        within("the end of the stall", health.wait_for(is_slow)).await.unwrap();
        std::process::exit(0);
    });
}

/// Runs in a separate process, as above. The log is closed while it owes the mark of a run.
#[test]
#[cfg(target_os = "linux")]
fn closed_log_has_no_thread() {
    if !is_alone("real::closed_log_has_no_thread") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for runtime in runtimes() {
        runtime.block_on(async {
            let wal = Wal::options().inline_syncs(InlineSyncs::Always);
            let wal = wal.open(directory.path().join("log")).await.unwrap();
            let owes = || wal.stats().written_bytes == wal.watermarks().synced.as_u64();
            for _ in 0..1000 {
                wal.append_and_sync("record").await.unwrap();
                if owes() {
                    break;
                }
            }
            wal.close().await.unwrap();
            let is_watched = || thread_names().iter().any(|name| name.starts_with("highwater-"));
            let ended = async {
                while is_watched() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            within("the end of the thread", ended).await;
            drop(wal);
        });
    }
}

/// Runs in a separate process, because other tests of this file have logs at work.
#[test]
#[cfg(target_os = "linux")]
fn idle_log_has_no_thread() {
    if !is_alone("real::idle_log_has_no_thread") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let is_watched = || thread_names().iter().any(|name| name.starts_with("highwater-watch"));
    runtimes()[1].block_on(async {
        let wal = Wal::open(directory.path().join("log")).await.unwrap();
        let other = Wal::open(directory.path().join("other")).await.unwrap();
        for _ in 0..3 {
            assert!(!is_watched(), "an open log has no thread: {:?}", thread_names());
            wal.append_and_sync("record").await.unwrap();
            other.append_and_sync("record").await.unwrap();
            // A new thread has its parent's name for a moment.
            let named = async {
                while !is_watched() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            within("the thread", named).await;
            let threads = thread_names();
            let watching = threads.iter().filter(|name| name.starts_with("highwater-watch"));
            assert_eq!(watching.count(), 1, "one for the process: {threads:?}");
            let ended = async {
                while is_watched() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            within("the end of the thread", ended).await;
        }
        wal.close().await.unwrap();
        other.close().await.unwrap();
    });
}
