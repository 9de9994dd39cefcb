//! The replicated state: keys, and the sessions that make a command that is sent twice be applied once.
//!
//! It is a function of the log alone: no clock, no randomness, nothing of the node that it is on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::{Answer, Change, Command};

/// So many sessions are remembered. Of more, the one that was silent for longest is forgotten: a
/// command of it that is sent again after that would be applied again.
const SESSIONS_MAX: usize = 10_000;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Keys {
    values: BTreeMap<String, String>,
    sessions: BTreeMap<u64, Session>,
    /// How many commands were applied: the clock of the sessions.
    applied_count: u64,
}

/// What a session did last. A client has one command under way at a time, so older ones are never
/// asked about again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Session {
    number: u64,
    answer: Answer,
    applied_at: u64,
}

impl Keys {
    pub(crate) fn get(&self, key: &str) -> Option<&String> {
        self.values.get(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn apply(&mut self, command: Command) -> Answer {
        self.applied_count += 1;
        match self.sessions.get(&command.session) {
            Some(known) if known.number == command.number => return known.answer.clone(),
            Some(known) if known.number > command.number => return Answer::Stale,
            _ => {}
        }
        let answer = self.change(command.change);
        let session = Session {
            number: command.number,
            answer: answer.clone(),
            applied_at: self.applied_count,
        };
        self.sessions.insert(command.session, session);
        if self.sessions.len() > SESSIONS_MAX {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.applied_at);
            if let Some(id) = oldest.map(|(id, _)| *id) {
                self.sessions.remove(&id);
            }
        }
        answer
    }

    fn change(&mut self, change: Change) -> Answer {
        match change {
            Change::Put { key, value } => {
                self.values.insert(key, value);
                Answer::Done
            }
            Change::Cas { key, expected, value } => {
                let found = self.values.get(&key);
                if found != expected.as_ref() {
                    return Answer::Mismatch(found.cloned());
                }
                self.values.insert(key, value);
                Answer::Done
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
    fn a_command_that_comes_twice_is_applied_once() {
        let mut keys = Keys::default();
        assert_eq!(keys.apply(put(1, 1, "a")), Answer::Done);
        assert_eq!(keys.apply(put(2, 1, "b")), Answer::Done);
        assert_eq!(keys.apply(put(1, 1, "a")), Answer::Done);
        assert_eq!(keys.get("k").unwrap(), "b");
    }

    #[test]
    fn a_cas_that_comes_twice_has_the_same_answer_twice() {
        let mut keys = Keys::default();
        assert_eq!(keys.apply(cas(1, 1, None, "a")), Answer::Done);
        assert_eq!(keys.apply(cas(1, 1, None, "a")), Answer::Done);
        let mismatch = Answer::Mismatch(Some("a".into()));
        assert_eq!(keys.apply(cas(1, 2, None, "b")), mismatch);
        assert_eq!(keys.apply(cas(2, 1, Some("a"), "c")), Answer::Done);
        assert_eq!(keys.apply(cas(1, 2, None, "b")), mismatch);
    }

    #[test]
    fn what_a_session_has_left_behind_is_refused() {
        let mut keys = Keys::default();
        keys.apply(put(1, 2, "new"));
        assert_eq!(keys.apply(put(1, 1, "old")), Answer::Stale);
        assert_eq!(keys.get("k").unwrap(), "new");
    }

    #[test]
    fn the_session_that_was_silent_for_longest_is_forgotten() {
        let mut keys = Keys::default();
        for session in 0..=SESSIONS_MAX as u64 {
            keys.apply(put(session, 1, "x"));
        }
        assert_eq!(keys.sessions.len(), SESSIONS_MAX);
        assert!(!keys.sessions.contains_key(&0));
    }
}
