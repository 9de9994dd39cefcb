//! The slots record: changes of the log's named cursors, as a control record.
//!
//! ```text
//! record  := entry* from(8) trailer(8)
//! full    := 1 name_bytes(1) 0 0 id(4) position(8) cap(8) name, zeros up to a multiple of 8
//! advance := 2 0 0 0 id(4) position(8)
//! removed := 3 0 0 0 id(4)
//! ```
//!
//! `from` is the position of a slots record. The entries of all slots records from there up to this
//! one, applied in order to an empty table, give the state of every slot. So one record leads to
//! the state of all slots, and recovery reads a bounded part of the log.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    format::{
        control::{CODE_SLOTS, CONTROL_PAYLOAD_BYTES, trailer},
        frame::{FRAME_HEADER_BYTES_U64, is_aligned},
        scan::to_usize,
    },
    lsn::Lsn,
};

/// The longest name of a slot, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 64;

/// The bytes of `from` and the trailer, which end each record.
pub(crate) const TAIL_BYTES: u64 = 16;

/// The size of the frame of a record without entries.
pub(crate) const EMPTY_FRAME_BYTES: u64 = FRAME_HEADER_BYTES_U64 + TAIL_BYTES;

/// The size of the largest entry.
pub(crate) const ENTRY_BYTES_MAX: u64 = 24 + NAME_BYTES_MAX as u64;

const FULL: u8 = 1;
const ADVANCE: u8 = 2;
const REMOVED: u8 = 3;

/// Represents "no cap".
const CAP_NONE: u64 = u64::MAX;

/// A change of one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The whole state of a slot, which may be new.
    Full {
        id: u32,
        slot: SlotState,
    },
    /// A new position.
    Advance {
        id: u32,
        position: Lsn,
    },
    Removed {
        id: u32,
    },
}

/// The state of a slot on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotState {
    pub(crate) name: Arc<str>,
    /// Everything below is done.
    pub(crate) position: Lsn,
    /// The most bytes that the slot holds back.
    pub(crate) cap_bytes: Option<u64>,
}

/// Returns whether a slot may have this name.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
}

/// Returns the bytes of a full entry of a slot with this name.
pub(crate) fn full_entry_bytes(name: &str) -> u64 {
    24 + name.len().next_multiple_of(8) as u64
}

impl Entry {
    /// Returns the bytes that the entry takes.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Entry::Full { slot, .. } => full_entry_bytes(&slot.name),
            Entry::Advance { .. } => 16,
            Entry::Removed { .. } => 8,
        }
    }

    fn encode(&self, to: &mut Vec<u8>) {
        let head = |to: &mut Vec<u8>, kind: u8, name_bytes: u8, id: u32| {
            to.extend_from_slice(&[kind, name_bytes, 0, 0]);
            to.extend_from_slice(&id.to_le_bytes());
        };
        match self {
            Entry::Full { id, slot } => {
                head(to, FULL, u8::try_from(slot.name.len()).unwrap_or(u8::MAX), *id);
                to.extend_from_slice(&slot.position.as_u64().to_le_bytes());
                to.extend_from_slice(&slot.cap_bytes.unwrap_or(CAP_NONE).to_le_bytes());
                to.extend_from_slice(slot.name.as_bytes());
                to.resize(to.len().next_multiple_of(8), 0);
            }
            Entry::Advance { id, position } => {
                head(to, ADVANCE, 0, *id);
                to.extend_from_slice(&position.as_u64().to_le_bytes());
            }
            Entry::Removed { id } => head(to, REMOVED, 0, *id),
        }
    }

    /// Parses the entry at the beginning of `bytes`. Returns it and the rest.
    fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let ([kind, name_bytes, 0, 0, i0, i1, i2, i3], rest) = bytes.split_first_chunk::<8>()?
        else {
            return None;
        };
        let id = u32::from_le_bytes([*i0, *i1, *i2, *i3]);
        match (*kind, *name_bytes) {
            (FULL, name_bytes) => {
                let (position, rest) = position(rest)?;
                let (cap, rest) = word(rest)?;
                let padded = usize::from(name_bytes).next_multiple_of(8);
                let (name, padding) = rest.get(..padded)?.split_at(usize::from(name_bytes));
                let name = std::str::from_utf8(name).ok().filter(|name| is_name(name))?;
                if padding.iter().any(|&byte| byte != 0) {
                    return None;
                }
                let cap_bytes = (cap != CAP_NONE).then_some(cap);
                let slot = SlotState { name: name.into(), position, cap_bytes };
                Some((Entry::Full { id, slot }, rest.get(padded..)?))
            }
            (ADVANCE, 0) => {
                let (position, rest) = position(rest)?;
                Some((Entry::Advance { id, position }, rest))
            }
            (REMOVED, 0) => Some((Entry::Removed { id }, rest)),
            _ => None,
        }
    }
}

fn word(bytes: &[u8]) -> Option<(u64, &[u8])> {
    bytes.split_first_chunk().map(|(word, rest)| (u64::from_le_bytes(*word), rest))
}

fn position(bytes: &[u8]) -> Option<(Lsn, &[u8])> {
    let (word, rest) = word(bytes)?;
    Some(Lsn::new(word)).filter(|&lsn| is_aligned(lsn)).map(|lsn| (lsn, rest))
}

/// Returns the payload of a slots record.
pub(crate) fn encode(entries: &[Entry], from: Lsn) -> Vec<u8> {
    let entry_bytes: u64 = entries.iter().map(Entry::bytes).sum();
    let mut payload = Vec::with_capacity(to_usize(entry_bytes + TAIL_BYTES));
    entries.iter().for_each(|entry| entry.encode(&mut payload));
    payload.extend_from_slice(&from.as_u64().to_le_bytes());
    payload.extend_from_slice(&trailer(CODE_SLOTS));
    payload
}

/// Parses the payload of a slots record: its entries, and `from`. `None` for bytes that no release
/// writes.
pub(crate) fn parse(payload: &[u8]) -> Option<(Vec<Entry>, Lsn)> {
    let (front, from) = split_from(payload)?;
    let mut rest = front;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (entry, behind) = Entry::parse(rest)?;
        entries.push(entry);
        rest = behind;
    }
    Some((entries, from))
}

fn split_from(payload: &[u8]) -> Option<(&[u8], Lsn)> {
    let (rest, last) = payload.split_last_chunk::<CONTROL_PAYLOAD_BYTES>()?;
    let (front, from) = rest.split_last_chunk::<8>()?;
    let from = Lsn::new(u64::from_le_bytes(*from));
    (*last == trailer(CODE_SLOTS) && is_aligned(from)).then_some((front, from))
}

/// The slots of a log, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotTable {
    pub(crate) slots: BTreeMap<u32, SlotState>,
    /// The slot of each name.
    ids: BTreeMap<Arc<str>, u32>,
}

impl SlotTable {
    /// Applies a change. A change of an unknown slot has no effect: its full entry follows.
    pub(crate) fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Full { id, slot } => {
                self.remove(id);
                // A name belongs to one slot.
                if let Some(other) = self.ids.insert(Arc::clone(&slot.name), id) {
                    self.slots.remove(&other);
                }
                self.slots.insert(id, slot);
            }
            Entry::Advance { id, position } => {
                if let Some(slot) = self.slots.get_mut(&id) {
                    slot.position = slot.position.max(position);
                }
            }
            Entry::Removed { id } => self.remove(id),
        }
    }

    fn remove(&mut self, id: u32) {
        if let Some(slot) = self.slots.remove(&id) {
            self.ids.remove(&slot.name);
        }
    }

    /// Lowers positions above `end`, where the log was cut.
    pub(crate) fn clamp(&mut self, end: Lsn) {
        for slot in self.slots.values_mut() {
            slot.position = slot.position.min(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::control::Control;

    fn full(id: u32, name: &str, position: u64, cap_bytes: Option<u64>) -> Entry {
        let slot = SlotState { name: name.into(), position: Lsn::new(position), cap_bytes };
        Entry::Full { id, slot }
    }

    fn advance(id: u32, position: u64) -> Entry {
        Entry::Advance { id, position: Lsn::new(position) }
    }

    fn some_entries() -> Vec<Entry> {
        vec![
            full(1, "indexer", 64, None),
            full(u32::MAX, &"n".repeat(NAME_BYTES_MAX), (1 << 62) - 8, Some(0)),
            advance(1, 128),
            Entry::Removed { id: 7 },
            full(3, "später", 0, Some(1 << 40)),
        ]
    }

    #[test]
    fn slots_record_round_trips() {
        for count in 0..=some_entries().len() {
            let entries = some_entries()[..count].to_vec();
            let payload = encode(&entries, Lsn::new(4096));
            let bytes: u64 = entries.iter().map(Entry::bytes).sum();
            assert_eq!(payload.len() as u64, bytes + TAIL_BYTES);
            assert_eq!(parse(&payload), Some((entries, Lsn::new(4096))));
            assert_eq!(Control::parse(&payload), Some(Control::Slots));
        }
    }

    /// Every prefix, and every single flipped bit, parses or is refused, and what parses is encoded
    /// to the same bytes again.
    #[test]
    fn hostile_slots_record_is_refused_or_canonical() {
        let payload = encode(&some_entries(), Lsn::new(8));
        let check = |bytes: &[u8]| {
            if let Some((entries, from)) = parse(bytes) {
                assert_eq!(encode(&entries, from), bytes);
            }
        };
        (0..payload.len()).for_each(|end| check(&payload[..end]));
        for bit in 0..payload.len() * 8 {
            let mut flipped = payload.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            check(&flipped);
        }
        let mut random = 1u64;
        for length in 0..4000usize {
            let bytes = (0..length % 200).map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                random.to_le_bytes()[7] & if length % 3 == 0 { 3 } else { 0xff }
            });
            let mut bytes: Vec<u8> = bytes.collect();
            bytes.extend_from_slice(&[0; 8]);
            bytes.extend_from_slice(&trailer(CODE_SLOTS));
            check(&bytes);
        }
    }

    #[test]
    fn invalid_entries_are_refused() {
        let with = |entry: &[u8]| {
            let mut payload = entry.to_vec();
            payload.extend_from_slice(&[0; 8]);
            payload.extend_from_slice(&trailer(CODE_SLOTS));
            parse(&payload)
        };
        assert!(with(&[]).is_some());
        assert!(with(&[3, 0, 0, 0, 1, 0, 0, 0]).is_some());
        let refused: [&[u8]; 6] = [
            &[0; 8],
            &[4, 0, 0, 0, 1, 0, 0, 0],
            &[3, 1, 0, 0, 1, 0, 0, 0],
            &[2, 0, 0, 0, 1, 0, 0, 0],
            &[2, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        for entry in refused {
            assert_eq!(with(entry), None, "{entry:?}");
        }
    }

    #[test]
    fn slot_table_applies_entries_in_order() {
        let mut table = SlotTable::default();
        for entry in [
            advance(1, 8),
            full(1, "a", 16, None),
            full(2, "b", 24, Some(100)),
            advance(1, 64),
            advance(1, 32),
            Entry::Removed { id: 2 },
            Entry::Removed { id: 9 },
            full(2, "c", 8, None),
        ] {
            table.apply(entry);
        }
        let state = |name: &str, position| SlotState {
            name: name.into(),
            position: Lsn::new(position),
            cap_bytes: None,
        };
        assert_eq!(table.slots, BTreeMap::from([(1, state("a", 64)), (2, state("c", 8))]));
        table.clamp(Lsn::new(40));
        assert_eq!(table.slots[&1].position, Lsn::new(40));
        table.apply(full(5, "a", 0, None));
        assert_eq!(table.slots.keys().copied().collect::<Vec<_>>(), [2, 5]);
    }
}
