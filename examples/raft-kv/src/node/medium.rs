//! What a node keeps on its disk: a log and a snapshot, on a disk or on one whose power can be cut.

use std::{io, path::Path, sync::Arc};

use highwater::{
    Options, Wal,
    simulation::WriteBack,
    storage::{FileStorage, Storage},
};
use highwater_openraft::LogStore;

use crate::{node::snapshot_file::SnapshotFile, types::Types};

pub(crate) type Store = LogStore<Types>;

/// How a node's disk is to be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct Medium {
    /// Keep what isn't synced in the memory of the process, so that killing it is a loss of power
    #[arg(long)]
    pub(crate) power_cuts: bool,
    /// What of the unsynced bytes goes to the disk ahead of its sync depends on it
    #[arg(long, default_value_t = 0)]
    pub(crate) power_seed: u64,
    /// Segments of 8 KiB, so that the log is cut and removed all the time
    #[arg(long)]
    pub(crate) tiny_segments: bool,
}

impl Medium {
    pub(crate) async fn open(self, directory: &Path) -> io::Result<(Store, SnapshotFile)> {
        let (log, snapshots) = (directory.join("log"), directory.join("snapshots"));
        let options = Store::options().wal(self.wal_options());
        let log = match self.power_cuts {
            false => options.open(log).await?,
            true => options.open_with(self.cuttable(&log)?).await?,
        };
        let snapshots: Arc<dyn Storage> = match self.power_cuts {
            false => Arc::new(FileStorage::create(&snapshots)?),
            true => Arc::new(self.cuttable(&snapshots)?),
        };
        Ok((Store::of_log(log)?, SnapshotFile::open(snapshots)?))
    }

    fn wal_options(self) -> Options {
        match self.tiny_segments {
            false => Wal::options(),
            true => Wal::options().segment_bytes(8 << 10),
        }
    }

    /// One time in two nothing is written ahead of its sync; else one sector in eight is.
    fn cuttable(self, directory: &Path) -> io::Result<WriteBack<FileStorage>> {
        let one_in = if self.power_seed.is_multiple_of(2) { 0 } else { 8 };
        let files = FileStorage::create(directory)?;
        Ok(WriteBack::new(files).with_early_write_back(self.power_seed, one_in))
    }
}
