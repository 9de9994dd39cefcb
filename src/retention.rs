//! The limits by which a log drops records itself: [`Retention`] and [`OnBudget`].

use std::time::Duration;

/// How much of a log is kept when it drops its oldest segments by itself.
///
/// The default keeps everything. A segment is dropped if one of the limits permits it, no
/// [`Slot`](crate::Slot) or [`Lease`](crate::Lease) needs it, and it is not the newest.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// use std::time::Duration;
/// use highwater::{Retention, Wal, storage::MemoryStorage};
///
/// let week = Duration::from_secs(7 * 24 * 60 * 60);
/// let retention = Retention::default().bytes(10 << 30).age(week);
/// let wal = Wal::options().retention(retention).open_with(MemoryStorage::new()).await?;
/// # wal.close().await }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a retention does nothing until it is an option of a log"]
pub struct Retention {
    pub(crate) bytes: Option<u64>,
    pub(crate) age: Option<Duration>,
}

impl Retention {
    /// Drops the oldest segments while the rest of the log has at least this many bytes.
    ///
    /// The bytes are those of records with their headers: the distance of two positions. So the
    /// files take up to three segments more: the oldest, the newest, and the prepared one.
    pub const fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Drops segments whose records are all older than this.
    ///
    /// The age of the newest record in a segment is that of the next segment, which was begun
    /// later. The log's clock never goes back, so a clock that jumps ahead drops records early.
    pub const fn age(mut self, age: Duration) -> Self {
        self.age = Some(age);
        self
    }

    /// Returns true if everything is kept.
    pub(crate) const fn is_off(&self) -> bool {
        self.bytes.is_none() && self.age.is_none()
    }
}

/// The reaction to an append that needs a segment beyond the [`budget`](crate::Options::budget).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnBudget {
    /// The append gets [`Error::OverBudget`](crate::Error::OverBudget), which names the holder of
    /// the oldest segment. Nothing is appended.
    Refuse,
    /// The append waits until segments are removed: by a truncation, by
    /// [`retention`](crate::Options::retention), or after a slot or a lease has moved on.
    ///
    /// [`Wal::try_enqueue`](crate::Wal::try_enqueue) gets [`Error::Full`](crate::Error::Full).
    /// [`Wal::health`](crate::Wal::health) is `Full` meanwhile.
    Wait,
    /// The log drops its oldest segments, and the append waits for that. Slots in these segments
    /// are lost: their consumers get [`Error::SlotLost`](crate::Error::SlotLost).
    ///
    /// A lease is never passed. If one is in the way, the append gets
    /// [`Error::OverBudget`](crate::Error::OverBudget).
    DropOldest,
}

/// The largest sum of the log's files, and what happens beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) bytes: u64,
    pub(crate) when_used_up: OnBudget,
}
