//! From an appender's bytes to stable storage: ring, writer, syncer, and those who wait for them.
//!
//! Nothing here spawns or awaits a device: work goes out as jobs through an
//! [`Executor`](crate::executor::Executor), and tasks wait for marks.

mod append;
mod close;
mod core;
mod job;
mod mark;
mod ring;
mod space;
mod status;
mod syncer;
mod writer;

pub use append::Payload;
pub(crate) use core::{CONTROL_FRAME_BYTES, Core, Start};
pub(crate) use writer::{Active, incarnation};
