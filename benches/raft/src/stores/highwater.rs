//! Highwater with its defaults, on the disk or on a simulated device for each node.

use std::{io, path::Path, time::Duration};

use highwater_openraft::LogStore;

use crate::{
    device::SimulatedDevice,
    types::{Medium, Types, Written},
};

pub(crate) struct HighwaterMedium(LogStore<Types>);

impl Medium for HighwaterMedium {
    type Store = LogStore<Types>;
    /// The flush time of the simulated devices; `None` for the disk.
    type Options = Option<Duration>;

    async fn open(at: &Path, flush_time: &Option<Duration>) -> io::Result<Self> {
        let store = match flush_time {
            None => LogStore::open(at).await?,
            Some(time) => {
                let device = SimulatedDevice::new(*time);
                LogStore::of_log(LogStore::<Types>::options().open_with(device).await?)?
            }
        };
        Ok(HighwaterMedium(store))
    }

    fn store(&self) -> LogStore<Types> {
        self.0.clone()
    }

    fn written(&self) -> Option<Written> {
        let stats = self.0.group().log().wal().stats();
        Some(Written { sync_count: stats.sync_count, bytes: stats.written_bytes })
    }
}
