//! The verdict on a history.

use std::{collections::BTreeMap, fmt};

use crate::chaos::{
    checker::{Judgement, judge},
    history::{Action, FINAL_READERS, Operation, Outcome},
};

#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Outcomes that a correct store cannot return.
    pub(crate) violations: Vec<String>,
    /// Reasons why the test did not complete, such as failed nodes.
    pub(crate) failures: Vec<String>,
}

impl Verdict {
    pub(crate) fn of(history: &[Operation]) -> Self {
        let mut verdict = Verdict::default();
        for judgement in judge(history) {
            match judgement {
                Judgement::Linearizable => {}
                Judgement::Violation { key, stuck_at } => {
                    let text = format!("{key} is not linearizable; no order allows: {stuck_at}");
                    verdict.violations.push(text);
                }
                Judgement::Undecided { key } => {
                    verdict
                        .failures
                        .push(format!("the search for an order of {key} became too large"));
                }
            }
        }
        verdict.violations.extend(lost_writes(history));
        verdict
    }

    /// Adds a failure if the test did too little to find anything.
    pub(crate) fn require_activity(
        &mut self,
        history: &[Operation],
        fault_count: u32,
        writes_min: u64,
        faults_min: u32,
    ) {
        let writes = history.iter().filter(|operation| operation.is_acknowledged_write()).count();
        if (writes as u64) < writes_min || fault_count < faults_min {
            self.failures.push(format!(
                "too little activity for a verdict: {writes} acknowledged writes of at least \
                 {writes_min}, {fault_count} faults of at least {faults_min}"
            ));
        }
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
            _ => f.write_str("no guarantee is broken so far, but the test did not complete"),
        }
    }
}

/// Finds lost writes without the checker.
///
/// Each client writes increasing values to its own key. A write is lost if a final read returns an
/// older value than the last acknowledged one.
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
                "{key}: write {last} was acknowledged, but a final read returned {found}"
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
    fn lost_write_causes_two_violations() {
        let verdict = Verdict::of(&history(Outcome::Written, "3.7"));
        assert_eq!(verdict.violations.len(), 2, "{verdict}");
        assert_eq!(verdict.exit_code(), 1);
    }

    #[test]
    fn inactive_test_has_exit_code_2() {
        let history = history(Outcome::Written, "3.12");
        for (writes_min, faults_min, code) in [(2, 1, 0), (3, 1, 2), (2, 2, 2)] {
            let mut verdict = Verdict::of(&history);
            verdict.require_activity(&history, 1, writes_min, faults_min);
            assert_eq!(verdict.exit_code(), code, "{verdict}");
            assert_eq!(code == 2, verdict.to_string().contains("too little"), "{verdict}");
        }
    }

    #[test]
    fn unknown_write_may_be_applied_or_not() {
        for found in ["3.7", "3.12"] {
            let verdict = Verdict::of(&history(Outcome::Unknown, found));
            assert_eq!(verdict.exit_code(), 0, "{verdict}");
        }
    }
}
