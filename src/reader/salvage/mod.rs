//! Reads the intact records of a damaged log, and reports each gap between them.

mod extents;
mod forgiving;
mod gap;
mod openable;
mod stream;
mod walk;

pub use gap::{Gap, SalvageError};
pub use stream::Salvage;
