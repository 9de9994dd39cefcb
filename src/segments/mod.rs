//! The files of a log: naming, preparing, reading, and which of them holds an LSN.

mod file;
mod name;
mod prepare;
mod reader;
mod set;

pub(crate) use file::SegmentFile;
pub(crate) use name::{Sequence, UNFINISHED_COPY, is_kept_cut, is_recycled};
pub(crate) use prepare::{Beside, blank_by_pieces, prepare, sync_directory};
pub(crate) use reader::{Buffers, Chunk, Region, SegmentReader};
pub(crate) use set::{SegmentInfo, SegmentSet};
