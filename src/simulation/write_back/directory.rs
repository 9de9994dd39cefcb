//! The names in a [`WriteBack`](super::WriteBack): those of the inner storage, with the unsynced
//! changes.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
};

use super::cached::CachedFile;
use crate::storage::Storage;

/// The prefix of a file's inner name until its creation is synced.
pub(super) const TEMPORARY_PREFIX: &str = ".unsynced-";

/// An unsynced change of the directory. Names are outer names, except `temporary`.
#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Create { temporary: String, name: String },
    Remove { name: String },
    Rename { from: String, to: String },
}

#[derive(Debug, Default)]
pub(super) struct Directory {
    /// The unsynced changes, oldest first: the order in which they are written back.
    changes: VecDeque<NameChange>,
    /// Files that are open or have unsynced bytes, by their inner names.
    files: BTreeMap<String, Arc<CachedFile>>,
    temporary_count: u64,
}

impl Directory {
    /// Returns the outer name of each file, with its inner name.
    pub(super) fn view(&self, inner: &dyn Storage) -> io::Result<BTreeMap<String, String>> {
        let mut names: BTreeMap<_, _> = inner
            .list()?
            .into_iter()
            .filter(|name| !name.starts_with(TEMPORARY_PREFIX))
            .map(|name| (name.clone(), name))
            .collect();
        for change in &self.changes {
            match change {
                NameChange::Create { temporary, name } => {
                    names.insert(name.clone(), temporary.clone());
                }
                NameChange::Remove { name } => drop(names.remove(name)),
                NameChange::Rename { from, to } => {
                    if let Some(inner_name) = names.remove(from) {
                        names.insert(to.clone(), inner_name);
                    }
                }
            }
        }
        Ok(names)
    }

    pub(super) fn push(&mut self, change: NameChange) {
        self.changes.push_back(change);
    }

    pub(super) fn unsynced_count(&self) -> u64 {
        self.changes.len() as u64
    }

    /// Creates a file under a temporary inner name. No later opening takes it for a file of the
    /// log.
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
                // A leftover can exist if the lock was not taken.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens a file. All handles of a file share one cache.
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

    /// Closes files that have no handle and nothing unsynced. Handles are created under the
    /// directory's lock only, so a file without a handle gets none meanwhile.
    fn forget_clean_files(&mut self) {
        self.files.retain(|_, file| Arc::strong_count(file) > 1 || file.is_unsynced());
    }

    #[cfg(test)]
    pub(super) fn open_count(&self) -> usize {
        self.files.len()
    }

    /// Writes the first `count` changes back to the inner storage. A change that fails stays the
    /// first one.
    pub(super) fn write_back(&mut self, inner: &dyn Storage, count: u64) -> io::Result<()> {
        for _ in 0..count {
            let Some(change) = self.changes.front() else { break };
            match change {
                NameChange::Create { temporary: from, name: to }
                | NameChange::Rename { from, to } => {
                    inner.rename(from, to)?;
                    let file = self.files.remove(from);
                    // A replaced file is reachable only by its open handles.
                    self.files.remove(to);
                    self.files.extend(file.map(|file| (to.clone(), file)));
                }
                NameChange::Remove { name } => {
                    inner.remove(name)?;
                    self.files.remove(name);
                }
            }
            self.changes.pop_front();
        }
        Ok(())
    }

    /// Removes files that an earlier process created without syncing their names.
    pub(super) fn discard_lost(&self, inner: &dyn Storage) -> io::Result<()> {
        let is_ours = |name: &str| {
            self.changes.iter().any(|change| {
                matches!(change, NameChange::Create { temporary, .. } if temporary.as_str() == name)
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
