//! Prepares a segment file ahead of need: allocated, filled, its directory entry durable.

use std::ops::Range;

use crate::{
    error::{Error, Result},
    options::Preallocation,
    sabotage::{self, Sabotage},
    segments::{file::SegmentFile, name::Sequence},
    storage::{Storage, uninterrupted},
};

/// Large enough for few calls. Not larger: the page cache keeps what one call brought as one piece
/// (a large folio), and ext4 walks all blocks of a piece for each small write into it. Filled by
/// 256 KiB, a write of 272 bytes took 840 ns with all around it, by 64 KiB 660 ns.
const ZEROS_BYTES: usize = 64 << 10;
static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

/// Creates the file `sequence` with room for `bytes`, without a header, and makes it durable. A
/// crash before the end leaves a file whose header is blank, which the next opening removes.
///
/// # Errors
///
/// `NoSpace` if the device is full; the file is gone again then. `Io` for any other failure.
pub(crate) fn prepare(
    storage: &dyn Storage,
    sequence: Sequence,
    bytes: u64,
    preallocation: Preallocation,
) -> Result<SegmentFile> {
    let name = sequence.file_name();
    let file =
        SegmentFile::create(storage, sequence).map_err(|error| error.or_no_space(&name, bytes))?;
    let filled = fill(&file, bytes, preallocation).and_then(|()| {
        file.sync_all()?;
        if sabotage::is_on(Sabotage::SkipDirectoryFlush) {
            return Ok(());
        }
        sync_directory(storage)
    });
    match filled {
        Ok(()) => Ok(file),
        Err(error) => {
            // Gives back what was allocated. If that fails too, the leftover is removed at open.
            drop(file);
            if let Err(leftover) = storage.remove(&name) {
                tracing::warn!(name, error = %leftover, "a partly prepared segment stays for now");
            }
            Err(error.or_no_space(&name, bytes))
        }
    }
}

/// Makes what happened to names durable.
pub(crate) fn sync_directory(storage: &dyn Storage) -> Result<()> {
    uninterrupted(|| storage.sync_dir())
        .map_err(|error| Error::io("syncing the directory", storage.location(), None, error))
}

/// Overwrites `range` of a file with zeros.
pub(crate) fn blank(range: Range<u64>, write: impl Fn(&[u8], u64) -> Result<()>) -> Result<()> {
    let mut offset = range.start;
    while offset < range.end {
        let count = usize::try_from(range.end - offset).unwrap_or(usize::MAX).min(ZEROS_BYTES);
        write(ZEROS.get(..count).unwrap_or_default(), offset)?;
        offset += count as u64;
    }
    Ok(())
}

fn fill(file: &SegmentFile, bytes: u64, preallocation: Preallocation) -> Result<()> {
    match preallocation {
        Preallocation::Sparse => file.set_len(bytes),
        Preallocation::Reserve => file.reserve(bytes),
        // Without a past to learn from.
        Preallocation::Adaptive | Preallocation::ZeroFill => {
            // Reserving first keeps the extents together and finds a full disk at once.
            file.reserve(bytes)?;
            blank(0..bytes, |zeros, offset| file.write_at(zeros, offset))
        }
    }
}
