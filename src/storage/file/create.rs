//! Opens or creates a log's directory, so that a loss of power does not remove it.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    names::names_in,
    platform::{Directory, create_directory},
};
use crate::error::{Error, Result};

/// Opens the directory. If it does not exist, creates it with its parents.
///
/// # Errors
///
/// `Io`, with the directory that could not be opened, created or synced.
pub(super) fn open_or_create(path: &Path, file_mode: u32) -> Result<Directory> {
    create_durably(path, file_mode)?;
    let directory = open(path)?;
    let names = names_in(&directory).map_err(|error| failed("listing", path, error))?;
    if names.is_empty() {
        // The creator of an empty directory may not have synced the directory's own entry.
        sync_entry_of(&directory, path)?;
    }
    Ok(directory)
}

/// Creates each missing directory and syncs its parent. If the entry were not durable, the whole
/// log could be lost.
fn create_durably(path: &Path, file_mode: u32) -> Result<()> {
    if path.as_os_str().is_empty() || path.exists() {
        return Ok(());
    }
    create_durably(&parent_of(path), file_mode)?;
    match create_directory(path, file_mode) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("creating directory", path, error));
        }
        _ => {}
    }
    sync_entry_of(&open(path)?, path)
}

fn open(path: &Path) -> Result<Directory> {
    Directory::open(path).map_err(|error| failed("opening directory", path, error))
}

fn sync_entry_of(directory: &Directory, path: &Path) -> Result<()> {
    let synced = directory.sync_own_entry();
    synced.map_err(|error| failed("syncing the directory", &parent_of(path), error))
}

fn failed(operation: &'static str, path: &Path, error: io::Error) -> Error {
    Error::io(operation, path.display().to_string(), None, error)
}

fn parent_of(directory: &Path) -> PathBuf {
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        Some(_) => PathBuf::from("."),
        None => directory.to_path_buf(),
    }
}
