//! A snapshot in a file, which is either complete and durable or absent.

use std::{
    any::Any,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use highwater::storage::{Locking, Storage};
use serde::{Deserialize, Serialize};

use crate::types::{LogId, SnapshotMeta};

const NAME: &str = "snapshot";
const UNFINISHED: &str = "snapshot.unfinished";

/// The directory with the node's snapshot.
///
/// It uses the same storage trait as the log, so that the chaos test can cut the power of both.
/// With `std::fs` the steps would be the same.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    directory: Arc<dyn Storage>,
    /// The last log ID in the file's snapshot. `save` holds the lock, because a snapshot from the
    /// leader may arrive while another one is built, and the older one must not replace the newer
    /// one.
    newest: Arc<Mutex<Option<LogId>>>,
    _lock: Arc<dyn Any + Send + Sync>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    meta: SnapshotMeta,
    keys: Vec<u8>,
}

impl SnapshotFile {
    pub(crate) fn open(directory: Arc<dyn Storage>) -> io::Result<Self> {
        match directory.lock()? {
            Locking::Held(lock) => {
                Ok(SnapshotFile { directory, newest: Arc::default(), _lock: lock.into() })
            }
            Locking::Busy { .. } => {
                Err(io::Error::other("another node uses this snapshot directory"))
            }
        }
    }

    /// Saves a snapshot unless the file has a newer one.
    ///
    /// The snapshot in the file is durable when this returns, because openraft then removes its
    /// entries from the log. The commit point is the rename. A crash before it leaves the previous
    /// snapshot.
    pub(crate) async fn save(&self, meta: SnapshotMeta, keys: Vec<u8>) -> io::Result<()> {
        let SnapshotFile { directory, newest, .. } = self.clone();
        blocking(move || {
            let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
            let last = meta.last_log_id;
            if *newest > last {
                return Ok(());
            }
            let bytes = postcard::to_stdvec(&Stored { meta, keys }).map_err(io::Error::other)?;
            match directory.remove(UNFINISHED) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let file = directory.create(UNFINISHED)?;
            let mut written = 0;
            while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
                written += file.write_at(rest, written as u64)?;
            }
            file.sync_all()?;
            directory.rename(UNFINISHED, NAME)?;
            directory.sync_dir()?;
            *newest = last;
            Ok(())
        })
        .await
    }

    pub(crate) async fn load(&self) -> io::Result<Option<(SnapshotMeta, Vec<u8>)>> {
        let SnapshotFile { directory, newest, .. } = self.clone();
        blocking(move || {
            let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
            let file = match directory.open(NAME) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => file?,
            };
            let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
            let mut read = 0;
            while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
                match file.read_at(rest, read as u64)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => read += count,
                }
            }
            let Stored { meta, keys } = postcard::from_bytes(&bytes).map_err(io::Error::other)?;
            *newest = meta.last_log_id;
            Ok(Some((meta, keys)))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use highwater::{simulation::WriteBack, storage::FileStorage};

    use super::*;

    #[tokio::test]
    async fn power_cut_keeps_last_complete_snapshot() {
        let directory = tempfile::tempdir().unwrap();
        let files = || FileStorage::create(directory.path()).unwrap();
        let snapshots = SnapshotFile::open(Arc::new(WriteBack::new(files()))).unwrap();
        assert!(snapshots.load().await.unwrap().is_none());
        snapshots.save(SnapshotMeta::default(), b"first".into()).await.unwrap();
        snapshots.directory.create(UNFINISHED).unwrap().write_at(b"seco", 0).unwrap();
        drop(snapshots);

        WriteBack::discard_lost(&files()).unwrap();
        let snapshots = SnapshotFile::open(Arc::new(files())).unwrap();
        assert_eq!(snapshots.load().await.unwrap().unwrap().1, b"first");
        snapshots.save(SnapshotMeta::default(), b"second".into()).await.unwrap();
        assert_eq!(snapshots.load().await.unwrap().unwrap().1, b"second");
    }
}
