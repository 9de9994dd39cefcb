//! The state behind the lock of the slots: changes that are due, changes that are placed, rounds.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use crate::{
    format::{
        frame::FRAME_HEADER_BYTES_U64,
        slots::{EMPTY_FRAME_BYTES, Entry, SlotState, encode, full_entry_bytes},
    },
    lsn::Lsn,
};

#[derive(Debug, Default)]
pub(super) struct SlotsState {
    pub(super) slots: BTreeMap<u32, Slot>,
    pub(super) ids: BTreeMap<Arc<str>, u32>,
    pub(super) due: BTreeMap<u32, Need>,
    /// The number of `Need::Full` in `due`.
    pub(super) full_count: usize,
    /// The slot that was placed last. The next record continues after it.
    pub(super) cursor: u32,
    pub(super) round: Round,
    /// Complete rounds, oldest first. Before a header is written, all but the newest durable one
    /// and later ones are dropped.
    pub(super) anchors: VecDeque<Anchor>,
    pub(super) placed: VecDeque<Placed>,
    /// The anchors that segment headers name which may not be durable yet, by the segment's base.
    pub(super) headers: VecDeque<(Lsn, Option<Lsn>)>,
    /// The positions that a cut has written, until it is committed.
    pub(super) rewritten: Vec<(u32, Lsn)>,
    /// The bytes that a round takes at most.
    pub(super) round_bytes: u64,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: Arc<str>,
    /// The position to which the consumer has advanced.
    pub(super) position: Lsn,
    pub(super) cap_bytes: Option<u64>,
    /// `None` until the slot itself is durable.
    pub(super) durable: Option<Lsn>,
    /// The end of the newest record with a change of this slot.
    pub(super) placed_end: Lsn,
    /// True while a handle exists.
    pub(super) is_open: bool,
    /// True once the slot holds back truncations. It is not written before.
    pub(super) is_confirmed: bool,
    pub(super) is_removed: bool,
}

/// The entry that a slot needs in the next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    Advance,
    Full,
    Removed,
}

/// The order in which a record takes the changes that are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Continues after the slot that was placed last, so that each slot has its turn.
    InTurn,
    /// The slots that hold back truncations the most come first.
    LowestFirst,
}

#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) is_running: bool,
    pub(super) start: Option<Lsn>,
}

/// A complete round: its first position, and the end of its last record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Anchor {
    pub(super) start: Lsn,
    pub(super) end: Lsn,
    /// True if the log had no slot before. Any number of the records from there on is then enough.
    pub(super) is_first: bool,
}

/// A record that is not known to be durable.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) end: Lsn,
    pub(super) changes: Vec<(u32, Option<Lsn>)>,
}

impl Slot {
    /// Returns the slot as an entry. `None` if it is being removed.
    pub(super) fn full(&self, id: u32) -> Option<Entry> {
        let (name, position, cap_bytes) = (Arc::clone(&self.name), self.position, self.cap_bytes);
        (!self.is_removed)
            .then_some(Entry::Full { id, slot: SlotState { name, position, cap_bytes } })
    }

    pub(super) fn entry(&self, id: u32, need: Need) -> Entry {
        match need {
            Need::Advance => Entry::Advance { id, position: self.position },
            Need::Full => self.full(id).unwrap_or(Entry::Removed { id }),
            Need::Removed => Entry::Removed { id },
        }
    }
}

impl SlotsState {
    pub(super) fn need(&mut self, id: u32, need: Need) {
        let before = self.due.get(&id).copied();
        let after = before.map_or(need, |before| before.max(need));
        self.due.insert(id, after);
        self.full_count -= usize::from(before == Some(Need::Full));
        self.full_count += usize::from(after == Need::Full);
    }

    pub(super) fn forget_need(&mut self, id: u32) {
        let need = self.due.remove(&id);
        self.full_count -= usize::from(need == Some(Need::Full));
    }

    pub(super) fn drop_slot(&mut self, id: u32) {
        self.forget_need(id);
        if let Some(slot) = self.slots.remove(&id) {
            self.round_bytes -= full_entry_bytes(&slot.name);
            if self.ids.get(&slot.name) == Some(&id) {
                self.ids.remove(&slot.name);
            }
        }
    }

    /// Returns the slots whose removal needs no further record.
    pub(super) fn removed_ids(&self) -> Vec<u32> {
        let removed = self.slots.iter().filter(|(_, slot)| slot.is_removed);
        removed.map(|(id, _)| *id).filter(|id| !self.due.contains_key(id)).collect()
    }

    pub(super) fn begin_round(&mut self) {
        let confirmed = self.slots.iter().filter(|(_, slot)| slot.is_confirmed);
        let ids: Vec<u32> = confirmed.map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.need(id, Need::Full));
        self.round = Round { is_running: !self.due.is_empty(), start: None };
    }

    /// Lowers all positions to `cut`.
    pub(super) fn clamp(&mut self, cut: Lsn) {
        for slot in self.slots.values_mut() {
            slot.position = slot.position.min(cut);
            slot.durable = slot.durable.map(|durable| durable.min(cut));
        }
    }

    /// Returns the changes that are due, in this order.
    fn due_in(&self, order: Order) -> Vec<(u32, Need)> {
        let after = self.due.range((Bound::Excluded(self.cursor), Bound::Unbounded));
        let in_turn = after.chain(self.due.range(..=self.cursor));
        let mut due: Vec<(u32, Need)> = in_turn.map(|(id, need)| (*id, *need)).collect();
        if order == Order::LowestFirst {
            // Truncations already pass a slot that was removed on a full disk.
            due.sort_by_key(|(id, _)| {
                let slot = self.slots.get(id);
                slot.map(|slot| (slot.is_removed, slot.durable.unwrap_or(slot.position)))
            });
        }
        due
    }

    /// Returns the slots of the next record, and the size of its frame.
    pub(super) fn select(&self, bytes_max: u64, order: Order) -> (Vec<u32>, u64) {
        let mut bytes = EMPTY_FRAME_BYTES;
        let mut ids = Vec::new();
        for (id, need) in self.due_in(order) {
            let Some(slot) = self.slots.get(&id) else { continue };
            let entry_bytes = match need {
                Need::Removed => 8,
                Need::Advance => 16,
                Need::Full if slot.is_removed => 8,
                Need::Full => full_entry_bytes(&slot.name),
            };
            if bytes + entry_bytes > bytes_max {
                break;
            }
            bytes += entry_bytes;
            ids.push(id);
        }
        (ids, bytes)
    }

    /// Notes that the changes of these slots are in the record at `lsn`. Returns its payload.
    pub(super) fn place(&mut self, ids: &[u32], lsn: Lsn, frame_bytes: u64) -> Vec<u8> {
        let end = lsn.plus(frame_bytes);
        let mut entries = Vec::with_capacity(ids.len());
        let mut changes = Vec::with_capacity(ids.len());
        for id in ids {
            let need = self.due.get(id).copied().unwrap_or(Need::Advance);
            self.forget_need(*id);
            if let Some(slot) = self.slots.get_mut(id) {
                slot.placed_end = end;
                let entry = slot.entry(*id, need);
                let is_removed = matches!(entry, Entry::Removed { .. });
                changes.push((*id, (!is_removed).then_some(slot.position)));
                entries.push(entry);
            }
        }
        self.cursor = ids.last().copied().unwrap_or_default();
        let start = *self.round.start.get_or_insert(lsn);
        if self.anchors.is_empty() {
            // No slot existed before.
            self.anchors.push_back(Anchor { start: lsn, end, is_first: true });
        }
        if self.round.is_running && self.full_count == 0 {
            self.round.is_running = false;
            self.anchors.push_back(Anchor { start, end, is_first: false });
        }
        let from = self.anchors.back().map_or(lsn, |anchor| anchor.start);
        self.placed.push_back(Placed { end, changes });
        let payload = encode(&entries, from);
        debug_assert_eq!(payload.len() as u64 + FRAME_HEADER_BYTES_U64, frame_bytes);
        payload
    }
}
