//! Reads and writes the note of the last close.

use crate::{
    error::{Error, Result},
    format::last_close::{LAST_CLOSE_BYTES_MAX, LastClose},
    segments::prepare::sync_directory,
    storage::{Storage, StorageFile, read_full, uninterrupted, write_full},
};

/// The name of the file.
pub(crate) const LAST_CLOSE: &str = "LAST-CLOSE";

/// Reads the note; `None` if it does not exist or is damaged.
pub(crate) fn read_last_close(storage: &dyn Storage) -> Result<Option<LastClose>> {
    let mut text = [0; LAST_CLOSE_BYTES_MAX];
    let read = storage.open(LAST_CLOSE).and_then(|file| read_full(file.as_ref(), &mut text, 0));
    match read {
        Ok(count) => Ok(LastClose::parse(text.get(..count).unwrap_or_default())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("reading", LAST_CLOSE, None, error)),
    }
}

/// Writes the note and makes it durable. A crash leaves the old note, the new one, or a damaged
/// one, which counts as none.
pub(crate) fn write_last_close(storage: &dyn Storage, note: &LastClose) -> Result<()> {
    if matches!(read_last_close(storage), Ok(Some(old)) if old == *note) {
        return Ok(());
    }
    let failed = |error| Error::io("writing", LAST_CLOSE, None, error);
    let (file, is_new) = open_or_create(storage).map_err(failed)?;
    let text = note.encode();
    write_full(file.as_ref(), text.as_bytes(), 0).map_err(failed)?;
    file.set_len(text.len() as u64).map_err(failed)?;
    uninterrupted(|| file.sync_all()).map_err(failed)?;
    if is_new { sync_directory(storage) } else { Ok(()) }
}

/// Returns the file to write to, and whether it is new. A file with a second name (in a backup,
/// perhaps) is not overwritten: the note gets a new file.
fn open_or_create(storage: &dyn Storage) -> std::io::Result<(Box<dyn StorageFile>, bool)> {
    match storage.open(LAST_CLOSE) {
        Ok(file) if file.link_count().unwrap_or(1) == 1 => return Ok((file, false)),
        Ok(_) => storage.remove(LAST_CLOSE)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    storage.create(LAST_CLOSE).map(|file| (file, true))
}
