//! Can each follower continue after its leader has truncated the beginning of the log?
//!
//! The leader holds a slot for each follower. A slot moves in memory with a report, and is durable
//! after a flush. A truncation stops at the lowest durable slot. A slot that is further behind than
//! the cap is passed and lost: its follower needs a copy of the log. All records of the leader are
//! synced.

use stateright::{Model, Property};

use crate::check::{assert_broken, assert_holds, bound};

const FOLLOWERS: usize = 2;

const SERVED: &str = "a follower whose slot is not lost has everything below the beginning";
const KEPT: &str = "a slot within the cap is not lost";
const NO_GAP: &str = "a follower has no gap";

/// A mistake that must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// A truncation does not look at slots.
    PassSlots,
    /// A slot moves to what the follower has written.
    MoveByWritten,
    /// A truncation looks at slots in memory, which a crash moves back.
    TruncateByMoved,
    /// A follower whose slot is lost continues at the beginning of the leader.
    SkipLost,
}

#[derive(Clone, Debug)]
struct Truncation {
    mistake: Mistake,
    lsns: usize,
    cap: usize,
    crashes: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Follower {
    /// The LSNs that the follower has, as bits.
    has: u16,
    first: usize,
    written: usize,
    synced: usize,
    /// The slot at the leader: in memory, and durable.
    moved: usize,
    durable: usize,
    is_capped: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    first: usize,
    end: usize,
    followers: [Follower; FOLLOWERS],
    crashes: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Append,
    Ship(usize),
    Sync(usize),
    /// The slot moves to the follower's report.
    Move(usize),
    FlushSlots,
    Truncate(usize),
    CrashLeader,
    CrashFollower(usize),
    /// A follower whose slot is lost takes a copy of the log.
    Copy(usize),
}

impl Truncation {
    fn new(mistake: Mistake) -> Self {
        Self { mistake, lsns: bound(4, 5), cap: 2, crashes: bound(2, 3) }
    }

    fn ship(&self, state: &mut State, at: usize) -> Option<()> {
        let (first, end) = (state.first, state.end);
        let follower = &mut state.followers[at];
        if follower.written < first && self.mistake == Mistake::SkipLost {
            follower.written = first;
        }
        if !(first..end).contains(&follower.written) {
            return None;
        }
        follower.has |= 1 << follower.written;
        follower.written += 1;
        Some(())
    }

    fn truncate(&self, state: &mut State, to: usize) -> Option<()> {
        let end = state.end;
        for follower in &mut state.followers {
            let slot = match self.mistake {
                Mistake::TruncateByMoved => follower.moved,
                _ => follower.durable,
            };
            if slot >= to || follower.durable < state.first {
                continue;
            }
            let is_beyond_cap = end - slot > self.cap;
            follower.is_capped |= is_beyond_cap;
            if !is_beyond_cap && self.mistake != Mistake::PassSlots {
                return None;
            }
        }
        state.first = to;
        Some(())
    }

    fn copy(state: &mut State, at: usize) -> Option<()> {
        let State { first, end, followers, .. } = state;
        let follower = &mut followers[at];
        if follower.durable >= *first {
            return None;
        }
        let has = (*first..*end).fold(0, |bits, lsn| bits | 1 << lsn);
        *follower = Follower {
            has,
            first: *first,
            written: *end,
            synced: *end,
            moved: *end,
            durable: *end,
            is_capped: false,
        };
        Some(())
    }
}

impl Follower {
    fn crash(&mut self) {
        self.written = self.synced;
        self.has &= (1 << self.synced) - 1;
    }

    fn has_no_gap(&self) -> bool {
        (self.first..self.written).all(|lsn| self.has & 1 << lsn != 0)
    }
}

impl Model for Truncation {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.end < self.lsns {
            actions.push(Action::Append);
        }
        let may_crash = state.crashes < self.crashes;
        for at in 0..FOLLOWERS {
            let steps = [Action::Ship(at), Action::Sync(at), Action::Move(at), Action::Copy(at)];
            actions.extend(steps);
            actions.extend(may_crash.then_some(Action::CrashFollower(at)));
        }
        actions.push(Action::FlushSlots);
        actions.extend((state.first + 1..=state.end).map(Action::Truncate));
        actions.extend(may_crash.then_some(Action::CrashLeader));
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Append => next.end += 1,
            Action::Ship(at) => self.ship(&mut next, at)?,
            Action::Sync(at) => next.followers[at].synced = next.followers[at].written,
            Action::Move(at) => {
                let follower = &mut next.followers[at];
                let is_written = self.mistake == Mistake::MoveByWritten;
                let to = if is_written { follower.written } else { follower.synced };
                follower.moved = follower.moved.max(to);
            }
            Action::FlushSlots => {
                next.followers.iter_mut().for_each(|follower| follower.durable = follower.moved);
            }
            Action::Truncate(to) => self.truncate(&mut next, to)?,
            Action::CrashLeader => {
                next.followers.iter_mut().for_each(|follower| follower.moved = follower.durable);
                next.crashes += 1;
            }
            Action::CrashFollower(at) => {
                next.followers[at].crash();
                next.crashes += 1;
            }
            Action::Copy(at) => Self::copy(&mut next, at)?,
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SERVED, |_: &Self, state: &State| {
                let is_served = |to: &Follower| to.synced >= state.first || to.is_capped;
                state.followers.iter().all(is_served)
            }),
            Property::always(KEPT, |_: &Self, state: &State| {
                let is_kept = |to: &Follower| to.moved >= state.first || to.is_capped;
                state.followers.iter().all(is_kept)
            }),
            Property::always(NO_GAP, |_: &Self, state: &State| {
                state.followers.iter().all(Follower::has_no_gap)
            }),
            Property::sometimes("a slot is lost", |_: &Self, state: &State| {
                state.followers.iter().any(|to| to.durable < state.first)
            }),
            Property::sometimes(
                "a follower continues from a copy",
                |model: &Self, state: &State| {
                    state.followers.iter().any(|to| to.first > 0 && to.synced == model.lsns)
                },
            ),
            Property::sometimes("everything is truncated", |model: &Self, state: &State| {
                state.first == model.lsns && state.followers.iter().all(|to| !to.is_capped)
            }),
        ]
    }
}

#[test]
fn truncation_serves_followers_within_the_cap() {
    assert_holds(Truncation::new(Mistake::None), 120_000);
}

#[test]
fn truncation_past_a_slot_loses_it() {
    assert_broken(Truncation::new(Mistake::PassSlots), KEPT);
}

#[test]
fn truncation_past_a_slot_leaves_a_follower_behind() {
    assert_broken(Truncation::new(Mistake::PassSlots), SERVED);
}

#[test]
fn slot_moved_by_written_records_leaves_them_behind() {
    assert_broken(Truncation::new(Mistake::MoveByWritten), SERVED);
}

#[test]
fn truncation_by_an_unsynced_slot_loses_it() {
    assert_broken(Truncation::new(Mistake::TruncateByMoved), KEPT);
}

#[test]
fn follower_of_a_lost_slot_that_continues_has_a_gap() {
    assert_broken(Truncation::new(Mistake::SkipLost), NO_GAP);
}
