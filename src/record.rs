//! [`Record`]: a record as readers get it.

use bytes::Bytes;

use crate::lsn::Lsn;

/// A record: its position, the position behind it, and its payload.
///
/// A consumer that has processed a record keeps `end` as its checkpoint. Every stream continues
/// there without a gap or a duplicate, also after the record was truncated.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// # use highwater::{Wal, storage::MemoryStorage};
/// use futures::TryStreamExt;
///
/// # let wal = Wal::options().open_with(MemoryStorage::new()).await?;
/// wal.append_batch(["one", "two"]).await?;
/// let checkpoint = wal.replay(..).try_next().await?.expect("a record").end;
/// let next = wal.replay(checkpoint..).try_next().await?.expect("the next record");
/// assert_eq!(next.payload, "two");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Its position.
    pub lsn: Lsn,
    /// The position behind it, where the next record begins.
    ///
    /// A record of the log itself may come first, so the next record's LSN may be higher.
    pub end: Lsn,
    /// The payload.
    ///
    /// Records of one read share a buffer, which stays in memory while any of them lives. So copy
    /// payloads that are kept for long. A record that was stored compressed has its own buffer.
    pub payload: Bytes,
}
