//! [`Watermarks`]: how far the log is synced, written and reserved.

use crate::lsn::Lsn;

/// The marks of a log, as positions on one axis:
///
/// ```text
///  first            synced          written         reserved
///    |---- durable ----|-- page cache --|--- in memory --|
/// ```
///
/// All but `first` are exclusive ends: the record at `lsn` is durable if `synced > lsn`. Invariant:
/// `first <= synced <= written <= reserved`. Only
/// [`Wal::truncate_after`](crate::Wal::truncate_after) moves marks back, because it ends the log at
/// an earlier position.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// # use highwater::{Wal, storage::MemoryStorage};
/// let wal = Wal::options().open_with(MemoryStorage::new()).await?;
/// let lsn = wal.append_and_sync(b"record").await?;
/// assert!(wal.watermarks().synced > lsn);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Watermarks {
    /// The position of the oldest record.
    pub first: Lsn,
    /// All records below are on stable storage: they survive a power loss.
    pub synced: Lsn,
    /// The operating system has all records below: they survive the end of the process.
    pub written: Lsn,
    /// All records below have an LSN.
    pub reserved: Lsn,
}
