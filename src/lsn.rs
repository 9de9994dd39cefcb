//! The position of a record in the log.

use std::{fmt, num::ParseIntError, str::FromStr};

/// A log sequence number: the position of a record's first byte in the log's one address space.
///
/// LSNs order all records. They grow by the size of each record's frame, so they are not dense,
/// and they are stable: a record keeps its LSN for as long as it exists, across reopening and
/// rotation. Treat the number as opaque; only its order is meaningful.
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
#[cfg_attr(feature = "cli", derive(serde::Serialize))]
pub struct Lsn(u64);

impl Lsn {
    /// The beginning of every log.
    pub const ZERO: Lsn = Lsn(0);

    /// The LSN with this value, as [`Lsn::as_u64`] gave it.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Lsn(value)
    }

    /// The value, to be stored by a user who keeps positions.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The position `bytes` further on; saturating, so that hostile lengths can't wrap around.
    pub(crate) const fn plus(self, bytes: u64) -> Self {
        Lsn(self.0.saturating_add(bytes))
    }

    /// The bytes from `earlier` to here; 0 if `earlier` is later.
    pub(crate) const fn since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
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

/// Reads what `Display` writes.
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
