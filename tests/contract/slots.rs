//! Slots in the sweeps: the actions of a session, and what a crash may leave of them.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use highwater::{Error, Lsn, Slot, SlotInfo, Wal};

use super::oracle::{Moment, Oracle};

/// The use of a slot by a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotAction {
    Open,
    /// Moves the slot to the synced mark.
    Advance,
    AdvanceAndSync,
    Remove,
}

const NAMES: [&str; 3] = ["a", "another slot", "c"];

impl SlotAction {
    pub(crate) fn of(number: usize) -> Self {
        match number % 8 {
            0 => SlotAction::Remove,
            1..4 => SlotAction::Open,
            4 | 5 => SlotAction::Advance,
            _ => SlotAction::AdvanceAndSync,
        }
    }
}

/// The handles of a session.
pub(crate) type Handles = Rc<RefCell<BTreeMap<&'static str, Slot>>>;

/// The acknowledgements and attempts for the slots of a log.
#[derive(Clone, Default)]
pub(crate) struct SlotNotes {
    /// Acknowledged positions: of a slot that was made, or moved.
    durable: Vec<(String, Lsn, Moment, Moment)>,
    /// Positions when the log was closed. A full disk has no room for them.
    pub(crate) closed: Vec<(String, Lsn, Moment, Moment)>,
    /// Positions that slots may have.
    tried: Vec<(String, Lsn, Moment)>,
    /// The beginnings and the ends of removals.
    removed: Vec<(String, Moment, Option<Moment>)>,
}

impl SlotNotes {
    pub(crate) fn recovered(slots: &[SlotInfo]) -> Self {
        let mut notes = SlotNotes::default();
        let zero = Moment::default();
        for slot in slots {
            notes.durable.push((slot.name.clone(), slot.position, zero, zero));
            notes.tried.push((slot.name.clone(), slot.position, zero));
        }
        notes
    }

    pub(crate) fn is_durable(&mut self, name: &str, at: Lsn, began: Moment, now: Moment) {
        self.durable.push((name.to_owned(), at, began, now));
    }

    pub(crate) fn may_be(&mut self, name: &str, at: Lsn, began: Moment) {
        self.tried.push((name.to_owned(), at, began));
    }

    fn begin_remove(&mut self, name: &str, began: Moment) -> usize {
        self.removed.push((name.to_owned(), began, None));
        self.removed.len() - 1
    }

    /// Checks the slots of a log that was opened after operation `at`. `cut_below` returns the
    /// lowest end to which the log may have been cut since a moment.
    pub(crate) fn check(
        &self,
        found: &[SlotInfo],
        first: Lsn,
        at: u64,
        cut_below: impl Fn(Moment) -> Option<Lsn>,
    ) -> Result<(), String> {
        let by_name: BTreeMap<&str, &SlotInfo> =
            found.iter().map(|slot| (slot.name.as_str(), slot)).collect();
        let known = self.tried.iter().filter(|(_, _, began)| began.operation <= at);
        let names: BTreeSet<&str> = known.map(|(name, ..)| name.as_str()).collect();
        if let Some(foreign) = by_name.keys().find(|name| !names.contains(*name)) {
            return Err(format!("slot {foreign} was never made"));
        }
        for name in names {
            let removals = || self.removed.iter().filter(|removal| removal.0 == name);
            let is_gone_since = |moment: Moment| {
                removals().any(|(_, began, _)| began.operation <= at && began.note > moment.note)
            };
            let must_be = self.durable.iter().chain(&self.closed).filter(|(of, _, began, now)| {
                of == name && now.operation <= at && !is_gone_since(*began)
            });
            let lowest = must_be
                .map(|(_, position, began, _)| {
                    cut_below(*began).map_or(*position, |cut| cut.min(*position))
                })
                .max();
            let Some(slot) = by_name.get(name) else {
                match lowest {
                    Some(lowest) => return Err(format!("slot {name} is gone, it was at {lowest}")),
                    None => continue,
                }
            };
            let over = removals().filter_map(|(_, began, end)| end.map(|end| (*began, end)));
            let over = over.filter(|(_, end)| end.operation <= at).map(|(began, _)| began.note);
            let last_removal = over.max();
            let since = self.tried.iter().filter(|(of, _, began)| {
                of == name && began.operation <= at && Some(began.note) > last_removal
            });
            let Some(highest) = since.map(|(_, position, _)| *position).max() else {
                return Err(format!("slot {name} is back after its removal"));
            };
            let position = slot.position;
            if lowest.is_some_and(|lowest| position < lowest) {
                return Err(format!("slot {name} is at {position}, it was durable at {lowest:?}"));
            }
            if position > highest {
                return Err(format!("slot {name} is at {position}, above {highest}"));
            }
            if position < first {
                return Err(format!(
                    "slot {name} at {position} is lost, the log begins at {first}"
                ));
            }
        }
        Ok(())
    }
}

/// Does what a task does with a slot. Concurrent uses of the same slot do nothing.
pub(crate) async fn act(
    wal: &Wal,
    handles: &Handles,
    oracle: &RefCell<Oracle>,
    now: impl Fn() -> Moment,
    name: usize,
    action: SlotAction,
) -> highwater::Result<()> {
    let name = NAMES[name % NAMES.len()];
    let held = handles.borrow_mut().remove(name);
    if action == SlotAction::Open || held.is_none() {
        drop(held);
        let began = now();
        // A new slot begins at the beginning of the log, which may move meanwhile.
        oracle.borrow_mut().slots.may_be(name, wal.watermarks().reserved, began);
        match wal.slot(name).await {
            Ok(slot) => {
                let at = slot.position();
                let now = now();
                oracle.borrow_mut().slots.is_durable(name, at, began, now);
                handles.borrow_mut().insert(name, slot);
            }
            Err(Error::SlotInUse { .. }) => {}
            Err(error) => return Err(error),
        }
        return Ok(());
    }
    let Some(slot) = held else { return Ok(()) };
    let began = now();
    let to = wal.watermarks().synced;
    match action {
        SlotAction::Open => {}
        SlotAction::Remove => {
            let index = oracle.borrow_mut().slots.begin_remove(name, began);
            slot.remove().await?;
            let now = now();
            oracle.borrow_mut().slots.removed[index].2 = Some(now);
            return Ok(());
        }
        SlotAction::Advance | SlotAction::AdvanceAndSync => {
            oracle.borrow_mut().slots.may_be(name, to, began);
            let moved = match action {
                SlotAction::Advance => slot.advance(to),
                _ => slot.advance_and_sync(to).await,
            };
            match moved {
                Ok(()) if action == SlotAction::AdvanceAndSync => {
                    let now = now();
                    oracle.borrow_mut().slots.is_durable(name, to, began, now);
                }
                // The end was truncated meanwhile.
                Ok(()) | Err(Error::SlotAhead { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    handles.borrow_mut().insert(name, slot);
    Ok(())
}
