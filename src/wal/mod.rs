//! The handle: a thin async surface over the pipeline. The only place that starts threads' work.

mod handle;
mod options;
mod pool;
mod recover;
mod ticket;

pub use handle::Wal;
pub use options::Options;
pub use recover::{Recovered, Recovery};
pub use ticket::Ticket;
