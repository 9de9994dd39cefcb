//! Writes in place in simulations: they are done by the tasks, and others run beside them.

use std::io::ErrorKind;

use highwater::simulation::{self, Disk, Event, Op, Simulation};

use crate::{Watched, here_count, support::small};

/// What a run does, and how many writes its tasks did themselves.
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
fn tasks_of_a_simulation_write_themselves() {
    let mut during_a_flush = 0;
    for seed in 0..20 {
        assert_eq!(run(seed, 0, false).1, 0, "nothing in place, unless it is asked for");
        assert!(run(seed, 4096, false).1 > 3, "plain writes");
        let (events, here) = run(seed, 0, true);
        assert!(here > 3, "writes that don't wait");
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
    assert!(during_a_flush > 0, "a write in place beside a flush");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..6 {
        let (events, here) = run(seed, 64, true);
        assert_eq!(run(seed, 64, true), (events, here));
    }
}
