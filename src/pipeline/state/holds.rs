//! The holders of segments: leases, slots, and the slots records that opening reads.
//!
//! A lease keeps bytes below `first` readable until it is dropped. A slot keeps `first` from moving
//! past it; only its durable position counts, because a crash returns to that one. The floor is the
//! position of the oldest slots record that opening may read; its segment stays.

use std::collections::BTreeMap;

use crate::lsn::Lsn;

#[derive(Debug, Default)]
pub(crate) struct Holds {
    /// The number of leases by position.
    leases: BTreeMap<Lsn, usize>,
    /// The number of copies that need the files from a position on, by position.
    pins: BTreeMap<Lsn, usize>,
    slots: BTreeMap<u32, SlotHold>,
    floor: Option<Lsn>,
}

/// A slot that holds back truncations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotHold {
    pub(crate) position: Lsn,
    /// The slot gives way if it is further behind the synced end than this.
    pub(crate) cap_bytes: Option<u64>,
}

impl SlotHold {
    /// Returns whether a truncation may pass the slot.
    fn gives_way(&self, synced: Lsn) -> bool {
        self.cap_bytes.is_some_and(|cap| synced.since(self.position.min(synced)) > cap)
    }
}

fn add(counts: &mut BTreeMap<Lsn, usize>, lsn: Lsn) {
    *counts.entry(lsn).or_default() += 1;
}

fn remove(counts: &mut BTreeMap<Lsn, usize>, lsn: Lsn) {
    if let Some(count) = counts.get_mut(&lsn) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&lsn);
        }
    }
}

fn lowest(counts: &BTreeMap<Lsn, usize>) -> Option<Lsn> {
    counts.keys().next().copied()
}

impl Holds {
    // Leases.

    pub(crate) fn add_lease(&mut self, lsn: Lsn) {
        add(&mut self.leases, lsn);
    }

    pub(crate) fn remove_lease(&mut self, lsn: Lsn) {
        remove(&mut self.leases, lsn);
    }

    pub(crate) fn lease_count(&self) -> u64 {
        self.leases.values().map(|&count| count as u64).sum()
    }

    pub(crate) fn oldest_lease(&self) -> Option<Lsn> {
        lowest(&self.leases)
    }

    pub(crate) fn add_pin(&mut self, lsn: Lsn) {
        add(&mut self.pins, lsn);
    }

    pub(crate) fn remove_pin(&mut self, lsn: Lsn) {
        remove(&mut self.pins, lsn);
    }

    // Files.

    /// Returns the position from which on files must stay, at most `first`.
    pub(crate) fn horizon(&self, first: Lsn) -> Lsn {
        let held = [lowest(&self.leases), lowest(&self.pins), self.floor];
        held.into_iter().flatten().fold(first, Lsn::min)
    }

    /// As [`horizon`](Holds::horizon), without the slots records that opening may read.
    pub(crate) fn horizon_without_floor(&self, first: Lsn) -> Lsn {
        let held = [lowest(&self.leases), lowest(&self.pins)];
        held.into_iter().flatten().fold(first, Lsn::min)
    }

    /// Sets the position of the oldest slots record that opening may read.
    pub(crate) fn set_floor(&mut self, floor: Option<Lsn>) {
        self.floor = floor;
    }

    pub(crate) fn floor(&self) -> Option<Lsn> {
        self.floor
    }

    // Slots.

    pub(crate) fn set_slot(&mut self, id: u32, position: Lsn) {
        self.slots.entry(id).or_insert(SlotHold { position, cap_bytes: None }).position = position;
    }

    pub(crate) fn set_cap(&mut self, id: u32, cap_bytes: Option<u64>) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.cap_bytes = cap_bytes;
        }
    }

    pub(crate) fn remove_slot(&mut self, id: u32) {
        self.slots.remove(&id);
    }

    /// Returns the lowest slot that truncations to above `first` must not pass: its id and its
    /// position.
    pub(crate) fn oldest_slot(&self, first: Lsn, synced: Lsn) -> Option<(u32, Lsn)> {
        let held = self.slots.iter().filter(|(_, slot)| {
            // A slot below `first` is lost.
            slot.position >= first && !slot.gives_way(synced)
        });
        held.map(|(id, slot)| (*id, slot.position)).min_by_key(|(_, position)| *position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(lsn: u64) -> Lsn {
        Lsn::new(lsn)
    }

    #[test]
    fn lowest_holder_sets_the_horizon() {
        let mut holds = Holds::default();
        assert_eq!(holds.horizon(at(80)), at(80));
        holds.add_lease(at(40));
        holds.add_lease(at(40));
        holds.set_floor(Some(at(24)));
        holds.add_pin(at(16));
        assert_eq!(holds.horizon(at(80)), at(16));
        holds.remove_pin(at(16));
        assert_eq!(holds.horizon(at(80)), at(24));
        holds.set_floor(None);
        holds.remove_lease(at(40));
        assert_eq!((holds.horizon(at(80)), holds.horizon(at(8))), (at(40), at(8)));
        holds.remove_lease(at(40));
        assert_eq!((holds.horizon(at(80)), holds.lease_count()), (at(80), 0));
    }

    #[test]
    fn slot_holds_until_its_cap_and_while_not_lost() {
        let mut holds = Holds::default();
        holds.set_slot(1, at(40));
        holds.set_slot(2, at(80));
        assert_eq!(holds.oldest_slot(at(0), at(800)), Some((1, at(40))));
        assert_eq!(holds.oldest_slot(at(48), at(800)), Some((2, at(80))), "the first is lost");
        holds.set_cap(1, Some(760));
        assert_eq!(holds.oldest_slot(at(0), at(800)), Some((1, at(40))), "at its cap");
        assert_eq!(holds.oldest_slot(at(0), at(808)), Some((2, at(80))), "beyond its cap");
        holds.set_slot(1, at(48));
        assert_eq!(holds.oldest_slot(at(0), at(808)), Some((1, at(48))), "the cap stays");
        holds.remove_slot(1);
        holds.remove_slot(2);
        assert_eq!(holds.oldest_slot(at(0), at(808)), None);
    }
}
