//! Does one log keep every acknowledged record, over crashes, failed flushes and damage?
//!
//! The log appends, flushes, and acknowledges. A crash of the process keeps the page cache. A loss
//! of power keeps any subset of the unsynced frames, torn ones too. Opening resumes in place or
//! begins the next epoch at S, as `docs/DURABILITY.md` describes. A record takes one LSN.

pub(crate) mod disk;
mod tests;

use stateright::{Model, Property};

use self::disk::{Disk, Loss, View};
use crate::check::bound;

const ACKED_IS_KEPT: &str = "an open log has every acknowledged record";
const CUT_STAYS_CUT: &str = "a record that was cut is never read again";
const ACKED_ONCE: &str = "no LSN is acknowledged with two contents";
const HONEST_OPENS: &str = "a log without damage is never refused";
const DAMAGE_IS_REPORTED: &str = "damage below a claim is refused";

/// A mistake that must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// Acknowledge a record when it is written.
    AcknowledgeEarly,
    /// Continue after a torn tail in the same epoch.
    KeepEpoch,
    /// Use the header of a new epoch before it is flushed.
    UseHeaderEarly,
    /// Continue in place without writing the bytes above S again.
    ResumeUnwritten,
    /// Begin the next epoch at S without framing the units between S and X again.
    DropAboveClaim,
    /// Ignore claims that are found after the damage.
    IgnoreClaims,
}

#[derive(Clone, Debug)]
pub(crate) struct Recovery {
    mistake: Mistake,
    lsns: usize,
    ids: u8,
    crashes: u8,
    damages: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Down,
    /// The bytes above S were written again and are not flushed.
    Resuming,
    /// A fresh segment has the frames from S on, and no header.
    Framed,
    /// The fresh segment has a header that is not flushed.
    Headed,
    Open {
        /// The synced mark.
        synced: usize,
    },
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    disk: Disk,
    phase: Phase,
    appended: u8,
    crashes: u8,
    damages: u8,
    /// The content of each LSN that was acknowledged.
    acked: Vec<u8>,
    is_acked_twice: bool,
    /// The ids that an opening has cut, or found lost, as bits.
    cut: u16,
    /// The claims that hold beside the damage: everything below was durable.
    claimed: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Append,
    Flush,
    FlushHeader,
    /// A flush fails: the dirty pages are clean and not on the disk. The process ends.
    FailFlush,
    /// The process ends; the page cache stays.
    Kill,
    LosePower(Vec<Loss>),
    /// A durable byte of the frame at this LSN rots.
    Damage(usize),
    /// Opens the log: judges it and takes the first step of the verdict.
    Open,
    /// The next step of opening.
    Proceed,
}

impl Recovery {
    fn new(mistake: Mistake) -> Self {
        Self { mistake, lsns: bound(4, 5), ids: bound(6, 7), crashes: bound(3, 4), damages: 0 }
    }

    /// Returns the model for traces, whose steps are those of a run.
    pub(crate) fn for_traces() -> Self {
        Self::new(Mistake::None)
    }

    fn damaged(mistake: Mistake) -> Self {
        Self { damages: 1, crashes: bound(2, 3), ..Self::new(mistake) }
    }

    fn acknowledge(state: &mut State, end: usize) {
        let view = View::of(&state.disk);
        for lsn in 0..end {
            let Some(frame) = view.frame(lsn) else { continue };
            match state.acked.get(lsn) {
                Some(id) => state.is_acked_twice |= *id != frame.id,
                None => state.acked.push(frame.id),
            }
        }
    }

    fn append(&self, state: &mut State, synced: usize) {
        let end = View::of(&state.disk).end;
        state.disk.write(end, state.appended, synced);
        state.appended += 1;
        if self.mistake == Mistake::AcknowledgeEarly {
            Self::acknowledge(state, end + 1);
        }
    }

    fn open(&self, state: &mut State) {
        state.disk.remove_headless();
        let view = View::of(&state.disk);
        let commitment = match self.mistake {
            Mistake::IgnoreClaims => view.commitment_below(view.end),
            _ => view.commitment,
        };
        state.phase = if view.end < commitment {
            Phase::Refused
        } else if view.is_blank_from_end || self.mistake == Mistake::KeepEpoch {
            if self.mistake != Mistake::ResumeUnwritten {
                state.disk.write_again(commitment, view.end);
            }
            Phase::Resuming
        } else {
            let kept = if self.mistake == Mistake::DropAboveClaim { commitment } else { view.end };
            state.disk.begin_epoch(commitment, kept);
            Phase::Framed
        };
    }

    fn proceed(&self, state: &mut State) {
        state.phase = match state.phase {
            Phase::Resuming => {
                state.disk.flush(true);
                self.opened(state)
            }
            Phase::Framed => {
                state.disk.flush(false);
                state.disk.write_header();
                Phase::Headed
            }
            Phase::Headed => {
                if self.mistake != Mistake::UseHeaderEarly {
                    state.disk.flush(true);
                }
                self.opened(state)
            }
            phase => phase,
        };
    }

    /// Notes the records that are gone. Everything below the end is synced.
    fn opened(&self, state: &mut State) -> Phase {
        let view = View::of(&state.disk);
        let kept = (0..view.end).filter_map(|lsn| view.frame(lsn)).fold(0, |to, f| to | 1 << f.id);
        state.cut |= ((1 << state.appended) - 1) & !kept;
        Phase::Open { synced: view.end }
    }

    fn damage(state: &mut State, lsn: usize) {
        state.disk.damage(lsn);
        state.claimed = state.disk.durable_claims();
    }
}

impl Model for Recovery {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            disk: Disk::new(),
            phase: Phase::Open { synced: 0 },
            appended: 0,
            crashes: 0,
            damages: 0,
            acked: Vec::new(),
            is_acked_twice: false,
            cut: 0,
            claimed: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let Phase::Open { .. } = state.phase else {
            match state.phase {
                Phase::Down => actions.push(Action::Open),
                Phase::Refused => return,
                _ => actions.push(Action::Proceed),
            }
            self.crashes(state, actions);
            return;
        };
        if View::of(&state.disk).end < self.lsns && state.appended < self.ids {
            actions.push(Action::Append);
        }
        actions.push(Action::Flush);
        if self.mistake == Mistake::UseHeaderEarly {
            actions.push(Action::FlushHeader);
        }
        self.crashes(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Append => match state.phase {
                Phase::Open { synced } => self.append(&mut next, synced),
                _ => return None,
            },
            Action::Flush => {
                next.disk.flush(self.mistake != Mistake::UseHeaderEarly);
                let synced = View::of(&next.disk).end;
                next.phase = Phase::Open { synced };
                Self::acknowledge(&mut next, synced);
            }
            Action::FlushHeader => next.disk.flush(true),
            Action::FailFlush => {
                next.disk.fail_flush();
                next.phase = Phase::Down;
                next.crashes += 1;
            }
            Action::Kill => {
                next.phase = Phase::Down;
                next.crashes += 1;
            }
            Action::LosePower(losses) => {
                next.disk.lose_power(&losses);
                next.phase = Phase::Down;
                next.crashes += 1;
            }
            Action::Damage(lsn) => {
                Self::damage(&mut next, lsn);
                next.damages += 1;
            }
            Action::Open => self.open(&mut next),
            Action::Proceed => self.proceed(&mut next),
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ACKED_IS_KEPT, |_: &Self, state: &State| {
                state.damages > 0 || state.lost_below(state.acked.len()).is_none()
            }),
            Property::always(CUT_STAYS_CUT, |_: &Self, state: &State| {
                !state.is_open() || state.disk.read_ids() & state.cut == 0
            }),
            Property::always(ACKED_ONCE, |_: &Self, state: &State| {
                state.damages > 0 || !state.is_acked_twice
            }),
            Property::always(HONEST_OPENS, |_: &Self, state: &State| {
                state.damages > 0 || state.phase != Phase::Refused
            }),
            Property::always(DAMAGE_IS_REPORTED, |_: &Self, state: &State| {
                state.damages == 0 || state.lost_below(state.claimed).is_none()
            }),
            Property::sometimes("an epoch begins", |_: &Self, state: &State| {
                state.is_open() && state.disk.epoch() > 1
            }),
            Property::sometimes("an id replaces a lost one", |_: &Self, state: &State| {
                state.cut != 0 && state.acked.last().is_some_and(|id| 1 << id > state.cut)
            }),
            Property::sometimes("a damaged log is refused", |model: &Self, state: &State| {
                model.damages == 0 || state.phase == Phase::Refused
            }),
        ]
    }
}

impl Recovery {
    fn crashes(&self, state: &State, actions: &mut Vec<Action>) {
        if state.crashes < self.crashes {
            actions.extend([Action::Kill, Action::FailFlush]);
            actions.extend(state.disk.losses().into_iter().map(Action::LosePower));
        }
        if state.damages < self.damages && state.phase == Phase::Down {
            actions.extend(state.disk.durable_lsns().into_iter().map(Action::Damage));
        }
    }
}

impl State {
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.phase == Phase::Refused
    }

    /// Returns the ids of the records, in order.
    pub(crate) fn ids(&self) -> Vec<u8> {
        let view = View::of(&self.disk);
        (0..view.end).filter_map(|lsn| view.frame(lsn)).map(|frame| frame.id).collect()
    }

    /// Returns every outcome of a loss of power.
    pub(crate) fn losses(&self) -> Vec<Vec<Loss>> {
        self.disk.losses()
    }

    /// Returns the first acknowledged LSN below `end` that an open log does not have.
    fn lost_below(&self, end: usize) -> Option<usize> {
        let view = self.is_open().then(|| View::of(&self.disk))?;
        let acked = self.acked.iter().enumerate().take(end);
        let is_lost = |lsn, id| view.frame(lsn).is_none_or(|frame| frame.id != id);
        acked.into_iter().find_map(|(lsn, id)| is_lost(lsn, *id).then_some(lsn))
    }
}
