//! Is a follower's log the leader's, and does a mark count only what a follower has synced?
//!
//! One leader, two followers, one line. Records and reports are in flight on a connection, and are
//! lost with it. A crash loses any unsynced suffix. A leader that crashed resumes in place, or in
//! the next epoch with the last synced record framed again. A follower that crashed resumes in
//! place and begins no epoch. A follower may lose its whole disk.

mod tests;

use stateright::{Model, Property};

use crate::{
    check::bound,
    line::{Epoch, Log, Record, agree, common_point},
};

const FOLLOWERS: usize = 2;

const SAME_BYTES: &str = "logs have the same bytes below their common point";
const SOUND: &str = "each record is of the epoch that the history gives its place";
const GROWS: &str = "no node follows an epoch lower than its own";
const MARKS: &str = "the mark of a connected follower is not above its synced end";
const COPIES_AT_ACK: &str = "a record has k + 1 copies when it is acknowledged, less lost disks";
const COPIES: &str = "an acknowledged record has k + 1 copies, less one for each lost disk";

/// A mistake that must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    None,
    /// The leader ships records before it has synced them.
    ShipUnsynced,
    /// The follower reports records that are written and not synced.
    ReportWritten,
    /// The leader counts the report of an earlier connection after a reconnect.
    KeepReport,
    /// The common point is the lower of the two ends.
    CompareEnds,
    /// The follower cuts its log before it has the records of the new epoch.
    CutFirst,
    /// A follower that crashed begins an epoch, as a leader does.
    FollowerBeginsEpoch,
}

#[derive(Clone, Debug)]
struct Shipping {
    mistake: Mistake,
    k: usize,
    lsns: usize,
    ids: u8,
    faults: u8,
}

/// A connection, with one message in flight in each direction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Link {
    record: Option<Record>,
    report: Option<usize>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Follower {
    log: Log,
    link: Option<Link>,
    /// The follower's synced end, as the leader knows it. It stays when the connection ends.
    mark: Option<usize>,
    /// The disk was lost, and the follower has not connected since then.
    is_lost: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    leader: Log,
    followers: [Follower; FOLLOWERS],
    appended: u8,
    faults: u8,
    lost_disks: usize,
    /// The id of each acknowledged record, by its LSN.
    acked: Vec<u8>,
    is_acked_early: bool,
    is_epoch_lowered: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Append,
    SyncLeader,
    Connect(usize),
    Send(usize),
    /// The follower writes the record in flight.
    Write(usize),
    SyncFollower(usize),
    Report(usize),
    DeliverReport(usize),
    Disconnect(usize),
    /// The follower keeps this many records.
    CrashFollower(usize, usize),
    LoseDisk(usize),
    /// The leader keeps this many records and resumes in place.
    CrashLeader(usize),
    /// The leader keeps this many records and finds a torn tail.
    CrashLeaderTorn(usize),
}

impl Shipping {
    fn new(k: usize, mistake: Mistake) -> Self {
        Self { mistake, k, lsns: 2, ids: 3, faults: bound(2, 3) }
    }

    fn connect(&self, state: &mut State, at: usize) {
        let leader = &state.leader;
        let Follower { log, link, mark, is_lost } = &mut state.followers[at];
        state.is_epoch_lowered |= leader.epoch() < log.epoch();
        let common = match self.mistake {
            Mistake::CompareEnds => leader.end().min(log.end()),
            _ => common_point(leader, log),
        };
        if self.mistake == Mistake::CutFirst {
            log.cut(common);
        } else if log.end() > common {
            // The records arrive first, then the header: the old ones count until then.
            log.copy_from(leader, log.end().min(leader.synced));
        }
        *link = Some(Link { record: None, report: None });
        *is_lost = false;
        if self.mistake != Mistake::KeepReport {
            *mark = None;
        }
    }

    fn send(&self, state: &mut State, at: usize) -> Option<()> {
        let Follower { log, link, .. } = &mut state.followers[at];
        let end = match self.mistake {
            Mistake::ShipUnsynced => state.leader.end(),
            _ => state.leader.synced,
        };
        let link = link.as_mut().filter(|link| link.record.is_none() && log.end() < end)?;
        link.record = state.leader.records.get(log.end()).copied();
        Some(())
    }

    fn write(state: &mut State, at: usize) -> Option<()> {
        let Follower { log, link, .. } = &mut state.followers[at];
        log.records.push(link.as_mut()?.record.take()?);
        // The headers of the epochs that begin up to here arrive with the record.
        let begun = state.leader.history.iter().filter(|(_, base)| *base <= log.end());
        log.history = begun.copied().collect();
        Some(())
    }

    fn report(&self, state: &mut State, at: usize) -> Option<()> {
        let Follower { log, link, .. } = &mut state.followers[at];
        let is_written = self.mistake == Mistake::ReportWritten;
        link.as_mut()?.report = Some(if is_written { log.end() } else { log.synced });
        Some(())
    }

    fn deliver_report(&self, state: &mut State, at: usize) -> Option<()> {
        let follower = &mut state.followers[at];
        follower.mark = Some(follower.link.as_mut()?.report.take()?);
        let mut marks = [0, 1].map(|at: usize| state.followers[at].mark.unwrap_or(0));
        marks.sort_unstable_by(|a, b| b.cmp(a));
        for lsn in state.acked.len()..marks[self.k - 1] {
            let Some(record) = state.leader.records.get(lsn).copied() else { break };
            state.acked.push(record.id);
            let lost = state.followers.iter().filter(|follower| follower.is_lost).count();
            state.is_acked_early |= state.copies(lsn, record.id) + lost <= self.k;
        }
        Some(())
    }

    fn disconnect(state: &mut State, at: usize) {
        state.followers[at].link = None;
        state.faults += 1;
    }

    fn crash_follower(&self, state: &mut State, at: usize, kept: usize) {
        Self::disconnect(state, at);
        let log = &mut state.followers[at].log;
        log.records.truncate(kept);
        if self.mistake == Mistake::FollowerBeginsEpoch {
            Self::begin_epoch(log);
        }
        log.synced = kept;
    }

    fn crash_leader(&self, state: &mut State, kept: usize, is_torn: bool) {
        for at in 0..FOLLOWERS {
            state.followers[at].link = None;
            state.followers[at].mark = None;
        }
        state.faults += 1;
        let log = &mut state.leader;
        log.records.truncate(kept);
        if is_torn {
            Self::begin_epoch(log);
        }
        log.synced = kept;
    }

    /// Begins the next epoch at S: the last synced record is not claimed yet.
    fn begin_epoch(log: &mut Log) {
        let (epoch, base) = log.history.last().copied().unwrap_or_default();
        let claimed = log.synced.saturating_sub(1).max(base);
        log.begin(Epoch { cuts: epoch.cuts + 1, ..epoch }, claimed);
    }
}

impl State {
    /// Returns the number of nodes that have synced the record.
    fn copies(&self, lsn: usize, id: u8) -> usize {
        let logs = self.followers.iter().map(|follower| &follower.log).chain([&self.leader]);
        logs.filter(|log| log.holds(lsn, id)).count()
    }
}

impl Model for Shipping {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let log = Log::begun(Epoch { term: 1, tag: 1, cuts: 0 });
        let follower = Follower { log: log.clone(), ..Follower::default() };
        vec![State {
            leader: log,
            followers: [follower.clone(), follower],
            appended: 0,
            faults: 0,
            lost_disks: 0,
            acked: Vec::new(),
            is_acked_early: false,
            is_epoch_lowered: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.leader.end() < self.lsns && state.appended < self.ids {
            actions.push(Action::Append);
        }
        actions.push(Action::SyncLeader);
        let may_fail = state.faults < self.faults;
        for (at, follower) in state.followers.iter().enumerate() {
            let (synced, end) = (follower.log.synced, follower.log.end());
            actions.push(Action::SyncFollower(at));
            if follower.link.is_none() {
                actions.push(Action::Connect(at));
            } else {
                actions.extend([Action::Send(at), Action::Write(at), Action::Report(at)]);
                actions.push(Action::DeliverReport(at));
                actions.extend(may_fail.then_some(Action::Disconnect(at)));
            }
            if may_fail {
                actions.extend((synced..=end).map(|kept| Action::CrashFollower(at, kept)));
                actions.push(Action::LoseDisk(at));
            }
        }
        if may_fail {
            for kept in state.leader.synced..=state.leader.end() {
                actions.extend([Action::CrashLeader(kept), Action::CrashLeaderTorn(kept)]);
            }
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Append => {
                next.leader.push(next.appended);
                next.appended += 1;
            }
            Action::SyncLeader => next.leader.synced = next.leader.end(),
            Action::Connect(at) => self.connect(&mut next, at),
            Action::Send(at) => self.send(&mut next, at)?,
            Action::Write(at) => Self::write(&mut next, at)?,
            Action::SyncFollower(at) => {
                let log = &mut next.followers[at].log;
                log.synced = log.end();
            }
            Action::Report(at) => self.report(&mut next, at)?,
            Action::DeliverReport(at) => self.deliver_report(&mut next, at)?,
            Action::Disconnect(at) => Self::disconnect(&mut next, at),
            Action::CrashFollower(at, kept) => self.crash_follower(&mut next, at, kept),
            Action::LoseDisk(at) => {
                Self::disconnect(&mut next, at);
                next.followers[at].log = Log::default();
                next.followers[at].is_lost = true;
                next.lost_disks += 1;
            }
            Action::CrashLeader(kept) => self.crash_leader(&mut next, kept, false),
            Action::CrashLeaderTorn(kept) => self.crash_leader(&mut next, kept, true),
        }
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(SAME_BYTES, |_: &Self, state: &State| {
                let [a, b] = &state.followers;
                let with_leader = [a, b].into_iter().all(|to| agree(&state.leader, &to.log));
                with_leader && agree(&a.log, &b.log)
            }),
            Property::always(SOUND, |_: &Self, state: &State| {
                state.followers.iter().all(|follower| follower.log.is_sound())
            }),
            Property::always(GROWS, |_: &Self, state: &State| !state.is_epoch_lowered),
            Property::always(MARKS, |_: &Self, state: &State| {
                let mut connected = state.followers.iter().filter(|to| to.link.is_some());
                connected.all(|to| to.mark.is_none_or(|mark| mark <= to.log.synced))
            }),
            Property::always(COPIES_AT_ACK, |_: &Self, state: &State| !state.is_acked_early),
            Property::always(COPIES, |model: &Self, state: &State| {
                let mut acked = state.acked.iter().enumerate();
                acked.all(|(lsn, id)| state.copies(lsn, *id) + state.lost_disks > model.k)
            }),
            Property::sometimes("all records are acknowledged", |model: &Self, state: &State| {
                state.acked.len() == model.lsns
            }),
            Property::sometimes("a follower takes a new epoch", |_: &Self, state: &State| {
                state.followers.iter().any(|to| to.log.epoch().cuts > 0 && to.log.synced > 0)
            }),
            Property::sometimes("a lost disk is filled again", |model: &Self, state: &State| {
                state.lost_disks > 0 && state.followers.iter().all(|to| to.log.synced == model.lsns)
            }),
        ]
    }
}
