//! The tool's own files: the one place of it that names `std::fs`.
//!
//! What a command makes appears under its name when it is whole and synced, and not before.

mod scratch;

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::{
    check::UNREADABLE,
    output::{Failure, told},
};

pub(crate) use scratch::{Scratch, Sync};

/// What was tried with a file, that it failed, and what to do.
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
    told(UNREADABLE, format!("{what} {}: {error}{advice}", path.display()))
}

/// A limit of file sizes (`ulimit -f`) makes a write fail; by default it ends the process, which then
/// can't say so or clean up.
pub(crate) fn outlive_size_limits() {
    #[cfg(unix)]
    {
        let unused = std::sync::Arc::default();
        // Without it things are as they were.
        let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, unused);
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the names in a directory durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// A new file that appears under its name once it is whole; or something that is no file (a pipe, a
/// device), written as it comes.
#[derive(Debug)]
pub(crate) struct NewFile {
    file: BufWriter<File>,
    path: PathBuf,
    /// The name until it is whole.
    partial: Option<PathBuf>,
}

impl NewFile {
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let found = fs::metadata(path);
        let is_special = matches!(&found, Ok(found) if !found.is_file() && !found.is_dir());
        if found.is_ok() && !is_special {
            let path = path.display();
            let message = format!("{path}: there already; delete it or name another file");
            return Err(told(UNREADABLE, message));
        }
        let partial = with_suffix(path, ".partial");
        let opened = if is_special {
            OpenOptions::new().write(true).open(path)
        } else {
            // What an export that was killed left behind is worth nothing.
            OpenOptions::new().write(true).create(true).truncate(true).open(&partial)
        };
        let file = opened.map_err(|error| failed("creating", path, &error))?;
        let file = BufWriter::with_capacity(256 << 10, file);
        Ok(NewFile { file, path: path.to_path_buf(), partial: (!is_special).then_some(partial) })
    }

    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let finished = self.file.flush().and_then(|()| {
            let Some(partial) = &self.partial else { return Ok(()) };
            self.file.get_ref().sync_all()?;
            fs::rename(partial, &self.path)?;
            sync_directory(parent(&self.path))
        });
        finished.map_err(|error| failed("writing", &self.path, &error))?;
        self.partial = None;
        Ok(())
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

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            let _ = fs::remove_file(partial);
        }
    }
}

/// A directory that appears under its name once what is made in it is whole.
#[derive(Debug)]
pub(crate) struct NewDirectory {
    path: PathBuf,
    staging: PathBuf,
    is_finished: bool,
}

impl NewDirectory {
    /// `path` doesn't exist, or is an empty directory.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        // Without its trailing slash, which a suffix would come behind.
        let path: PathBuf = path.components().collect();
        let refused = |error: &io::Error| failed("creating", &path, error);
        let Some(name) = path.file_name().filter(|_| !is_mount_point(&path)) else {
            let message = format!(
                "{}: can't be put in place as a whole; name a new directory inside of it",
                path.display()
            );
            return Err(told(UNREADABLE, message));
        };
        fs::create_dir_all(parent(&path)).map_err(|error| refused(&error))?;
        let mut staged = name.to_owned();
        staged.push(".importing");
        let staging = path.with_file_name(staged);
        match fs::create_dir(&staging) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let message = format!(
                    "{}: there already: another import runs, or one was killed; if none runs, \
                     delete it and import again",
                    staging.display()
                );
                return Err(told(UNREADABLE, message));
            }
            Err(error) => return Err(refused(&error)),
        }
        Ok(NewDirectory { path, staging, is_finished: false })
    }

    /// Where to make it.
    pub(crate) fn staging(&self) -> &Path {
        &self.staging
    }

    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let put = sync_directory(&self.staging).and_then(|()| {
            if cfg!(windows) && self.path.is_dir() {
                fs::remove_dir(&self.path)?;
            }
            fs::rename(&self.staging, &self.path)?;
            // From here on it is there: only its name may yet be lost with the power.
            self.is_finished = true;
            sync_directory(parent(&self.path))
        });
        put.map_err(|error| failed("putting in place", &self.path, &error))
    }
}

impl Drop for NewDirectory {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = fs::remove_dir_all(&self.staging);
        }
    }
}

#[cfg(unix)]
fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (fs::metadata(path), fs::metadata(parent(path))) {
        (Ok(own), Ok(parent)) => own.dev() != parent.dev(),
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_mount_point(_: &Path) -> bool {
    false
}

/// Whether anything stands under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    File,
    EmptyDirectory,
    Directory,
}

pub(crate) fn look(path: &Path) -> Result<Found, Failure> {
    let refused = |error: &io::Error| failed("looking at", path, error);
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => Ok(Found::File),
        Ok(_) => {
            let mut entries = fs::read_dir(path).map_err(|error| refused(&error))?;
            Ok(if entries.next().is_none() { Found::EmptyDirectory } else { Found::Directory })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) => Err(refused(&error)),
    }
}

/// The names in a directory.
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

/// A small file, if it is there.
pub(crate) fn small(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(1 << 20).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// A file that is read, and its length when it was opened.
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

    /// Reads at `offset` as much as there is, up to all of `to`.
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

impl Read for Input {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.file.read(to)
    }
}
