//! Highwater with its defaults.

use std::{io, path::Path};

use highwater_openraft::LogStore;

use crate::types::{Medium, Types, Written};

pub(crate) struct HighwaterMedium(LogStore<Types>);

impl Medium for HighwaterMedium {
    type Store = LogStore<Types>;
    type Options = ();

    async fn open(at: &Path, (): &()) -> io::Result<Self> {
        Ok(HighwaterMedium(LogStore::open(at).await?))
    }

    fn store(&self) -> LogStore<Types> {
        self.0.clone()
    }

    fn written(&self) -> Option<Written> {
        let stats = self.0.group().log().wal().stats();
        Some(Written { sync_count: stats.sync_count, bytes: stats.written_bytes })
    }
}
