//! Reads a log while another handle or process writes it, without locks or changes.
//!
//! [`Reader`] shows the committed records, [`Tail`] follows them by polling, and [`Salvage`] reads
//! the intact records of a damaged log.

mod at_time;
mod clock;
mod cut;
mod handle;
mod listed;
mod options;
mod salvage;
mod source;
mod tail;
mod view;

pub use handle::Reader;
pub use options::ReaderOptions;
pub use salvage::{Gap, Salvage, SalvageError};
pub use tail::Tail;
