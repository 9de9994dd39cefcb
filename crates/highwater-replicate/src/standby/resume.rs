//! Makes the whole units above the last claim durable, when a copy is opened.
//!
//! They may have been reported, because the last reported group has no claim yet. They may also be
//! in the page cache alone, after a flush that failed or never ran. So the same bytes are written
//! again, which makes the pages dirty, and then flushed. A torn write of the same bytes changes
//! nothing.

use highwater::Lsn;

use crate::{
    error::Result,
    positions::{after, bytes_between},
    standby::{
        disk::Disk,
        survey::{CHUNK_BYTES, Local},
    },
};

/// Writes the bytes of the newest segment from `committed` to `end` again, and flushes them.
pub(crate) fn write_again(disk: &Disk, newest: &Local, committed: Lsn, end: Lsn) -> Result<()> {
    if committed >= end {
        return Ok(());
    }
    let file = disk.open(&newest.name())?;
    let mut at = committed;
    while at < end {
        let mut bytes = vec![0; bytes_between(at, end).min(CHUNK_BYTES)];
        let offset = newest.header.offset(at);
        if file.read_at(&mut bytes, offset)? < bytes.len() {
            return Err(disk.damaged(file.name(), offset, "the file became shorter"));
        }
        file.write_at(&bytes, offset)?;
        at = after(at, bytes.len());
    }
    file.sync_all()?;
    disk.sync_dir()
}
