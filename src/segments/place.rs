//! Checks that the log's files are still where a later opening finds them.

use crate::{
    error::{Error, Result},
    segments::file::SegmentFile,
    storage::{Place, Storage},
};

/// Fails if the log's directory or one of these open files was moved or removed. Blocking.
///
/// # Errors
///
/// `Displaced`; `Io` if the check itself fails.
pub(crate) fn check_place(storage: &dyn Storage, files: &[&SegmentFile]) -> Result<()> {
    let displaced = |reason| Error::Displaced { path: storage.location(), reason };
    match storage.check_place() {
        Ok(Place::Kept) => {}
        Ok(place) => return Err(displaced(place.to_string())),
        Err(error) => {
            return Err(Error::io("checking the place of", storage.location(), None, error));
        }
    }
    for file in files {
        // Bytes written to a removed file are lost when it is closed.
        if file.link_count()? == 0 {
            return Err(displaced(format!("the segment file {} was removed", file.name())));
        }
    }
    Ok(())
}
