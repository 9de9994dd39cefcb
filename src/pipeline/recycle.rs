//! Recycling: files of segments that a truncation drops are used again.
//!
//! Their blocks are allocated, their extents written and their pages cached. So the next segment
//! costs no file, no allocation and no first touch of memory. A file is renamed durably,
//! overwritten with zeros and synced before it gets the next segment's name. So no file with a
//! segment's name ever holds another segment's bytes, and recovery finds only a name to remove. The
//! section "Recycling segments" of `docs/DURABILITY.md` has each step's crash states.

use crate::{
    error::{Error, Result},
    format::header::SEGMENT_HEADER_BYTES,
    operation::Operation,
    options::Preallocation,
    pipeline::{
        core::{Core, Underway},
        state::in_flight::Lane,
    },
    sabotage::{self, Sabotage},
    segments::{
        Beside, SegmentFile, Sequence, blank_by_pieces, check_place, prepare, sync_directory,
    },
    storage::{StorageFile, uninterrupted, write_full},
    sync::Ordering,
};

/// Keeps the file of a segment for reuse. The log does not need the segment, and no reader can find
/// it any more. Returns `false` if the caller still has to remove the file. Blocks, as the call
/// that is `underway`.
pub(super) fn recycle(core: &Core, sequence: Sequence, underway: &Underway<'_>) -> bool {
    let recycled = &core.supply.recycled;
    // On a storage that copies on write, zeros would take space a second time.
    let is_worth_it = core.storage().overwrites_in_place();
    if !is_worth_it || core.status().check().is_err() || !recycled.take_room() {
        return false;
    }
    let log = core.storage().location();
    let (old, kept) = (sequence.file_name(), sequence.recycled_name());
    if let Err(error) = core.storage().rename(&old, &kept) {
        recycled.give_room();
        tracing::debug!(
            log,
            segment = old,
            error = format_args!("{error:#}"),
            "the segment can't be kept for reuse"
        );
        return false;
    }
    match make_blank(core, sequence, &kept, underway) {
        Ok(None) if recycled.add(sequence) => {
            tracing::debug!(log, segment = old, "kept the segment for reuse");
            return true;
        }
        Ok(reason) => {
            let reason = reason.unwrap_or("the log is being closed");
            tracing::debug!(log, segment = old, reason, "removed the segment: it can't be reused");
        }
        Err(error) => {
            tracing::warn!(
                log,
                segment = old,
                error = format_args!("{error:#}"),
                "removed the segment: it can't be reused"
            );
        }
    }
    recycled.give_room();
    discard(core, &kept);
    true
}

/// Overwrites a renamed file with durable zeros. Returns a reason if the file must not be changed.
fn make_blank(
    core: &Core,
    sequence: Sequence,
    kept: &str,
    underway: &Underway<'_>,
) -> Result<Option<&'static str>> {
    let failed = |operation, error| {
        Error::io(operation, kept, None, error).in_log(&core.storage().location())
    };
    let file = core.storage().open(kept).map_err(|error| failed("opening", error))?;
    let bytes = file.len().map_err(|error| failed("reading the length of", error))?;
    if let Some(reason) = why_not(core, sequence, file.as_ref(), bytes) {
        return Ok(Some(reason));
    }
    // Recovery may still start from the old name, so a crash must not restore that name with other
    // bytes.
    if !sabotage::is_on(Sabotage::RecycleBeforeFlush) {
        sync_directory(core.storage().as_ref())?;
    }
    let spared = if sabotage::is_on(Sabotage::RecycleHeader) { SEGMENT_HEADER_BYTES } else { 0 };
    let write = |zeros: &[u8], offset| {
        underway.progressed();
        write_full(file.as_ref(), zeros, offset).map_err(|error| failed("writing", error))
    };
    let flush = || {
        underway.progressed();
        uninterrupted(|| file.sync_data()).map_err(|error| failed("syncing", error))
    };
    blank_by_pieces(spared..bytes, write, flush)?;
    if !sabotage::is_on(Sabotage::RecycleUnflushed) {
        flush()?;
    }
    Ok(None)
}

/// Returns the reason why the file cannot be reused. Call this after the rename, when no new reader
/// of this log can open the file.
fn why_not(
    core: &Core,
    sequence: Sequence,
    file: &dyn StorageFile,
    bytes: u64,
) -> Option<&'static str> {
    if bytes != core.config().segment_bytes {
        return Some("its size is not that of new segments");
    }
    if core.segments().is_in_use(sequence) && !sabotage::is_on(Sabotage::RecycleOpen) {
        return Some("a reader has it open");
    }
    // If the storage can't count the names of a file, the file may have another one.
    if !matches!(file.link_count(), Ok(1)) && !sabotage::is_on(Sabotage::RecycleShared) {
        return Some("it may have another name");
    }
    None
}

/// Returns the next segment's file: a recycled one of this size, or a new one. Blocks.
pub(super) fn next_file(
    core: &Core,
    sequence: Sequence,
    bytes: u64,
    progress: &dyn Fn(),
) -> Result<SegmentFile> {
    let storage = core.storage().as_ref();
    let fits = bytes == core.config().segment_bytes;
    if let Some(waiting) = fits.then(|| core.supply.recycled.take()).flatten() {
        check_place(storage, &[])?;
        let (kept, name) = (waiting.recycled_name(), sequence.file_name());
        match storage.rename(&kept, &name) {
            Ok(()) => {
                progress();
                let synced = sync_directory(storage);
                let open = |()| SegmentFile::open(storage, sequence);
                // No second try, because after the directory's failed sync the rename may be lost.
                let file = synced.and_then(open).inspect_err(|_| discard(core, &name))?;
                core.supply.recycled.note_reused();
                return Ok(file);
            }
            Err(error) => {
                let log = storage.location();
                tracing::warn!(
                    log,
                    name = kept,
                    error = format_args!("{error:#}"),
                    "a recycled file can't be reused"
                );
                discard(core, &kept);
            }
        }
    }
    prepare(storage, sequence, bytes, next_preallocation(core), Beside::Commits, progress)
}

/// Chooses how the next segment is prepared. Only one job calls it at a time.
pub(crate) fn next_preallocation(core: &Core) -> Preallocation {
    if core.config().preallocation != Preallocation::Adaptive {
        return core.config().preallocation;
    }
    let counters = &core.measures().counters;
    let (bytes, syncs) = (&counters.bytes, &counters.syncs);
    core.supply.filling.choose(bytes.load(Ordering::Relaxed), syncs.load(Ordering::Relaxed))
}

/// Gives the space of all recycled files back to the device. Returns whether there were any.
pub(super) fn give_back_recycled(core: &Core) -> bool {
    let mut count = 0;
    while let Some(waiting) = core.supply.recycled.take() {
        discard(core, &waiting.recycled_name());
        count += 1;
    }
    count > 0
}

/// Removes all recycled files: a closed log keeps no file that is not part of it.
pub(super) fn close_recycled(core: &Core) {
    core.supply.recycled.close();
    while let Some(waiting) = core.supply.recycled.take() {
        let _underway = core.begin(Lane::Close, Operation::Remove, waiting);
        discard(core, &waiting.recycled_name());
    }
}

/// Removes a file. Not vital, because the next opening removes a file that stays.
pub(super) fn discard(core: &Core, name: &str) {
    if let Err(error) = core.storage().remove(name) {
        let log = core.storage().location();
        tracing::warn!(
            log,
            name,
            error = format_args!("{error:#}"),
            "the file stays until the log is opened again"
        );
    }
}
