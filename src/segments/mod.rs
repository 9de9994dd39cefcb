//! The files of a log: names, preparation, reading, and which segment holds an LSN.

mod copy;
mod file;
mod last_close;
mod name;
mod place;
mod prepare;
mod reader;
mod set;

pub(crate) use copy::SegmentCopy;
pub(crate) use file::SegmentFile;
pub(crate) use last_close::{LAST_CLOSE, read_last_close, write_last_close};
pub(crate) use name::{
    STANDBY, STANDBY_NEW, Sequence, UNFINISHED_COPY, is_kept_cut, is_receiving, is_recycled,
};
pub(crate) use place::check_place;
pub(crate) use prepare::{
    Beside, blank_by_pieces, prepare, random_bytes, random_incarnation, sync_directory,
};
pub(crate) use reader::{Buffers, Chunk, LastRecord, Region, SegmentReader};
pub(crate) use set::{SegmentInfo, SegmentSet};
