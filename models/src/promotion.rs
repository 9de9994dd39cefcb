//! Does a promotion keep acknowledged records, and does fencing hold?
//!
//! Three nodes. A leader ships synced records; a record is acknowledged with `k` if the leader and
//! `k` followers have it. A candidate collects promises for a new term, and begins it when enough
//! nodes have promised and none of them has a higher position. Any node may crash, and an old
//! leader may return. Every write of a node is synced before its effect; the mistakes leave
//! that out.

mod node;
mod rules;
mod steps;
mod tests;

use stateright::{Model, Property};

use self::{
    node::{NODES, Node, Role},
    rules::{Mistake, Promotion},
};
use crate::line::{Epoch, agree};

const COPIES: &str = "each acknowledged record has k + 1 copies";
const PROMOTED_HAS_IT: &str = "a promoted leader has every record acknowledged in older lines";
const ACKED_ONCE: &str = "no LSN is acknowledged with two contents";
const AGREE: &str = "logs are equal below their common point";

/// A follower's synced end, on its way to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Report {
    from: usize,
    to: usize,
    /// The line of the follower's log.
    line: Epoch,
    end: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    nodes: [Node; NODES],
    report: Option<Report>,
    appended: u8,
    crashes: u8,
    /// The id of each acknowledged record, and the line that acknowledged it, by its LSN.
    acked: Vec<(u8, Epoch)>,
    is_acked_twice: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Append(usize),
    /// The follower takes and syncs the next record of the leader, and reports.
    Ship {
        leader: usize,
        follower: usize,
    },
    /// The follower replaces its records above the common point. If they are no records of the
    /// leader, an operator has requested it.
    Adopt {
        leader: usize,
        follower: usize,
    },
    DeliverReport,
    /// A node becomes a candidate for the next term.
    Stand(usize),
    Promise {
        candidate: usize,
        node: usize,
    },
    Promote(usize),
    /// A node crashes and opens its log again, in place.
    Crash(usize),
    /// A leader crashes with a torn tail, and opens its log in the next epoch. The last record is
    /// not claimed, so it is framed again.
    CrashTorn(usize),
    /// The log of another node is replaced by a copy of a node's log, and opened as a leader.
    Copy {
        from: usize,
        to: usize,
    },
}

impl Model for Promotion {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let line = Epoch { term: 1, tag: self.tag(0), cuts: 0 };
        let node = Node::begun(line);
        let leader = Node { role: Role::Leader, ..node.clone() };
        vec![State {
            nodes: [leader, node.clone(), node],
            report: None,
            appended: 0,
            crashes: 0,
            acked: Vec::new(),
            is_acked_twice: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (at, node) in state.nodes.iter().enumerate() {
            for other in (0..NODES).filter(|other| *other != at) {
                actions.push(Action::Ship { leader: at, follower: other });
                actions.push(Action::Adopt { leader: at, follower: other });
                actions.push(Action::Promise { candidate: at, node: other });
                if self.mistake == Mistake::CopyInPlace {
                    actions.push(Action::Copy { from: at, to: other });
                }
            }
            match node.role {
                Role::Leader => actions.push(Action::Append(at)),
                Role::Candidate { .. } => actions.push(Action::Promote(at)),
                Role::Follower => {}
            }
            if self.stands_again || node.role == Role::Follower {
                actions.push(Action::Stand(at));
            }
            if state.crashes < self.crashes {
                actions.extend([Action::Crash(at), Action::CrashTorn(at)]);
            }
        }
        actions.push(Action::DeliverReport);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Append(at) => {
                let log = &mut next.nodes[at].log;
                if log.end() >= self.lsns || next.appended >= self.ids {
                    return None;
                }
                log.push(next.appended);
                log.synced = log.end();
                next.appended += 1;
            }
            Action::Ship { leader, follower } => self.ship(&mut next, leader, follower)?,
            Action::Adopt { leader, follower } => self.adopt(&mut next, leader, follower)?,
            Action::DeliverReport => self.deliver(&mut next)?,
            Action::Stand(at) => self.stand(&mut next, at)?,
            Action::Promise { candidate, node } => self.promise(&mut next, candidate, node)?,
            Action::Promote(at) => {
                let node = &mut next.nodes[at];
                let Role::Candidate { promised, .. } = node.role else { return None };
                if (promised.count_ones() as usize) < self.quorum() {
                    return None;
                }
                let base = node.log.end();
                node.log.begin(node.promise, base);
                node.role = Role::Leader;
                node.marks = [0; NODES];
                if self.mistake == Mistake::HeaderUnsynced {
                    node.unsynced_header = Some(base);
                }
            }
            Action::Crash(at) => self.crash(&mut next, at),
            Action::CrashTorn(at) => self.crash_torn(&mut next, at)?,
            Action::Copy { from, to } => {
                let copy = Node::begun(state.nodes[from].line());
                let log = state.nodes[from].log.clone();
                next.nodes[to] = Node { role: Role::Leader, log, ..copy };
            }
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(COPIES, |model: &Self, state: &State| {
                state.acked.iter().enumerate().all(|(lsn, (id, _))| {
                    let holds = |node: &&Node| node.log.holds(lsn, *id);
                    state.nodes.iter().filter(holds).count() > model.k
                })
            }),
            Property::always(PROMOTED_HAS_IT, |_: &Self, state: &State| {
                state.leaders().all(|node| {
                    let line = node.line();
                    let mut acked = state.acked.iter().enumerate();
                    acked.all(|(lsn, (id, by))| *by >= line || node.log.holds(lsn, *id))
                })
            }),
            Property::always(ACKED_ONCE, |_: &Self, state: &State| !state.is_acked_twice),
            Property::always(AGREE, |_: &Self, state: &State| {
                let pairs = [(0, 1), (0, 2), (1, 2)];
                pairs.iter().all(|(a, b)| agree(&state.nodes[*a].log, &state.nodes[*b].log))
                    && state.nodes.iter().all(|node| node.log.is_sound())
            }),
            Property::sometimes("a promoted leader acknowledges", |_: &Self, state: &State| {
                state.acked.iter().any(|(_, line)| line.term > 1)
            }),
            Property::sometimes("two leaders of different terms", |_: &Self, state: &State| {
                let terms: Vec<_> = state.leaders().map(|node| node.line().term).collect();
                terms.len() == 2 && terms[0] != terms[1]
            }),
            Property::sometimes("two leaders of one term", |model: &Self, state: &State| {
                let lines: Vec<_> = state.leaders().map(Node::line).collect();
                // With k = 1 the promises of two candidates are not disjoint.
                let is_excluded = model.is_first_come && model.k == 1;
                is_excluded || lines.iter().any(|a| lines.iter().any(|b| a.is_rival_of(*b)))
            }),
            Property::sometimes("an old leader follows the new one", |_: &Self, state: &State| {
                state.nodes[0].role == Role::Follower && state.nodes[0].log.epoch().term > 1
            }),
        ]
    }
}

impl State {
    fn leaders(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.role == Role::Leader)
    }
}
