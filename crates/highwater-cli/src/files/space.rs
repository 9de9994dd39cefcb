//! The free space of a file system.

use std::path::Path;

/// The space of a file system, as its users see it.
#[cfg_attr(not(unix), allow(dead_code, reason = "only Unix reports the space"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    /// The bytes that a user without privileges may still write.
    pub(crate) free_bytes: u64,
    pub(crate) total_bytes: u64,
}

/// Returns the space of the file system of `path`; `None` if the system does not report it.
pub(crate) fn space(path: &Path) -> Option<Space> {
    #[cfg(unix)]
    {
        let found = rustix::fs::statvfs(path).ok()?;
        Some(Space {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}
