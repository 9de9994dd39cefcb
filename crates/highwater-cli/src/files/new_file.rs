//! A file that appears under its name only when it is complete.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use super::{failed, parent, sync_directory, temporary::Temporary};
use crate::{
    exit::UNREADABLE,
    output::{Failure, failure},
    text::shown,
};

/// A new file that appears under its name when [`finish`](Self::finish) is called.
///
/// A pipe or a device is written directly.
#[derive(Debug)]
pub(crate) struct NewFile {
    file: BufWriter<File>,
    path: PathBuf,
    /// The temporary name; `None` for a pipe or a device.
    partial: Option<Temporary>,
}

fn is_there(path: &Path) -> Failure {
    let message = format!("{}: exists already; delete it or name another file", shown(path));
    failure(UNREADABLE, message)
}

impl NewFile {
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let refused = |error: io::Error| failed("creating", path, &error);
        let found = fs::metadata(path);
        let is_special = matches!(&found, Ok(found) if !found.is_file() && !found.is_dir());
        let (file, partial) = if is_special {
            (OpenOptions::new().write(true).open(path).map_err(refused)?, None)
        } else if fs::symlink_metadata(path).is_ok() {
            // A dangling symbolic link counts too, because links are not followed.
            return Err(is_there(path));
        } else {
            let made = Temporary::file_beside(path, ".partial");
            let (partial, file) = made.map_err(refused)?;
            (file, Some(partial))
        };
        let file = BufWriter::with_capacity(256 << 10, file);
        Ok(NewFile { file, path: path.to_path_buf(), partial })
    }

    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let finished = self.file.flush().and_then(|()| {
            let Some(partial) = &self.partial else { return Ok(()) };
            self.file.get_ref().sync_all()?;
            partial.put_in_place(|from| rename_new(from, &self.path))?;
            sync_directory(parent(&self.path))
        });
        finished.map_err(|error| match error.kind() {
            // Another command created the file in the meantime.
            io::ErrorKind::AlreadyExists => is_there(&self.path),
            _ => failed("writing", &self.path, &error),
        })
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Renames a file, but never replaces one.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    {
        use rustix::{
            fs::{CWD, RenameFlags, renameat_with},
            io::Errno,
        };
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Not every file system supports the flag.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            renamed => return Ok(renamed?),
        }
    }
    if fs::symlink_metadata(to).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)
}
