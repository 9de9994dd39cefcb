//! The directory of a copy: its marker, its segments, and the bytes that arrive.

mod adopt;
mod disk;
mod marker;
mod receiving;
mod resume;
mod retire;
mod spare;
mod store;
mod survey;

pub(crate) use disk::Disk;
pub(crate) use marker::{Marker, State};
pub(crate) use store::Store;
