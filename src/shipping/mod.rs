//! The bytes of a log as they are on disk, for a crate that keeps an identical copy elsewhere.
//!
//! `highwater-replicate` uses this module, and nothing else may: it is hidden, and it changes with
//! that crate. `docs/REPLICATION.md` has the design.
//!
//! - [`Source`] reads the durable bytes of an open log, segment by segment.
//! - [`Header`] is a verified header of a segment, as on disk.
//! - [`Frames`] verifies frames in the order in which they arrive.
//! - [`line_of`], [`term_of`]: the parts of an epoch.

mod frames;
mod header;
mod judged;
mod source;

pub use frames::{Accepted, Frame, Frames, Pause};
pub use header::Header;
pub use judged::{Judged, judge};
pub use source::{Place, SegmentId, Source};

use crate::{format::epoch, segments};

/// The name of the file that marks a standby. Opening a log with such a file fails, except for a
/// promotion.
pub const STANDBY: &str = segments::STANDBY;

/// The name of the next content of that file while it is written.
pub const STANDBY_NEW: &str = segments::STANDBY_NEW;

/// Returns the number of promotions before the epoch began.
#[must_use]
pub const fn term_of(epoch: u64) -> u64 {
    epoch::term_of(epoch)
}

/// Returns the term and its random tag, which name one promotion.
#[must_use]
pub const fn line_of(epoch: u64) -> u64 {
    epoch::line_of(epoch)
}

/// Returns the first epoch of the term after that of `epoch`, with a tag of these random bits.
/// `None` if no term is left.
#[must_use]
pub fn next_term(epoch: u64, random: u64) -> Option<u64> {
    epoch::promoted(epoch, random)
}

/// Returns the number of a segment from the name of its file.
#[must_use]
pub fn sequence_of(name: &str) -> Option<u64> {
    segments::Sequence::parse(name).map(|sequence| sequence.0)
}

/// Returns whether this is the name of a file that a standby is receiving.
#[must_use]
pub fn is_receiving(name: &str) -> bool {
    segments::is_receiving(name)
}

/// Returns the name of the file of the segment with this number.
#[must_use]
pub fn file_name(sequence: u64) -> String {
    segments::Sequence(sequence).file_name()
}

/// Returns the name under which a standby receives the segment with this number.
#[must_use]
pub fn receiving_name(sequence: u64) -> String {
    segments::Sequence(sequence).receiving_name()
}

/// Returns a name that is not in `taken`, for a copy of this segment's bytes that is kept.
#[must_use]
pub fn free_cut_name(sequence: u64, taken: &[String]) -> String {
    segments::Sequence(sequence).free_cut_name(taken)
}
