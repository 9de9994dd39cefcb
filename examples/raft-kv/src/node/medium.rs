//! The storage of a node: a log and a snapshot, optionally behind a simulated page cache, and on a
//! disk that can be made to hang.

use std::{io, path::Path, sync::Arc, time::Duration};

use highwater::{
    Options, Wal,
    simulation::WriteBack,
    storage::{FileStorage, Storage},
};
use highwater_openraft::LogStore;

use crate::{
    node::{freezer::Freezer, snapshot_file::SnapshotFile},
    types::Types,
};

/// A node gives its leadership away when its disk has hung for this long. Shorter than an election
/// timeout, so that a new leader is there soon.
const STALL_AFTER: Duration = Duration::from_millis(400);

pub(crate) type Store = LogStore<Types>;

/// The options for a node's storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct Medium {
    /// Keep unsynced data in the memory of the process, so that killing it acts like a power loss
    #[arg(long)]
    pub(crate) power_cuts: bool,
    /// The seed that selects unsynced bytes to write to the disk before their sync
    #[arg(long, default_value_t = 0)]
    pub(crate) power_seed: u64,
    /// Use segments of 8 KiB, so that the log often rotates and removes segments
    #[arg(long)]
    pub(crate) tiny_segments: bool,
}

impl Medium {
    pub(crate) async fn open(
        self,
        directory: &Path,
        freezer: &Freezer,
    ) -> io::Result<(Store, SnapshotFile)> {
        let (log, snapshots) = (directory.join("log"), directory.join("snapshots"));
        let options = Store::options().wal(self.wal_options());
        let log = match self.power_cuts {
            false => options.open_with(freezer.over(FileStorage::create(&log)?)).await?,
            true => options.open_with(freezer.over(self.write_back(&log)?)).await?,
        };
        let snapshots: Arc<dyn Storage> = match self.power_cuts {
            false => Arc::new(freezer.over(FileStorage::create(&snapshots)?)),
            true => Arc::new(freezer.over(self.write_back(&snapshots)?)),
        };
        Ok((Store::of_log(log)?, SnapshotFile::open(snapshots)?))
    }

    fn wal_options(self) -> Options {
        let options = Wal::options().stall_after(STALL_AFTER);
        match self.tiny_segments {
            false => options,
            true => options.segment_bytes(8 << 10),
        }
    }

    /// Opens a storage whose unsynced data is lost when the process is killed.
    ///
    /// With an even seed nothing is written before its sync, with an odd one 1 of 8 sectors.
    fn write_back(self, directory: &Path) -> io::Result<WriteBack<FileStorage>> {
        let one_in = if self.power_seed.is_multiple_of(2) { 0 } else { 8 };
        let files = FileStorage::create(directory)?;
        Ok(WriteBack::new(files).with_early_write_back(self.power_seed, one_in))
    }
}
