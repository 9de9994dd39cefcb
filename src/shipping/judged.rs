//! [`judge`]: the verdict of opening on a log that is not opened.

use crate::{
    error::Result, lsn::Lsn, options::Config, recovery::assess, shipping::source::SegmentId,
    storage::Storage,
};

/// The segments of a log that is not open, and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The segments with their numbers, oldest first.
    pub segments: Vec<(SegmentId, u64)>,
    /// The id of the log.
    pub log_id: [u8; 16],
    /// The highest position that a claim covers. Bytes above it may be in the page cache alone.
    pub committed: Lsn,
    /// The first position where no whole unit begins.
    pub end: Lsn,
    /// The highest epoch in any header.
    pub epoch_max: u64,
}

/// Judges a log as opening does, and changes nothing. Returns `None` if the directory has no log.
///
/// Blocking. The caller holds the lock of the directory.
///
/// # Errors
///
/// Those with which opening refuses the log.
pub fn judge(storage: &dyn Storage) -> Result<Option<Judged>> {
    let Some(judged) = assess(storage, &Config::default())?.judged else { return Ok(None) };
    let members = judged.chain.members.iter();
    let segments = members.map(|member| {
        let header = &member.header;
        let (base, epoch, incarnation) = (header.base, header.epoch, header.incarnation);
        (SegmentId { base, epoch, incarnation }, member.sequence.0)
    });
    let log_id = judged.chain.members.last().map(|newest| newest.header.log_id);
    Ok(Some(Judged {
        segments: segments.collect(),
        log_id: log_id.unwrap_or_default(),
        committed: judged.commitment,
        end: judged.end,
        epoch_max: judged.epoch_max,
    }))
}
