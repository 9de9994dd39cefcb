//! Lists a log's directory without the names that file systems and platforms create.

use std::io;

use super::{lock::LOCK_FILE, platform::Directory};

/// Whole names.
const NAMES: [&str; 16] = [
    // ext2 to ext4, at the root of a volume.
    "lost+found",
    // Snapshots: NetApp and NFS servers, snapper, Windows, GlusterFS.
    ".snapshot",
    ".snapshots",
    ".snap",
    ".zfs",
    "System Volume Information",
    ".glusterfs",
    // Trash.
    "$RECYCLE.BIN",
    ".Trashes",
    // macOS: folder views, indexes, events.
    ".DS_Store",
    ".Spotlight-V100",
    ".fseventsd",
    // Windows: folder views.
    "desktop.ini",
    "Thumbs.db",
    // Kubernetes: the current version of a projected volume.
    "..data",
    // KDE: folder views.
    ".directory",
];

/// Prefixes of names: a number or a user's name follows.
const PREFIXES: [&str; 6] = [
    // Files that were removed while they were open.
    ".nfs",
    ".fuse_hidden",
    ".smbdelete",
    // Trash by user.
    ".Trash-",
    // macOS, one for each file on foreign file systems.
    "._",
    // Kubernetes: the versions of a projected volume.
    "..20",
];

/// Returns the names in a log's directory, without `LOCK` and the names of the platform.
pub(super) fn names_in(directory: &Directory) -> io::Result<Vec<String>> {
    let mut names = directory.names()?;
    names.retain(|name| name != LOCK_FILE && !is_of_platform(name));
    Ok(names)
}

/// Returns whether file systems or platforms create files of this name. A directory that holds
/// nothing else counts as empty.
fn is_of_platform(name: &str) -> bool {
    NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platform_names_differ_from_user_files() {
        for name in NAMES {
            assert!(is_of_platform(name), "{name}");
        }
        for name in [
            ".nfs000000000a3c0f2500000001",
            ".fuse_hidden0000000500000001",
            ".Trash-1000",
            "._00000000000000000001.wal",
            "THUMBS.DB",
        ] {
            assert!(is_of_platform(name), "{name}");
        }
        for name in [
            "00000000000000000001.wal",
            "00000000000000000001.wal.cut",
            "LOCK",
            "UNFINISHED-COPY",
            "thesis.txt",
            ".bashrc",
            "lost+found.txt",
            "nfs",
            ".git",
            "data",
        ] {
            assert!(!is_of_platform(name), "{name}");
        }
    }
}
