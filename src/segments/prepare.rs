//! Prepares a segment file ahead of need: allocates it, fills it, and syncs its directory entry.

use std::ops::Range;

use crate::{
    error::{Error, Result},
    options::Preallocation,
    sabotage::{self, Sabotage},
    segments::{file::SegmentFile, name::Sequence, place::check_place},
    storage::{Storage, uninterrupted},
};

/// Bytes written by one call. Fewer, larger calls would slow later writes down. The page cache
/// keeps the bytes of one call as one large folio, and ext4 walks all blocks of a folio for each
/// small write. A later write of 272 bytes took 840 ns after calls of 256 KiB, and 660 ns after
/// calls of 64 KiB.
const ZEROS_BYTES: usize = 64 << 10;
static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

/// Bytes filled between two flushes while other tasks commit. A commit waits until the device has
/// taken all bytes of one such flush. With 16 MiB per flush, 99.9 % of the commits of 64 tasks took
/// up to 6 ms; with 256 KiB, 0.75 ms.
const PIECE_BYTES: u64 = 256 << 10;

/// Bytes of one call that zeroes without a transfer. Between two calls the watcher of stalls sees
/// progress, and the device can do other work.
const ZEROED_BYTES: u64 = 1 << 20;

/// The load while a file is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    Nothing,
    Commits,
}

/// Creates the file `sequence` of `bytes` bytes, without a header, and makes it durable. A crash
/// leaves a file with a blank header, which the next opening removes.
///
/// # Errors
///
/// `NoSpace` if the device is full, and the file is removed again. `Io` for any other failure.
///
/// `progress` is called between two calls of the storage.
pub(crate) fn prepare(
    storage: &dyn Storage,
    sequence: Sequence,
    bytes: u64,
    preallocation: Preallocation,
    beside: Beside,
    progress: &dyn Fn(),
) -> Result<SegmentFile> {
    // In another directory the file would belong to another log, or to none.
    check_place(storage, &[])?;
    let name = sequence.file_name();
    // On a copy-on-write file system, zeros and the bytes that overwrite them would take space
    // twice.
    let preallocation = match preallocation {
        Preallocation::Sparse => preallocation,
        _ if storage.overwrites_in_place() => preallocation,
        _ => Preallocation::Reserve,
    };
    let file =
        SegmentFile::create(storage, sequence).map_err(|error| error.or_no_space(&name, bytes))?;
    progress();
    let filled = fill(&file, bytes, preallocation, beside, progress).and_then(|()| {
        progress();
        file.sync_all()?;
        progress();
        if sabotage::is_on(Sabotage::SkipDirectoryFlush) {
            return Ok(());
        }
        sync_directory(storage)
    });
    match filled {
        Ok(()) => Ok(file),
        Err(error) => {
            // Frees the space. If that fails too, the next opening removes the file.
            drop(file);
            if let Err(leftover) = storage.remove(&name) {
                tracing::warn!(
                    log = storage.location(),
                    name,
                    error = format_args!("{leftover:#}"),
                    "could not remove a partly prepared segment; the next opening removes it"
                );
            }
            Err(error.or_no_space(&name, bytes))
        }
    }
}

/// Makes created, renamed and removed names durable.
pub(crate) fn sync_directory(storage: &dyn Storage) -> Result<()> {
    uninterrupted(|| storage.sync_dir())
        .map_err(|error| Error::io("syncing the directory", storage.location(), None, error))
}

/// Draws the random bytes of an id or an incarnation.
pub(crate) fn random_bytes(storage: &dyn Storage) -> Result<[u8; 16]> {
    let failed = |error| Error::io("drawing random bytes in", storage.location(), None, error);
    storage.random().map_err(failed)
}

/// Draws the incarnation of a segment. It is never zero, because zero means "no segment".
pub(crate) fn random_incarnation(storage: &dyn Storage) -> Result<u64> {
    let [a, b, c, d, e, f, g, h, ..] = random_bytes(storage)?;
    Ok(u64::from_le_bytes([a, b, c, d, e, f, g, h]).max(1))
}

/// Overwrites `range` of a file with zeros.
fn blank(range: Range<u64>, write: impl Fn(&[u8], u64) -> Result<()>) -> Result<()> {
    let mut offset = range.start;
    while offset < range.end {
        let count = usize::try_from(range.end - offset).unwrap_or(usize::MAX).min(ZEROS_BYTES);
        write(ZEROS.get(..count).unwrap_or_default(), offset)?;
        offset += count as u64;
    }
    Ok(())
}

/// As [`blank`], for use while other tasks commit: flushes after each piece except the last.
pub(crate) fn blank_by_pieces(
    range: Range<u64>,
    write: impl Fn(&[u8], u64) -> Result<()>,
    flush: impl Fn() -> Result<()>,
) -> Result<()> {
    let mut offset = range.start;
    while range.end.saturating_sub(offset) > PIECE_BYTES {
        let end = offset + PIECE_BYTES;
        blank(offset..end, &write)?;
        flush()?;
        offset = end;
    }
    blank(offset..range.end, &write)
}

fn fill(
    file: &SegmentFile,
    bytes: u64,
    preallocation: Preallocation,
    beside: Beside,
    progress: &dyn Fn(),
) -> Result<()> {
    match preallocation {
        Preallocation::Sparse => file.set_len(bytes),
        Preallocation::Reserve => file.reserve(bytes),
        // There is no earlier segment to learn from.
        Preallocation::Adaptive | Preallocation::ZeroFill => {
            // Reserving first keeps extents contiguous and finds a full disk at once.
            file.reserve(bytes)?;
            if zero(file, bytes, progress) {
                return Ok(());
            }
            let write = |zeros: &[u8], offset| {
                progress();
                file.write_at(zeros, offset)
            };
            match beside {
                Beside::Nothing => blank(0..bytes, write),
                Beside::Commits => blank_by_pieces(0..bytes, write, || {
                    progress();
                    file.sync_data()
                }),
            }
        }
    }
}

/// Zeroes the file without a transfer to the device, and reads it back. Returns whether it is full
/// of zeros.
///
/// The reads have two purposes. A record that is written into a page that is not cached waits until
/// the page is read: 120 µs instead of 2 µs. And bytes that are not zeros are no surprise later.
fn zero(file: &SegmentFile, bytes: u64, progress: &dyn Fn()) -> bool {
    let mut buffer = Vec::new();
    let mut start = 0;
    while start < bytes {
        let end = bytes.min(start + ZEROED_BYTES);
        progress();
        if !file.write_zeroes(start..end) {
            return false;
        }
        buffer.resize(ZEROS_BYTES, 0);
        while start < end {
            progress();
            let count = ZEROS_BYTES.min(usize::try_from(end - start).unwrap_or(ZEROS_BYTES));
            let read = buffer.get_mut(..count).unwrap_or_default();
            // A read that fails is no proof either.
            let is_read = file.read_at(read, start).is_ok_and(|read_count| read_count == count);
            if !is_read || ZEROS.get(..count) != Some(&*read) {
                warn_of_wrong_zeros(file, start);
                return false;
            }
            start += count as u64;
        }
    }
    true
}

fn warn_of_wrong_zeros(file: &SegmentFile, offset: u64) {
    tracing::warn!(
        log = file.directory(),
        segment = file.name(),
        offset,
        "zeroed space does not read as zeros; check the device, its firmware and the kernel"
    );
}

#[cfg(test)]
#[cfg(not(any(loom, shuttle)))]
mod tests;
