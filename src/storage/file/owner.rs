//! The text of `LOCK`. It names the owner of the lock for people and for a refused opener.

use std::{io, sync::Mutex};

use crate::{lock_owner::LockOwner, sync::LockAlways};

/// The longest text of an owner. A longer file is not a log's.
pub(super) const OWNER_BYTES_MAX: usize = 1024;
const HOST_BYTES_MAX: usize = 255;

/// A process. Its pid is not enough, because two containers each have a process 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pid: u32,
    host: String,
    /// Random; drawn once per process.
    id: u128,
}

/// The process that drew the last id. A forked child has its parent's memory, but another pid.
static CURRENT: Mutex<Option<Process>> = Mutex::new(None);

impl Process {
    /// Returns the calling process.
    pub(super) fn current() -> io::Result<Self> {
        let mut current = CURRENT.lock_always();
        let pid = std::process::id();
        if let Some(process) = current.as_ref().filter(|process| process.pid == pid) {
            return Ok(process.clone());
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(io::Error::other)?;
        let process = Process { pid, host: host_name(), id: u128::from_le_bytes(id) };
        *current = Some(process.clone());
        Ok(process)
    }

    /// Returns the contents of `LOCK` while this process holds it.
    pub(super) fn to_text(&self) -> String {
        format!("pid {}\nhost {}\nid {:032x}\n", self.pid, self.host, self.id)
    }

    /// Parses the text of an owner; `None` for any other text. Bytes after it are the rest of an
    /// older, longer text.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid = lines.next()?.strip_prefix("pid ")?.parse().ok()?;
        let host = plain(lines.next()?.strip_prefix("host ")?);
        let id = lines.next()?.strip_prefix("id ")?;
        let id = u128::from_str_radix(id, 16).ok().filter(|_| id.len() == 32)?;
        Some(Process { pid, host, id })
    }

    /// Returns the owner that wrote `text`. This process must have no handle of the log itself.
    pub(super) fn owner(&self, text: &str) -> LockOwner {
        match Process::parse(text) {
            None => LockOwner::Unknown,
            Some(owner) if owner.id == self.id => LockOwner::ForkedChild,
            Some(Process { pid, host, .. }) => {
                LockOwner::Process { pid, host: Some(host).filter(|host| *host != self.host) }
            }
        }
    }
}

/// Returns whether a log wrote a file named `LOCK`, so that it may be overwritten. A loss of power
/// can leave it empty or blank.
pub(super) fn is_ours(bytes: &[u8]) -> bool {
    let is_blank = bytes.iter().all(|&byte| byte == 0);
    is_blank || std::str::from_utf8(bytes).is_ok_and(|text| Process::parse(text).is_some())
}

fn host_name() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    plain(&name)
}

/// Returns the characters that a terminal shows unchanged, in one line.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_graphic).take(HOST_BYTES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, host: &str, id: u128) -> Process {
        Process { pid, host: host.to_owned(), id }
    }

    #[test]
    fn owner_is_identified_by_id_not_by_pid() {
        let own = process(1, "here", 7);
        let owner = |other: &Process| own.owner(&other.to_text());
        assert_eq!(owner(&process(1, "here", 7)), LockOwner::ForkedChild);
        assert_eq!(owner(&process(1, "here", 8)), LockOwner::Process { pid: 1, host: None });
        let host = Some("there".to_owned());
        assert_eq!(owner(&process(1, "there", 8)), LockOwner::Process { pid: 1, host });
    }

    #[test]
    fn text_with_rest_of_a_longer_one_is_read() {
        let own = process(1, "here", 7);
        let long = process(4_000_000_000, "a-host-with-a-long-name", u128::MAX).to_text();
        let short = process(2, "b", 9).to_text();
        let mixed = format!("{short}{}", &long[short.len()..]);
        assert_eq!(own.owner(&mixed), LockOwner::Process { pid: 2, host: Some("b".to_owned()) });
        assert!(is_ours(mixed.as_bytes()));
    }

    #[test]
    fn text_of_others_is_not_ours() {
        for text in ["precious", "pid x\n", "pid 1\nhost a\n", "pid 1\nhost a\nid 12\n", "\u{0}x"] {
            assert!(!is_ours(text.as_bytes()), "{text:?}");
            assert_eq!(process(1, "a", 1).owner(text), LockOwner::Unknown, "{text:?}");
        }
        for text in ["", "\u{0}\u{0}\u{0}"] {
            assert!(is_ours(text.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn current_process_is_the_same_each_time() {
        let current = Process::current().unwrap();
        assert_eq!(current, Process::current().unwrap());
        assert!(current.to_text().len() <= OWNER_BYTES_MAX);
        assert_ne!(current.id, 0);
    }
}
