//! How far the log has come.

use crate::lsn::Lsn;

/// How far the log has come, as positions on one axis:
///
/// ```text
///  first            synced          written         reserved
///    |---- durable ----|-- page cache --|--- in memory --|
/// ```
///
/// All are exclusive ends, `first` aside: the record at `lsn` is durable when `synced > lsn`.
/// Invariant: `first <= synced <= written <= reserved`, and none ever moves back but by
/// [`Wal::truncate_after`](crate::Wal::truncate_after), which ends the log at an earlier position.
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
#[non_exhaustive]
pub struct Watermarks {
    /// Where the oldest record stands.
    pub first: Lsn,
    /// Everything below is on stable storage: it survives a loss of power.
    pub synced: Lsn,
    /// Everything below is with the operating system: it survives the end of the process.
    pub written: Lsn,
    /// Everything below is ordered.
    pub reserved: Lsn,
}
