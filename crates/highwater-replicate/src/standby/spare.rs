//! [`Spare`]: the file of the next segment, filled with zeros ahead of need.
//!
//! A flush of bytes that overwrite zeros writes no metadata. It takes a half to a third of the time
//! of a flush into space that was only reserved.

use highwater::shipping;

use crate::{
    error::Result,
    standby::disk::{Disk, OpenFile},
};

/// The bytes that are filled and flushed after one flush of the copy. A report waits for at most
/// one such flush.
const PIECE_BYTES: usize = 1 << 20;
static ZEROS: [u8; PIECE_BYTES] = [0; PIECE_BYTES];

/// A file that is no part of the copy, because of its name.
#[derive(Debug)]
pub(crate) struct Spare {
    file: OpenFile,
    sequence: u64,
    bytes: u64,
    filled: u64,
}

impl Spare {
    pub(crate) fn create(disk: &Disk, sequence: u64, bytes: u64) -> Result<Spare> {
        let file = disk.create_again(&shipping::receiving_name(sequence))?;
        file.reserve(bytes)?;
        Ok(Spare { file, sequence, bytes, filled: 0 })
    }

    /// Fills and flushes a piece, if one is left.
    pub(crate) fn fill_piece(&mut self) -> Result<()> {
        let left = usize::try_from(self.bytes - self.filled).unwrap_or(usize::MAX);
        let Some(piece) = ZEROS.get(..left.min(PIECE_BYTES)).filter(|piece| !piece.is_empty())
        else {
            return Ok(());
        };
        self.file.write_at(piece, self.filled)?;
        self.file.sync_data()?;
        self.filled += piece.len() as u64;
        Ok(())
    }

    /// Returns the file for this segment, if it was prepared for it.
    pub(crate) fn into_file(self, sequence: u64, bytes: u64) -> Option<OpenFile> {
        ((self.sequence, self.bytes) == (sequence, bytes)).then_some(self.file)
    }
}
