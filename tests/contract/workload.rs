//! Workloads: the actions of tasks on a log, by script or by seed. A new feature joins every sweep
//! with one more [`Action`].

use std::{cell::RefCell, rc::Rc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use highwater::{
    Error, Lsn, Wal,
    simulation::{self, Disk, Op, Random},
    storage::{Place, Storage},
};

use super::{
    FAIL_AFTER, STALLED_COUNT,
    copies::{Copy, CopyDirectory},
    frame_bytes, is_compressed, open,
    oracle::{Moment, Oracle},
    slots::{Handles, SlotAction, act},
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
    /// Truncates the beginning to a known record: this number modulo their count.
    TruncateBefore(usize),
    /// Truncates the beginning to the newest known record.
    TruncateToNewest,
    /// Truncates the end after a known record. One time in sixteen, drops all records.
    TruncateAfter(usize),
    /// Copies the log to a new directory.
    CopyTo,
    /// Renames or replaces the directory, or removes its lock.
    Displace(Place),
    /// Holds the next operation of a kind until the waiters have failed, then lets it land.
    Stall(Op),
    /// Uses one of three slots.
    Slot(usize, SlotAction),
    /// Drops the action's future after this many polls.
    Dropped(Box<Action>, usize),
}

/// Sessions of tasks of actions. A session ends with a `close` or with the drop of the last handle.
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
    match random.below(18) {
        15..18 => Action::Slot(random.below(3), SlotAction::of(random.below(8))),
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

/// Returns a script whose log begins close to its end, so that segments are recycled often.
pub(crate) fn turnover_script(seed: u64) -> Script {
    let mut random = Random::new(seed ^ 0x7e_c1c1e);
    let mut sessions = Vec::new();
    for _ in 0..1 + random.below(2) {
        let mut actions = Vec::new();
        for _ in 0..6 + random.below(4) {
            // Some sessions rotate before anything in the segment is synced.
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

/// Returns a script in which slots move, and the log is truncated up to them.
pub(crate) fn slots_script(seed: u64) -> Script {
    let mut random = Random::new(seed ^ 0x510_7555);
    let mut sessions = Vec::new();
    for _ in 0..1 + random.below(3) {
        let mut actions =
            vec![Action::Slot(0, SlotAction::Open), Action::Slot(1, SlotAction::Open)];
        for _ in 0..4 + random.below(5) {
            actions.push(Action::Append(300 + random.below(700)));
            actions.push(Action::AppendAndSync(300 + random.below(700)));
            actions.push(Action::Slot(random.below(2), SlotAction::Advance));
            actions.push(match random.below(8) {
                0 => random_action(&mut random),
                1 => Action::TruncateAfter(random.below(1 << 20)),
                2 => Action::Slot(random.below(3), SlotAction::of(random.below(8))),
                _ => Action::TruncateToNewest,
            });
        }
        let other = (0..random.below(6)).map(|_| random_action(&mut random)).collect();
        sessions.push((vec![actions, other], random.one_in(2)));
    }
    Script { sessions }
}

/// Returns a script in which the directory is renamed or replaced, or loses its lock.
pub(crate) fn displaced_script(seed: u64) -> Script {
    let mut random = Random::new(seed ^ 0xd15_91ace);
    let mut script = random_script(seed);
    let places = [Place::Moved, Place::Replaced, Place::Unlocked];
    let place = places[random.below(places.len())];
    let last = script.sessions.len() - 1;
    let (tasks, closes) = &mut script.sessions[last];
    let at = random.below(tasks[0].len());
    tasks[0].insert(at, Action::Displace(place));
    *closes = true;
    script
}

/// Returns a script in which a task makes the disk hang beside the others. For simulations.
pub(crate) fn stalled_script(seed: u64) -> Script {
    let mut random = Random::new(seed ^ 0x57a_11ed);
    let mut script = random_script(seed);
    for (tasks, _) in &mut script.sessions {
        let mut stalls = Vec::new();
        for _ in 0..1 + random.below(3) {
            stalls.extend((0..random.below(3)).map(|_| Action::Yield));
            let ops = [Op::Sync, Op::Sync, Op::Write, Op::Write, Op::Create, Op::SyncDir];
            stalls.push(Action::Stall(ops[random.below(ops.len())]));
        }
        tasks.push(stalls);
    }
    script
}

/// The place where the tasks of a script run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Running {
    /// In a tokio runtime, with the log's work in the calling task.
    InPlace,
    /// In a simulation.
    Simulated,
}

/// An open log with the oracle that notes its results.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) wal: Wal,
    pub(crate) disk: Disk,
    pub(crate) oracle: Rc<RefCell<Oracle>>,
    pub(crate) next_id: Rc<RefCell<u64>>,
    pub(crate) handles: Handles,
}

impl Session {
    /// Returns a payload that is unique if it has eight bytes, and not zero, unlike a lost sector.
    fn payload(&self, bytes: usize) -> Vec<u8> {
        let mut id = self.next_id.borrow_mut();
        *id += 1;
        let mut random = Random::new(*id << 8 | 0x5a);
        let mut payload: Vec<u8> = (0..bytes).map(|_| random.next_u64() as u8 | 1).collect();
        if is_compressed() {
            // The second half shrinks, so that all but short payloads are compressed.
            payload.iter_mut().skip(bytes / 2).for_each(|byte| *byte = 0xc5);
        }
        if bytes >= 8 {
            payload[..8].copy_from_slice(&(*id << 8 | 1).to_le_bytes());
        }
        self.oracle.borrow_mut().attempted.insert(payload.clone());
        payload
    }

    /// Notes whether a failed append has placed its record.
    fn placed_or<T>(
        &self,
        result: highwater::Result<T>,
        payload: &[u8],
        began: Moment,
    ) -> highwater::Result<T> {
        match &result {
            Err(Error::Indeterminate { lsn }) => self.placed(*lsn, payload, began),
            // Only payloads of eight bytes or more are unique.
            Err(Error::Stalled { .. }) if payload.len() >= 8 => {
                self.oracle.borrow_mut().attempted.remove(payload);
            }
            _ => {}
        }
        result
    }

    /// Holds the next operation until the waiters have failed.
    async fn stall(&self, op: Op) {
        let gate = self.disk.faults().on(op).once().gate();
        for _ in 0..40 {
            simulation::yield_now().await;
        }
        simulation::pass_time(FAIL_AFTER);
        for _ in 0..40 {
            simulation::yield_now().await;
        }
        gate.open();
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
        let mut oracle = self.oracle.borrow_mut();
        oracle.synced(end, began, self.disk.operation_count());
        oracle.saw_synced_mark(self.wal.watermarks().synced, self.disk.operation_count());
    }

    /// Checks the order of the marks, and notes the synced one as acknowledged.
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
            // A simulation detects by itself that all tasks wait.
            Running::Simulated => self.run_unlimited(action).await,
            // In the calling task every action is quick, so a slow one hangs.
            Running::InPlace => {
                tokio::time::timeout(Duration::from_secs(10), self.run_unlimited(action))
                    .await
                    .unwrap_or_else(|_| panic!("{action:?} hangs, {:?}", self.wal))
            }
        };
        self.look();
        match ran {
            // Another task has truncated this record, or the one that it waited for.
            Err(Error::Truncated { .. }) => Ok(()),
            // The disk hung, and the log continues.
            Err(Error::Indeterminate { .. } | Error::Stalled { .. }) => {
                STALLED_COUNT.set(STALLED_COUNT.get() + 1);
                Ok(())
            }
            ran => ran,
        }
    }

    async fn run_unlimited(&self, action: &Action) -> highwater::Result<()> {
        let began = self.now();
        match action {
            Action::Append(bytes) => {
                let payload = self.payload(*bytes);
                let lsn = self.placed_or(self.wal.append(&payload).await, &payload, began)?;
                self.placed(lsn, &payload, began);
                self.wrote(lsn, began);
            }
            Action::AppendAndSync(bytes) => {
                let payload = self.payload(*bytes);
                let result = self.wal.append_and_sync(&payload).await;
                let lsn = self.placed_or(result, &payload, began)?;
                self.placed(lsn, &payload, began);
                self.synced(Lsn::new(lsn.as_u64() + 1), began);
            }
            Action::Batch(sizes) => self.batch(sizes).await?,
            Action::Enqueue(bytes) | Action::EnqueueSynced(bytes) => {
                let payload = self.payload(*bytes);
                let ticket = self.placed_or(self.wal.enqueue(&payload).await, &payload, began)?;
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
            Action::Slot(name, action) => {
                let now = || self.now();
                act(&self.wal, &self.handles, &self.oracle, now, *name, *action).await?;
            }
            Action::Displace(place) => self.disk.set_place(*place),
            Action::Stall(op) => self.stall(*op).await,
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
        let requested =
            self.oracle.borrow_mut().begin_truncate_before(lsn, self.disk.operation_count());
        let first = match self.wal.truncate_before(lsn).await {
            // The position is within a batch, or was truncated meanwhile: no change.
            Err(Error::NotABoundary { .. } | Error::Truncated { .. }) => None,
            answer => Some(answer?),
        };
        assert!(first.is_none_or(|first| self.wal.watermarks().first >= first));
        self.oracle.borrow_mut().end_truncate_before(requested, first, self.disk.operation_count());
        Ok(())
    }

    async fn truncate_after(&self, pick: usize) -> highwater::Result<()> {
        let picked = self.oracle.borrow().pick(pick / 16);
        let picked = picked.filter(|_| pick % 16 > 0);
        let to = picked.map(|(_, end)| end);
        // The beginning never moves back.
        let lowest = to.unwrap_or(self.wal.watermarks().first);
        let requested =
            self.oracle.borrow_mut().begin_truncate_after(lowest, self.disk.operation_count());
        let _note = NoteDrop { session: self, requested };
        let end = match self.wal.truncate_after(picked.map(|(lsn, _)| lsn)).await {
            Ok(end) => {
                assert!(
                    is_compressed() || to.is_none_or(|to| to == end),
                    "requested {to:?}, but it ends at {end}"
                );
                Some(end)
            }
            // Within a batch, or truncated at either end meanwhile: no change.
            Err(
                Error::NotABoundary { .. }
                | Error::Truncated { .. }
                | Error::BelowFirst { .. }
                | Error::AboveEnd { .. },
            ) => None,
            Err(error) => return Err(error),
        };
        self.oracle.borrow_mut().end_truncate_after(requested, end, self.disk.operation_count());
        Ok(())
    }

    async fn copy_to(&self) -> highwater::Result<()> {
        let (requested, began) = (self.wal.watermarks().synced, self.now());
        let number = self.oracle.borrow().copies.len();
        let directory = format!("copy-{number}");
        self.oracle.borrow_mut().copies.push(Copy {
            directory: directory.clone(),
            requested,
            began,
            done: None,
        });
        let target = CopyDirectory { disk: self.disk.clone(), directory };
        let copied = self.wal.copy_to_storage(target).await?;
        assert!(copied.end >= requested, "{copied:?}");
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
            // The codec decides the positions of the others. All are noted as attempted.
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
        assert_eq!(at, range.end, "a batch's range must cover exactly its frames");
        self.wrote(range.start, began);
        Ok(())
    }

    /// Runs the tasks concurrently. Returns whether all completed all actions.
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

/// Notes in the oracle when the future of a truncation is dropped.
struct NoteDrop<'a> {
    session: &'a Session,
    requested: usize,
}

impl Drop for NoteDrop<'_> {
    fn drop(&mut self) {
        let now = self.session.disk.operation_count();
        self.session.oracle.borrow_mut().drop_truncate_after(self.requested, now);
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
        // A failed write that was still pending ends before the log is reopened.
        disk.faults().land();
        disk.set_place(Place::Kept);
        let Ok(wal) = open(disk.clone()).await else {
            break;
        };
        oracle.borrow_mut().opened(wal.recovery().end, disk.operation_count());
        let session = Session {
            wal,
            disk: disk.clone(),
            oracle: Rc::clone(&oracle),
            next_id: Rc::clone(&next_id),
            handles: Handles::default(),
        };
        session.look();
        let done = session.run_tasks(tasks, running).await;
        session.look();
        let (slots, began) = (session.wal.slots(), session.now());
        if !done || (*closes && session.wal.close().await.is_err()) {
            break;
        }
        // The close makes the last moves durable.
        for slot in slots.into_iter().filter(|_| *closes) {
            let now = session.now();
            oracle.borrow_mut().slots.closed.push((slot.name, slot.position, began, now));
        }
        if *closes && disk.check_place().is_ok_and(|place| place != Place::Kept) {
            let what = "a log was closed although its directory has moved".to_owned();
            session.oracle.borrow_mut().contradictions.push(what);
        }
        if *closes {
            session.oracle.borrow_mut().closed.push(disk.operation_count());
        }
        session.look();
    }
    oracle.take()
}
