//! The holder of a log's lock, as seen by a process whose opening failed.

use std::fmt;

/// The holder of a log's lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockOwner {
    /// Another handle of this process, or a dropped handle whose last writes still run.
    ThisProcess,
    /// A process that this process forked. It inherited the lock, and this process has no handle.
    ForkedChild,
    /// Another process.
    Process {
        /// Its process id in its own process namespace.
        pid: u32,
        /// The name of its host; `None` if that is this host's name.
        host: Option<String>,
    },
    /// An unknown process: `LOCK` cannot be read, or the lock is not a log's.
    Unknown,
}

impl LockOwner {
    /// Returns the owner's process id, if it is known.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match self {
            LockOwner::ThisProcess => Some(std::process::id()),
            LockOwner::Process { pid, .. } => Some(*pid),
            LockOwner::ForkedChild | LockOwner::Unknown => None,
        }
    }

    /// Returns whether the lock may soon be free. A last job may be ending, or a cleaner of
    /// temporary files may hold the lock, because such a cleaner locks directories.
    pub(crate) fn is_brief(&self) -> bool {
        matches!(self, LockOwner::ThisProcess | LockOwner::Unknown)
    }
}

impl fmt::Display for LockOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockOwner::ThisProcess => {
                f.write_str("by another handle of this process, or one whose last writes still run")
            }
            LockOwner::ForkedChild => {
                f.write_str("in a process that this one forked, which inherited the lock")
            }
            LockOwner::Process { pid, host: None } => write!(f, "in another process (pid {pid})"),
            LockOwner::Process { pid, host: Some(host) } => {
                write!(f, "in another process (pid {pid} on host {host})")
            }
            LockOwner::Unknown => f.write_str("in an unknown process"),
        }
    }
}
