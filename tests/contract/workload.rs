//! Workloads: what tasks do to a log, by script or by seed. A later feature joins every sweep by
//! one more [`Action`].

use std::{cell::RefCell, rc::Rc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use highwater::{
    Error, Lsn, Wal,
    simulation::{self, Disk, Random},
};

use super::{
    copies::{Beside, Copy},
    frame_bytes, is_compressed, open,
    oracle::{Moment, Oracle},
};

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
    /// Has the log begin at the newest of the records that are known.
    TruncateToNewest,
    /// Drops what stands behind one of the records that are known, or, one time in sixteen, all.
    TruncateAfter(usize),
    /// Copies the log to a directory of its own.
    CopyTo,
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
    match random.below(15) {
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
        14 => Action::TruncateAfter(random.below(1 << 20)),
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

/// A log whose beginning follows its end closely, so that its segments are used again and again.
pub(crate) fn turnover_script(seed: u64) -> Script {
    let mut random = Random::new(seed ^ 0x7e_c1c1e);
    let mut sessions = Vec::new();
    for _ in 0..1 + random.below(2) {
        let mut actions = Vec::new();
        for _ in 0..6 + random.below(4) {
            // Some rotate while nothing of their segment is synced.
            let unsynced = (0..random.below(5)).map(|_| 500 + random.below(1200));
            actions.extend(unsynced.map(Action::Append).collect::<Vec<_>>());
            actions.push(Action::AppendAndSync(random.below(1500)));
            actions.push(match random.below(8) {
                0 => random_action(&mut random),
                _ => Action::TruncateToNewest,
            });
        }
        sessions.push((vec![actions], random.one_in(2)));
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

    fn now(&self) -> Moment {
        self.oracle.borrow_mut().now(self.disk.operation_count())
    }

    fn placed(&self, lsn: Lsn, payload: &[u8], began: Moment) {
        self.oracle.borrow_mut().place(lsn, payload, began, self.disk.operation_count());
    }

    fn wrote(&self, lsn: Lsn, began: Moment) {
        let end = Lsn::new(lsn.as_u64() + 1);
        self.oracle.borrow_mut().wrote(end, began, self.disk.operation_count());
    }

    pub(crate) fn synced(&self, end: Lsn, began: Moment) {
        self.oracle.borrow_mut().synced(end, began, self.disk.operation_count());
    }

    /// Whatever the log says of itself counts as acknowledged too.
    fn look(&self) {
        let marks = self.wal.watermarks();
        if marks.synced > marks.written || marks.written > marks.reserved {
            let what = format!("marks out of order: {marks:?}");
            self.oracle.borrow_mut().contradictions.push(what);
        }
        let now = self.now();
        self.synced(marks.synced, now);
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
        match ran {
            // Another task has cut it, or what it waited for.
            Err(Error::Truncated { .. }) => Ok(()),
            ran => ran,
        }
    }

    async fn run_unlimited(&self, action: &Action) -> highwater::Result<()> {
        let began = self.now();
        match action {
            Action::Append(bytes) => {
                let payload = self.payload(*bytes);
                let lsn = self.wal.append(&payload).await?;
                self.placed(lsn, &payload, began);
                self.wrote(lsn, began);
            }
            Action::AppendAndSync(bytes) => {
                let payload = self.payload(*bytes);
                let lsn = self.wal.append_and_sync(&payload).await?;
                self.placed(lsn, &payload, began);
                self.synced(Lsn::new(lsn.as_u64() + 1), began);
            }
            Action::Batch(sizes) => self.batch(sizes).await?,
            Action::Enqueue(bytes) | Action::EnqueueSynced(bytes) => {
                let payload = self.payload(*bytes);
                let ticket = self.wal.enqueue(&payload).await?;
                self.placed(ticket.lsn(), &payload, began);
                if matches!(action, Action::EnqueueSynced(_)) {
                    simulation::yield_now().await;
                    ticket.synced().await?;
                    self.synced(Lsn::new(ticket.lsn().as_u64() + 1), began);
                }
            }
            Action::Sync => {
                let target = self.wal.sync().await?;
                self.synced(target, began);
            }
            Action::Yield => simulation::yield_now().await,
            Action::TruncateBefore(pick) => {
                let picked = self.oracle.borrow().pick(*pick);
                self.truncate_before(picked).await?;
            }
            Action::TruncateToNewest => {
                let newest = self.oracle.borrow().newest();
                self.truncate_before(newest).await?;
            }
            Action::TruncateAfter(pick) => self.truncate_after(*pick).await?,
            Action::CopyTo => self.copy_to().await?,
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

    async fn truncate_before(&self, picked: Option<(Lsn, Lsn)>) -> highwater::Result<()> {
        let Some((lsn, _)) = picked else {
            return Ok(());
        };
        let asked = self.oracle.borrow_mut().ask_first(lsn, self.disk.operation_count());
        let is_done = match self.wal.truncate_before(lsn).await {
            // Within a batch, or cut meanwhile: nothing was changed.
            Err(Error::NotABoundary { .. } | Error::Truncated { .. }) => false,
            answer => answer.map(|()| true)?,
        };
        assert!(!is_done || self.wal.watermarks().first >= lsn);
        self.oracle.borrow_mut().answer_first(asked, is_done, self.disk.operation_count());
        Ok(())
    }

    async fn truncate_after(&self, pick: usize) -> highwater::Result<()> {
        let picked = self.oracle.borrow().pick(pick / 16);
        let picked = picked.filter(|_| pick % 16 > 0);
        let to = picked.map(|(_, end)| end);
        // Where the log begins never moves back.
        let lowest = to.unwrap_or(self.wal.watermarks().first);
        let asked = self.oracle.borrow_mut().ask_cut(lowest, self.disk.operation_count());
        let _told = NoteDrop { session: self, asked };
        let end = match self.wal.truncate_after(picked.map(|(lsn, _)| lsn)).await {
            Ok(end) => {
                assert!(
                    is_compressed() || to.is_none_or(|to| to == end),
                    "asked for {to:?}, ends at {end}"
                );
                Some(end)
            }
            // Within a batch, or cut or truncated from the other end meanwhile: nothing was changed.
            Err(
                Error::NotABoundary { .. } | Error::Truncated { .. } | Error::OutOfRange { .. },
            ) => None,
            Err(error) => return Err(error),
        };
        self.oracle.borrow_mut().answer_cut(asked, end, self.disk.operation_count());
        Ok(())
    }

    async fn copy_to(&self) -> highwater::Result<()> {
        let (asked, began) = (self.wal.watermarks().synced, self.now());
        let number = self.oracle.borrow().copies.len();
        let directory = format!("copy-{number}");
        self.oracle.borrow_mut().copies.push(Copy {
            directory: directory.clone(),
            asked,
            began,
            done: None,
        });
        let target = Beside { disk: self.disk.clone(), directory };
        let copied = self.wal.copy_to_storage(target).await?;
        assert!(copied.end >= asked, "{copied:?}");
        assert!(copied.copied_count == 1, "{copied:?}");
        let done = self.disk.operation_count();
        self.oracle.borrow_mut().copies[number].done = Some(done);
        Ok(())
    }

    async fn batch(&self, sizes: &[usize]) -> highwater::Result<()> {
        let began = self.now();
        let payloads: Vec<_> = sizes.iter().map(|&bytes| self.payload(bytes)).collect();
        self.oracle.borrow_mut().attempted_batches.push(payloads.clone());
        let range = self.wal.append_batch(&payloads).await?;
        if is_compressed() {
            // Where the others stand, the codec knows; all of them are among what was attempted.
            if let Some(payload) = payloads.first() {
                self.placed(range.start, payload, began);
                self.wrote(range.start, began);
            }
            return Ok(());
        }
        let mut at = range.start;
        for payload in &payloads {
            self.placed(at, payload, began);
            at = Lsn::new(at.as_u64() + frame_bytes(payload));
        }
        assert_eq!(at, range.end, "a batch's range covers its frames exactly");
        self.wrote(range.start, began);
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

/// Tells the oracle when nobody waits for a truncation any more.
struct NoteDrop<'a> {
    session: &'a Session,
    asked: usize,
}

impl Drop for NoteDrop<'_> {
    fn drop(&mut self) {
        let now = self.session.disk.operation_count();
        self.session.oracle.borrow_mut().drop_cut(self.asked, now);
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
        oracle.borrow_mut().opened(wal.recovery().end, disk.operation_count());
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
