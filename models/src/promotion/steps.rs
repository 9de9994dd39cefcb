//! The steps of nodes: shipping, adopting, promising, crashing.

use super::{
    Report, State,
    node::{NODES, Node, Role},
    rules::{Mistake, Promotion},
};
use crate::line::{Epoch, common_point};

impl Promotion {
    /// The leader's line and the follower's common point, if the follower accepts this leader.
    pub(super) fn handshake(
        &self,
        state: &State,
        leader: usize,
        follower: usize,
    ) -> Option<(Epoch, usize)> {
        let (from, to) = (&state.nodes[leader], &state.nodes[follower]);
        let line = from.line();
        let is_leader = from.role == Role::Leader && leader != follower;
        let may_follow = to.role != Role::Leader || line > to.line();
        let accepted = is_leader && may_follow && self.accepts(to.promise, line);
        accepted.then(|| (line, common_point(&from.log, &to.log)))
    }

    pub(super) fn ship(&self, state: &mut State, leader: usize, follower: usize) -> Option<()> {
        let (line, common) = self.handshake(state, leader, follower)?;
        let from = state.nodes[leader].log.clone();
        let to = &mut state.nodes[follower];
        if to.log.end() != common || to.log == from {
            return None;
        }
        to.follow(line);
        to.log.copy_from(&from, from.end().min(common + 1));
        to.unclaimed = 0;
        let counted = if self.mistake == Mistake::CountOlderLines { line } else { to.line() };
        let end = to.log.end();
        state.report = Some(Report { from: follower, to: leader, line: counted, end });
        Some(())
    }

    pub(super) fn adopt(&self, state: &mut State, leader: usize, follower: usize) -> Option<()> {
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

    pub(super) fn deliver(&self, state: &mut State) -> Option<()> {
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

    /// Makes a node a candidate for the term after the one that it has promised.
    pub(super) fn stand(&self, state: &mut State, at: usize) -> Option<()> {
        let own = state.nodes[at].position();
        let positions = state.nodes.iter().map(Node::position).enumerate();
        let above = positions.filter(|(_, other)| *other > own).fold(0, |to, (at, _)| to | 1 << at);
        let above = if self.mistake == Mistake::ReadFirst { above } else { 0 };
        let node = &mut state.nodes[at];
        let term = node.promise.term + 1;
        if term > self.term_max {
            return None;
        }
        node.promise = Epoch { term, tag: self.tag(at), cuts: 0 };
        node.role = Role::Candidate { promised: 1 << at, above };
        Some(())
    }

    pub(super) fn promise(&self, state: &mut State, candidate: usize, node: usize) -> Option<()> {
        let Role::Candidate { promised, above } = state.nodes[candidate].role else { return None };
        let line = state.nodes[candidate].promise;
        let own = state.nodes[candidate].clone();
        let other = &mut state.nodes[node];
        let has_promised = promised & 1 << node != 0;
        if has_promised || candidate == node || !self.accepts(other.promise, line) {
            return None;
        }
        other.follow(line);
        let is_above = match self.mistake {
            Mistake::ReadFirst => above & 1 << node != 0,
            Mistake::HighestByEnd => other.log.end() > own.log.end(),
            Mistake::HighestByRecord => other.log.position() > own.log.position(),
            _ => other.position() > own.position(),
        };
        // The candidate gives up: the other node must be promoted.
        let promised = Role::Candidate { promised: promised | 1 << node, above };
        state.nodes[candidate].role = if is_above { Role::Follower } else { promised };
        Some(())
    }

    pub(super) fn crash(&self, state: &mut State, at: usize) {
        let node = &mut state.nodes[at];
        node.marks = [0; NODES];
        if node.role != Role::Leader {
            node.role = Role::Follower;
        }
        if let Some(base) = node.unsynced_header.take() {
            node.log.cut(base);
            node.role = Role::Follower;
        }
        node.unclaimed = usize::from(self.mistake == Mistake::ClaimedPosition);
        if self.mistake == Mistake::PromiseUnsynced {
            node.promise = node.line();
        }
        // The connections of the node are gone.
        state.report = state.report.take().filter(|report| report.to != at);
        state.crashes += 1;
    }

    pub(super) fn crash_torn(&self, state: &mut State, at: usize) -> Option<()> {
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
