//! Files of a copy that are not needed any more, or that an explicit decision sets aside.

use highwater::shipping;

use crate::{
    error::Result,
    standby::{
        disk::Disk,
        survey::{CHUNK_BYTES, Local},
    },
};

/// Removes the files of segments that the copy does not need. The next opening repeats a removal
/// that fails.
pub(crate) fn remove_unneeded(disk: &Disk, unneeded: &[Local]) {
    for local in unneeded {
        let name = local.name();
        if let Err(error) = disk.remove(&name) {
            tracing::warn!(%error, name, "cannot remove a segment that the copy does not need");
        }
    }
}

/// Returns how many of the oldest segments the newest durable header shows to be unneeded.
pub(crate) fn unneeded_count(segments: &[Local]) -> usize {
    let Some(newest) = segments.last() else { return 0 };
    let needed = newest.header.needed_from();
    let bases = segments.iter().skip(1).map(|next| next.header.base());
    bases.take_while(|end| *end <= needed).count()
}

/// Renames the file of an interrupted promotion, so that a leader can use its number.
pub(crate) fn set_unbegun_aside(disk: &Disk, name: &str) -> Result<()> {
    let sequence = shipping::sequence_of(name).unwrap_or_default();
    let kept = shipping::free_cut_name(sequence, &disk.names()?);
    disk.rename(name, &kept)?;
    disk.sync_dir()
}

/// Renames segments to `….wal.cut`, newest first, durably.
pub(crate) fn set_aside(disk: &Disk, segments: &[Local]) -> Result<()> {
    for local in segments.iter().rev() {
        let taken = disk.names()?;
        let kept = shipping::free_cut_name(local.header.sequence(), &taken);
        disk.rename(&local.name(), &kept)?;
        disk.sync_dir()?;
        tracing::warn!(name = local.name(), kept, "set a segment of the copy aside");
    }
    Ok(())
}

/// Gives segments a second name `….wal.cut`, durably; a synced copy if there are no links.
pub(crate) fn keep_copies(disk: &Disk, segments: &[&Local]) -> Result<()> {
    for local in segments {
        let (name, taken) = (local.name(), disk.names()?);
        let kept = shipping::free_cut_name(local.header.sequence(), &taken);
        if disk.storage().link(&name, &kept).is_err() {
            copy(disk, &name, &kept)?;
        }
        tracing::warn!(name, kept, "kept a copy of a segment whose end is cut");
    }
    disk.sync_dir()
}

fn copy(disk: &Disk, from: &str, to: &str) -> Result<()> {
    let (from, to) = (disk.open(from)?, disk.create_again(to)?);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        let read = from.read_at(&mut buffer, offset)?;
        if read == 0 {
            return to.sync_all();
        }
        to.write_at(buffer.get(..read).unwrap_or_default(), offset)?;
        offset += read as u64;
    }
}
