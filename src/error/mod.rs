//! The error of the log: what failed, where, and what to do.

mod classify;
mod closed_by;
mod context;
mod kinds;
#[cfg(test)]
mod tests;
mod text;
#[cfg(any(feature = "raft", feature = "typed"))]
mod wrapping;

pub use closed_by::ClosedBy;
pub use kinds::{Error, Result};
pub(crate) use text::listed;
#[cfg(feature = "typed")]
pub(crate) use text::write_cause;
#[cfg(any(feature = "raft", feature = "typed"))]
pub(crate) use wrapping::impl_log_error_methods;
