//! A directory that appears under its name only when its contents are complete.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{failed, parent, sync_directory, temporary::Temporary};
use crate::{
    exit::UNREADABLE,
    output::{Failure, failure},
    text::shown,
};

/// A directory that appears under its name when [`finish`](Self::finish) is called.
#[derive(Debug)]
pub(crate) struct NewDirectory {
    path: PathBuf,
    staging: Temporary,
}

impl NewDirectory {
    /// Creates the staging directory beside `path`.
    ///
    /// `path` must not exist, or be an empty directory, or a symbolic link to one.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        // Removes a trailing slash, because a suffix is appended to the name.
        let named: PathBuf = path.components().collect();
        let refused = |error: &io::Error| failed("creating", &named, error);
        let is_link = fs::symlink_metadata(&named).is_ok_and(|found| found.is_symlink());
        // A link (on Windows also a junction) stays, and its target is replaced.
        let path = if is_link {
            fs::canonicalize(&named).map_err(|error| refused(&error))?
        } else {
            named.clone()
        };
        let Some(name) = path.file_name().filter(|_| !is_mount_point(&path)) else {
            let message = format!(
                "{}: can't be replaced as a whole; name a new directory inside it",
                shown(&path)
            );
            return Err(failure(UNREADABLE, message));
        };
        fs::create_dir_all(parent(&path)).map_err(|error| refused(&error))?;
        let mut staged = name.to_owned();
        staged.push(".importing");
        let staging = path.with_file_name(staged);
        match Temporary::directory(staging.clone()) {
            Ok(staging) => Ok(NewDirectory { path, staging }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let message = format!(
                    "{}: exists already: another import runs, or one was killed; if none runs, \
                     delete it and import again",
                    shown(&staging)
                );
                Err(failure(UNREADABLE, message))
            }
            Err(error) => Err(refused(&error)),
        }
    }

    /// Returns the staging directory, in which the contents are created.
    pub(crate) fn staging(&self) -> &Path {
        self.staging.path()
    }

    pub(crate) fn finish(self) -> Result<(), Failure> {
        let put = sync_directory(self.staging.path()).and_then(|()| {
            self.staging.put_in_place(|from| {
                if cfg!(windows) && fs::symlink_metadata(&self.path).is_ok_and(|at| at.is_dir()) {
                    fs::remove_dir(&self.path)?;
                }
                fs::rename(from, &self.path)
            })?;
            // Makes the new name durable.
            sync_directory(parent(&self.path))
        });
        put.map_err(|error| failed("putting in place", &self.path, &error))
    }
}

/// Returns whether `path` is a mount point, which a rename can't replace.
#[cfg(unix)]
fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (fs::metadata(path), fs::metadata(parent(path))) {
        (Ok(own), Ok(parent)) => own.dev() != parent.dev() || is_mount_root(path),
        _ => false,
    }
}

/// Detects a bind mount, which has the same device as its parent.
#[cfg(target_os = "linux")]
fn is_mount_root(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(all(unix, not(target_os = "linux")))]
fn is_mount_root(_: &Path) -> bool {
    false
}

/// On Windows a mount point is a reparse point, which counts as a link.
#[cfg(not(unix))]
fn is_mount_point(_: &Path) -> bool {
    false
}
