//! Inline writes in simulations: tasks do them, and other tasks run beside them.

use std::io::ErrorKind;

use highwater::simulation::{self, Disk, Event, Op, Simulation};

use crate::{Watched, here_count, support::small};

/// Returns the events of a run, and the number of writes that its tasks did.
fn run(seed: u64, inline_bytes: u64, is_promising: bool) -> (Vec<Event>, usize) {
    let disk = Disk::new(seed);
    disk.set_nonblocking_writes(is_promising);
    let faults = disk.faults().clone();
    faults.record(true);
    faults.on(Op::WriteNonblocking).one_in(4).short(20);
    faults.on(Op::WriteNonblocking).one_in(4).fail(ErrorKind::WouldBlock);
    let (storage, seen) = Watched::new(disk);
    let here = Simulation::new(seed).run(async {
        let wal = small().inline_writes(inline_bytes).open_with(storage).await.unwrap();
        let tasks: Vec<_> = (0..3u8)
            .map(|task| {
                let wal = wal.clone();
                simulation::spawn(async move {
                    for i in 0..10u8 {
                        wal.append(&[task; 30]).await.unwrap();
                        if i % 4 == task {
                            wal.sync().await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        wal.close().await.unwrap();
        here_count(&seen)
    });
    (faults.events(), here)
}

#[test]
fn simulated_tasks_write_inline() {
    let mut during_a_flush = 0;
    for seed in 0..20 {
        assert_eq!(run(seed, 0, false).1, 0, "no inline writes by default");
        assert!(run(seed, 4096, false).1 > 3, "too few blocking inline writes");
        let (events, here) = run(seed, 0, true);
        assert!(here > 3, "too few nonblocking inline writes");
        let mut open_flushes = 0;
        for event in &events {
            match event {
                Event::SyncBegan { .. } => open_flushes += 1,
                Event::SyncEnded { .. } => open_flushes -= 1,
                Event::Wrote(wrote) if wrote.is_nonblocking && open_flushes > 0 => {
                    during_a_flush += 1;
                }
                _ => {}
            }
        }
    }
    assert!(during_a_flush > 0, "no inline write overlapped a flush");
}

#[test]
fn same_seed_gives_same_run() {
    for seed in 0..6 {
        let (events, here) = run(seed, 64, true);
        assert_eq!(run(seed, 64, true), (events, here));
    }
}
