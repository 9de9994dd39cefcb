//! The slots of an open log: their positions, and the changes that are on their way to the disk.
//!
//! A change waits in `due` until a slots record with it is placed in the log. It then waits in
//! `placed` until a flush covers that record. Only then does it count: the durable position of a
//! slot holds back truncations, its volatile position does not.
//!
//! Each new segment begins a *round*: all slots become due in full. When the last of them is placed
//! the round is complete, and its first record is an *anchor*: the records from there on give the
//! state of every slot. The header of the next segment names the newest anchor whose round was
//! durable by the header's `synced`. So recovery reads no more than a few segments.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    format::slots::{
        EMPTY_FRAME_BYTES, ENTRY_BYTES_MAX, Entry, SlotTable, encode, full_entry_bytes,
    },
    lsn::{AtomicOptionLsn, Lsn},
    pipeline::state::slot_state::{Anchor, Need, Order, Placed, Round, Slot, SlotsState},
    sync::{AtomicBool, LockAlways, Mutex, MutexGuard, Ordering},
};

/// The largest slots record that is written.
const FRAME_BYTES_MAX: u64 = 4096;

#[derive(Debug)]
pub(crate) struct Slots {
    /// True while a change waits to be placed. Each flush reads it without the lock.
    is_due: AtomicBool,
    /// The end of the oldest record in `placed`. Each flush reads it without the lock.
    awaited: AtomicOptionLsn,
    frame_bytes_max: u64,
    /// The most bytes that a round may take, so that it fits into the ring and into a segment.
    round_bytes_max: u64,
    state: Mutex<SlotsState>,
}

/// A record that has its place in the log.
pub(crate) struct SlotsRecord<R> {
    pub(crate) reserved: R,
    pub(crate) payload: Vec<u8>,
}

/// The changes that a flush made durable.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Slots and their durable positions.
    pub(crate) moved: Vec<(u32, Lsn)>,
    pub(crate) removed: Vec<u32>,
    /// The anchor that the newest durable header names, if a header became durable.
    pub(crate) floor: Option<Option<Lsn>>,
}

/// How far a change of a slot has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Due,
    /// A flush up to this position makes it durable.
    Placed(Lsn),
    Durable,
}

/// A slot as it is listed.
#[derive(Clone, Debug)]
pub(crate) struct ListedSlot {
    pub(crate) name: Arc<str>,
    pub(crate) position: Lsn,
    pub(crate) durable: Option<Lsn>,
    pub(crate) cap_bytes: Option<u64>,
    pub(crate) is_open: bool,
}

/// The slots that recovery has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecoveredSlots {
    pub(crate) table: SlotTable,
    /// The position of the record from which on the table was built.
    pub(crate) from: Option<Lsn>,
    /// The position that the newest header names. The segments from there on must stay.
    pub(crate) floor: Option<Lsn>,
}

impl Slots {
    /// Returns the slots of a log that ends at `end`. All of it is durable.
    pub(crate) fn new(ring_bytes: u64, recovered: RecoveredSlots, end: Lsn) -> Self {
        let mut state = SlotsState::default();
        for (id, slot) in recovered.table.slots {
            state.ids.insert(Arc::clone(&slot.name), id);
            state.round_bytes += full_entry_bytes(&slot.name);
            state.slots.insert(
                id,
                Slot {
                    name: slot.name,
                    position: slot.position,
                    cap_bytes: slot.cap_bytes,
                    durable: Some(slot.position),
                    placed_end: end,
                    is_open: false,
                    is_confirmed: true,
                    is_removed: false,
                },
            );
        }
        state.anchors.extend(recovered.from.map(|start| Anchor { start, end, is_first: false }));
        Slots {
            is_due: AtomicBool::new(false),
            awaited: AtomicOptionLsn::new(None),
            // At least one entry fits, because a ring has at least 1 KiB.
            frame_bytes_max: FRAME_BYTES_MAX.min(ring_bytes / 4),
            round_bytes_max: ring_bytes / 2,
            state: Mutex::new(state),
        }
    }

    /// No user code and no I/O runs under this lock.
    fn state(&self) -> MutexGuard<'_, SlotsState> {
        self.state.lock_always()
    }

    fn publish(&self, state: &SlotsState) {
        self.is_due.store(!state.due.is_empty(), Ordering::Release);
        let awaited = state.placed.front().map(|placed| placed.end);
        let header = state.headers.front().map(|(base, _)| base.plus(1));
        let next = [awaited, header].into_iter().flatten().min();
        self.awaited.store(next, Ordering::Release);
    }

    /// Returns whether a change waits to be placed. Costs a load.
    pub(crate) fn is_due(&self) -> bool {
        self.is_due.load(Ordering::Relaxed)
    }

    /// Returns whether a flush up to `synced` makes a change durable. Costs a load.
    pub(crate) fn is_awaited(&self, synced: Lsn) -> bool {
        self.awaited.load(Ordering::Acquire).is_some_and(|end| end <= synced)
    }

    // Calls of the handles.

    /// Opens a slot, or prepares a new one at `position`. Returns its id, and whether it is new. A
    /// new slot is not written before [`confirm`](Slots::confirm).
    ///
    /// # Errors
    ///
    /// `SlotInUse`; `TooManySlots`.
    pub(crate) fn open(&self, name: &str, position: Lsn) -> Result<(u32, bool)> {
        let mut state = self.state();
        let known = state.ids.get(name).copied();
        if let Some(slot) = known.and_then(|id| state.slots.get_mut(&id)) {
            if slot.is_open {
                return Err(Error::SlotInUse { name: name.to_owned() });
            }
            if !slot.is_removed {
                slot.is_open = true;
                return Ok((known.unwrap_or_default(), false));
            }
        }
        let bytes = state.round_bytes + full_entry_bytes(name);
        if self.record_bytes(bytes) > self.round_bytes_max {
            let (slot_count, max_bytes) = (state.slots.len(), self.round_bytes_max);
            return Err(Error::TooManySlots { slot_count, max_bytes });
        }
        let newest = state.slots.last_key_value().map_or(0, |(id, _)| *id);
        // The lowest free id, if 2^32 were used.
        let id = newest.checked_add(1).unwrap_or_else(|| {
            (1..u32::MAX).find(|id| !state.slots.contains_key(id)).unwrap_or_default()
        });
        let name: Arc<str> = name.into();
        state.ids.insert(Arc::clone(&name), id);
        state.round_bytes = bytes;
        state.slots.insert(
            id,
            Slot {
                name,
                position,
                cap_bytes: None,
                durable: None,
                placed_end: Lsn::ZERO,
                is_open: true,
                is_confirmed: false,
                is_removed: false,
            },
        );
        Ok((id, true))
    }

    /// Returns the most bytes that records take for entries of `entry_bytes`.
    fn record_bytes(&self, entry_bytes: u64) -> u64 {
        let room = self.frame_bytes_max - EMPTY_FRAME_BYTES;
        // Each record but the last has less room left than the largest entry.
        let used = room.saturating_sub(ENTRY_BYTES_MAX - 8).max(8);
        entry_bytes + entry_bytes.div_ceil(used) * EMPTY_FRAME_BYTES
    }

    /// Has a new slot written.
    pub(crate) fn confirm(&self, id: u32) {
        let mut state = self.state();
        if let Some(slot) = state.slots.get_mut(&id) {
            slot.is_confirmed = true;
            state.need(id, Need::Full);
            self.publish(&state);
        }
    }

    /// Forgets a new slot that no record holds yet. Returns whether it did.
    pub(crate) fn forget(&self, id: u32) -> bool {
        let mut state = self.state();
        let is_unwritten = state.slots.get(&id).is_some_and(|slot| slot.placed_end == Lsn::ZERO);
        if is_unwritten {
            state.drop_slot(id);
            self.publish(&state);
        }
        is_unwritten
    }

    /// Notes that the handle of a slot is gone.
    pub(crate) fn release(&self, id: u32) {
        if let Some(slot) = self.state().slots.get_mut(&id) {
            slot.is_open = false;
        }
    }

    /// Moves a slot to `position`, never back. `synced` reads the synced mark.
    ///
    /// # Errors
    ///
    /// `SlotLost` if the log begins above the slot; `SlotAhead` if `position` is above the synced
    /// mark. `marks` returns both.
    pub(crate) fn advance(
        &self,
        id: u32,
        position: Lsn,
        marks: impl FnOnce() -> (Lsn, Lsn),
    ) -> Result<()> {
        let mut state = self.state();
        // Read under the lock. A truncation of the end lowers the positions after the mark.
        let (first, synced) = marks();
        let Some(slot) = state.slots.get_mut(&id) else { return Ok(()) };
        if slot.position < first {
            let (name, position) = (slot.name.to_string(), slot.position);
            return Err(Error::SlotLost { name, position, first });
        }
        if position > synced {
            let name = slot.name.to_string();
            return Err(Error::SlotAhead { name, position, synced });
        }
        if position > slot.position {
            slot.position = position;
            state.need(id, Need::Advance);
            self.publish(&state);
        }
        Ok(())
    }

    pub(crate) fn set_cap(&self, id: u32, cap_bytes: Option<u64>) {
        let mut state = self.state();
        if let Some(slot) = state.slots.get_mut(&id) {
            slot.cap_bytes = cap_bytes;
            state.need(id, Need::Full);
            self.publish(&state);
        }
    }

    /// Has a slot removed.
    pub(crate) fn remove(&self, id: u32) {
        let mut state = self.state();
        if let Some(slot) = state.slots.get_mut(&id) {
            slot.is_removed = true;
            state.need(id, Need::Removed);
            self.publish(&state);
        }
    }

    pub(crate) fn position(&self, id: u32) -> Lsn {
        self.state().slots.get(&id).map_or(Lsn::ZERO, |slot| slot.position)
    }

    /// Returns the end of the newest record that is placed and not known to be durable.
    pub(crate) fn placed_end(&self) -> Option<Lsn> {
        self.state().placed.back().map(|placed| placed.end)
    }

    /// Returns how far the newest change of a slot has come. A slot that is gone is durably gone.
    pub(crate) fn progress(&self, id: u32) -> Progress {
        let state = self.state();
        match state.slots.get(&id) {
            None => Progress::Durable,
            Some(_) if state.due.contains_key(&id) => Progress::Due,
            Some(slot) if slot.is_removed || slot.durable != Some(slot.position) => {
                Progress::Placed(slot.placed_end)
            }
            Some(slot) => {
                // A change of the cap moves no position.
                let is_placed = state.placed.iter().any(|placed| placed.end == slot.placed_end);
                if is_placed { Progress::Placed(slot.placed_end) } else { Progress::Durable }
            }
        }
    }

    pub(crate) fn list(&self) -> Vec<ListedSlot> {
        let state = self.state();
        let slots = state.slots.values().filter(|slot| slot.is_confirmed && !slot.is_removed);
        let listed = slots.map(|slot| ListedSlot {
            name: Arc::clone(&slot.name),
            position: slot.position,
            durable: slot.durable,
            cap_bytes: slot.cap_bytes,
            is_open: slot.is_open,
        });
        listed.collect()
    }

    pub(crate) fn name(&self, id: u32) -> Option<Arc<str>> {
        self.state().slots.get(&id).map(|slot| Arc::clone(&slot.name))
    }

    // Records.

    /// Returns the size of the next record's frame; `None` if no change is due.
    pub(crate) fn next_frame_bytes(&self, bytes_max: u64) -> Option<u64> {
        let state = self.state();
        if state.due.is_empty() {
            return None;
        }
        let (_, bytes) = state.select(bytes_max.min(self.frame_bytes_max), Order::InTurn);
        Some(bytes)
    }

    /// Places a record with changes that are due. Its frame takes at most `bytes_max`. `reserve`
    /// reserves a number of bytes and returns their position; it must not wait. Returns `None` if
    /// no change is due, or if `reserve` does.
    pub(crate) fn place<R>(
        &self,
        bytes_max: u64,
        order: Order,
        reserve: impl FnOnce(u64) -> Option<(R, Lsn)>,
    ) -> Option<SlotsRecord<R>> {
        let mut state = self.state();
        let (ids, frame_bytes) = state.select(bytes_max.min(self.frame_bytes_max), order);
        if ids.is_empty() {
            return None;
        }
        let (reserved, lsn) = reserve(frame_bytes)?;
        let payload = state.place(&ids, lsn, frame_bytes);
        self.publish(&state);
        Some(SlotsRecord { reserved, payload })
    }

    /// Returns the payload of a record without changes, which leads to the newest anchor. `None` if
    /// the log has no slot.
    pub(crate) fn pointer(&self) -> Option<Vec<u8>> {
        let state = self.state();
        let anchor = state.anchors.back().filter(|_| !state.slots.is_empty())?;
        Some(encode(&[], anchor.start))
    }

    /// Makes all slots due, as a new round. Returns the most bytes that its records take; `None`
    /// without a slot.
    pub(crate) fn begin_round(&self) -> Option<u64> {
        let mut state = self.state();
        state.begin_round();
        self.publish(&state);
        let removed_bytes = 8 * state.due.len() as u64;
        (!state.due.is_empty()).then(|| self.record_bytes(state.round_bytes + removed_bytes))
    }

    /// Returns the anchor that a header with this `synced` names. `None` if no slots record
    /// precedes the header's segment, or if no slot is left.
    pub(crate) fn anchor_below(&self, synced: Lsn) -> Option<Lsn> {
        let mut state = self.state();
        while state.anchors.get(1).is_some_and(|next| next.end <= synced) {
            state.anchors.pop_front();
        }
        let is_settled = state.placed.iter().all(|placed| placed.end <= synced);
        if state.slots.is_empty() && is_settled {
            // No slot is left, so none has to be found.
            state.anchors.clear();
            state.round = Round::default();
        }
        let anchor = state.anchors.front()?;
        (anchor.is_first || anchor.end <= synced).then_some(anchor.start)
    }

    /// Begins a round in the segment at `base`, whose header names `from`.
    pub(crate) fn begin_segment(&self, base: Lsn, from: Option<Lsn>) {
        let mut state = self.state();
        state.headers.push_back((base, from));
        state.begin_round();
        self.publish(&state);
    }

    /// Applies the changes that are durable. `synced` reads the synced mark.
    pub(crate) fn settle(&self, synced: impl FnOnce() -> Lsn) -> Settled {
        let mut state = self.state();
        // Read under the lock, as in `Beginning::apply_durable`.
        let synced = synced();
        let mut settled = Settled::default();
        let count = state.placed.partition_point(|placed| placed.end <= synced);
        let durable: Vec<Placed> = state.placed.drain(..count).collect();
        for Placed { changes, .. } in durable {
            for (id, position) in changes {
                match (position, state.slots.get_mut(&id)) {
                    (Some(position), Some(slot)) => {
                        // A cut may have lowered the position since.
                        let durable = position.min(slot.position);
                        slot.durable = slot.durable.max(Some(durable));
                        settled.moved.push((id, durable));
                    }
                    (None, _) => {
                        state.drop_slot(id);
                        settled.removed.push(id);
                    }
                    (Some(_), None) => {}
                }
            }
        }
        let count = state.headers.partition_point(|(base, _)| *base < synced);
        settled.floor = state.headers.drain(..count).next_back().map(|(_, from)| from);
        self.publish(&state);
        settled
    }

    // A truncation of the end.

    /// Rewrites all slots for a segment that begins at `cut`, where the log was cut. Returns the
    /// payloads of the records, in order, from `cut` on. The caller makes them durable before the
    /// segment's header, and then calls [`cut_at`](Slots::cut_at).
    pub(crate) fn rewritten_at(&self, cut: Lsn) -> Vec<Vec<u8>> {
        let mut state = self.state();
        state.clamp(cut);
        let confirmed = state.slots.iter().filter(|(_, slot)| slot.is_confirmed);
        let entries: Vec<Entry> = confirmed.filter_map(|(id, slot)| slot.full(*id)).collect();
        // A change from here on is written after the cut.
        state.due.clear();
        state.full_count = 0;
        state.rewritten = state.slots.iter().map(|(id, slot)| (*id, slot.position)).collect();
        let mut payloads = Vec::new();
        let mut rest = entries.as_slice();
        while !rest.is_empty() {
            let mut bytes = EMPTY_FRAME_BYTES;
            let fits = |entry: &&Entry| {
                bytes += entry.bytes();
                bytes <= self.frame_bytes_max
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (these, behind) = rest.split_at(count.min(rest.len()));
            payloads.push(encode(these, cut));
            rest = behind;
        }
        payloads
    }

    /// Notes that the log continues at `cut` with the records of
    /// [`rewritten_at`](Slots::rewritten_at), which end at `end` and are durable. The synced mark
    /// is lowered already. Returns the positions of all slots.
    pub(crate) fn cut_at(&self, cut: Lsn, end: Lsn) -> Settled {
        let mut state = self.state();
        // Again, because a slot may have advanced until the synced mark was lowered.
        state.clamp(cut);
        state.placed.clear();
        state.headers.clear();
        state.anchors.clear();
        state.round = Round::default();
        let removed: Vec<u32> = state.removed_ids();
        removed.iter().for_each(|id| state.drop_slot(*id));
        let mut moved = Vec::new();
        for (id, position) in std::mem::take(&mut state.rewritten) {
            if let Some(slot) = state.slots.get_mut(&id).filter(|slot| slot.is_confirmed) {
                let position = position.min(slot.position);
                (slot.durable, slot.placed_end) = (Some(position), end);
                moved.push((id, position));
            }
        }
        let from = (end > cut).then_some(cut);
        state.anchors.extend(from.map(|start| Anchor { start, end, is_first: false }));
        self.publish(&state);
        Settled { moved, removed, floor: Some(from) }
    }
}
