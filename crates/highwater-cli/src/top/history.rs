//! Rates and changes between looks.

use std::{collections::VecDeque, time::Duration};

use highwater::Lsn;

use crate::{
    text::{counted, size},
    top::sample::{Log, Sample, State},
};

/// The number of rates that are kept for the curve: the columns of a wide terminal.
const RATES_MAX: usize = 400;
const CHANGES_MAX: usize = 8;

/// The speed of a log between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rates {
    /// Bytes of frames that were written in a second.
    pub(super) bytes: Option<u64>,
    /// Records that were written in a second.
    pub(super) records: Option<u64>,
}

impl Rates {
    fn between(before: &Sample, now: &Sample) -> Self {
        let (Some(old), Some(new)) = (&before.log, &now.log) else { return Rates::default() };
        // After a cut, the distance of the ends is no number of written bytes.
        if old.id != new.id || old.epoch != new.epoch {
            return Rates::default();
        }
        let elapsed = now.at.saturating_sub(before.at);
        let per_second = |count: u64| {
            let scaled = u128::from(count).saturating_mul(1_000_000_000);
            scaled.checked_div(elapsed.as_nanos()).and_then(|rate| u64::try_from(rate).ok())
        };
        let grown = old.end.zip(new.end).and_then(|(old, new)| {
            let (old, new) = (old.as_u64(), new.as_u64());
            new.checked_sub(old)
        });
        Rates { bytes: grown.and_then(per_second), records: new.record_count.and_then(per_second) }
    }
}

/// An event between two looks that an operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Closed,
    Opened { pid: Option<u32> },
    Left { pid: u32 },
    Unreadable,
    Readable,
    Emptied,
    OtherLog,
    TruncatedBefore { lsn: Lsn },
    EndMoved { from: Lsn, to: Lsn },
    Cut { epoch: u64 },
    SlotLost { name: String },
}

impl Change {
    pub(super) fn text(&self) -> String {
        match self {
            Change::Closed => "the log was closed".to_owned(),
            Change::Opened { pid: Some(pid) } => format!("process {pid} opened the log"),
            Change::Opened { pid: None } => "the log was opened".to_owned(),
            Change::Left { pid } => format!("process {pid} left the log without closing it"),
            Change::Unreadable => "the log can't be read any more".to_owned(),
            Change::Readable => "the log can be read".to_owned(),
            Change::Emptied => "the files of the log are gone".to_owned(),
            Change::OtherLog => "another log is in the directory now".to_owned(),
            Change::TruncatedBefore { lsn } => format!("the beginning was truncated to LSN {lsn}"),
            Change::EndMoved { from, to } => {
                let bytes = from.as_u64().saturating_sub(to.as_u64());
                format!("the end moved back by {} to LSN {to}", size(bytes))
            }
            Change::Cut { epoch } => format!("the end was truncated: epoch {epoch} began"),
            Change::SlotLost { name } => format!("slot {} was lost", name.escape_debug()),
        }
    }

    fn is_same_kind(&self, other: &Change) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// Returns the changes from one look to the next.
    fn between(before: &Sample, now: &Sample) -> Vec<Change> {
        let mut changes = state_changes(&before.state, &now.state);
        if let (Some(old), Some(new)) = (&before.log, &now.log) {
            changes.extend(log_changes(old, new));
        }
        changes
    }
}

fn state_changes(old: &State, new: &State) -> Vec<Change> {
    if old == new {
        return Vec::new();
    }
    let is_unreadable = |state: &State| matches!(state, State::Unreadable(_) | State::Refused(_));
    let mut changes = Vec::new();
    match (is_unreadable(old), is_unreadable(new)) {
        (false, true) => return vec![Change::Unreadable],
        (true, true) => return Vec::new(),
        (true, false) => changes.push(Change::Readable),
        (false, false) => {}
    }
    match (old, new) {
        (State::InUse(pid), State::NotClosed | State::TornTail) => {
            changes.push(Change::Left { pid: *pid });
        }
        (_, State::New) => changes.push(Change::Emptied),
        (_, State::Closed) => changes.push(Change::Closed),
        (_, State::InUse(pid)) => changes.push(Change::Opened { pid: Some(*pid) }),
        (State::Closed | State::New, _) => changes.push(Change::Opened { pid: None }),
        _ => {}
    }
    changes
}

fn log_changes(old: &Log, new: &Log) -> Vec<Change> {
    if old.id != new.id {
        return vec![Change::OtherLog];
    }
    let mut changes = Vec::new();
    if let Some(lsn) = new.first.filter(|first| Some(*first) > old.first) {
        changes.push(Change::TruncatedBefore { lsn });
    }
    if let Some((from, to)) = old.end.zip(new.end).filter(|(from, to)| to < from) {
        changes.push(Change::EndMoved { from, to });
    } else if new.epoch > old.epoch {
        changes.push(Change::Cut { epoch: new.epoch });
    }
    let is_lost =
        |log: &Log, name: &str| log.slots.iter().any(|slot| slot.name == name && slot.is_lost);
    let lost = new.slots.iter().filter(|slot| slot.is_lost && !is_lost(old, &slot.name));
    changes.extend(lost.map(|slot| Change::SlotLost { name: slot.name.clone() }));
    changes
}

/// The newest look, and the rates and changes up to it.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    newest: Option<Sample>,
    rates: Rates,
    /// Bytes a second, oldest first.
    curve: VecDeque<u64>,
    rotation_count: u64,
    /// Each change and its time, oldest first.
    changes: VecDeque<(Duration, Change)>,
}

impl History {
    pub(super) fn push(&mut self, sample: Sample) {
        if let Some(before) = &self.newest {
            self.rates = Rates::between(before, &sample);
            if let (Some(old), Some(new)) = (&before.log, &sample.log) {
                let rotated = new.segments.newest_sequence;
                let rotated = rotated.saturating_sub(old.segments.newest_sequence);
                self.rotation_count += if old.id == new.id { rotated } else { 0 };
            }
            for change in Change::between(before, &sample) {
                // A log that is truncated often must not displace the other changes.
                if self.changes.back().is_some_and(|(_, last)| last.is_same_kind(&change)) {
                    self.changes.pop_back();
                }
                self.changes.push_back((sample.at, change));
            }
            while self.changes.len() > CHANGES_MAX {
                self.changes.pop_front();
            }
            self.curve.push_back(self.rates.bytes.unwrap_or_default());
            if self.curve.len() > RATES_MAX {
                self.curve.pop_front();
            }
        }
        self.newest = Some(sample);
    }

    pub(super) fn newest(&self) -> Option<&Sample> {
        self.newest.as_ref()
    }

    pub(super) fn rates(&self) -> Rates {
        self.rates
    }

    /// Returns the last `count` rates in bytes a second, oldest first.
    pub(super) fn curve(&self, count: usize) -> Vec<u64> {
        let skipped = self.curve.len().saturating_sub(count);
        self.curve.iter().skip(skipped).copied().collect()
    }

    /// Returns the last `count` changes, newest first, each with its time.
    pub(super) fn changes(&self, count: usize) -> impl Iterator<Item = &(Duration, Change)> {
        self.changes.iter().rev().take(count)
    }

    /// Returns the changes that the newest look found.
    pub(super) fn newest_changes(&self) -> impl Iterator<Item = &Change> {
        let at = self.newest.as_ref().map(|sample| sample.at);
        self.changes.iter().filter(move |(time, _)| Some(*time) == at).map(|(_, change)| change)
    }

    /// Returns the number of rotations since the watch began, as text.
    pub(super) fn rotations(&self) -> String {
        counted(self.rotation_count, "rotation", "rotations")
    }
}
