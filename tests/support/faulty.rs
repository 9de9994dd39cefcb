//! A storage decorator that records what is done to a storage, and fails, shortens or holds what
//! it is told to.
//!
//! A [`Faults`] is the test's side: it reads the events and makes rules. Any number of storages may
//! be decorated with one, so that an event log can span a reopening.
//!
//! ```ignore
//! let faults = Faults::new();
//! let wal = Wal::options().open_with(faults.over(MemoryStorage::new()).on_pool()).await?;
//! let gate = faults.on(Op::Sync).once().gate();       // the next sync waits …
//! faults.on(Op::Sync).once().fail_os(5);              // … and then fails with EIO
//! gate.reached(1).await;
//! gate.open();
//! ```
//!
//! Rules are tried in the order in which they were made, once the operation has begun: gates hold
//! it, and the first other rule that applies decides it. Writes and creations are recorded when
//! they have ended, syncs when they begin and when they end, so an event log never claims more
//! order than there was.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use highwater::storage::{Locking, Storage, StorageFile};
use tokio::sync::watch;

/// The kinds of operations that rules are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Create,
    Open,
    Remove,
    Rename,
    SyncDir,
    Read,
    Write,
    /// `reserve` and `set_len`.
    Resize,
    /// `sync_data` and `sync_all`.
    Sync,
}

/// What was done, in order. `begin` is the index of the event that the call began with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Created {
        file: String,
    },
    Opened {
        file: String,
    },
    Removed {
        file: String,
    },
    Renamed {
        from: String,
        to: String,
    },
    SyncDirBegan,
    SyncDirEnded {
        begin: usize,
        ok: bool,
    },
    Read {
        file: String,
        offset: u64,
    },
    Wrote(Wrote),
    Resized {
        file: String,
        bytes: u64,
    },
    SyncBegan {
        file: String,
    },
    SyncEnded {
        file: String,
        begin: usize,
        ok: bool,
    },
    Failed {
        op: Op,
        file: String,
    },
    /// The test saw the synced mark here.
    Noted {
        synced: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrote {
    pub(crate) file: String,
    pub(crate) offset: u64,
    pub(crate) count: usize,
    /// The first bytes: enough to read a segment's header.
    pub(crate) head: Vec<u8>,
    /// Only zeros: space being prepared.
    pub(crate) is_blank: bool,
}

#[derive(Clone)]
enum Action {
    Fail(io::ErrorKind),
    FailOs(i32),
    Short(usize),
    Panic,
    Gate(Arc<GateState>),
}

struct Rule {
    op: Op,
    file: Box<dyn Fn(&str) -> bool + Send + Sync>,
    skip: u64,
    times: u64,
    action: Action,
}

#[derive(Default)]
struct Shared {
    events: Mutex<Vec<Event>>,
    rules: Mutex<Vec<Rule>>,
}

/// The test's side of the decorated storages.
#[derive(Clone, Default)]
pub(crate) struct Faults(Arc<Shared>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Faults {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn over<S: Storage>(&self, inner: S) -> FaultyStorage<S> {
        let is_nonblocking = inner.is_nonblocking();
        FaultyStorage { inner, faults: self.clone(), is_nonblocking }
    }

    /// Begins a rule: without further words, for every such operation from now on.
    pub(crate) fn on(&self, op: Op) -> Plan {
        Plan { faults: self.clone(), op, file: Box::new(|_| true), skip: 0, times: u64::MAX }
    }

    /// Forgets all rules; what is held by a gate stays held.
    pub(crate) fn heal(&self) {
        lock(&self.0.rules).clear();
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        lock(&self.0.events).clone()
    }

    /// Forgets what was recorded.
    pub(crate) fn clear(&self) {
        lock(&self.0.events).clear();
    }

    pub(crate) fn count(&self, matches: impl Fn(&Event) -> bool) -> usize {
        lock(&self.0.events).iter().filter(|event| matches(event)).count()
    }

    /// Records that the synced mark was seen at `synced`.
    pub(crate) fn note(&self, synced: highwater::Lsn) {
        self.push(Event::Noted { synced: synced.as_u64() });
    }

    fn push(&self, event: Event) -> usize {
        let mut events = lock(&self.0.events);
        events.push(event);
        events.len() - 1
    }

    /// Applies the rules: waits, fails, panics, or says how many bytes may be transferred.
    fn meet(&self, op: Op, file: &str) -> io::Result<usize> {
        let mut decided = None;
        let mut gates = Vec::new();
        for rule in lock(&self.0.rules).iter_mut() {
            if rule.op != op || rule.times == 0 || !(rule.file)(file) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if let Action::Gate(gate) = &rule.action {
                rule.times -= 1;
                gates.push(Arc::clone(gate));
            } else if decided.is_none() {
                rule.times -= 1;
                decided = Some(rule.action.clone());
            }
        }
        for gate in gates {
            gate.pass();
        }
        let error = match decided {
            None | Some(Action::Gate(_)) => return Ok(usize::MAX),
            Some(Action::Short(bytes)) => return Ok(bytes),
            Some(Action::Panic) => panic!("{op:?} of {file} panics, as the test wants it"),
            Some(Action::Fail(kind)) => io::Error::from(kind),
            Some(Action::FailOs(code)) => io::Error::from_raw_os_error(code),
        };
        self.push(Event::Failed { op, file: file.to_owned() });
        Err(error)
    }
}

/// A rule being made.
pub(crate) struct Plan {
    faults: Faults,
    op: Op,
    file: Box<dyn Fn(&str) -> bool + Send + Sync>,
    skip: u64,
    times: u64,
}

impl Plan {
    /// Only for files with such a name; `sync_dir` has none and is called "".
    pub(crate) fn file(mut self, matches: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.file = Box::new(matches);
        self
    }

    /// Lets the first `count` pass.
    pub(crate) fn skip(mut self, count: u64) -> Self {
        self.skip = count;
        self
    }

    pub(crate) fn times(mut self, count: u64) -> Self {
        self.times = count;
        self
    }

    pub(crate) fn once(self) -> Self {
        self.times(1)
    }

    pub(crate) fn fail(self, kind: io::ErrorKind) {
        self.end(Action::Fail(kind));
    }

    pub(crate) fn fail_os(self, code: i32) {
        self.end(Action::FailOs(code));
    }

    /// Transfers at most so many bytes; 0 is an `Ok(0)`.
    pub(crate) fn short(self, bytes: usize) {
        self.end(Action::Short(bytes));
    }

    pub(crate) fn panic(self) {
        self.end(Action::Panic);
    }

    /// Holds the operation until the gate lets it pass.
    pub(crate) fn gate(self) -> Gate {
        let state = Arc::new(GateState::default());
        self.end(Action::Gate(Arc::clone(&state)));
        Gate(state)
    }

    fn end(self, action: Action) {
        let Plan { faults, op, file, skip, times } = self;
        lock(&faults.0.rules).push(Rule { op, file, skip, times, action });
    }
}

#[derive(Default)]
struct GateState {
    allowed: Mutex<u64>,
    opened: Condvar,
    arrived: watch::Sender<u64>,
}

impl GateState {
    fn pass(&self) {
        self.arrived.send_modify(|count| *count += 1);
        let allowed = lock(&self.allowed);
        // A test that failed leaves its gate behind; its runtime must still be able to stop.
        let waited = self
            .opened
            .wait_timeout_while(allowed, Duration::from_secs(20), |allowed| *allowed == 0);
        if let Ok((mut allowed, _)) = waited {
            *allowed = allowed.saturating_sub(u64::from(*allowed != u64::MAX));
        }
    }
}

/// Holds operations; opens for good when it is dropped.
pub(crate) struct Gate(Arc<GateState>);

impl Gate {
    /// Waits until `count` operations have arrived here since it was made.
    pub(crate) async fn reached(&self, count: u64) {
        let mut arrived = self.0.arrived.subscribe();
        super::within("nothing came to the gate", arrived.wait_for(|&seen| seen >= count))
            .await
            .map(drop)
            .unwrap_or_default();
    }

    /// Lets `count` operations pass, now or later.
    pub(crate) fn allow(&self, count: u64) {
        let mut allowed = lock(&self.0.allowed);
        *allowed = allowed.saturating_add(count);
        self.0.opened.notify_all();
    }

    pub(crate) fn open(&self) {
        self.allow(u64::MAX);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

/// The decorated storage; see the module.
pub(crate) struct FaultyStorage<S> {
    inner: S,
    faults: Faults,
    is_nonblocking: bool,
}

impl<S> FaultyStorage<S> {
    /// Has the log run its I/O on the runtime's pool, whatever the storage says.
    pub(crate) fn on_pool(mut self) -> Self {
        self.is_nonblocking = false;
        self
    }

    fn file(&self, name: &str, inner: Box<dyn StorageFile>) -> Box<dyn StorageFile> {
        Box::new(FaultyFile { name: name.to_owned(), inner, faults: self.faults.clone() })
    }
}

impl<S: std::fmt::Debug> std::fmt::Debug for FaultyStorage<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("FaultyStorage").field(&self.inner).finish()
    }
}

impl<S: Storage> Storage for FaultyStorage<S> {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn is_nonblocking(&self) -> bool {
        self.is_nonblocking
    }

    fn lock(&self) -> io::Result<Locking> {
        self.inner.lock()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.faults.meet(Op::Create, name)?;
        let file = self.inner.create(name)?;
        self.faults.push(Event::Created { file: name.to_owned() });
        Ok(self.file(name, file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.faults.meet(Op::Open, name)?;
        let file = self.inner.open(name)?;
        self.faults.push(Event::Opened { file: name.to_owned() });
        Ok(self.file(name, file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.faults.meet(Op::Remove, name)?;
        self.inner.remove(name)?;
        self.faults.push(Event::Removed { file: name.to_owned() });
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.faults.meet(Op::Rename, from)?;
        self.inner.rename(from, to)?;
        self.faults.push(Event::Renamed { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let begin = self.faults.push(Event::SyncDirBegan);
        let done = self.faults.meet(Op::SyncDir, "").and_then(|_| self.inner.sync_dir());
        self.faults.push(Event::SyncDirEnded { begin, ok: done.is_ok() });
        done
    }
}

#[derive(Debug)]
struct FaultyFile {
    name: String,
    inner: Box<dyn StorageFile>,
    faults: Faults,
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faults").finish_non_exhaustive()
    }
}

impl FaultyFile {
    fn resize(
        &self,
        bytes: u64,
        resize: impl Fn(&dyn StorageFile) -> io::Result<()>,
    ) -> io::Result<()> {
        self.faults.meet(Op::Resize, &self.name)?;
        resize(self.inner.as_ref())?;
        self.faults.push(Event::Resized { file: self.name.clone(), bytes });
        Ok(())
    }

    fn sync(&self, sync: impl Fn(&dyn StorageFile) -> io::Result<()>) -> io::Result<()> {
        let begin = self.faults.push(Event::SyncBegan { file: self.name.clone() });
        let done = self.faults.meet(Op::Sync, &self.name).and_then(|_| sync(self.inner.as_ref()));
        let (file, ok) = (self.name.clone(), done.is_ok());
        self.faults.push(Event::SyncEnded { file, begin, ok });
        done
    }
}

impl StorageFile for FaultyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let limit = self.faults.meet(Op::Read, &self.name)?.min(buffer.len());
        self.faults.push(Event::Read { file: self.name.clone(), offset });
        self.inner.read_at(buffer.get_mut(..limit).unwrap_or_default(), offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let limit = self.faults.meet(Op::Write, &self.name)?.min(bytes.len());
        let bytes = bytes.get(..limit).unwrap_or_default();
        let count = self.inner.write_at(bytes, offset)?;
        let head = bytes.iter().take(64).copied().collect();
        let is_blank = bytes.iter().all(|&byte| byte == 0);
        let file = self.name.clone();
        self.faults.push(Event::Wrote(Wrote { file, offset, count, head, is_blank }));
        Ok(count)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.resize(bytes, |file| file.set_len(bytes))
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.resize(bytes, |file| file.reserve(bytes))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(|file| file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(|file| file.sync_all())
    }
}
