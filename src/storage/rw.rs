//! Repeats partial transfers until they are whole. Only this file handles `Interrupted` and short
//! counts.

use std::io;

use super::StorageFile;

/// Repeats a call while a signal interrupts it.
pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Reads until `buffer` is full or the file ends, and returns the count.
pub(crate) fn read_full(
    file: &dyn StorageFile,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match uninterrupted(|| file.read_at(rest, offset + done as u64))? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

/// Writes all of `bytes`. A count of 0 is an error, because a repeated call would not help.
pub(crate) fn write_full(file: &dyn StorageFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    write_all(bytes, offset, |rest, offset| file.write_at(rest, offset))
}

/// As [`write_full`]. Each call makes its bytes durable.
pub(crate) fn write_full_durably(
    file: &dyn StorageFile,
    bytes: &[u8],
    offset: u64,
) -> io::Result<()> {
    write_all(bytes, offset, |rest, offset| file.write_at_durably(rest, offset))
}

#[inline]
fn write_all(
    bytes: &[u8],
    offset: u64,
    write: impl Fn(&[u8], u64) -> io::Result<usize>,
) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match uninterrupted(|| write(rest, offset + done as u64))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => done += count,
        }
    }
    Ok(())
}

/// Returns the error for a name that no file has.
pub(crate) fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// Converts an offset or length; `StorageFull` if it exceeds the address space.
pub(crate) fn to_usize(value: u64) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::ErrorKind::StorageFull.into())
}

/// Copies bytes from `offset` on to `buffer`, and returns the count.
pub(crate) fn copy_out(bytes: &[u8], buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let from = bytes.get(to_usize(offset)?..).unwrap_or_default();
    let count = from.len().min(buffer.len());
    if let (Some(to), Some(from)) = (buffer.get_mut(..count), from.get(..count)) {
        to.copy_from_slice(from);
    }
    Ok(count)
}
