//! [`Receiving`]: a segment that arrives, under a name that is no part of the log.

use highwater::{
    Lsn,
    shipping::{self, Frames, Header},
};

use crate::{
    error::Result,
    standby::{
        disk::{Disk, OpenFile},
        spare::Spare,
    },
};

/// A segment that is not part of the copy yet.
#[derive(Debug)]
pub(crate) struct Receiving {
    pub(crate) header: Header,
    pub(crate) file: OpenFile,
    pub(crate) frames: Frames,
}

impl Receiving {
    /// Creates the file with its full length and its header. Nothing is flushed.
    ///
    /// Space is reserved if frames will be appended later, so that a flush then writes no length
    /// and no extents.
    pub(crate) fn create(
        disk: &Disk,
        header: Header,
        is_sealed: bool,
        record_bytes_max: u64,
        spare: Option<Spare>,
    ) -> Result<Receiving> {
        let (sequence, bytes) = (header.sequence(), header.file_bytes());
        let file = match spare.and_then(|spare| spare.into_file(sequence, bytes)) {
            Some(file) => file,
            None => {
                let file = disk.create_again(&shipping::receiving_name(sequence))?;
                if is_sealed {
                    file.set_len(bytes)?
                } else {
                    file.reserve(bytes)?
                }
                file
            }
        };
        file.write_at(&header.block(), 0)?;
        let frames = Frames::new(&header, header.base(), record_bytes_max);
        Ok(Receiving { header, file, frames })
    }

    /// Makes the segment a part of the copy. Commit point: the directory is flushed.
    pub(crate) fn install(&mut self, disk: &Disk) -> Result<()> {
        self.file.sync_all()?;
        let name = shipping::file_name(self.header.sequence());
        disk.rename(self.file.name(), &name)?;
        self.file.renamed(name);
        disk.sync_dir()
    }

    /// Returns the end of the whole units that have arrived.
    pub(crate) fn end(&self) -> Lsn {
        self.frames.unit_end()
    }
}
