//! The messages between leader and replica, and their encoding.

mod decode;
mod encode;
mod io;
mod kind;
mod message;

pub(crate) use io::{Role, preamble, read_message, write_message};
pub(crate) use kind::{AUTH_BYTES_MAX, DATA_BYTES_MAX, NAME_BYTES_MAX, SEGMENTS_MAX};
pub(crate) use message::{Begin, Hello, Message, Offer, Refusal, Report, Segment, Tail};
