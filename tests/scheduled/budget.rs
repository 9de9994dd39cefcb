//! Appends that wait for a budget, beside a slot that moves, a lease, and truncations of the end.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use highwater::{Error, OnBudget, Retention, Slot, Wal};
use shuttle::{
    future::{block_on, spawn, yield_now},
    rand::{Rng, thread_rng},
};

use super::{
    check_one_in,
    disk::Disk,
    disk_after,
    load::{open_when_free, small},
};

/// A schedule appends some segments, so fewer of them take as long as those of another test.
const ONE_IN: usize = 16;

/// Counts the tasks that append. A std atomic, so that shuttle does not switch here.
type Running = Arc<AtomicUsize>;

async fn append(wal: Wal, count: usize, running: Running) {
    for _ in 0..count {
        let payload = vec![7; thread_rng().gen_range(600..900)];
        let appended = match thread_rng().gen_range(0..3) {
            0 => wal.append_and_sync(&payload).await,
            _ => wal.append(&payload).await,
        };
        match appended {
            Ok(_) | Err(Error::Truncated { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    running.fetch_sub(1, Ordering::SeqCst);
}

/// Follows the log with a slot, in any steps, until no task appends any more.
async fn consume(wal: Wal, slot: Slot, running: Running) {
    while running.load(Ordering::SeqCst) > 0 {
        match slot.advance(wal.watermarks().synced) {
            // The end was truncated meanwhile.
            Ok(()) | Err(Error::SlotAhead { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        let (first, durable) = (wal.watermarks().first, wal.slots()[0].durable);
        assert!(Some(first) <= durable, "the log begins at {first}, its slot is at {durable:?}");
        yield_now().await;
    }
}

/// Leases the beginning of the log for a moment.
async fn lease(wal: Wal) {
    if let Ok(lease) = wal.retain(wal.watermarks().first) {
        yield_now().await;
        assert!(wal.watermarks().first <= wal.watermarks().reserved);
        drop(lease);
    }
}

async fn cut(wal: Wal) {
    let marks = wal.watermarks();
    match wal.truncate_after(None).await {
        Ok(end) => assert!(end >= marks.first),
        // There is no segment for the new epoch.
        Err(Error::OverBudget { .. } | Error::BelowFirst { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

async fn check(wal: &Wal, disk: &Disk) {
    let marks = wal.watermarks();
    assert!(marks.first <= marks.reserved, "{marks:?}");
    let after = disk_after(disk).await;
    let marks = after.watermarks();
    assert!(marks.first <= marks.synced, "{}", after.recovery());
}

fn run(when_used_up: OnBudget, consumes: bool, cuts: bool) {
    block_on(async {
        let disk = Disk::new();
        let options = small().retention(Retention::default().bytes(0));
        let wal = options.budget(24 << 10, when_used_up).open_with(disk.clone()).await.unwrap();
        let running = Running::new(AtomicUsize::new(2));
        let mut tasks = Vec::new();
        if consumes {
            let slot = wal.slot("s").await.unwrap();
            tasks.push(spawn(consume(wal.clone(), slot, Arc::clone(&running))));
        }
        tasks.push(spawn(append(wal.clone(), 12, Arc::clone(&running))));
        tasks.push(spawn(append(wal.clone(), 8, running)));
        if when_used_up == OnBudget::Wait {
            tasks.push(spawn(lease(wal.clone())));
        }
        if cuts {
            tasks.push(spawn(cut(wal.clone())));
        }
        for task in tasks {
            task.await.unwrap();
        }
        check(&wal, &disk).await;
        wal.close().await.unwrap();
        drop(open_when_free(&disk).await);
    });
}

#[test]
fn waiting_append_is_freed_by_a_slot() {
    check_one_in(ONE_IN, || run(OnBudget::Wait, true, false));
}

#[test]
fn waiting_append_is_freed_beside_a_cut() {
    check_one_in(ONE_IN, || run(OnBudget::Wait, false, true));
}

#[test]
fn oldest_segments_are_dropped_beside_a_cut() {
    check_one_in(ONE_IN, || run(OnBudget::DropOldest, false, true));
}
