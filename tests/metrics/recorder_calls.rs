//! When the log calls a recorder: without a lock of the log, and without allocating.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{FutureExt, executor::block_on};
use highwater::{
    Wal,
    simulation::{Faults, Op},
    storage::MemoryStorage,
};

use crate::{atomic_recorder::Calling, support::tiny};

thread_local! {
    static ALLOCATION_COUNT: Cell<u64> = const { Cell::new(0) };
    static IS_CALLING: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

// SAFETY: all calls go to the system's allocator, unchanged.
#[allow(unsafe_code, reason = "an allocator that counts")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATION_COUNT.set(ALLOCATION_COUNT.get() + 1);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the allocations of 100 appends and commits in memory, all in this thread.
fn allocation_count() -> u64 {
    block_on(async {
        let wal = Wal::options().open_with(MemoryStorage::new()).await.unwrap();
        let work = async || {
            for _ in 0..100 {
                wal.append(b"record").await.unwrap();
                wal.append_and_sync(b"record").await.unwrap();
            }
        };
        work().await;
        let before = ALLOCATION_COUNT.get();
        work().await;
        let count = ALLOCATION_COUNT.get() - before;
        wal.close().await.unwrap();
        count
    })
}

#[test]
fn metrics_allocate_nothing_per_commit() {
    let without = allocation_count();
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let recorder = Calling(Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    let with = metrics::with_local_recorder(&recorder, allocation_count);
    assert!(calls.load(Ordering::Relaxed) > 200, "the recorder is called");
    // A histogram may grow once; 200 commits would show an allocation for each.
    assert!(with.abs_diff(without) < 20, "{with} allocations, and {without} without metrics");
}

/// A recorder is user code. If it is called under a lock of the log, this test hangs.
#[test]
fn recorder_may_call_the_log() {
    let wal: Arc<Mutex<Option<Wal>>> = Arc::default();
    let calls = Arc::new(AtomicU64::new(0));
    let (of_recorder, counted) = (Arc::clone(&wal), Arc::clone(&calls));
    // The number of further calls that append.
    let appending = Arc::new(AtomicU64::new(100));
    let left = Arc::clone(&appending);
    let recorder = Calling(Arc::new(move || {
        let wal = of_recorder.lock().unwrap().clone();
        let Some(wal) = wal.filter(|_| !IS_CALLING.replace(true)) else { return };
        counted.fetch_add(1, Ordering::Relaxed);
        let _ = (wal.stats(), wal.watermarks(), wal.health().get(), wal.segments());
        let lease = wal.retain(wal.watermarks().first);
        // Not forever, because each append leads to more calls. Polled once, because the job that
        // calls may be the one that would flush.
        let order = Ordering::Relaxed;
        if left.fetch_update(order, order, |left| left.checked_sub(1)).is_ok() {
            let _ = wal.sync().now_or_never();
            let _ = wal.append(b"of the recorder").now_or_never();
            let _ = wal.append_and_sync(b"of the recorder").now_or_never();
        }
        drop(lease);
        wal.publish_metrics();
        IS_CALLING.set(false);
    }));
    metrics::with_local_recorder(&recorder, || {
        block_on(async {
            let faults = Faults::new();
            let options = tiny().recycle_segments(1);
            let opened = options.open_with(faults.over(MemoryStorage::new())).await.unwrap();
            *wal.lock().unwrap() = Some(opened.clone());
            for _ in 0..10 {
                let lsn = opened.append_and_sync(vec![1; 900]).await.unwrap();
                opened.append_batch([vec![1; 900], vec![2; 900]]).await.unwrap();
                drop(opened.retain(lsn).unwrap());
                opened.truncate_before(lsn).await.unwrap();
            }
            appending.store(20, Ordering::Relaxed);
            opened.truncate_after(opened.watermarks().first).await.unwrap();
            assert!(opened.stats().rotation_count > 0 && opened.stats().removed_count > 0);
            faults.on(Op::Sync).fail(std::io::ErrorKind::Other);
            opened.append_and_sync(b"lost?").await.unwrap_err();
            opened.close().await.unwrap_err();
        });
    });
    assert!(calls.load(Ordering::Relaxed) > 100);
    // Dropped without the lock, because the last handle publishes that the log is closed.
    let last = wal.lock().unwrap().take();
    drop(last);
}
