//! [`Slot`]: a durable position of a consumer, which holds back truncations.

use std::{fmt, sync::Arc};

use crate::{
    error::{Error, Result},
    follow::{Below, Follow},
    format::{frame::is_aligned, slots::is_name},
    lsn::Lsn,
    pipeline::{
        OpenLog,
        slot_changes::{
            advance_slot, forget_slot, make_durable, open_slot, remove_slot, set_slot_cap,
        },
    },
    wal::{handle::Wal, truncate::check_boundary},
};

/// A durable named position in the log, of one consumer; made by [`Wal::slot`].
///
/// A consumer reads from [`position`](Slot::position) on and moves it with
/// [`advance`](Slot::advance). The log keeps the position, so the consumer needs no other
/// file. [`Wal::truncate_before`] does not pass a slot, so records that the consumer has not seen
/// stay. A slot exists until it is [removed](Slot::remove), also while no handle exists.
///
/// A slot has one handle at a time. It is a handle of the log, as [`Wal`] is.
///
/// A move of the position is a small control record that rides the next group commit. After a
/// crash, a slot is at its last durable position or later, so a consumer may see records again, and
/// never misses one.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
/// # use highwater::{Wal, storage::MemoryStorage};
/// use futures::{FutureExt, TryStreamExt};
///
/// # let wal = Wal::options().open_with(MemoryStorage::new()).await?;
/// let slot = wal.slot("indexer").await?;
/// wal.append_and_sync("a record").await?;
///
/// let mut records = slot.follow()?;
/// while let Some(Some(record)) = records.try_next().now_or_never().transpose()? {
///     println!("{}: {:?}", record.lsn, record.payload);
///     slot.advance(records.position())?;
/// }
/// assert_eq!(wal.truncate_before(wal.watermarks().synced).await?, slot.position());
/// # Ok(()) }
/// ```
#[must_use = "a slot stays until it is removed"]
pub struct Slot {
    core: Arc<OpenLog>,
    id: u32,
    name: String,
    /// False if the slot could not be made.
    is_open: bool,
}

/// A slot of a log, as [`Wal::slots`] lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotInfo {
    /// Its name.
    pub name: String,
    /// The position at which the consumer continues. Everything below is done.
    pub position: Lsn,
    /// The part of it that a crash does not move back, which holds back truncations. `None` while
    /// the slot itself is not durable.
    pub durable: Option<Lsn>,
    /// The bytes between the durable position and the synced mark.
    pub lag_bytes: u64,
    /// The bytes from the beginning of the segment that holds the durable position up to the synced
    /// mark. The slot keeps at most these on the disk.
    pub held_bytes: u64,
    /// The limit of [`Slot::keep_at_most`].
    pub keep_bytes_max: Option<u64>,
    /// True if the slot has a handle now.
    pub is_open: bool,
    /// True if the log was truncated past the slot.
    pub is_lost: bool,
}

impl Wal {
    /// Opens the slot with this name, or makes one at the first position of the log.
    ///
    /// Resolves when a new slot is durable. A name has 1 to 64 bytes.
    ///
    /// # Errors
    ///
    /// - [`Error::SlotInUse`] if the slot has a handle.
    /// - [`Error::SlotName`] for an empty or too long name.
    /// - [`Error::TooManySlots`], [`Error::NoSpace`], [`Error::OverBudget`]: the slot was not made.
    /// - [`Error::Poisoned`], [`Error::Closed`], [`Error::Io`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the slot may exist or not. Call `slot` again.
    ///
    /// # Example
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> highwater::Result<()> {
    /// # use highwater::{Wal, storage::MemoryStorage};
    /// # let wal = Wal::options().open_with(MemoryStorage::new()).await?;
    /// let kept = wal.append_and_sync("not indexed yet").await?;
    /// let slot = wal.slot("indexer").await?;
    /// let next = wal.append_and_sync("not indexed either").await?;
    /// assert_eq!(wal.truncate_before(next).await?, kept);
    /// # Ok(()) }
    /// ```
    pub async fn slot(&self, name: &str) -> Result<Slot> {
        self.open_slot(name, None).await
    }

    /// As [`Wal::slot`], but a new slot begins at `from`.
    ///
    /// `from` is the LSN of a record, a mark, or another position that the log returned. A slot
    /// that exists keeps its position.
    ///
    /// # Errors
    ///
    /// Those of [`Wal::slot`], and [`Error::BelowFirst`], [`Error::AboveEnd`] or
    /// [`Error::NotABoundary`] if the log has no such position.
    ///
    /// # Cancel safety
    ///
    /// As [`Wal::slot`].
    pub async fn slot_at(&self, name: &str, from: Lsn) -> Result<Slot> {
        let core = self.core();
        check_boundary(core, from, core.epoch()).await?;
        self.open_slot(name, Some(from)).await
    }

    async fn open_slot(&self, name: &str, from: Option<Lsn>) -> Result<Slot> {
        let core = self.core();
        core.status().check_new()?;
        if !is_name(name) {
            return Err(Error::SlotName { name: name.to_owned() });
        }
        let (id, is_new) = open_slot(core, name, from)?;
        let name = name.to_owned();
        let mut slot = Slot { core: Arc::clone(core), id, name, is_open: true };
        loop {
            match make_durable(core, id).await {
                Ok(()) => return Ok(slot),
                Err(error) if is_new && forget_slot(core, id) => {
                    slot.is_open = false;
                    return Err(error);
                }
                // A flush has placed the slot meanwhile.
                Err(error) if is_new && error.is_no_space() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Lists the slots of the log, with what each holds.
    #[must_use]
    pub fn slots(&self) -> Vec<SlotInfo> {
        let core = self.core();
        let (first, synced) = (core.beginning().first(), core.synced().get());
        let listed = core.slots().list().into_iter().map(|slot| {
            let from = slot.durable.unwrap_or(slot.position);
            SlotInfo {
                name: slot.name.to_string(),
                position: slot.position,
                durable: slot.durable,
                lag_bytes: synced.since(from.min(synced)),
                held_bytes: core.held_bytes(from),
                keep_bytes_max: slot.cap_bytes,
                is_open: slot.is_open,
                is_lost: slot.position < first,
            }
        });
        listed.collect()
    }
}

impl Slot {
    /// Returns the name of the slot.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the position at which the consumer continues. Everything below is done.
    ///
    /// [`Wal::truncate_after`] moves it back to the new end of the log.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.core.slots().position(self.id)
    }

    /// Moves the slot to `to`: everything below is done. Never moves it back.
    ///
    /// `to` is the position at which the consumer continues: a [`Follow::position`], the LSN of the
    /// next record, or a mark. It may be within a batch. The call neither waits nor does I/O. The
    /// move is durable after the next flush, and at the latest when the log is closed. Truncations
    /// see it then.
    ///
    /// Because the call reads nothing, it does not check that a record begins at `to`. If none
    /// does, [`follow`](Slot::follow) yields [`Error::NotABoundary`], and truncations keep the
    /// record that holds `to`. Advance the slot to a later record to continue.
    ///
    /// # Errors
    ///
    /// - [`Error::SlotAhead`] if `to` is above the synced mark.
    /// - [`Error::NotABoundary`] if `to` is not a multiple of 8, as every position is.
    /// - [`Error::SlotLost`] if the log was truncated past the slot.
    /// - [`Error::Poisoned`], [`Error::Closed`].
    pub fn advance(&self, to: Lsn) -> Result<()> {
        self.core.status().check_new()?;
        if !is_aligned(to) {
            return Err(Error::NotABoundary { lsn: to });
        }
        advance_slot(&self.core, self.id, to)
    }

    /// As [`advance`](Slot::advance), and resolves when the move is durable.
    ///
    /// # Errors
    ///
    /// Those of [`advance`](Slot::advance), and [`Error::NoSpace`], [`Error::OverBudget`] or
    /// [`Error::Io`] if the log has no room for the record now. The slot has moved, and a later
    /// flush makes that durable.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the slot has moved as after [`advance`](Slot::advance).
    pub async fn advance_and_sync(&self, to: Lsn) -> Result<()> {
        self.advance(to)?;
        make_durable(&self.core, self.id).await
    }

    /// Streams the durable records from the slot's position on, as [`Wal::follow`].
    ///
    /// The stream yields [`Error::NotABoundary`] if the slot was advanced to a position at which no
    /// record begins.
    ///
    /// # Errors
    ///
    /// [`Error::SlotLost`] if the log was truncated past the slot.
    pub fn follow(&self) -> Result<Follow> {
        self.check_not_lost()?;
        Ok(Follow::new(&self.core, self.position().into(), Below::Synced))
    }

    /// Limits what the slot keeps: if it is more than `bytes` behind the synced mark, a truncation
    /// may pass it. The slot is then lost. `None` removes the limit, which is the default.
    ///
    /// Set it for a consumer that may be gone forever, so that it can't fill the disk. Truncations
    /// obey the limit at once. It is durable after the next flush.
    ///
    /// # Errors
    ///
    /// [`Error::Poisoned`], [`Error::Closed`].
    pub fn keep_at_most(&self, bytes: impl Into<Option<u64>>) -> Result<()> {
        self.core.status().check_new()?;
        // On the disk, the largest number means no limit.
        set_slot_cap(&self.core, self.id, bytes.into().filter(|bytes| *bytes != u64::MAX));
        Ok(())
    }

    /// Removes the slot. Resolves when that is durable.
    ///
    /// # Errors
    ///
    /// - [`Error::NoSpace`], [`Error::OverBudget`], [`Error::Io`]: a later flush removes the slot,
    ///   and truncations pass it from now on.
    /// - [`Error::Poisoned`], [`Error::Closed`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is polled, the slot stays. If it is dropped later, a
    /// flush or the close removes the slot.
    pub async fn remove(self) -> Result<()> {
        self.core.status().check_new()?;
        remove_slot(&self.core, self.id, false);
        let removed = make_durable(&self.core, self.id).await;
        if removed.is_err() {
            // Otherwise a full log could not be truncated, and so never remove the slot.
            remove_slot(&self.core, self.id, true);
        }
        removed
    }

    fn check_not_lost(&self) -> Result<()> {
        let (position, first) = (self.position(), self.core.beginning().first());
        if position < first {
            return Err(Error::SlotLost { name: self.name.clone(), position, first });
        }
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.is_open {
            self.core.slots().release(self.id);
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("name", &self.name)
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}
