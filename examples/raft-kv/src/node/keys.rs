//! The replicated state: the keys, and the sessions, so that a repeated command is applied once.
//!
//! The state is a function of the log alone. It uses no clock, no random numbers and no data of the
//! node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::{Change, Command, CommandOutcome};

/// The most sessions in the state. Above it, the least recently used session is removed, and a
/// repeated command of that session would be applied twice.
const SESSIONS_MAX: usize = 10_000;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Keys {
    values: BTreeMap<String, String>,
    sessions: BTreeMap<u64, Session>,
    /// The number of applied commands, which serves as the clock of the sessions.
    applied_count: u64,
}

/// The last command of a session. A client sends one command at a time, so it never repeats an
/// older one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    number: u64,
    outcome: CommandOutcome,
    applied_at: u64,
}

impl Keys {
    pub(crate) fn get(&self, key: &str) -> Option<&String> {
        self.values.get(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn apply(&mut self, command: Command) -> CommandOutcome {
        self.applied_count += 1;
        match self.sessions.get(&command.session) {
            Some(known) if known.number == command.number => return known.outcome.clone(),
            Some(known) if known.number > command.number => return CommandOutcome::Stale,
            _ => {}
        }
        let outcome = self.change(command.change);
        let session = Session {
            number: command.number,
            outcome: outcome.clone(),
            applied_at: self.applied_count,
        };
        self.sessions.insert(command.session, session);
        if self.sessions.len() > SESSIONS_MAX {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.applied_at);
            if let Some(id) = oldest.map(|(id, _)| *id) {
                self.sessions.remove(&id);
            }
        }
        outcome
    }

    fn change(&mut self, change: Change) -> CommandOutcome {
        match change {
            Change::Put { key, value } => {
                self.values.insert(key, value);
                CommandOutcome::Done
            }
            Change::Cas { key, expected, value } => {
                let found = self.values.get(&key);
                if found != expected.as_ref() {
                    return CommandOutcome::Mismatch(found.cloned());
                }
                self.values.insert(key, value);
                CommandOutcome::Done
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(session: u64, number: u64, value: &str) -> Command {
        let change = Change::Put { key: "k".into(), value: value.into() };
        Command { session, number, change }
    }

    fn cas(session: u64, number: u64, expected: Option<&str>, value: &str) -> Command {
        let change = Change::Cas {
            key: "k".into(),
            expected: expected.map(str::to_owned),
            value: value.into(),
        };
        Command { session, number, change }
    }

    #[test]
    fn repeated_command_is_applied_once() {
        let mut keys = Keys::default();
        assert_eq!(keys.apply(put(1, 1, "a")), CommandOutcome::Done);
        assert_eq!(keys.apply(put(2, 1, "b")), CommandOutcome::Done);
        assert_eq!(keys.apply(put(1, 1, "a")), CommandOutcome::Done);
        assert_eq!(keys.get("k").unwrap(), "b");
    }

    #[test]
    fn repeated_cas_returns_the_first_outcome() {
        let mut keys = Keys::default();
        assert_eq!(keys.apply(cas(1, 1, None, "a")), CommandOutcome::Done);
        assert_eq!(keys.apply(cas(1, 1, None, "a")), CommandOutcome::Done);
        let mismatch = CommandOutcome::Mismatch(Some("a".into()));
        assert_eq!(keys.apply(cas(1, 2, None, "b")), mismatch);
        assert_eq!(keys.apply(cas(2, 1, Some("a"), "c")), CommandOutcome::Done);
        assert_eq!(keys.apply(cas(1, 2, None, "b")), mismatch);
    }

    #[test]
    fn older_command_of_session_is_stale() {
        let mut keys = Keys::default();
        keys.apply(put(1, 2, "new"));
        assert_eq!(keys.apply(put(1, 1, "old")), CommandOutcome::Stale);
        assert_eq!(keys.get("k").unwrap(), "new");
    }

    #[test]
    fn least_recently_used_session_is_removed() {
        let mut keys = Keys::default();
        for session in 0..=SESSIONS_MAX as u64 {
            keys.apply(put(session, 1, "x"));
        }
        assert_eq!(keys.sessions.len(), SESSIONS_MAX);
        assert!(!keys.sessions.contains_key(&0));
    }
}
