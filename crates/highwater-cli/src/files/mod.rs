//! The tool's own files: the only module that uses `std::fs`.
//!
//! A new file or directory appears under its name only when it is complete and synced.

mod directory;
mod new_file;
mod scratch;
mod space;
mod temporary;

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use crate::{
    exit::UNREADABLE,
    output::{Failure, failure},
};

pub(crate) use directory::NewDirectory;
pub(crate) use new_file::NewFile;
pub(crate) use scratch::{Scratch, Sync, aligned};
pub(crate) use space::{Space, space};

/// Returns the failure of an operation on a file, with advice.
pub(crate) fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space and try again"
        }
        io::ErrorKind::FileTooLarge => "; raise the limit of file sizes (ulimit -f) and try again",
        io::ErrorKind::PermissionDenied => "; run as a user who may do that",
        io::ErrorKind::NotFound => "; does the path exist?",
        io::ErrorKind::ReadOnlyFilesystem => "; name a place that can be written",
        _ => "",
    };
    failure(UNREADABLE, format!("{what} {}: {error}{advice}", path.display()))
}

/// Makes a write above the limit of file sizes (`ulimit -f`) fail with an error.
///
/// By default, a signal ends the process, which then can't report the error or clean up.
pub(crate) fn ignore_size_limit_signal() {
    #[cfg(unix)]
    {
        let unused = std::sync::Arc::default();
        // If this fails, the signal still ends the process.
        let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, unused);
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the names in a directory durable. Only Unix has this operation.
fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// The kind of file at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathKind {
    Nothing,
    File,
    EmptyDirectory,
    Directory,
}

pub(crate) fn path_kind(path: &Path) -> Result<PathKind, Failure> {
    let refused = |error: &io::Error| failed("looking at", path, error);
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => Ok(PathKind::File),
        Ok(_) => {
            let mut entries = fs::read_dir(path).map_err(|error| refused(&error))?;
            Ok(if entries.next().is_none() {
                PathKind::EmptyDirectory
            } else {
                PathKind::Directory
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(PathKind::Nothing),
        Err(error) => Err(refused(&error)),
    }
}

/// Returns the names in a directory, sorted.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, Failure> {
    let listed = fs::read_dir(path).and_then(|entries| {
        let name = |entry: io::Result<fs::DirEntry>| {
            entry.map(|entry| entry.file_name().to_string_lossy().into_owned())
        };
        entries.map(name).collect::<io::Result<Vec<_>>>()
    });
    let mut names = listed.map_err(|error| failed("listing", path, &error))?;
    names.sort();
    Ok(names)
}

/// Reads the first MiB of a file. Returns `None` if the file can't be read.
pub(crate) fn read_small_file(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(1 << 20).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// An open file, and its length when it was opened.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    file: File,
}

impl Input {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (bytes, file) = opened.map_err(|error| failed("opening", path, &error))?;
        Ok(Input { path: path.to_path_buf(), bytes, file })
    }

    /// Reads from `offset` until `to` is full or the file ends. Returns the number of bytes.
    pub(crate) fn read_at(&mut self, offset: u64, to: &mut [u8]) -> Result<usize, Failure> {
        let mut filled = 0;
        let mut read = || {
            self.file.seek(SeekFrom::Start(offset))?;
            while let Some(room @ [_, ..]) = to.get_mut(filled..) {
                match self.file.read(room) {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(filled)
        };
        read().map_err(|error| failed("reading", &self.path, &error))
    }
}

impl Input {
    /// Returns the first offset from `offset` on outside of holes, or the file's length.
    ///
    /// Returns `offset` if the system or the file system does not report holes.
    pub(crate) fn next_data(&mut self, offset: u64) -> Result<u64, Failure> {
        #[cfg(any(target_os = "linux", target_vendor = "apple", target_os = "freebsd"))]
        {
            use rustix::{fs::SeekFrom, io::Errno};
            match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
                Ok(data) => return Ok(data),
                Err(Errno::NXIO) => return Ok(self.bytes),
                // Not every file system reports holes.
                Err(Errno::INVAL | Errno::NOTSUP) => {}
                Err(error) => return Err(failed("reading", &self.path, &error.into())),
            }
        }
        Ok(offset)
    }
}

impl Read for Input {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.file.read(to)
    }
}
