//! The error of a typed log: the codec's, or the log's own.

use std::{error::Error as StdError, fmt, io, sync::Arc};

use crate::{
    error::{Error as LogError, impl_log_error_methods, write_cause},
    lsn::Lsn,
};

/// The result of every fallible operation of a [typed log](crate::typed::Typed).
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of the codec, or of the log.
///
/// `{}` prints the error without its cause, `{:#}` with it, as [`highwater::Error`](LogError) does.
///
/// ```
/// use highwater::typed::Error;
///
/// let error = Error::from(highwater::Error::Full);
/// assert_eq!(error.to_string(), highwater::Error::Full.to_string());
/// assert!(matches!(error.log_error(), Some(highwater::Error::Full)));
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The log refused or failed the operation. Its error contains the advice.
    #[error(transparent)]
    Log(#[from] LogError),

    /// The codec cannot encode an item. Nothing was appended. Correct the item or the codec.
    #[error(fmt = write_encode)]
    Encode {
        /// The codec's error.
        source: Arc<dyn StdError + Send + Sync>,
    },

    /// The record is intact, but the codec cannot decode it. Read it with the codec that wrote it,
    /// read it as bytes, or skip it.
    #[error(fmt = write_decode)]
    Decode {
        /// The record's position in the log.
        lsn: Lsn,
        /// The codec's error.
        source: Arc<dyn StdError + Send + Sync>,
    },
}

impl_log_error_methods!(Error);

/// Wraps the error in an `io::Error`. The kind is the log's, `InvalidInput` for
/// [`Error::Encode`] and `InvalidData` for [`Error::Decode`].
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Log(error) => error.io_kind(),
            Error::Encode { .. } => io::ErrorKind::InvalidInput,
            Error::Decode { .. } => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

type Source = Arc<dyn StdError + Send + Sync>;

fn write_encode(source: &Source, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("the codec cannot encode the item; nothing was appended")?;
    write_cause(source.as_ref(), f)
}

fn write_decode(lsn: &Lsn, source: &Source, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(
        f,
        "LSN {lsn}: the record is intact, but the codec cannot decode it; read it with the codec \
         that wrote it, or as bytes"
    )?;
    write_cause(source.as_ref(), f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_error_prints_each_cause_once() {
        const CAUSE: &str = "the codec is confused";
        let source = || -> Source { Arc::new(io::Error::other(CAUSE)) };
        let log = || LogError::io("writing", "1.wal", None, io::Error::other(CAUSE));
        let errors = [
            Error::Encode { source: source() },
            Error::Decode { lsn: Lsn::new(8), source: source() },
            Error::Log(log()),
        ];
        for error in errors {
            assert!(!error.to_string().contains(CAUSE), "{error}");
            let cause = error.source().map(ToString::to_string);
            assert_eq!(cause.as_deref(), Some(CAUSE));
            let whole = format!("{error:#}");
            assert_eq!(whole, format!("{error}: {CAUSE}"));
            assert_eq!(format!("{:#}", io::Error::from(error)), whole);
        }
        assert_eq!(format!("{:#}", Error::Log(log())), format!("{:#}", log()));
    }
}
