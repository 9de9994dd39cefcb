//! [`Faults`]: rules by which operations fail, and how.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    simulation::{
        event::{Event, Op},
        gate::{Gate, GateState},
        orphan::Orphans,
        random::Random,
    },
    sync::LockAlways,
    turn,
};

/// The faults of one or several storages, and the events of those storages.
///
/// Clones share the same rules and events. Rules apply in the order of their creation. All gates
/// and delays that match hold the operation. The first other rule that matches decides its result.
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

/// The decision about an operation.
pub(super) enum Verdict {
    /// The operation is done, with at most this many bytes.
    Go(usize),
    /// The operation is not done, and reports success.
    Ignore,
    /// The bit with this number, modulo the number of bits, is flipped.
    FlipBit(u64),
    /// Some sectors keep their old contents, as the generator decides.
    Stale(Random),
    /// The write goes to another sector.
    Misdirect(Random),
    /// The write reports a failure, and is done after this many further operations.
    LandLate(u64),
}

impl Faults {
    /// Creates an empty set of rules, which records events.
    #[must_use]
    pub fn new() -> Self {
        Self::with_seed(0)
    }

    /// As [`Faults::new`], with a seed for all random choices.
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

    /// Begins a rule. Without further conditions it applies to every such operation from now on.
    #[must_use = "a rule applies once its effect is set"]
    pub fn on(&self, op: Op) -> Fault {
        let file: FileMatcher = Box::new(|_| true);
        let (skip, times, one_in, afterwards) = (0, u64::MAX, 1, false);
        Fault { faults: self.clone(), op, file, skip, times, one_in, afterwards }
    }

    /// Does all pending late writes now.
    pub fn land(&self) {
        self.0.orphans.land();
    }

    /// Removes all rules. Operations held by a gate stay held, and late writes still land.
    pub fn heal(&self) {
        self.0.rules.lock_always().clear();
    }

    /// Returns how many operations have met a fault so far.
    #[must_use]
    pub fn met_count(&self) -> u64 {
        self.0.met_count.load(Ordering::Relaxed)
    }

    /// Returns all recorded events.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.0.events.lock_always().clone()
    }

    /// Clears the recorded events.
    pub fn clear(&self) {
        self.0.events.lock_always().clear();
    }

    /// Returns how many recorded events match.
    #[must_use]
    pub fn count(&self, matches: impl Fn(&Event) -> bool) -> usize {
        self.0.events.lock_always().iter().filter(|event| matches(event)).count()
    }

    /// Switches the recording of events. It is on, except for the faults of a
    /// [`Disk`](crate::simulation::Disk).
    pub fn record(&self, records: bool) {
        self.0.is_recording.store(records, Ordering::Relaxed);
    }

    /// Records a note between the events, for example an LSN that a test looks for.
    pub fn note(&self, note: u64) {
        self.push(|| Event::Noted { note });
    }

    /// Records an event and returns its index.
    pub(super) fn push(&self, event: impl FnOnce() -> Event) -> usize {
        if !self.0.is_recording.load(Ordering::Relaxed) {
            return 0;
        }
        let mut events = self.0.events.lock_always();
        events.push(event());
        events.len() - 1
    }

    pub(super) fn orphans(&self) -> &Orphans {
        &self.0.orphans
    }

    /// Applies the rules: waits, panics, fails, or returns the decision.
    pub(super) fn meet(&self, op: Op, file: &str) -> io::Result<Verdict> {
        turn::pass();
        self.0.orphans.step();
        let decided = self.decide(op, file, false);
        let error = match decided {
            None | Some(Action::Gate(_) | Action::Delay(_)) => return Ok(Verdict::Go(usize::MAX)),
            Some(Action::Short(bytes)) => return Ok(Verdict::Go(bytes)),
            Some(Action::Ignore) => return Ok(Verdict::Ignore),
            Some(Action::FlipBit) => return Ok(Verdict::FlipBit(self.draw().next_u64() >> 11)),
            Some(Action::Stale) => return Ok(Verdict::Stale(self.draw())),
            Some(Action::Misdirect) => return Ok(Verdict::Misdirect(self.draw())),
            Some(Action::LandLate(after)) => return Ok(Verdict::LandLate(after)),
            Some(Action::Panic) => panic!("{op:?} of {file} panics, because a fault demands it"),
            Some(Action::Fail(kind)) => io::Error::from(kind),
            Some(Action::FailOs(code)) => io::Error::from_raw_os_error(code),
        };
        self.push(|| Event::Failed { op, file: file.to_owned() });
        Err(error)
    }

    /// Applies the rules after a completed operation: holds it, or makes it report a failure.
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
        Random::new(self.0.random.lock_always().next_u64())
    }

    /// Holds the operation as the rules demand, and returns the deciding action.
    fn decide(&self, op: Op, file: &str, afterwards: bool) -> Option<Action> {
        let mut holds = Vec::new();
        let mut decided = None;
        for rule in self.0.rules.lock_always().iter_mut() {
            let is_meant = rule.op == op && rule.afterwards == afterwards && rule.times > 0;
            if !is_meant || !(rule.file)(file) {
                continue;
            }
            if rule.one_in > 1 && !self.0.random.lock_always().one_in(rule.one_in) {
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

/// Returns whether an operation can have such a fault. A rule without effect would stay unnoticed.
fn can_happen(op: Op, action: &Action, afterwards: bool) -> bool {
    let is_failure = matches!(action, Action::Fail(_) | Action::FailOs(_));
    let is_hold = matches!(action, Action::Gate(_) | Action::Delay(_));
    match op {
        _ if afterwards => {
            let has_later_faults = [Op::Write, Op::WriteNonblocking, Op::WriteDurably, Op::Sync]
                .contains(&op)
                || op == Op::SyncDir;
            has_later_faults && (is_failure || is_hold)
        }
        _ if is_failure || is_hold || matches!(action, Action::Panic) => true,
        Op::Write | Op::WriteNonblocking => true,
        Op::WriteDurably => matches!(action, Action::Short(_) | Action::Ignore),
        Op::Read => matches!(action, Action::Short(_) | Action::FlipBit),
        Op::Create | Op::Open => false,
        _ => matches!(action, Action::Ignore),
    }
}

/// A rule under construction: first its conditions, then its effect.
///
/// # Panics
///
/// The method that sets the effect panics if the operation cannot have it. Only reads and writes
/// can be short or flip a bit. Only writes can be stale, misdirected or late. The creation and the
/// opening of a file cannot be ignored. Only writes and syncs can be held or fail
/// [afterwards](Fault::afterwards).
#[must_use = "a rule applies once its effect is set"]
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
    /// Limits the rule to files with a matching name. The name of `SyncDir` is empty.
    pub fn file(mut self, matches: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.file = Box::new(matches);
        self
    }

    /// Skips the first `count` operations.
    pub fn skip(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    /// Applies the rule to at most `count` operations.
    pub fn times(mut self, count: u64) -> Self {
        self.times = count;
        self
    }

    /// Applies the rule to one operation.
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Applies the rule to each operation with a chance of one in `count`.
    pub fn one_in(mut self, count: usize) -> Self {
        self.one_in = count;
        self
    }

    /// Applies the rule after the operation is done but before it returns. For gates, delays and
    /// failures of writes and syncs.
    pub fn afterwards(mut self) -> Self {
        self.afterwards = true;
        self
    }

    /// Makes the operation fail without effect. `Interrupted` simulates a signal. A failed sync of
    /// a [`Disk`](crate::simulation::Disk) drops the bytes that it should have made durable.
    pub fn fail(self, kind: io::ErrorKind) {
        self.end(Action::Fail(kind));
    }

    /// As [`Fault::fail`], with an error code of the operating system. On Linux, 5 is EIO and 28 is
    /// ENOSPC.
    pub fn fail_os(self, code: i32) {
        self.end(Action::FailOs(code));
    }

    /// Limits reads and writes to `bytes` bytes; 0 gives an `Ok(0)`.
    pub fn short(self, bytes: usize) {
        self.end(Action::Short(bytes));
    }

    /// Reports success without effect: a flush that a device only claims, or a lost write. A
    /// durable write becomes an ordinary one.
    pub fn ignore(self) {
        self.end(Action::Ignore);
    }

    /// Flips one random bit of the bytes that a read returns or a write stores.
    pub fn flip_bit(self) {
        self.end(Action::FlipBit);
    }

    /// Writes report success, but a random choice of their sectors keeps the old contents.
    pub fn stale(self) {
        self.end(Action::Stale);
    }

    /// Writes report success, but go to another sector of the file.
    pub fn misdirect(self) {
        self.end(Action::Misdirect);
    }

    /// Writes report a timeout, but are done after `operation_count` further operations have begun.
    /// So the I/O of a caller that gave up lands late, and a log that is opened before that cannot
    /// know of it. A kernel finishes such writes before the opening. Call [`Faults::land`] to do
    /// the same.
    pub fn land_late(self, operation_count: u64) {
        self.end(Action::LandLate(operation_count));
    }

    /// Makes the operation panic.
    pub fn panic(self) {
        self.end(Action::Panic);
    }

    /// Delays the operation by `time`; in a [`Simulation`](crate::simulation::Simulation), by some
    /// turns.
    pub fn delay(self, time: Duration) {
        self.end(Action::Delay(time));
    }

    /// Holds the operation until the returned gate lets it pass; it lands then.
    ///
    /// This is a disk that hangs. In a [`Simulation`](crate::simulation::Simulation),
    /// [`pass_time`](crate::simulation::pass_time) makes the log notice it.
    pub fn gate(self) -> Gate {
        let state = Arc::new(GateState::default());
        self.end(Action::Gate(Arc::clone(&state)));
        Gate::new(state)
    }

    fn end(self, action: Action) {
        let Fault { faults, op, file, skip, times, one_in, afterwards } = self;
        assert!(can_happen(op, &action, afterwards), "{op:?} cannot have the fault {action:?}");
        let rule = Rule { op, file, skip, times, one_in, afterwards, action };
        faults.0.rules.lock_always().push(rule);
    }
}
