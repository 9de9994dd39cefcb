//! Workloads: what tasks do to a log, by script or by seed. A later feature joins every sweep by
//! one more [`Action`].

use std::{cell::RefCell, rc::Rc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use highwater::{
    Error, Lsn, Wal,
    simulation::{self, Disk, Random},
};

use super::{frame_bytes, is_compressed, open, oracle::Oracle};

#[derive(Clone, Debug)]
pub(crate) enum Action {
    Append(usize),
    AppendAndSync(usize),
    Batch(Vec<usize>),
    Enqueue(usize),
    EnqueueSynced(usize),
    Sync,
    Yield,
    /// Has the log begin at one of the records that are known: this one, modulo their count.
    TruncateBefore(usize),
    /// The action's future is dropped when it has been polled so often.
    Dropped(Box<Action>, usize),
}

/// Sessions of tasks of actions. A session ends with a close or with the last handle dropped.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) sessions: Vec<(Vec<Vec<Action>>, bool)>,
}

fn random_bytes(random: &mut Random) -> usize {
    match random.below(40) {
        0 => 20 << 10,
        1 | 2 => 3000,
        3 => 0,
        n => random.below(if n < 20 { 60 } else { 300 }),
    }
}

fn random_action(random: &mut Random) -> Action {
    let bytes = random_bytes(random);
    match random.below(14) {
        0..3 => Action::Append(bytes),
        3..5 => Action::AppendAndSync(bytes),
        5 | 6 => {
            let count = 2 + random.below(3);
            Action::Batch((0..count).map(|_| random_bytes(random).max(8)).collect())
        }
        7 | 8 => Action::Enqueue(bytes),
        9 => Action::EnqueueSynced(bytes),
        10 => Action::Sync,
        13 => Action::TruncateBefore(random.below(1 << 20)),
        11 => Action::Dropped(Box::new(random_action(random)), 1 + random.below(3)),
        _ => Action::Yield,
    }
}

pub(crate) fn random_script(seed: u64) -> Script {
    let mut random = Random::new(seed);
    let mut sessions = Vec::new();
    for _ in 0..1 + random.below(3) {
        let mut tasks = Vec::new();
        for _ in 0..1 + random.below(3) {
            let count = 2 + random.below(9);
            tasks.push((0..count).map(|_| random_action(&mut random)).collect());
        }
        sessions.push((tasks, random.one_in(2)));
    }
    Script { sessions }
}

/// Where the tasks of a script run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Running {
    /// Under a runtime, the log's work in place.
    InPlace,
    /// In a simulation.
    Simulated,
}

/// One opened log, and the note of what it answers.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) wal: Wal,
    pub(crate) disk: Disk,
    pub(crate) oracle: Rc<RefCell<Oracle>>,
    pub(crate) next_id: Rc<RefCell<u64>>,
}

impl Session {
    /// Unlike any other if it has eight bytes; not zero, so that a lost sector is never mistaken.
    fn payload(&self, bytes: usize) -> Vec<u8> {
        let mut id = self.next_id.borrow_mut();
        *id += 1;
        let mut random = Random::new(*id << 8 | 0x5a);
        let mut payload: Vec<u8> = (0..bytes).map(|_| random.next_u64() as u8 | 1).collect();
        if is_compressed() {
            // Half of it noise: all but short ones shrink.
            payload.iter_mut().skip(bytes / 2).for_each(|byte| *byte = 0xc5);
        }
        if bytes >= 8 {
            payload[..8].copy_from_slice(&(*id << 8 | 1).to_le_bytes());
        }
        self.oracle.borrow_mut().attempted.insert(payload.clone());
        payload
    }

    fn placed(&self, lsn: Lsn, payload: &[u8]) {
        self.oracle.borrow_mut().place(lsn, payload);
    }

    fn wrote(&self, lsn: Lsn) {
        let now = self.disk.operation_count();
        let end = Lsn::new(lsn.as_u64() + 1);
        self.oracle.borrow_mut().written.push((now, end));
    }

    pub(crate) fn synced(&self, end: Lsn) {
        let now = self.disk.operation_count();
        self.oracle.borrow_mut().synced.push((now, end));
    }

    /// Whatever the log says of itself counts as acknowledged too.
    fn look(&self) {
        let marks = self.wal.watermarks();
        if marks.synced > marks.written || marks.written > marks.reserved {
            let what = format!("marks out of order: {marks:?}");
            self.oracle.borrow_mut().contradictions.push(what);
        }
        self.synced(marks.synced);
    }

    pub(crate) async fn run(&self, action: &Action, running: Running) -> highwater::Result<()> {
        let ran = match running {
            // A simulation notices by itself when everybody waits.
            Running::Simulated => self.run_unlimited(action).await,
            // In place everything is quick: what takes long waits for something that never comes.
            Running::InPlace => {
                tokio::time::timeout(Duration::from_secs(10), self.run_unlimited(action))
                    .await
                    .unwrap_or_else(|_| panic!("{action:?} never ends, {:?}", self.wal))
            }
        };
        self.look();
        ran
    }

    async fn run_unlimited(&self, action: &Action) -> highwater::Result<()> {
        match action {
            Action::Append(bytes) => {
                let payload = self.payload(*bytes);
                let lsn = self.wal.append(&payload).await?;
                self.placed(lsn, &payload);
                self.wrote(lsn);
            }
            Action::AppendAndSync(bytes) => {
                let payload = self.payload(*bytes);
                let lsn = self.wal.append_and_sync(&payload).await?;
                self.placed(lsn, &payload);
                self.synced(Lsn::new(lsn.as_u64() + 1));
            }
            Action::Batch(sizes) => self.batch(sizes).await?,
            Action::Enqueue(bytes) | Action::EnqueueSynced(bytes) => {
                let payload = self.payload(*bytes);
                let ticket = self.wal.enqueue(&payload).await?;
                self.placed(ticket.lsn(), &payload);
                if matches!(action, Action::EnqueueSynced(_)) {
                    simulation::yield_now().await;
                    ticket.synced().await?;
                    self.synced(Lsn::new(ticket.lsn().as_u64() + 1));
                }
            }
            Action::Sync => {
                let target = self.wal.sync().await?;
                self.synced(target);
            }
            Action::Yield => simulation::yield_now().await,
            Action::TruncateBefore(pick) => self.truncate_before(*pick).await?,
            Action::Dropped(action, polls) => {
                let mut running = Box::pin(self.run_unlimited(action));
                for _ in 0..*polls {
                    if let std::task::Poll::Ready(ran) = futures::poll!(running.as_mut()) {
                        return ran;
                    }
                    simulation::yield_now().await;
                }
            }
        }
        Ok(())
    }

    async fn truncate_before(&self, pick: usize) -> highwater::Result<()> {
        let lsn = {
            let mut oracle = self.oracle.borrow_mut();
            let count = oracle.placed.len().max(1);
            let Some(lsn) = oracle.placed.keys().nth(pick % count).copied() else {
                return Ok(());
            };
            oracle.asked_first.push((self.disk.operation_count(), lsn));
            lsn
        };
        match self.wal.truncate_before(lsn).await {
            // Within a batch: nothing was changed.
            Err(Error::NotABoundary { .. }) => return Ok(()),
            answer => answer?,
        }
        assert!(self.wal.watermarks().first >= lsn);
        self.oracle.borrow_mut().first.push((self.disk.operation_count(), lsn));
        Ok(())
    }

    async fn batch(&self, sizes: &[usize]) -> highwater::Result<()> {
        let payloads: Vec<_> = sizes.iter().map(|&bytes| self.payload(bytes)).collect();
        self.oracle.borrow_mut().attempted_batches.push(payloads.clone());
        let range = self.wal.append_batch(&payloads).await?;
        if is_compressed() {
            // Where the others stand, the codec knows; all of them are among what was attempted.
            if let Some(payload) = payloads.first() {
                self.placed(range.start, payload);
                self.wrote(range.start);
            }
            return Ok(());
        }
        let mut at = range.start;
        for payload in &payloads {
            self.placed(at, payload);
            at = Lsn::new(at.as_u64() + frame_bytes(payload));
        }
        assert_eq!(at, range.end, "a batch's range covers its frames exactly");
        self.wrote(range.start);
        Ok(())
    }

    /// Runs the tasks beside each other; whether all of them did all that was asked.
    async fn run_tasks(&self, tasks: &[Vec<Action>], running: Running) -> bool {
        let task = |actions: &Vec<Action>| {
            let (session, actions) = (self.clone(), actions.clone());
            async move {
                for action in &actions {
                    session.run(action, running).await?;
                }
                highwater::Result::<()>::Ok(())
            }
        };
        let ended: Vec<_> = match running {
            Running::InPlace => {
                tasks.iter().map(task).collect::<FuturesUnordered<_>>().collect().await
            }
            Running::Simulated => {
                let spawned: Vec<_> =
                    tasks.iter().map(|actions| simulation::spawn(task(actions))).collect();
                let ended = futures::future::join_all(spawned).await;
                ended.into_iter().map(Option::unwrap).collect()
            }
        };
        ended.iter().all(Result::is_ok)
    }
}

/// Runs a script until it ends or the log stops.
pub(crate) async fn run(script: &Script, disk: &Disk, seed: u64, running: Running) -> Oracle {
    run_noting(Oracle::default(), script, disk, seed, running).await
}

pub(crate) async fn run_noting(
    oracle: Oracle,
    script: &Script,
    disk: &Disk,
    seed: u64,
    running: Running,
) -> Oracle {
    let oracle = Rc::new(RefCell::new(oracle));
    let next_id = Rc::new(RefCell::new(seed << 20));
    for (tasks, closes) in &script.sessions {
        // A write that failed is over, whatever it did, when the log is opened again.
        disk.faults().land();
        let Ok(wal) = open(disk.clone()).await else {
            break;
        };
        oracle.borrow_mut().opened(wal.recovery().end);
        let session = Session {
            wal,
            disk: disk.clone(),
            oracle: Rc::clone(&oracle),
            next_id: Rc::clone(&next_id),
        };
        session.look();
        let done = session.run_tasks(tasks, running).await;
        session.look();
        if !done || (*closes && session.wal.close().await.is_err()) {
            break;
        }
        if *closes {
            session.oracle.borrow_mut().closed.push(disk.operation_count());
        }
        session.look();
    }
    oracle.take()
}
