//! Records of your own type, encoded and decoded by a codec of tokio-util.

mod codec;
mod error;
mod handle;
mod key_value;
#[cfg(feature = "serde")]
mod postcard;
mod recovery;
mod sink;
mod stream;

#[cfg(feature = "serde")]
pub use self::postcard::{Postcard, PostcardError};
pub use self::{
    error::{Error, Result},
    handle::Typed,
    key_value::{Change, KeyValue, MalformedChange},
    recovery::{TypedRecovered, TypedRecovery},
    sink::TypedSink,
    stream::{TypedFollow, TypedReplay, TypedStream},
};
