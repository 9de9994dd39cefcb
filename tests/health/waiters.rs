//! `OnStall::FailWaiters` and `OnStall::Stop`: the result of each caller, and the records in the
//! log afterwards.

use bytes::Bytes;
use futures::{FutureExt, SinkExt, TryStreamExt, future::join_all};
use highwater::{
    Durability, Error, Lsn, OnStall, Wal,
    raft::{Entries, RaftLog},
    simulation::{self, Disk, Op, Simulation, pass_time},
};

use crate::{
    AFTER, SECOND, held_commit, rest, simulated,
    support::{RING_PAYLOAD_BYTES, cause, small},
    thaw,
};

fn failing() -> highwater::Options {
    small().on_stall(OnStall::FailWaiters { after: AFTER })
}

/// Returns the LSN of an `Indeterminate` error.
fn unknown<T: std::fmt::Debug>(result: Result<T, Error>) -> Lsn {
    match result {
        Err(Error::Indeterminate { lsn }) => lsn,
        other => panic!("not indeterminate: {other:?}"),
    }
}

/// Returns all records. There is no clock for a limit here.
async fn records(wal: &Wal) -> Vec<(Lsn, Vec<u8>)> {
    let all = wal.replay(..).map_ok(|record| (record.lsn, record.payload.to_vec()));
    all.try_collect().await.unwrap()
}

/// Checks that no ring space has leaked.
async fn assert_ring_is_whole(wal: &Wal) {
    wal.append_and_sync(vec![0xee; RING_PAYLOAD_BYTES]).await.unwrap();
}

/// Checks that the log holds exactly these payloads, in this order.
async fn assert_holds(wal: &Wal, expected: &[(Lsn, &str)]) {
    let found = records(wal).await;
    let expected: Vec<_> =
        expected.iter().map(|(lsn, payload)| (*lsn, payload.as_bytes().to_vec())).collect();
    assert_eq!(found, expected);
}

#[test]
fn every_wait_for_sync_fails_during_a_held_flush() {
    simulated(&failing(), async |wal, disk| {
        let begun = wal.append("begun").await.unwrap();
        let gate = disk.faults().on(Op::Sync).once().gate();
        let ticket = wal.enqueue("ticket").await.unwrap();
        let mut sink = wal.sink();
        sink.feed(Bytes::from_static(b"sink")).await.unwrap();
        let mut waiting = {
            let wal = wal.clone();
            simulation::spawn(async move {
                futures::join!(
                    wal.append_and_sync("commit"),
                    wal.append_with("with", Durability::Synced),
                    ticket.synced(),
                    wal.sync(),
                    wal.sync_to(begun),
                    wal.wait_synced(begun),
                    sink.flush(),
                )
            })
        };
        gate.reached(1).await;
        pass_time(AFTER - SECOND);
        rest().await;
        assert!((&mut waiting).now_or_never().is_none(), "they wait until the limit");
        pass_time(SECOND);
        let (commit, with, ticket, sync, sync_to, wait, flush) = waiting.await.unwrap();
        let (commit, with) = (unknown(commit), unknown(with.map(|with| with.lsn)));
        let ticket = unknown(ticket);
        assert!(unknown(sync) > begun && unknown(flush) > begun);
        assert_eq!((unknown(sync_to), unknown(wait)), (begun, begun));
        // While the stall lasts: a new commit fails at once, a write does not wait for a flush.
        let late = unknown(wal.append_and_sync("late").await);
        let written = wal.append("written").await.unwrap();
        thaw(&wal, &gate).await;
        wal.sync().await.unwrap();
        let after = wal.append_and_sync("after").await.unwrap();
        let sink = records(&wal).await[2].0;
        let mut expected = vec![
            (begun, "begun"),
            (ticket, "ticket"),
            (sink, "sink"),
            (commit, "commit"),
            (with, "with"),
            (late, "late"),
            (written, "written"),
            (after, "after"),
        ];
        expected.sort();
        assert_holds(&wal, &expected).await;
        assert_ring_is_whole(&wal).await;
    });
}

#[test]
fn every_wait_for_a_write_fails_during_a_held_write() {
    simulated(&failing(), async |wal, disk| {
        let gate = disk.faults().on(Op::Write).once().gate();
        let ticket = wal.enqueue("ticket").await.unwrap();
        let waiting = {
            let wal = wal.clone();
            simulation::spawn(async move {
                futures::join!(
                    wal.append("append"),
                    wal.append_batch(["one", "two"]),
                    wal.append_with("with", Durability::Written),
                    ticket.written(),
                    wal.append_and_sync("commit"),
                    wal.read(ticket.lsn()),
                )
            })
        };
        gate.reached(1).await;
        rest().await;
        pass_time(AFTER);
        let (append, batch, with, ticket, commit, read) = waiting.await.unwrap();
        let ticket = unknown(ticket);
        assert_eq!(unknown(read), ticket);
        let placed = [unknown(append), unknown(batch), unknown(with.map(|with| with.lsn))];
        let commit = unknown(commit);
        let tail = wal.watermarks().reserved;
        assert_eq!(unknown(wal.append_if(tail, "if").await), tail);
        // The ring takes records as long as it has room, and then refuses them.
        let queued = wal.enqueue("queued").await.unwrap().lsn();
        let refused = wal.append(vec![0; RING_PAYLOAD_BYTES]).await;
        assert!(matches!(refused, Err(Error::Stalled { .. })), "{refused:?}");
        let end = wal.watermarks().reserved;
        thaw(&wal, &gate).await;
        assert_eq!(wal.sync().await.unwrap(), end, "nothing was appended by the refused call");
        let two = records(&wal).await.iter().find(|(_, payload)| payload == b"two").unwrap().0;
        let mut expected = vec![
            (ticket, "ticket"),
            (placed[0], "append"),
            (placed[1], "one"),
            (two, "two"),
            (placed[2], "with"),
            (commit, "commit"),
            (tail, "if"),
            (queued, "queued"),
        ];
        expected.sort();
        assert_holds(&wal, &expected).await;
        assert_ring_is_whole(&wal).await;
    });
}

#[test]
fn waits_for_room_fail_and_append_nothing() {
    simulated(&failing(), async |wal, disk| {
        let gate = disk.faults().on(Op::Write).once().gate();
        let first = wal.enqueue(vec![1; RING_PAYLOAD_BYTES]).await.unwrap().lsn();
        gate.reached(1).await;
        let waiting = join_all((0..4u8).map(|byte| {
            let wal = wal.clone();
            simulation::spawn(async move { wal.append_and_sync(vec![byte; 500]).await })
        }));
        rest().await;
        pass_time(AFTER);
        for refused in waiting.await {
            let error = refused.unwrap().unwrap_err();
            let is_named = error.to_string().contains("writing 00000000000000000001.wal");
            assert!(matches!(error, Error::Stalled { .. }) && is_named, "{error}");
        }
        let truncated = wal.truncate_before(first).await;
        assert!(truncated.is_ok(), "it moves nothing: {truncated:?}");
        thaw(&wal, &gate).await;
        wal.sync().await.unwrap();
        assert_eq!(records(&wal).await.len(), 1);
        assert_ring_is_whole(&wal).await;
    });
}

#[test]
fn waits_for_a_segment_fail_during_a_held_creation() {
    simulated(&failing(), async |wal, disk| {
        let gate = disk.faults().on(Op::Create).once().gate();
        let filling = {
            let wal = wal.clone();
            simulation::spawn(async move {
                let mut count = 0;
                loop {
                    match wal.append(vec![1; 900]).await {
                        Ok(_) => count += 1,
                        Err(error) => return (count, error),
                    }
                }
            })
        };
        gate.reached(1).await;
        while !wal.health().get().is_stalled() {
            rest().await;
            pass_time(SECOND);
        }
        pass_time(AFTER);
        let (count, error) = filling.await.unwrap();
        assert!(matches!(error, Error::Stalled { .. }), "{error}");
        assert!(error.to_string().contains("preparing"), "{error}");
        // Records that need no new segment are committed.
        wal.sync().await.unwrap();
        thaw(&wal, &gate).await;
        wal.append_and_sync(vec![1; 900]).await.unwrap();
        assert_eq!(records(&wal).await.len(), count + 1);
    });
}

#[test]
fn dropped_futures_change_nothing_about_a_stall() {
    simulated(&failing(), async |wal, disk| {
        let gate = disk.faults().on(Op::Sync).once().gate();
        let mut dropped = Box::pin(wal.append_and_sync("dropped"));
        assert!(dropped.as_mut().now_or_never().is_none());
        gate.reached(1).await;
        let failed = {
            let wal = wal.clone();
            simulation::spawn(async move { wal.append_and_sync("failed").await })
        };
        rest().await;
        drop(dropped);
        pass_time(AFTER);
        let failed = unknown(failed.await.unwrap());
        thaw(&wal, &gate).await;
        let last = wal.append_and_sync("last").await.unwrap();
        let found = records(&wal).await;
        assert_eq!(found[0].1, b"dropped");
        assert_eq!(found[1..], [(failed, b"failed".to_vec()), (last, b"last".to_vec())]);
    });
}

#[test]
fn raft_completions_fail_once_and_entries_stay() {
    simulation::for_each_seed(20, |seed| {
        Simulation::new(seed).run(async {
            let disk = Disk::new(seed);
            let policy = OnStall::FailWaiters { after: AFTER };
            let options = Wal::options().segment_bytes(16 << 10).on_stall(policy);
            let log = RaftLog::options().wal(options).open_with(disk.clone()).await.unwrap();
            let group = log.group(1);
            #[allow(
                clippy::async_yields_async,
                reason = "the append and its outcome are two waits"
            )]
            let append = async |index: u64| {
                let mut entries = Entries::new();
                entries.push(index, 1, b"entry");
                let (send, receive) = futures::channel::oneshot::channel();
                let ticket = group.append(entries).await.unwrap();
                ticket.on_durable(move |outcome| send.send(outcome).unwrap());
                receive
            };
            append(1).await.await.unwrap().unwrap();
            let gate = disk.faults().on(Op::Sync).once().gate();
            let held = append(2).await;
            gate.reached(1).await;
            pass_time(AFTER);
            let error = held.await.unwrap().unwrap_err();
            assert!(error.log_error().unwrap().is_indeterminate(), "{error}");
            // A new one fails at once, and its entry is in the group.
            let error = append(3).await.await.unwrap().unwrap_err();
            assert!(error.log_error().unwrap().is_indeterminate(), "{error}");
            thaw(log.wal(), &gate).await;
            append(4).await.await.unwrap().unwrap();
            assert_eq!(group.term(4), Some(1));
        });
    });
}

#[test]
fn stop_keeps_the_call_and_the_lock() {
    let options = small().on_stall(OnStall::Stop { after: AFTER });
    simulated(&options, async |wal, disk| {
        let acknowledged = wal.append_and_sync("acknowledged").await.unwrap();
        let gate = disk.faults().on(Op::Sync).once().gate();
        let commit = {
            let wal = wal.clone();
            simulation::spawn(async move { wal.append_and_sync("held").await })
        };
        gate.reached(1).await;
        let synced = wal.watermarks().synced;
        pass_time(AFTER);
        let error = commit.await.unwrap().unwrap_err();
        assert!(cause(&error).contains("flushing"), "{error:#}");
        assert!(
            matches!(&error, Error::Poisoned { cause } if matches!(**cause, Error::Stalled { .. }))
        );
        assert!(wal.append("refused").await.unwrap_err().is_poisoned());
        let mut health = wal.health();
        assert!(health.get().to_string().starts_with("stopped"), "{}", health.get());
        assert!(health.changed().await.unwrap_err().is_poisoned());
        drop(wal);
        rest().await;
        let locked = options.clone().open_with(disk.clone()).await;
        assert!(matches!(locked, Err(Error::Locked { .. })), "the call has not returned");
        gate.open();
        let wal = loop {
            match options.clone().open_with(disk.clone()).await {
                Err(Error::Locked { .. }) => simulation::yield_now().await,
                opened => break opened.unwrap(),
            }
        };
        assert!(wal.watermarks().synced >= synced);
        assert_eq!(wal.read(acknowledged).await.unwrap().payload, "acknowledged");
    });
}

#[test]
fn stall_during_close_fails_no_caller() {
    simulated(&failing(), async |wal, disk| {
        let (gate, commit) = held_commit(&wal, &disk, Op::Sync).await;
        let close = {
            let wal = wal.clone();
            simulation::spawn(async move { wal.close().await })
        };
        rest().await;
        pass_time(SECOND);
        gate.open();
        commit.await.unwrap();
        close.await.unwrap().unwrap();
        assert!(wal.health().get().to_string().starts_with("stopped"));
        pass_time(20 * SECOND);
        assert!(wal.append("refused").await.unwrap_err().is_closed());
    });
}
