//! Reads records of the log under the groups, and keeps their segments meanwhile.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    error::{ClosedBy, Error, Result},
    executor::start,
    lsn::Lsn,
    pipeline::{
        Core, OpenLog,
        embed::{Goal, lease, reach_written, release_lease, request_write},
    },
    replay::read_records,
};

/// Keeps the segments from `lsn` on until it is dropped. Does not keep the log open.
pub(super) struct SegmentLease {
    core: Arc<Core>,
    lsn: Lsn,
}

impl SegmentLease {
    pub(super) fn new(core: &Arc<Core>, lsn: Lsn) -> Result<Self> {
        lease(core, lsn)?;
        Ok(SegmentLease { core: Arc::clone(core), lsn })
    }
}

impl Drop for SegmentLease {
    fn drop(&mut self) {
        release_lease(&self.core, self.lsn);
    }
}

/// Reads the payloads of the records at `lsns` in a job. Waits until they are written.
pub(super) async fn read_payloads(
    log: &Arc<OpenLog>,
    lsns: Vec<Lsn>,
    lease: Option<SegmentLease>,
) -> Result<Vec<Bytes>> {
    let Some(last) = lsns.iter().max() else { return Ok(Vec::new()) };
    let written = Goal { end: last.plus(1), epoch: log.epoch() };
    // The record may still be in the ring without a request to write it.
    request_write(log);
    reach_written(log, written).await?;
    let held = Arc::clone(log);
    let job = start(log.executor().as_ref(), move || {
        let payloads = read_records(&held, &lsns, written.epoch);
        drop(lease);
        payloads
    });
    job.await.map_err(|_| Error::Closed { by: ClosedBy::RuntimeGone })?
}
