//! The state of a log at one moment, as plain data.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use highwater::{
    Lsn,
    inspect::{self, Inspection, LogId, Role, Segment, Verdict},
};

use crate::files::Space;

/// One look at a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// The time from the start of the watch to the look.
    pub(super) at: Duration,
    pub(super) state: State,
    /// `None` if there is no log, or if it can't be read.
    pub(super) log: Option<Log>,
    /// The space of the file system; `None` if unknown.
    pub(super) space: Option<Space>,
}

/// The state of a log, in one of the words that `top` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A process has the log open. Its id is known on Linux only.
    InUse(u32),
    /// Not closed. Without an owner's id, a process may have the log open.
    NotClosed,
    Closed,
    /// Not closed, with unsynced bytes at the end that reached the disk in part.
    TornTail,
    /// There is no log yet.
    New,
    /// Opening refuses the log, for this reason.
    Refused(String),
    /// The directory can't be read, for this reason.
    Unreadable(String),
}

/// The marks, the segments and the slots of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) id: LogId,
    pub(super) epoch: u64,
    pub(super) first: Option<Lsn>,
    pub(super) end: Option<Lsn>,
    pub(super) synced: Option<Lsn>,
    /// The number of records since the last look, if they were counted.
    pub(super) record_count: Option<u64>,
    pub(super) segments: Segments,
    /// The slot that keeps the most comes first. Lost slots come last.
    pub(super) slots: Vec<Slot>,
}

/// The segment files in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segments {
    pub(super) count: u64,
    /// The length of the files of the log.
    pub(super) file_bytes: u64,
    pub(super) used_bytes: u64,
    /// Files that are prepared and not begun yet.
    pub(super) spare_count: u64,
    /// The number of the newest segment, which grows with each rotation.
    pub(super) newest_sequence: u64,
    pub(super) newest_age: Duration,
    pub(super) oldest_age: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) position: Lsn,
    pub(super) lag_bytes: u64,
    pub(super) held_bytes: u64,
    pub(super) keep_bytes_max: Option<u64>,
    pub(super) is_lost: bool,
}

impl State {
    pub(super) fn of(found: &Inspection) -> Self {
        match (&found.verdict, found.owner_pid) {
            (Verdict::Refused(problem), _) => State::Refused(problem.message.clone()),
            (_, Some(pid)) => State::InUse(pid),
            (Verdict::New, None) => State::New,
            (Verdict::Closed, None) => State::Closed,
            (Verdict::TornTail(_), None) => State::TornTail,
            (_, None) => State::NotClosed,
        }
    }
}

impl Log {
    /// Returns the log of an inspection; `None` if no segment has a readable header.
    pub(super) fn of(found: &Inspection, now: SystemTime) -> Option<Self> {
        let members = || found.segments.iter().filter(|segment| segment.role == Role::Log);
        let headers = || members().filter_map(|segment| segment.header);
        let (oldest, newest) = (headers().next()?, headers().next_back()?);
        let age = |unix_ms: u64| {
            let created = UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms));
            created.and_then(|created| now.duration_since(created).ok()).unwrap_or_default()
        };
        let sum = |of: fn(&Segment) -> u64| members().map(of).fold(0, u64::saturating_add);
        let spares = found.segments.iter().filter(|segment| segment.role == Role::Spare);
        let segments = Segments {
            count: members().count() as u64,
            file_bytes: sum(|segment| segment.bytes),
            used_bytes: sum(|segment| segment.used_bytes),
            spare_count: spares.count() as u64,
            newest_sequence: newest.sequence,
            newest_age: age(newest.created_unix_ms),
            oldest_age: age(oldest.created_unix_ms),
        };
        let mut slots: Vec<Slot> = found.slots.iter().map(Slot::of).collect();
        slots.sort_by_key(|slot| (slot.is_lost, slot.position));
        Some(Log {
            id: newest.log_id,
            epoch: newest.epoch,
            first: found.first,
            end: found.end,
            synced: found.committed,
            record_count: None,
            segments,
            slots,
        })
    }

    /// Returns the bytes that are written and not known to be synced.
    pub(super) fn unsynced_bytes(&self) -> Option<u64> {
        Some(self.end?.as_u64().saturating_sub(self.synced?.as_u64()))
    }

    /// Returns the slot that keeps the most, if it is not lost.
    pub(super) fn holder(&self) -> Option<&Slot> {
        self.slots.first().filter(|slot| !slot.is_lost)
    }
}

impl Slot {
    fn of(slot: &inspect::Slot) -> Self {
        Slot {
            name: slot.name.clone(),
            position: slot.position,
            lag_bytes: slot.lag_bytes,
            held_bytes: slot.held_bytes,
            keep_bytes_max: slot.keep_bytes_max,
            is_lost: slot.is_lost,
        }
    }
}
