//! The names: those of the storage within, and the changes it hasn't been told of yet.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
};

use super::cached::CachedFile;
use crate::storage::Storage;

/// Of the names that files have within until their creation is synced.
pub(super) const TEMPORARY_PREFIX: &str = ".unsynced-";

/// A change of the directory that isn't synced. Names are those that the process sees, but for
/// `temporary`.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Create { temporary: String, name: String },
    Remove { name: String },
    Rename { from: String, to: String },
}

#[derive(Debug, Default)]
pub(super) struct Directory {
    /// Oldest first: the order in which they are handed over.
    changes: VecDeque<Change>,
    /// Files that are open or have something unsynced, by the name that they have within.
    files: BTreeMap<String, Arc<CachedFile>>,
    temporary_count: u64,
}

pub(super) fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Directory {
    /// The names as the process sees them, and the name that each file has within.
    pub(super) fn view(&self, inner: &dyn Storage) -> io::Result<BTreeMap<String, String>> {
        let mut names: BTreeMap<_, _> = inner
            .list()?
            .into_iter()
            .filter(|name| !name.starts_with(TEMPORARY_PREFIX))
            .map(|name| (name.clone(), name))
            .collect();
        for change in &self.changes {
            match change {
                Change::Create { temporary, name } => {
                    names.insert(name.clone(), temporary.clone());
                }
                Change::Remove { name } => drop(names.remove(name)),
                Change::Rename { from, to } => {
                    if let Some(inner_name) = names.remove(from) {
                        names.insert(to.clone(), inner_name);
                    }
                }
            }
        }
        Ok(names)
    }

    pub(super) fn push(&mut self, change: Change) {
        self.changes.push_back(change);
    }

    pub(super) fn unsynced_count(&self) -> u64 {
        self.changes.len() as u64
    }

    /// Creates a file under a name of its own, which no later opening takes for a file of the log.
    pub(super) fn create_temporary(
        &mut self,
        inner: &dyn Storage,
    ) -> io::Result<(String, Arc<CachedFile>)> {
        self.forget_clean_files();
        loop {
            let name = format!("{TEMPORARY_PREFIX}{}", self.temporary_count);
            self.temporary_count += 1;
            match inner.create(&name) {
                Ok(file) => {
                    let file = Arc::new(CachedFile::new(file)?);
                    self.files.insert(name.clone(), Arc::clone(&file));
                    return Ok((name, file));
                }
                // A leftover, if nobody took the lock.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// One file is one state, however often it is opened.
    pub(super) fn open(
        &mut self,
        inner: &dyn Storage,
        inner_name: &str,
    ) -> io::Result<Arc<CachedFile>> {
        self.forget_clean_files();
        if let Some(file) = self.files.get(inner_name) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(CachedFile::new(inner.open(inner_name)?)?);
        self.files.insert(inner_name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    /// Closes what nobody has open and needs no sync. Handles are made under the directory's lock
    /// alone, so a file that has none gets none meanwhile.
    fn forget_clean_files(&mut self) {
        self.files.retain(|_, file| Arc::strong_count(file) > 1 || file.is_unsynced());
    }

    #[cfg(test)]
    pub(super) fn open_count(&self) -> usize {
        self.files.len()
    }

    /// Tells the storage within of the first `count` changes. One that fails stays the first.
    pub(super) fn hand_over(&mut self, inner: &dyn Storage, count: u64) -> io::Result<()> {
        for _ in 0..count {
            let Some(change) = self.changes.front() else { break };
            match change {
                Change::Create { temporary: from, name: to } | Change::Rename { from, to } => {
                    inner.rename(from, to)?;
                    let file = self.files.remove(from);
                    // Whatever had the name is gone, but for those who have it open.
                    self.files.remove(to);
                    self.files.extend(file.map(|file| (to.clone(), file)));
                }
                Change::Remove { name } => {
                    inner.remove(name)?;
                    self.files.remove(name);
                }
            }
            self.changes.pop_front();
        }
        Ok(())
    }

    /// Removes the files that an earlier process created and whose names it never synced.
    pub(super) fn discard_lost(&self, inner: &dyn Storage) -> io::Result<()> {
        let is_ours = |name: &str| {
            self.changes.iter().any(|change| {
                matches!(change, Change::Create { temporary, .. } if temporary.as_str() == name)
            })
        };
        for name in inner.list()? {
            if name.starts_with(TEMPORARY_PREFIX) && !is_ours(&name) {
                inner.remove(&name)?;
            }
        }
        Ok(())
    }
}
