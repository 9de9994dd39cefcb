//! Opens regular files only. The error names the kind of anything else.
//!
//! A FIFO without a writer blocks an ordinary open, and a device may block each read. A symbolic
//! link without a target looks like a removed file.

use std::{
    fs::{self, File, Metadata},
    io,
    path::Path,
};

/// Returns the file if it is a regular file.
///
/// # Errors
///
/// `InvalidInput` with its kind, if it is not a regular file; else the system's error.
pub(super) fn regular_file(file: File) -> io::Result<File> {
    match kind(&file.metadata()?) {
        None => Ok(file),
        Some(kind) => Err(not_regular(kind)),
    }
}

/// Replaces the system's error by one that names the kind of a file that cannot be opened.
pub(super) fn explained(error: io::Error, path: &Path) -> io::Error {
    let Ok(found) = fs::symlink_metadata(path) else { return error };
    if error.kind() == io::ErrorKind::NotFound && found.is_symlink() {
        let target = fs::read_link(path).unwrap_or_default();
        let message = format!(
            "it is a symbolic link to {}, which doesn't exist; bring the target back, or remove \
             the link",
            target.display()
        );
        return io::Error::new(io::ErrorKind::InvalidInput, message);
    }
    // A socket cannot be opened.
    kind(&found).filter(|_| !found.is_symlink()).map_or(error, not_regular)
}

fn not_regular(kind: &str) -> io::Error {
    let message = format!("it is {kind} and not a regular file; move it out of the directory");
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Returns the kind of a file; `None` for a regular file.
fn kind(found: &Metadata) -> Option<&'static str> {
    let kind = found.file_type();
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let special = [
            (kind.is_fifo(), "a FIFO"),
            (kind.is_socket(), "a socket"),
            (kind.is_char_device(), "a character device"),
            (kind.is_block_device(), "a block device"),
        ];
        if let Some((_, name)) = special.into_iter().find(|(is_it, _)| *is_it) {
            return Some(name);
        }
    }
    match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some("a directory"),
        () => Some("a special file"),
    }
}

// rustix creates FIFOs on Linux only.
#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::{super::platform::Directory, *};

    #[test]
    fn special_file_is_refused_by_its_kind() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let opened = Directory::open(directory.path()).unwrap();
        let open = |name, writes| match writes {
            true => opened.open_to_write(name),
            false => opened.open_to_read(name),
        };
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let _listener = UnixListener::bind(at("socket")).unwrap();
        symlink("/dev/null", at("device")).unwrap();
        symlink(at("fifo"), at("link")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        fs::write(at("file"), b"bytes").unwrap();
        symlink("file", at("good")).unwrap();
        let expected = [
            ("fifo", "a FIFO"),
            ("socket", "a socket"),
            ("device", "a character device"),
            ("link", "a FIFO"),
            ("dangling", "a symbolic link to nowhere, which doesn't exist"),
        ];
        for (name, says) in expected {
            for writes in [false, true] {
                let refused = open(name, writes).unwrap_err();
                assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
                assert!(refused.to_string().contains(says), "{name}: {refused}");
            }
        }
        let refused = open("directory", false).unwrap_err();
        assert!(refused.to_string().contains("a directory"), "{refused}");
        for name in ["file", "good"] {
            drop(open(name, true).unwrap());
        }
        let gone = open("gone", false).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }
}
