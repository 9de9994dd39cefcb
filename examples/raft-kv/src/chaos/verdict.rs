//! What the history says.

use std::{collections::BTreeMap, fmt};

use crate::chaos::{
    checker::{Judgement, judge},
    history::{Action, Operation, Outcome},
};

/// Clients from this one on read everything at the end.
pub(crate) const FINAL_READERS: u64 = 1_000;

#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// What no correct store could have answered.
    pub(crate) violations: Vec<String>,
    /// What kept the test from its end: nodes that failed or got stuck.
    pub(crate) failures: Vec<String>,
}

impl Verdict {
    pub(crate) fn of(history: &[Operation]) -> Self {
        let mut verdict = Verdict::default();
        for judgement in judge(history) {
            match judgement {
                Judgement::Linearizable => {}
                Judgement::Violation { key, stuck_at } => {
                    let what = format!("{key} is not linearizable; no order holds: {stuck_at}");
                    verdict.violations.push(what);
                }
                Judgement::Undecided { key } => {
                    verdict.failures.push(format!("the checker gave up on {key}"));
                }
            }
        }
        verdict.violations.extend(lost_writes(history));
        verdict
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match (self.violations.is_empty(), self.failures.is_empty()) {
            (false, _) => 1,
            (true, false) => 2,
            (true, true) => 0,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for violation in &self.violations {
            writeln!(f, "VIOLATION: {violation}")?;
        }
        for failure in &self.failures {
            writeln!(f, "FAILURE: {failure}")?;
        }
        match self.exit_code() {
            0 => f.write_str("the history is linearizable, and no acknowledged write is lost"),
            1 => f.write_str("a guarantee is broken"),
            _ => {
                f.write_str("no guarantee is broken as far as the test came, which is not its end")
            }
        }
    }
}

/// Without the checker: each client has a key that it alone writes to, one value after the other. A
/// final read that finds an earlier one than the last that was acknowledged misses a write.
fn lost_writes(history: &[Operation]) -> Vec<String> {
    let count = |value: &str| value.rsplit_once('.').and_then(|(_, count)| count.parse().ok());
    let mut acknowledged: BTreeMap<&str, u64> = BTreeMap::new();
    for operation in history.iter().filter(|o| o.key.starts_with("own-")) {
        if let (Action::Put(value), Outcome::Written) = (&operation.action, &operation.outcome) {
            let last = acknowledged.entry(&operation.key).or_default();
            *last = (*last).max(count(value).unwrap_or(0));
        }
    }
    let mut lost = Vec::new();
    for operation in history.iter().filter(|o| o.client >= FINAL_READERS) {
        let Outcome::Read(found) = &operation.outcome else { continue };
        let found = found.as_deref().and_then(count).unwrap_or(0);
        if let Some(last) = acknowledged.get(operation.key.as_str()).filter(|last| **last > found) {
            let key = &operation.key;
            lost.push(format!(
                "{key}: write {last} was acknowledged, and {found} is what is there"
            ));
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn operation(client: u64, action: Action, outcome: Outcome, at: u64) -> Operation {
        let (begin, end) = (Duration::from_secs(at), Duration::from_secs(at + 1));
        Operation { client, key: "own-3".into(), action, outcome, begin, end }
    }

    fn history(last: Outcome, found: &str) -> Vec<Operation> {
        let found = Outcome::Read(Some(found.into()));
        vec![
            operation(3, Action::Put("3.7".into()), Outcome::Written, 0),
            operation(3, Action::Put("3.12".into()), last, 2),
            operation(FINAL_READERS, Action::Get, found, 4),
        ]
    }

    #[test]
    fn a_lost_write_is_found_twice() {
        let verdict = Verdict::of(&history(Outcome::Written, "3.7"));
        assert_eq!(verdict.violations.len(), 2, "{verdict}");
        assert_eq!(verdict.exit_code(), 1);
    }

    #[test]
    fn an_unknown_write_may_be_there_or_not() {
        for found in ["3.7", "3.12"] {
            let verdict = Verdict::of(&history(Outcome::Unknown, found));
            assert_eq!(verdict.exit_code(), 0, "{verdict}");
        }
    }
}
