//! The position of a record in the log.

use std::{fmt, num::ParseIntError, str::FromStr};

use crate::sync::{AtomicU64, Ordering};

/// A log sequence number: the position of a record's first byte in the log.
///
/// LSNs order all records. They grow by the size of each record's frame, so they are not dense.
/// They are stable: a record keeps its LSN for as long as it exists, across reopening and rotation.
/// Treat the number as opaque; only its order is meaningful.
///
/// The marks in [`Watermarks`](crate::Watermarks) are exclusive ends: the record at `lsn` is
/// covered by a mark when `mark > lsn`.
///
/// ```
/// use highwater::Lsn;
/// assert!(Lsn::new(64) > Lsn::ZERO);
/// assert_eq!(Lsn::new(64).to_string(), "64");
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Lsn(u64);

impl Lsn {
    /// The position at which every log begins.
    pub const ZERO: Lsn = Lsn(0);

    /// Creates the LSN with this value, as returned by [`Lsn::as_u64`].
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Lsn(value)
    }

    /// Returns the value, for example to store a consumer's position.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Returns the position `bytes` later. Saturates, because a hostile length must not wrap
    /// around.
    pub(crate) const fn plus(self, bytes: u64) -> Self {
        Lsn(self.0.saturating_add(bytes))
    }

    /// Returns the bytes from `earlier` to this position; 0 if `earlier` is later.
    pub(crate) const fn since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// An [`Lsn`] shared by threads. The orderings are those of std's atomics.
#[derive(Debug)]
pub(crate) struct AtomicLsn(AtomicU64);

impl AtomicLsn {
    pub(crate) fn new(lsn: Lsn) -> Self {
        AtomicLsn(AtomicU64::new(lsn.0))
    }

    pub(crate) fn load(&self, order: Ordering) -> Lsn {
        Lsn(self.0.load(order))
    }

    pub(crate) fn store(&self, lsn: Lsn, order: Ordering) {
        self.0.store(lsn.0, order);
    }

    /// Adds `bytes` and returns the value before.
    pub(crate) fn fetch_add(&self, bytes: u64, order: Ordering) -> Lsn {
        Lsn(self.0.fetch_add(bytes, order))
    }

    /// Raises the value to `lsn` if it is lower, and returns the value before.
    pub(crate) fn fetch_max(&self, lsn: Lsn, order: Ordering) -> Lsn {
        Lsn(self.0.fetch_max(lsn.0, order))
    }

    /// Stores `new` if the value is `current`.
    ///
    /// # Errors
    ///
    /// The value, if it is another one.
    pub(crate) fn compare_exchange(
        &self,
        current: Lsn,
        new: Lsn,
        success: Ordering,
        failure: Ordering,
    ) -> Result<Lsn, Lsn> {
        self.0.compare_exchange(current.0, new.0, success, failure).map(Lsn).map_err(Lsn)
    }
}

/// An `Option<Lsn>` shared by threads. The orderings are those of std's atomics.
#[derive(Debug)]
pub(crate) struct AtomicOptionLsn(AtomicU64);

impl AtomicOptionLsn {
    /// Represents `None`. No record has this LSN, because no log grows to 2^64 bytes.
    const NONE: u64 = u64::MAX;

    pub(crate) fn new(lsn: Option<Lsn>) -> Self {
        AtomicOptionLsn(AtomicU64::new(Self::encode(lsn)))
    }

    pub(crate) fn load(&self, order: Ordering) -> Option<Lsn> {
        Self::decode(self.0.load(order))
    }

    pub(crate) fn store(&self, lsn: Option<Lsn>, order: Ordering) {
        self.0.store(Self::encode(lsn), order);
    }

    fn encode(lsn: Option<Lsn>) -> u64 {
        lsn.map_or(Self::NONE, Lsn::as_u64)
    }

    fn decode(value: u64) -> Option<Lsn> {
        (value != Self::NONE).then_some(Lsn(value))
    }
}

/// The position at which a follower starts.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// # use highwater::{Wal, storage::MemoryStorage};
/// use futures::TryStreamExt;
/// use highwater::Start;
///
/// # let wal = Wal::options().open_with(MemoryStorage::new()).await?;
/// let seen = wal.append("seen by the consumer").await?;
/// let next = wal.append_and_sync("next").await?;
/// wal.truncate_before(next).await?;
/// let record = wal.follow(Start::After(seen)).try_next().await?;
/// assert_eq!(record.map(|record| record.lsn), Some(next));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// At the record at this position. If a mark is given, at the first record after it.
    At(Lsn),
    /// After the record at this LSN, which the consumer has processed. That record may have been
    /// truncated since, but no record after it.
    After(Lsn),
}

impl Start {
    pub(crate) fn lsn(self) -> Lsn {
        match self {
            Start::At(lsn) | Start::After(lsn) => lsn,
        }
    }

    /// Returns the record that the consumer has processed.
    pub(crate) fn seen(self) -> Option<Lsn> {
        match self {
            Start::At(_) => None,
            Start::After(lsn) => Some(lsn),
        }
    }
}

impl From<Lsn> for Start {
    fn from(lsn: Lsn) -> Self {
        Start::At(lsn)
    }
}

impl From<u64> for Lsn {
    fn from(value: u64) -> Self {
        Lsn(value)
    }
}

impl From<Lsn> for u64 {
    fn from(lsn: Lsn) -> Self {
        lsn.0
    }
}

/// Parses the output of `Display`.
///
/// ```
/// assert_eq!("64".parse(), Ok(highwater::Lsn::new(64)));
/// ```
impl FromStr for Lsn {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Lsn)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lsn({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atomic_lsn_operations_return_the_value_before() {
        let lsn = AtomicLsn::new(Lsn(64));
        let order = Ordering::Relaxed;
        assert_eq!(lsn.fetch_add(8, order), Lsn(64));
        assert_eq!(lsn.fetch_max(Lsn(100), order), Lsn(72));
        assert_eq!(lsn.fetch_max(Lsn(80), order), Lsn(100), "a lower value changes nothing");
        assert_eq!(lsn.compare_exchange(Lsn(99), Lsn(1), order, order), Err(Lsn(100)));
        assert_eq!(lsn.compare_exchange(Lsn(100), Lsn(1), order, order), Ok(Lsn(100)));
        lsn.store(Lsn(2), order);
        assert_eq!(lsn.load(order), Lsn(2));
    }

    #[test]
    fn atomic_option_lsn_keeps_none_and_extreme_values() {
        let order = Ordering::Relaxed;
        let option = AtomicOptionLsn::new(None);
        assert_eq!(option.load(order), None);
        for lsn in [Lsn::ZERO, Lsn(64), Lsn(u64::MAX - 1)] {
            option.store(Some(lsn), order);
            assert_eq!(option.load(order), Some(lsn));
        }
        option.store(None, order);
        assert_eq!(option.load(order), None);
        assert_eq!(AtomicOptionLsn::new(Some(Lsn(8))).load(order), Some(Lsn(8)));
    }
}
