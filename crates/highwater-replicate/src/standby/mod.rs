//! The directory of a copy: its marker, its segments, and the bytes that arrive.

mod adopt;
mod disk;
mod marker;
mod receiving;
mod retire;
mod store;
mod survey;

pub(crate) use disk::Disk;
pub(crate) use marker::{Marker, State};
pub(crate) use store::Store;
