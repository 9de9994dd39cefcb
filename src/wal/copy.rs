//! Copies an open log while appends run.
//!
//! Each step is a short job. So a copy of many gigabytes delays no flush for long on a pool with
//! one thread, and dropping the future ends the copy. `docs/DURABILITY.md` has the order of the
//! steps.

use std::{any::Any, io, path::Path, sync::Arc};

use crate::{
    error::{ClosedBy, Error, Result, listed},
    executor::start,
    format::header::file_offset,
    lsn::Lsn,
    pipeline::{
        Core, Goal,
        removal::{lease_durable, release_durable},
    },
    sabotage::{self, Sabotage},
    segments::{SegmentCopy, SegmentInfo, UNFINISHED_COPY, sync_directory},
    storage::{FileStorage, Locking, Storage, uninterrupted},
};

/// The maximum number of bytes that a step copies.
const STEP_BYTES: u64 = 4 << 20;

/// The result of [`Wal::copy_to`](crate::Wal::copy_to).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// The beginning of the copy.
    pub first: Lsn,
    /// The end of the copy. All records below were durable at the call.
    pub end: Lsn,
    /// The number of segments that were linked. They take no additional space.
    pub linked_count: usize,
    /// The number of segments that were copied. The newest segment is always copied.
    pub copied_count: usize,
    /// The number of bytes that were copied.
    pub copied_bytes: u64,
}

/// Releases the copy's lease when the copy ends or its future is dropped.
struct CopyLease {
    core: Arc<Core>,
    first: Lsn,
    files_from: Lsn,
}

impl Drop for CopyLease {
    fn drop(&mut self) {
        release_durable(&self.core, self.first, self.files_from);
    }
}

/// Creates the target of a copy in a job of the pool.
pub(super) type MakeTarget = Box<dyn FnOnce() -> Result<Arc<dyn Storage>> + Send>;

pub(super) fn directory(path: &Path, file_mode: u32) -> MakeTarget {
    let path = path.to_path_buf();
    Box::new(move || Ok(Arc::new(FileStorage::create_with_mode(&path, file_mode)?)))
}

pub(super) async fn copy(core: &Arc<Core>, make: MakeTarget) -> Result<Copied> {
    let epoch = core.epoch();
    let (first, end, files_from) = lease_durable(core)?;
    let goal = Goal { end, epoch };
    let lease = CopyLease { core: Arc::clone(core), first, files_from };
    let copied = copy_range(core, make, lease, goal).await;
    // The copied files never change, but a truncation of the end may have removed the next ones.
    copied.or_else(|error| core.epochs().check(goal).and(Err(error)))
}

async fn copy_range(
    core: &Arc<Core>,
    make: MakeTarget,
    lease: CopyLease,
    goal: Goal,
) -> Result<Copied> {
    let (first, end) = (lease.first, goal.end);
    // The files of the newest slots records may be below the beginning.
    let mut segments = core.segments().holding(lease.files_from, end);
    core.epochs().check(goal)?;
    let newest = segments.pop();
    let target = Arc::new(step(core, move |_| CopyTarget::begin(make)).await?);
    let (linked_count, copied_count, copied_bytes) = (0, 0, 0);
    let mut copied = Copied { first, end, linked_count, copied_count, copied_bytes };
    let successors = segments.iter().skip(1).chain(&newest);
    for (info, next) in segments.iter().copied().zip(successors) {
        let (to, name) = (Arc::clone(&target), info.sequence.file_name());
        let link = move |core: &Core| to.storage.link_from(core.storage().as_ref(), &name).is_ok();
        if step(core, move |core| Ok(link(core))).await? {
            copied.linked_count += 1;
        } else {
            copied.add(copy_segment(core, &target, &info, next.base).await?);
        }
    }
    // Never linked, because both the copy and the log may append to the newest segment.
    if let Some(info) = newest {
        copied.add(copy_segment(core, &target, &info, end).await?);
    }
    step(core, move |_| target.finish()).await?;
    drop(lease);
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
    core.status().check_read()?;
    let inside = Arc::clone(core);
    let done = start(core.executor().as_ref(), move || work(&inside));
    done.await.map_err(|_| Error::Closed { by: ClosedBy::RuntimeGone })?
}

/// Copies the contents of a segment below `end`. The copy has zeros above `end`.
async fn copy_segment(
    core: &Arc<Core>,
    target: &Arc<CopyTarget>,
    info: &SegmentInfo,
    end: Lsn,
) -> Result<u64> {
    let (sequence, target) = (info.sequence, Arc::clone(target));
    let create = move |core: &Core| {
        let from = core.segments().open(sequence)?;
        let copy = SegmentCopy::create(from, target.storage.as_ref(), &sequence.file_name())?;
        copy.reserve()?;
        Ok(copy)
    };
    let copy = Arc::new(step(core, create).await?);
    let used_bytes = file_offset(info.base, end);
    let mut offset = 0;
    while offset < used_bytes {
        let bytes = (used_bytes - offset).min(STEP_BYTES);
        let copy = Arc::clone(&copy);
        step(core, move |_| copy.copy(offset, bytes)).await?;
        offset += bytes;
    }
    step(core, move |_| copy.sync()).await?;
    Ok(used_bytes)
}

/// The storage that receives the copy.
#[derive(Debug)]
struct CopyTarget {
    storage: Arc<dyn Storage>,
    /// Prevents opening the copy before it is complete.
    _lock: Box<dyn Any + Send + Sync>,
}

impl CopyTarget {
    /// Locks the empty target and durably marks it as an unfinished copy.
    fn begin(make: MakeTarget) -> Result<Self> {
        let storage = make()?;
        let at = || storage.location();
        let lock = match storage.lock() {
            Ok(Locking::Held(lock)) => lock,
            Ok(Locking::Busy { owner }) => return Err(Error::Locked { path: at(), owner }),
            Err(error) => return Err(Error::io("locking", at(), None, error)),
        };
        let found = storage.list().map_err(|error| Error::io("listing", at(), None, error))?;
        if !found.is_empty() {
            let found: Vec<_> = found.iter().map(String::as_str).collect();
            return Err(Error::NotEmpty { path: at(), found: listed(&found) });
        }
        let target = CopyTarget { storage, _lock: lock };
        if !sabotage::is_on(Sabotage::ForgetUnfinished) {
            let mark = target.storage.create(UNFINISHED_COPY);
            let synced = mark.and_then(|mark| uninterrupted(|| mark.sync_all()));
            synced.map_err(|error| target.failed("creating", error))?;
            sync_directory(target.storage.as_ref())?;
        }
        Ok(target)
    }

    /// Removes the mark, after everything else is durable.
    ///
    /// Commit point: the removal of the mark is durable.
    fn finish(&self) -> Result<()> {
        sync_directory(self.storage.as_ref())?;
        if sabotage::is_on(Sabotage::ForgetUnfinished) {
            return Ok(());
        }
        let removed = self.storage.remove(UNFINISHED_COPY);
        removed.map_err(|error| self.failed("removing", error))?;
        sync_directory(self.storage.as_ref())
    }

    fn failed(&self, operation: &'static str, error: io::Error) -> Error {
        Error::io(operation, UNFINISHED_COPY, None, error).in_log(&self.storage.location())
    }
}
