//! [`TypedRecovery`]: reads every item in one pass and then becomes the writer.

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{Stream, ready};
use tokio_util::codec::Decoder;

use crate::{
    lsn::Lsn,
    recovery::{Cut, RecoveryReport, Warning},
    typed::{
        codec::{BoxError, decode},
        error::Result,
        handle::Typed,
    },
    wal::{Recovered, Recovery},
};

/// An item of [`TypedRecovery`]: the warnings first, then the items, then the cut.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TypedRecovered<T> {
    /// A suspicious finding.
    Warning(Warning),
    /// A decoded record and its LSN, oldest first.
    Item(Lsn, T),
    /// The cut of a torn tail, or of damage. It is the last item.
    Cut(Cut),
}

/// A [`Recovery`] whose records are decoded; made by [`Recovery::typed`].
///
/// A record that the codec can't decode yields [`Error::Decode`](crate::typed::Error::Decode). The
/// stream continues after it, so the caller decides whether to open the log.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::typed::Result<()> {
/// use futures::TryStreamExt;
/// use highwater::{Wal, typed::{Change, KeyValue, TypedRecovered}};
/// # let storage = highwater::storage::MemoryStorage::new();
/// let mut recovery = Wal::options().recover_with(storage).await?.typed::<Change, KeyValue>();
/// while let Some(recovered) = recovery.try_next().await? {
///     if let TypedRecovered::Item(_lsn, change) = recovered {
///         // apply(change)
/// #       drop(change);
///     }
/// }
/// let changes = recovery.into_typed().await?;
/// changes.append(Change::put("color", "blue")).await?;
/// # Ok(()) }
/// ```
#[must_use = "streams do nothing unless polled"]
pub struct TypedRecovery<T, C> {
    recovery: Recovery,
    codec: C,
    item: PhantomData<fn() -> T>,
}

impl Recovery {
    /// Decodes the records of the stream.
    pub fn typed<T, C: Default + Clone>(self) -> TypedRecovery<T, C> {
        self.typed_with(C::default())
    }

    /// Decodes the records of the stream with a codec that has settings.
    pub fn typed_with<T, C: Clone>(self, codec: C) -> TypedRecovery<T, C> {
        TypedRecovery { recovery: self, codec, item: PhantomData }
    }
}

impl<T, C: Clone> TypedRecovery<T, C> {
    /// Returns the report of reading the log, as [`Recovery::report`].
    #[must_use]
    pub fn report(&self) -> &RecoveryReport {
        self.recovery.report()
    }

    /// Makes the log writable and returns its typed handle.
    ///
    /// # Errors
    ///
    /// Those of [`Recovery::into_wal`]. A record that could not be decoded is none of them.
    ///
    /// # Cancel safety
    ///
    /// As [`Recovery::into_wal`].
    pub async fn into_typed(self) -> Result<Typed<T, C>> {
        Ok(self.recovery.into_wal().await?.typed_with(self.codec))
    }
}

impl<T, C> Stream for TypedRecovery<T, C>
where
    C: Decoder<Item = T> + Clone + Unpin,
    C::Error: Into<BoxError>,
{
    type Item = Result<TypedRecovered<T>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(recovered) = ready!(Pin::new(&mut self.recovery).poll_next(context)) else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(match recovered? {
            Recovered::Warning(warning) => Ok(TypedRecovered::Warning(warning)),
            Recovered::Record(record) => decode(&self.codec, record.lsn, &record.payload)
                .map(|item| TypedRecovered::Item(record.lsn, item)),
            Recovered::Cut(cut) => Ok(TypedRecovered::Cut(cut)),
        }))
    }
}

impl<T, C> fmt::Debug for TypedRecovery<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedRecovery").field("recovery", &self.recovery).finish_non_exhaustive()
    }
}
