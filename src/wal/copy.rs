//! A copy of a log beside its appends.
//!
//! In steps, each a short job, so that a copy of many gigabytes holds up nobody's flush on a pool of
//! one thread, and so that dropping the future ends it. `docs/DURABILITY.md` has the order.

use std::{any::Any, io, path::Path, sync::Arc};

use crate::{
    error::{Error, Result},
    executor::start,
    format::header::SEGMENT_HEADER_BYTES,
    lsn::Lsn,
    pipeline::{Core, Goal},
    sabotage::{self, Sabotage},
    segments::{SegmentFile, SegmentInfo, Sequence, UNFINISHED_COPY},
    storage::{FileStorage, Locking, Storage, StorageFile, uninterrupted, write_full},
    wal::options::RUNTIME_GONE,
};

/// A step copies so much at most.
const STEP_BYTES: u64 = 4 << 20;

/// What [`Wal::copy_to`](crate::Wal::copy_to) copied.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// Where the copy begins.
    pub first: Lsn,
    /// Where it ends: all below was durable when the copy was asked for.
    pub end: Lsn,
    /// The segments that have a second name there, and take no space of their own.
    pub linked_count: usize,
    /// The segments that were copied: the newest always is.
    pub copied_count: usize,
    /// The bytes that were copied.
    pub copied_bytes: u64,
}

/// Lets go of what the copy holds, also when its future is dropped.
struct Held {
    core: Arc<Core>,
    first: Lsn,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.core.release_lease(self.first);
    }
}

/// A directory, or a storage that is there already.
pub(super) type MakeTarget = Box<dyn FnOnce() -> Result<Arc<dyn Storage>> + Send>;

pub(super) fn directory(path: &Path) -> MakeTarget {
    let path = path.to_path_buf();
    Box::new(move || match FileStorage::create(&path) {
        Ok(storage) => Ok(Arc::new(storage)),
        Err(error) => Err(Error::io("opening directory", path.display().to_string(), None, error)),
    })
}

pub(super) async fn copy(core: &Arc<Core>, make: MakeTarget) -> Result<Copied> {
    let epoch = core.epoch();
    let (first, end) = core.lease_durable()?;
    let goal = Goal { end, epoch };
    let copied = copy_range(core, make, first, goal).await;
    // What was found is never changed; but a cut may have removed what was still to be copied.
    copied.or_else(|error| core.epochs.check(goal).and(Err(error)))
}

async fn copy_range(core: &Arc<Core>, make: MakeTarget, first: Lsn, goal: Goal) -> Result<Copied> {
    let end = goal.end;
    let held = Held { core: Arc::clone(core), first };
    let mut segments = core.segments.holding(first, end);
    core.epochs.check(goal)?;
    let newest = segments.pop();
    let target = Arc::new(step(core, move |_| Target::begin(make)).await?);
    let (linked_count, copied_count, copied_bytes) = (0, 0, 0);
    let mut copied = Copied { first, end, linked_count, copied_count, copied_bytes };
    let successors = segments.iter().skip(1).chain(&newest);
    for (info, next) in segments.iter().copied().zip(successors) {
        let (to, name) = (Arc::clone(&target), info.sequence.file_name());
        let link = move |core: &Core| to.storage.link_from(core.storage.as_ref(), &name).is_ok();
        if step(core, move |core| Ok(link(core))).await? {
            copied.linked_count += 1;
        } else {
            copied.add(copy_segment(core, &target, &info, next.base).await?);
        }
    }
    // Never linked, though it may be sealed by now: the copy goes on in it, and so may the log.
    if let Some(info) = newest {
        copied.add(copy_segment(core, &target, &info, end).await?);
    }
    step(core, move |_| target.finish()).await?;
    drop(held);
    Ok(copied)
}

impl Copied {
    fn add(&mut self, bytes: u64) {
        self.copied_count += 1;
        self.copied_bytes += bytes;
    }
}

async fn step<T: Send + 'static>(
    core: &Arc<Core>,
    work: impl FnOnce(&Core) -> Result<T> + Send + 'static,
) -> Result<T> {
    core.status.check_read()?;
    let inside = Arc::clone(core);
    let done = start(core.executor.as_ref(), move || work(&inside));
    done.await.map_err(|_| Error::Closed { reason: RUNTIME_GONE })?
}

/// Copies what a segment holds below `end`. What is behind that reads as zeros in the copy.
async fn copy_segment(
    core: &Arc<Core>,
    target: &Arc<Target>,
    info: &SegmentInfo,
    end: Lsn,
) -> Result<u64> {
    let (sequence, to) = (info.sequence, Arc::clone(target));
    let file = Arc::new(step(core, move |core| FileCopy::begin(core, &to, sequence)).await?);
    let used_bytes = SEGMENT_HEADER_BYTES + end.since(info.base);
    let mut offset = 0;
    while offset < used_bytes {
        let bytes = (used_bytes - offset).min(STEP_BYTES);
        let file = Arc::clone(&file);
        step(core, move |_| file.copy(offset, bytes)).await?;
        offset += bytes;
    }
    step(core, move |_| file.finish()).await?;
    Ok(used_bytes)
}

/// Where a copy is made.
#[derive(Debug)]
struct Target {
    storage: Arc<dyn Storage>,
    /// Nobody opens it before it is whole.
    _lock: Box<dyn Any + Send + Sync>,
}

impl Target {
    /// Marks the directory, durably, before anything of a log is in it.
    fn begin(make: MakeTarget) -> Result<Self> {
        let storage = make()?;
        let at = || storage.location();
        let lock = match storage.lock() {
            Ok(Locking::Held(lock)) => lock,
            Ok(Locking::Busy { owner_pid }) => return Err(Error::Locked { path: at(), owner_pid }),
            Err(error) => return Err(Error::io("locking", at(), None, error)),
        };
        let found = storage.list().map_err(|error| Error::io("listing", at(), None, error))?;
        if let Some(found) = found.into_iter().next() {
            return Err(Error::NotEmpty { path: at(), found });
        }
        let target = Target { storage, _lock: lock };
        if !sabotage::is_on(Sabotage::ForgetUnfinished) {
            let mark = target.storage.create(UNFINISHED_COPY);
            let synced = mark.and_then(|mark| uninterrupted(|| mark.sync_all()));
            synced.map_err(|error| Error::io("creating", UNFINISHED_COPY, None, error))?;
            target.sync_dir()?;
        }
        Ok(target)
    }

    /// Commit point: the removal of the mark is durable, and everything else was before it.
    fn finish(&self) -> Result<()> {
        self.sync_dir()?;
        if sabotage::is_on(Sabotage::ForgetUnfinished) {
            return Ok(());
        }
        let removed = self.storage.remove(UNFINISHED_COPY);
        removed.map_err(|error| Error::io("removing", UNFINISHED_COPY, None, error))?;
        self.sync_dir()
    }

    fn sync_dir(&self) -> Result<()> {
        uninterrupted(|| self.storage.sync_dir()).map_err(|error| {
            Error::io("syncing the directory", self.storage.location(), None, error)
        })
    }
}

/// A segment on its way.
#[derive(Debug)]
struct FileCopy {
    from: Arc<SegmentFile>,
    to: Box<dyn StorageFile>,
}

impl FileCopy {
    fn begin(core: &Core, target: &Target, sequence: Sequence) -> Result<Self> {
        let from = core.segments.open(sequence)?;
        let bytes = from.bytes()?;
        let to = target.storage.create(from.name());
        let to = to.map_err(|error| Error::io("creating", from.name(), None, error))?;
        let file = FileCopy { from, to };
        // As long as its header tells: one that is shorter has lost its end.
        uninterrupted(|| file.to.reserve(bytes)).map_err(|error| {
            file.failed("allocating", 0, error).or_no_space(&file.name(), bytes)
        })?;
        Ok(file)
    }

    fn name(&self) -> String {
        format!("the copy of {}", self.from.name())
    }

    fn failed(&self, operation: &'static str, offset: u64, error: io::Error) -> Error {
        Error::io(operation, self.name(), Some(offset), error)
    }

    fn copy(&self, offset: u64, bytes: u64) -> Result<()> {
        let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        let read = self.from.read_at(&mut buffer, offset)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        write_full(self.to.as_ref(), bytes, offset)
            .map_err(|error| self.failed("writing", offset, error).or_no_space(&self.name(), 0))
    }

    fn finish(&self) -> Result<()> {
        uninterrupted(|| self.to.sync_all()).map_err(|error| self.failed("syncing", 0, error))
    }
}
