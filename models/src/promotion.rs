//! Does a promotion keep acknowledged records, and does fencing hold?
//!
//! Three nodes. A leader ships synced records; a record is acknowledged with `k` if the leader and
//! `k` followers have it. A candidate collects promises for a new term, and begins it when enough
//! nodes have promised and none of them has a higher position. Any node may crash, and an old
//! leader may come back. Every write of a node is synced before its effect; the mistakes leave
//! that out.

mod node;

use stateright::{Model, Property};

use self::node::{Node, Role};
use crate::{
    check::{assert_broken, assert_holds, bound},
    line::{Epoch, agree, common_point},
};

const NODES: usize = 3;

const COPIES: &str = "each acknowledged record has k + 1 copies";
const PROMOTED_HAS_IT: &str = "a promoted leader has every record acknowledged in older lines";
const ACKED_ONCE: &str = "no LSN is acknowledged with two contents";
const AGREE: &str = "logs are equal below their common point";

/// A mistake that must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// A follower takes records from a leader of a lower term.
    AcceptLowerTerm,
    /// A promise is lost in a crash.
    PromiseUnsynced,
    /// The header of the new term's epoch is lost in a crash.
    HeaderUnsynced,
    /// Two promotions to one term have the same epoch.
    NoTag,
    /// A recovery raises the same number as a promotion, and the epochs have tags.
    RecoveryRaisesTerm,
    /// Recoveries and promotions take the highest epoch plus one, without tags.
    PlainNumbers,
    /// A promotion needs one promise less.
    TooFewPromises,
    /// The end alone decides which node has the highest position.
    HighestByEnd,
    /// A node compares terms alone, so it follows both leaders of one term.
    IgnoreTag,
    /// A leader counts followers that do not have its epoch yet.
    CountOlderLines,
    /// The epoch of the last record, and not the line, decides which position is the highest.
    HighestByRecord,
    /// A follower cuts its log before it has the records of the new epoch.
    CutFirst,
    /// A copy of a log is opened for appends in the epoch of the original.
    CopyInPlace,
}

#[derive(Clone, Debug)]
struct Promotion {
    mistake: Mistake,
    /// Of two lines of one term, a node stays with the first that it has promised. By default it
    /// follows the one with the higher tag.
    is_first_come: bool,
    /// The number of followers that must have a record before it is acknowledged.
    k: usize,
    /// Whether a leader or a candidate may stand again, for a higher term.
    stands_again: bool,
    lsns: usize,
    ids: u8,
    term_max: u8,
    crashes: u8,
}

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

impl Promotion {
    fn new(k: usize, mistake: Mistake) -> Self {
        let (is_first_come, stands_again) = (false, false);
        let (crashes, term_max) = (bound(1, 2), if k == 1 { 3 } else { bound(2, 3) });
        Self { mistake, is_first_come, k, stands_again, lsns: 2, ids: 3, term_max, crashes }
    }

    /// Returns whether a node that made `promise` follows a leader of `line`.
    fn accepts(&self, promise: Epoch, line: Epoch) -> bool {
        match self.mistake {
            Mistake::AcceptLowerTerm => true,
            Mistake::IgnoreTag => line.term >= promise.term,
            _ if self.is_first_come => line.term > promise.term || line == promise,
            _ => line >= promise,
        }
    }

    /// Returns the number of nodes that must promise. Each set of `k + 1` nodes has one of them.
    fn quorum(&self) -> usize {
        let quorum = NODES - self.k;
        if self.mistake == Mistake::TooFewPromises { quorum - 1 } else { quorum }
    }

    fn tag(&self, node: usize) -> u8 {
        let is_untagged = matches!(self.mistake, Mistake::NoTag | Mistake::PlainNumbers);
        if is_untagged { 0 } else { u8::try_from(node).unwrap_or(u8::MAX) + 1 }
    }

    /// Returns the epoch that a recovery of `node` begins.
    fn recovered(&self, epoch: Epoch, node: usize) -> Epoch {
        match self.mistake {
            Mistake::RecoveryRaisesTerm | Mistake::PlainNumbers => {
                Epoch { term: epoch.term + 1, tag: self.tag(node), cuts: 0 }
            }
            _ => Epoch { cuts: epoch.cuts + 1, ..epoch },
        }
    }

    /// The leader's line and the follower's common point, if the follower accepts this leader.
    fn handshake(&self, state: &State, leader: usize, follower: usize) -> Option<(Epoch, usize)> {
        let (from, to) = (&state.nodes[leader], &state.nodes[follower]);
        let line = from.line();
        let is_leader = from.role == Role::Leader && leader != follower;
        let may_follow = to.role != Role::Leader || line > to.line();
        let accepted = is_leader && may_follow && self.accepts(to.promise, line);
        accepted.then(|| (line, common_point(&from.log, &to.log)))
    }

    fn ship(&self, state: &mut State, leader: usize, follower: usize) -> Option<()> {
        let (line, common) = self.handshake(state, leader, follower)?;
        let from = state.nodes[leader].log.clone();
        let to = &mut state.nodes[follower];
        if to.log.end() != common || to.log == from {
            return None;
        }
        to.follow(line);
        to.log.copy_from(&from, from.end().min(common + 1));
        let counted = if self.mistake == Mistake::CountOlderLines { line } else { to.line() };
        let end = to.log.end();
        state.report = Some(Report { from: follower, to: leader, line: counted, end });
        Some(())
    }

    fn adopt(&self, state: &mut State, leader: usize, follower: usize) -> Option<()> {
        let (line, common) = self.handshake(state, leader, follower)?;
        let from = state.nodes[leader].log.clone();
        let to = &mut state.nodes[follower];
        if to.log.end() == common {
            return None;
        }
        to.follow(line);
        if self.mistake == Mistake::CutFirst {
            to.log.cut(common);
        } else {
            // The records arrive first, then the header: the old ones count until then.
            to.log.copy_from(&from, to.log.end().min(from.end()));
        }
        Some(())
    }

    fn deliver(&self, state: &mut State) -> Option<()> {
        let report = state.report.take()?;
        let leader = &mut state.nodes[report.to];
        if leader.role == Role::Leader && leader.line() == report.line {
            leader.marks[report.from] = report.end;
            let mut marks = leader.marks;
            marks.sort_unstable_by(|a, b| b.cmp(a));
            let log = leader.log.clone();
            for (lsn, record) in log.records.iter().enumerate().take(marks[self.k - 1]) {
                match state.acked.get(lsn) {
                    Some((id, _)) => state.is_acked_twice |= *id != record.id,
                    None => state.acked.push((record.id, report.line)),
                }
            }
        }
        Some(())
    }

    fn promise(&self, state: &mut State, candidate: usize, node: usize) -> Option<()> {
        let Role::Candidate { promised } = state.nodes[candidate].role else { return None };
        let line = state.nodes[candidate].promise;
        let own = state.nodes[candidate].clone();
        let other = &mut state.nodes[node];
        let has_promised = promised & 1 << node != 0;
        if has_promised || candidate == node || !self.accepts(other.promise, line) {
            return None;
        }
        other.follow(line);
        let is_above = match self.mistake {
            Mistake::HighestByEnd => other.log.end() > own.log.end(),
            Mistake::HighestByRecord => other.log.position() > own.log.position(),
            _ => (other.line(), other.log.end()) > (own.line(), own.log.end()),
        };
        // The candidate gives up: the other node must be promoted.
        let promised = Role::Candidate { promised: promised | 1 << node };
        state.nodes[candidate].role = if is_above { Role::Follower } else { promised };
        Some(())
    }

    fn crash(&self, state: &mut State, at: usize) {
        let node = &mut state.nodes[at];
        node.marks = [0; NODES];
        if node.role != Role::Leader {
            node.role = Role::Follower;
        }
        if let Some(base) = node.unsynced_header.take() {
            node.log.cut(base);
            node.role = Role::Follower;
        }
        if self.mistake == Mistake::PromiseUnsynced {
            node.promise = node.line();
        }
        // The connections of the node are gone.
        state.report = state.report.take().filter(|report| report.to != at);
        state.crashes += 1;
    }

    fn crash_torn(&self, state: &mut State, at: usize) -> Option<()> {
        let node = &state.nodes[at];
        let epoch = self.recovered(node.log.epoch(), at);
        let base = node.log.history.last().map_or(0, |(_, base)| *base);
        let claimed = node.log.end().saturating_sub(1).max(base);
        if node.role != Role::Leader || epoch.term > self.term_max {
            return None;
        }
        self.crash(state, at);
        let node = &mut state.nodes[at];
        node.log.begin(epoch, claimed);
        node.promise = node.line();
        Some(())
    }
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
            Action::Stand(at) => {
                let node = &mut next.nodes[at];
                let term = node.promise.term + 1;
                if term > self.term_max {
                    return None;
                }
                node.promise = Epoch { term, tag: self.tag(at), cuts: 0 };
                node.role = Role::Candidate { promised: 1 << at };
            }
            Action::Promise { candidate, node } => self.promise(&mut next, candidate, node)?,
            Action::Promote(at) => {
                let node = &mut next.nodes[at];
                let Role::Candidate { promised } = node.role else { return None };
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

#[test]
fn promotion_keeps_records_of_one_follower() {
    assert_holds(Promotion::new(1, Mistake::None), 10_000);
}

#[test]
fn promotion_keeps_records_of_two_followers() {
    assert_holds(Promotion::new(2, Mistake::None), 10_000);
}

/// A promotion of a leader in office is what an operator does to end a tie.
#[test]
fn repeated_promotion_keeps_records() {
    let crashes = bound(0, 1);
    let model = Promotion { stands_again: true, crashes, ..Promotion::new(1, Mistake::None) };
    assert_holds(model, 10_000);
}

#[test]
fn first_come_of_two_lines_keeps_records() {
    for k in [1, 2] {
        let crashes = bound(0, 1);
        let model = Promotion { is_first_come: true, crashes, ..Promotion::new(k, Mistake::None) };
        assert_holds(model, 10_000);
    }
}

#[test]
fn lower_term_accepted_acks_an_lsn_twice() {
    assert_broken(Promotion::new(1, Mistake::AcceptLowerTerm), ACKED_ONCE);
}

#[test]
fn lower_term_accepted_loses_records() {
    assert_broken(Promotion::new(1, Mistake::AcceptLowerTerm), PROMOTED_HAS_IT);
}

#[test]
fn promise_unsynced_loses_records() {
    assert_broken(Promotion::new(1, Mistake::PromiseUnsynced), PROMOTED_HAS_IT);
}

#[test]
fn header_unsynced_loses_copies() {
    assert_broken(Promotion::new(1, Mistake::HeaderUnsynced), COPIES);
}

#[test]
fn equal_epochs_diverge_unnoticed() {
    assert_broken(Promotion::new(2, Mistake::NoTag), AGREE);
}

#[test]
fn plain_numbers_diverge_unnoticed() {
    assert_broken(Promotion::new(1, Mistake::PlainNumbers), AGREE);
}

#[test]
fn recovery_that_outranks_promotion_loses_records() {
    let model = Promotion { crashes: 2, ..Promotion::new(1, Mistake::RecoveryRaisesTerm) };
    assert_broken(model, PROMOTED_HAS_IT);
}

#[test]
fn too_few_promises_lose_records() {
    assert_broken(Promotion::new(1, Mistake::TooFewPromises), PROMOTED_HAS_IT);
}

#[test]
fn highest_by_end_loses_records() {
    let model = Promotion { stands_again: true, crashes: 0, ..Promotion::new(1, Mistake::HighestByEnd) };
    assert_broken(model, PROMOTED_HAS_IT);
}

#[test]
fn highest_by_last_record_loses_records() {
    let model = Promotion { stands_again: true, crashes: 0, ..Promotion::new(1, Mistake::HighestByRecord) };
    assert_broken(model, PROMOTED_HAS_IT);
}

#[test]
fn counting_older_lines_loses_records() {
    let model = Promotion { stands_again: true, crashes: 0, ..Promotion::new(1, Mistake::CountOlderLines) };
    assert_broken(model, PROMOTED_HAS_IT);
}

#[test]
fn both_lines_of_a_term_ack_an_lsn_twice() {
    assert_broken(Promotion::new(1, Mistake::IgnoreTag), ACKED_ONCE);
}

#[test]
fn cut_before_arrival_loses_copies() {
    assert_broken(Promotion::new(1, Mistake::CutFirst), COPIES);
}

#[test]
fn copy_opened_in_place_diverges_unnoticed() {
    assert_broken(Promotion::new(1, Mistake::CopyInPlace), AGREE);
}
