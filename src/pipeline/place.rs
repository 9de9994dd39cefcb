//! A check that appends go to the directory that a later opening reads.

use crate::{error::Result, pipeline::core::Core, segments, turn::lock_over_io};

/// Fails if the directory, or the active segment, was removed, renamed or replaced. Costs a few
/// system calls. Blocks.
///
/// # Errors
///
/// `Displaced`, `Io`; the reason why the log stopped, if it did.
pub(crate) fn check_place(core: &Core) -> Result<()> {
    let active = match lock_over_io(&core.roles.writing) {
        Ok(writing) => writing.unsynced().active,
        // A panic under the lock stopped the log.
        Err(_) => return core.status().check(),
    };
    segments::check_place(core.storage().as_ref(), &[&active])
}
