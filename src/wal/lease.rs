//! What holds back the removal of old segments.

use std::{fmt, sync::Arc};

use crate::{error::Result, lsn::Lsn, pipeline::OpenLog};

/// Keeps a part of the log readable while it is truncated; made by [`Wal::retain`]. It is a handle
/// of the log: drop it when it isn't needed any more.
///
/// [`Wal::retain`]: crate::Wal::retain
#[must_use = "a lease that is dropped holds nothing"]
pub struct Lease {
    core: Arc<OpenLog>,
    lsn: Lsn,
}

impl Lease {
    pub(crate) fn new(core: &Arc<OpenLog>, lsn: Lsn) -> Result<Self> {
        core.lease(lsn)?;
        Ok(Lease { core: Arc::clone(core), lsn })
    }

    /// From where on it holds the log.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.core.release_lease(self.lsn);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("lsn", &self.lsn).finish_non_exhaustive()
    }
}
