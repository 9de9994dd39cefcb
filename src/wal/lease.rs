//! [`Lease`]: prevents the removal of old segments.

use std::{fmt, sync::Arc};

use crate::{
    error::Result,
    lsn::Lsn,
    pipeline::{
        OpenLog,
        removal::{lease, release_lease},
    },
};

/// Keeps records readable although the log is truncated; made by [`Wal::retain`].
///
/// A lease is a handle of the log. Drop it as soon as possible, because it keeps segments on the
/// disk.
///
/// [`Wal::retain`]: crate::Wal::retain
#[must_use = "a lease that is dropped holds nothing"]
pub struct Lease {
    core: Arc<OpenLog>,
    lsn: Lsn,
}

impl Lease {
    pub(crate) fn new(core: &Arc<OpenLog>, lsn: Lsn) -> Result<Self> {
        lease(core, lsn)?;
        Ok(Lease { core: Arc::clone(core), lsn })
    }

    /// Returns the LSN from which on the lease keeps the log.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        release_lease(&self.core, self.lsn);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("lsn", &self.lsn).finish_non_exhaustive()
    }
}
