//! Copies of a log as part of the contract: a copy holds all records durable at its start, or
//! opening reports it as unfinished.

use std::io;

use highwater::{
    Error, Lsn,
    simulation::{Disk, Random},
    storage::{Locking, Storage, StorageFile},
};

use super::{
    open,
    oracle::{Moment, Oracle},
    read_all,
    workload::{Action, Script},
};

/// The facts about one copy.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) directory: String,
    /// The synced mark when the copy began.
    pub(crate) requested: Lsn,
    pub(crate) began: Moment,
    /// The operation after which the copy returned.
    pub(crate) done: Option<u64>,
}

/// A directory next to the log's on the same disk, so that a power cut hits both.
#[derive(Clone, Debug)]
pub(crate) struct CopyDirectory {
    pub(crate) disk: Disk,
    pub(crate) directory: String,
}

impl CopyDirectory {
    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.directory)
    }
}

impl Storage for CopyDirectory {
    fn location(&self) -> String {
        self.directory.clone()
    }
    fn is_nonblocking(&self) -> bool {
        self.disk.is_nonblocking()
    }
    fn lock(&self) -> io::Result<Locking> {
        Ok(Locking::Held(Box::new(())))
    }
    fn list(&self) -> io::Result<Vec<String>> {
        let names = self.disk.list()?.into_iter();
        let here = format!("{}/", self.directory);
        Ok(names.filter_map(|name| Some(name.strip_prefix(&here)?.to_owned())).collect())
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.disk.create(&self.at(name))
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageFile>> {
        self.disk.open(&self.at(name))
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(&self.at(name))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(&self.at(from), &self.at(to))
    }
    /// Links from the log's directory, which is the disk itself.
    fn link_from(&self, _: &dyn Storage, name: &str) -> io::Result<()> {
        self.disk.link(name, &self.at(name))
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }
    fn random(&self) -> io::Result<[u8; 16]> {
        self.disk.random()
    }
}

/// Adds copies to a script, at places that the seed decides.
pub(crate) fn with_copies(mut script: Script, seed: u64) -> Script {
    let mut random = Random::new(seed ^ 0xc0b1);
    for (tasks, _) in &mut script.sessions {
        for task in tasks {
            if random.one_in(2) {
                let at = random.below(task.len() + 1);
                task.insert(at, Action::CopyTo);
            }
        }
    }
    script
}

/// Checks the remains of all copies that the oracle knows.
pub(crate) async fn check_copies(disk: &Disk, oracle: &Oracle, at: u64) -> Result<(), String> {
    for copy in &oracle.copies {
        check_copy(disk, oracle, copy, at)
            .await
            .map_err(|what| format!("{}, begun at {}: {what}", copy.directory, copy.requested))?;
    }
    Ok(())
}

async fn check_copy(disk: &Disk, oracle: &Oracle, copy: &Copy, at: u64) -> Result<(), String> {
    let is_done = copy.done.is_some_and(|done| done <= at);
    let there = CopyDirectory { disk: disk.clone(), directory: copy.directory.clone() };
    let is_empty = there.list().map_err(|error| format!("{error:#}"))?.is_empty();
    if is_empty && !is_done {
        return Ok(());
    }
    let wal = match open(there).await {
        Err(Error::UnfinishedCopy { .. }) if !is_done => return Ok(()),
        opened => opened.map_err(|error| format!("done: {is_done}, {error}"))?,
    };
    let found = read_all(&wal).await?;
    oracle.check_records(&found, 0)?;
    match oracle.first_missing_of_copy(&found, copy.requested, copy.began) {
        Some(lost) => Err(format!("opens, but {lost} is missing; {}", wal.recovery())),
        None => Ok(()),
    }
}
