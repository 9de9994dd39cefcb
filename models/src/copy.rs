//! Does a copy of a log open after a loss of power, with everything that it has reported?
//!
//! A copy stores the leader's frames. A frame claims that everything below a position is synced,
//! which is true at the leader. At the copy it must be true as well, or a loss of power leaves a
//! copy that is taken for damaged. The disk is the one of the model `recovery`.

use stateright::{Model, Property};

use crate::{
    check::{assert_broken, assert_holds, bound},
    recovery::disk::{Disk, Loss, View},
};

const OPENS: &str = "a copy is never taken for damaged";
const REPORTED: &str = "a copy has everything that it has reported";
const SAME: &str = "a copy has the leader's records";

/// A mistake that must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// A frame is written before everything that it claims is synced.
    IgnoreClaims,
    /// The copy reports frames that are written and not synced.
    ReportWritten,
    /// The copy continues behind the bytes of a torn tail, as if they were whole.
    KeepTorn,
}

#[derive(Clone, Debug)]
struct Copy {
    mistake: Mistake,
    lsns: usize,
    crashes: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// The claim of each frame of the leader. The frame at LSN `n` has the id `n`.
    leader: Vec<usize>,
    leader_synced: usize,
    disk: Disk,
    written: usize,
    synced: usize,
    reported: usize,
    crashes: u8,
    is_down: bool,
    is_refused: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Append,
    SyncLeader,
    /// The copy writes the leader's next frame.
    Write,
    Sync,
    Report,
    LosePower(Vec<Loss>),
    Open,
}

impl Copy {
    fn new(mistake: Mistake) -> Self {
        Self { mistake, lsns: bound(5, 6), crashes: bound(2, 3) }
    }

    fn write(&self, state: &mut State) -> Option<()> {
        let claim = *state.leader.get(state.written)?;
        let is_true = claim <= state.synced || self.mistake == Mistake::IgnoreClaims;
        if state.written >= state.leader_synced || !is_true {
            return None;
        }
        let id = u8::try_from(state.written).ok()?;
        state.disk.write(state.written, id, claim);
        state.written += 1;
        Some(())
    }

    /// Continues in the same epoch: the leader sends the same frames again.
    fn open(&self, state: &mut State) {
        let view = View::of(&state.disk);
        let (commitment, end) = (view.commitment, view.end);
        state.is_refused = end < commitment;
        state.written = if self.mistake == Mistake::KeepTorn { state.written } else { end };
        state.disk.write_again(commitment, end);
        state.disk.flush(true);
        state.synced = state.written;
        state.is_down = false;
    }
}

impl Model for Copy {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            leader: Vec::new(),
            leader_synced: 0,
            disk: Disk::new(),
            written: 0,
            synced: 0,
            reported: 0,
            crashes: 0,
            is_down: false,
            is_refused: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.is_refused {
            return;
        }
        actions.extend((state.leader.len() < self.lsns).then_some(Action::Append));
        actions.push(Action::SyncLeader);
        if state.is_down {
            actions.push(Action::Open);
            return;
        }
        actions.extend([Action::Write, Action::Sync, Action::Report]);
        if state.crashes < self.crashes {
            actions.extend(state.disk.losses().into_iter().map(Action::LosePower));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Append => next.leader.push(state.leader_synced),
            Action::SyncLeader => next.leader_synced = next.leader.len(),
            Action::Write => self.write(&mut next)?,
            Action::Sync => {
                next.disk.flush(true);
                next.synced = next.written;
            }
            Action::Report => {
                let is_written = self.mistake == Mistake::ReportWritten;
                let end = if is_written { next.written } else { next.synced };
                next.reported = next.reported.max(end);
            }
            Action::LosePower(losses) => {
                next.disk.lose_power(&losses);
                next.is_down = true;
                next.crashes += 1;
            }
            Action::Open => self.open(&mut next),
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(OPENS, |_: &Self, state: &State| !state.is_refused),
            Property::always(REPORTED, |_: &Self, state: &State| {
                state.is_down || View::of(&state.disk).end >= state.reported
            }),
            Property::always(SAME, |_: &Self, state: &State| {
                let view = View::of(&state.disk);
                let has =
                    |lsn: usize| view.frame(lsn).is_some_and(|frame| usize::from(frame.id) == lsn);
                state.is_down || state.is_refused || (0..state.written).all(has)
            }),
            Property::sometimes("a torn tail is received again", |model: &Self, state: &State| {
                state.crashes > 0 && state.synced == model.lsns
            }),
            Property::sometimes("a reported record is not claimed", |_: &Self, state: &State| {
                state.is_down && View::of(&state.disk).commitment < state.reported
            }),
        ]
    }
}

#[test]
fn copy_opens_with_everything_reported() {
    assert_holds(Copy::new(Mistake::None), 25_000);
}

#[test]
fn claim_ahead_of_the_copy_looks_like_damage() {
    assert_broken(Copy::new(Mistake::IgnoreClaims), OPENS);
}

#[test]
fn report_of_written_frames_is_not_kept() {
    assert_broken(Copy::new(Mistake::ReportWritten), REPORTED);
}

#[test]
fn torn_tail_that_is_kept_leaves_a_hole() {
    assert_broken(Copy::new(Mistake::KeepTorn), SAME);
}
