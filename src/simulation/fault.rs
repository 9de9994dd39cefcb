//! Faults: which operations fail, and how.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    simulation::{
        event::{Event, Op},
        faulty::Faulty,
        gate::{Gate, GateState},
        orphan::Orphans,
        random::Random,
    },
    storage::Storage,
    turn,
};

/// The faults of one or several storages, and the record of what was done to them.
///
/// Clones are handles of the same. Rules are tried in the order in which they were planned, once
/// the operation has begun: gates and delays hold it, and the first other rule that applies decides
/// it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// use std::io::ErrorKind;
/// use highwater::{Wal, simulation::{Faults, Op}, storage::MemoryStorage};
///
/// let faults = Faults::new();
/// let wal = Wal::options().open_with(faults.over(MemoryStorage::new())).await?;
/// faults.on(Op::Sync).once().fail(ErrorKind::Other);
/// assert!(wal.append_and_sync(b"never acknowledged").await.is_err());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Faults(Arc<Inner>);

struct Inner {
    rules: Mutex<Vec<Rule>>,
    events: Mutex<Vec<Event>>,
    is_recording: AtomicBool,
    random: Mutex<Random>,
    orphans: Orphans,
    met_count: AtomicU64,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::new()
    }
}

type FileMatcher = Box<dyn Fn(&str) -> bool + Send + Sync>;

struct Rule {
    op: Op,
    file: FileMatcher,
    skip: u64,
    times: u64,
    one_in: usize,
    afterwards: bool,
    action: Action,
}

#[derive(Clone, Debug)]
enum Action {
    Fail(io::ErrorKind),
    FailOs(i32),
    Short(usize),
    Ignore,
    FlipBit,
    Stale,
    Misdirect,
    LandLate(u64),
    Panic,
    Delay(Duration),
    Gate(Arc<GateState>),
}

/// What is to become of an operation.
pub(super) enum Verdict {
    /// It is done, with so many bytes at most.
    Go(usize),
    /// It is not done and answers Ok.
    Ignore,
    /// One bit of it is wrong: the one with this number, modulo their count.
    FlipBit(usize),
    /// Some of its sectors keep what they had: those whose draw says so.
    Stale(Random),
    /// It goes to another place.
    Misdirect(Random),
    /// It fails, and is done after so many operations more.
    LandLate(u64),
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Faults {
    /// No faults yet. Records what is done.
    #[must_use]
    pub fn new() -> Self {
        Self::with_seed(0)
    }

    /// As [`Faults::new`]; what is random of them follows from the seed.
    #[must_use]
    pub fn with_seed(seed: u64) -> Self {
        Faults(Arc::new(Inner {
            rules: Mutex::default(),
            events: Mutex::default(),
            is_recording: AtomicBool::new(true),
            random: Mutex::new(Random::new(seed)),
            orphans: Orphans::default(),
            met_count: AtomicU64::new(0),
        }))
    }

    /// Decorates a storage with these faults.
    pub fn over<S: Storage>(&self, inner: S) -> Faulty<S> {
        Faulty::new(inner, self.clone())
    }

    /// Begins a rule: without further words, for every such operation from now on.
    #[must_use = "a rule holds from its last word on, which says what happens"]
    pub fn on(&self, op: Op) -> Fault {
        let file: FileMatcher = Box::new(|_| true);
        let (skip, times, one_in, afterwards) = (0, u64::MAX, 1, false);
        Fault { faults: self.clone(), op, file, skip, times, one_in, afterwards }
    }

    /// Has all that is to land late land now.
    pub fn land(&self) {
        self.0.orphans.land();
    }

    /// Forgets all rules; what is held by a gate stays held, and what lands late still does.
    pub fn heal(&self) {
        lock(&self.0.rules).clear();
    }

    /// How many operations have met a fault so far.
    #[must_use]
    pub fn met_count(&self) -> u64 {
        self.0.met_count.load(Ordering::Relaxed)
    }

    /// What was done so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        lock(&self.0.events).clone()
    }

    /// Forgets what was recorded.
    pub fn clear(&self) {
        lock(&self.0.events).clear();
    }

    /// How many recorded events are such.
    #[must_use]
    pub fn count(&self, matches: impl Fn(&Event) -> bool) -> usize {
        lock(&self.0.events).iter().filter(|event| matches(event)).count()
    }

    /// Whether what is done is recorded; it is, unless the storage says otherwise.
    pub fn record(&self, records: bool) {
        self.0.is_recording.store(records, Ordering::Relaxed);
    }

    /// Puts a note between the events, for a test to find: an LSN seen there, for example.
    pub fn note(&self, note: u64) {
        self.push(|| Event::Noted { note });
    }

    /// Records an event and gives its index.
    pub(super) fn push(&self, event: impl FnOnce() -> Event) -> usize {
        if !self.0.is_recording.load(Ordering::Relaxed) {
            return 0;
        }
        let mut events = lock(&self.0.events);
        events.push(event());
        events.len() - 1
    }

    pub(super) fn orphans(&self) -> &Orphans {
        &self.0.orphans
    }

    /// Applies the rules: waits, fails, panics, or says what becomes of the operation.
    pub(super) fn meet(&self, op: Op, file: &str) -> io::Result<Verdict> {
        turn::pass();
        self.0.orphans.step();
        let decided = self.decide(op, file, false);
        let error = match decided {
            None | Some(Action::Gate(_) | Action::Delay(_)) => return Ok(Verdict::Go(usize::MAX)),
            Some(Action::Short(bytes)) => return Ok(Verdict::Go(bytes)),
            Some(Action::Ignore) => return Ok(Verdict::Ignore),
            Some(Action::FlipBit) => return Ok(Verdict::FlipBit(self.draw().below(1 << 40))),
            Some(Action::Stale) => return Ok(Verdict::Stale(self.draw())),
            Some(Action::Misdirect) => return Ok(Verdict::Misdirect(self.draw())),
            Some(Action::LandLate(after)) => return Ok(Verdict::LandLate(after)),
            Some(Action::Panic) => panic!("{op:?} of {file} panics, as was planned"),
            Some(Action::Fail(kind)) => io::Error::from(kind),
            Some(Action::FailOs(code)) => io::Error::from_raw_os_error(code),
        };
        self.push(|| Event::Failed { op, file: file.to_owned() });
        Err(error)
    }

    /// The operation is done: holds it back, or has it answer that it failed.
    pub(super) fn leave(&self, op: Op, file: &str) -> io::Result<()> {
        turn::pass();
        let error = match self.decide(op, file, true) {
            Some(Action::Fail(kind)) => io::Error::from(kind),
            Some(Action::FailOs(code)) => io::Error::from_raw_os_error(code),
            _ => return Ok(()),
        };
        self.push(|| Event::Failed { op, file: file.to_owned() });
        Err(error)
    }

    fn draw(&self) -> Random {
        Random::new(lock(&self.0.random).next_u64())
    }

    /// Holds the operation for as long as rules say, and gives what else they say.
    fn decide(&self, op: Op, file: &str, afterwards: bool) -> Option<Action> {
        let mut holds = Vec::new();
        let mut decided = None;
        for rule in lock(&self.0.rules).iter_mut() {
            let is_meant = rule.op == op && rule.afterwards == afterwards && rule.times > 0;
            if !is_meant || !(rule.file)(file) {
                continue;
            }
            if rule.one_in > 1 && !lock(&self.0.random).one_in(rule.one_in) {
                continue;
            }
            let is_hold = matches!(rule.action, Action::Gate(_) | Action::Delay(_));
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if is_hold {
                rule.times -= 1;
                holds.push(rule.action.clone());
            } else if decided.is_none() {
                rule.times -= 1;
                decided = Some(rule.action.clone());
            }
        }
        let is_met = u64::from(decided.is_some() || !holds.is_empty());
        self.0.met_count.fetch_add(is_met, Ordering::Relaxed);
        for hold in holds {
            match hold {
                Action::Gate(gate) => gate.pass(),
                Action::Delay(time) => turn::pause(time),
                _ => {}
            }
        }
        decided
    }
}

/// Whether such a fault has a meaning: one that hasn't would be planned and never seen.
fn can_happen(op: Op, action: &Action, afterwards: bool) -> bool {
    let is_failure = matches!(action, Action::Fail(_) | Action::FailOs(_));
    let is_hold = matches!(action, Action::Gate(_) | Action::Delay(_));
    match op {
        _ if afterwards => {
            matches!(op, Op::Write | Op::WriteNonblocking | Op::Sync | Op::SyncDir)
                && (is_failure || is_hold)
        }
        _ if is_failure || is_hold || matches!(action, Action::Panic) => true,
        Op::Write | Op::WriteNonblocking => true,
        Op::Read => matches!(action, Action::Short(_) | Action::FlipBit),
        Op::Create | Op::Open => false,
        _ => matches!(action, Action::Ignore),
    }
}

/// A rule being planned: which operations, then what happens to them.
///
/// # Panics
///
/// The last word of a rule panics if such an operation can't meet such a fault: only reads and
/// writes can be short or flip a bit, only writes can be stale, misdirected or late, a file that is
/// created or opened can't be ignored, and only writes and syncs have an afterwards, in which they
/// can be held or fail.
#[must_use = "a rule holds from its last word on, which says what happens"]
pub struct Fault {
    faults: Faults,
    op: Op,
    file: FileMatcher,
    skip: u64,
    times: u64,
    one_in: usize,
    afterwards: bool,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault").field("op", &self.op).finish_non_exhaustive()
    }
}

impl Fault {
    /// Only files with such a name; `SyncDir` has none and is called "".
    pub fn file(mut self, matches: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.file = Box::new(matches);
        self
    }

    /// Lets the first `count` pass.
    pub fn skip(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    /// Only so often.
    pub fn times(mut self, count: u64) -> Self {
        self.times = count;
        self
    }

    /// Only once.
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// With a chance of one in `count` each.
    pub fn one_in(mut self, count: usize) -> Self {
        self.one_in = count;
        self
    }

    /// It is done first: for gates, delays and failures of writes and syncs, whose effect is there
    /// before anybody knows of it.
    pub fn afterwards(mut self) -> Self {
        self.afterwards = true;
        self
    }

    /// It fails, and nothing of it is done. `Interrupted` is a signal that came in between; a sync
    /// of a [`Disk`](crate::simulation::Disk) that fails drops what it was to make durable.
    pub fn fail(self, kind: io::ErrorKind) {
        self.end(Action::Fail(kind));
    }

    /// As [`Fault::fail`], with an error of the operating system: 5 is EIO, 28 ENOSPC on Linux.
    pub fn fail_os(self, code: i32) {
        self.end(Action::FailOs(code));
    }

    /// Reads and writes transfer at most so many bytes; 0 is an `Ok(0)`.
    pub fn short(self, bytes: usize) {
        self.end(Action::Short(bytes));
    }

    /// It answers Ok and is not done: a flush that a device only claims, a write that got lost.
    pub fn ignore(self) {
        self.end(Action::Ignore);
    }

    /// One random bit is wrong of what a read gives or a write leaves.
    pub fn flip_bit(self) {
        self.end(Action::FlipBit);
    }

    /// Writes answer Ok, and a random choice of their sectors keeps what was there.
    pub fn stale(self) {
        self.end(Action::Stale);
    }

    /// Writes answer Ok and go to another sector of the file.
    pub fn misdirect(self) {
        self.end(Action::Misdirect);
    }

    /// Writes answer that they timed out, and are done all the same when so many further operations
    /// have begun: the I/O of somebody who gave up, landing late. A log that is opened again before
    /// that can't know of it; [`Faults::land`] before the opening is what a kernel does.
    pub fn land_late(self, operation_count: u64) {
        self.end(Action::LandLate(operation_count));
    }

    /// It panics.
    pub fn panic(self) {
        self.end(Action::Panic);
    }

    /// It takes so much longer; in a [`Simulation`](crate::simulation::Simulation), some turns.
    pub fn delay(self, time: Duration) {
        self.end(Action::Delay(time));
    }

    /// It waits until the gate lets it pass.
    pub fn gate(self) -> Gate {
        let state = Arc::new(GateState::default());
        self.end(Action::Gate(Arc::clone(&state)));
        Gate::new(state)
    }

    fn end(self, action: Action) {
        let Fault { faults, op, file, skip, times, one_in, afterwards } = self;
        assert!(can_happen(op, &action, afterwards), "no such fault of {op:?}: {action:?}");
        let rule = Rule { op, file, skip, times, one_in, afterwards, action };
        lock(&faults.0.rules).push(rule);
    }
}
