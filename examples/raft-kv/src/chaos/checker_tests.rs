//! Tests with known verdicts, and random small histories compared with trying every order.

use std::time::Duration;

use super::*;
use crate::random::Random;

fn at(begin: u64, end: u64, action: Action, outcome: Outcome) -> Operation {
    let (begin, end) = (Duration::from_nanos(begin), Duration::from_nanos(end));
    Operation { client: 0, key: "k".into(), action, outcome, begin, end }
}

fn value(value: &str) -> Option<String> {
    (value != "-").then(|| value.to_owned())
}

fn put(begin: u64, end: u64, new: &str) -> Operation {
    at(begin, end, Action::Put(new.into()), Outcome::Written)
}

fn get(begin: u64, end: u64, found: &str) -> Operation {
    at(begin, end, Action::Get, Outcome::Read(value(found)))
}

fn cas(begin: u64, end: u64, expected: &str, new: &str, outcome: Outcome) -> Operation {
    at(begin, end, Action::Cas { expected: value(expected), value: new.into() }, outcome)
}

fn unknown(operation: Operation) -> Operation {
    Operation { outcome: Outcome::Unknown, ..operation }
}

fn is_linearizable(history: &[Operation]) -> bool {
    judge(history).iter().all(|judgement| *judgement == Judgement::Linearizable)
}

#[test]
fn judge_linearizable_histories_passes() {
    let written = Outcome::Written;
    let mismatch = |found: &str| Outcome::Mismatch(value(found));
    let histories = [
        vec![],
        vec![get(0, 1, "-"), put(2, 3, "a"), get(4, 5, "a")],
        // Two concurrent writes: either may be the last.
        vec![put(0, 10, "a"), put(0, 10, "b"), get(11, 12, "a"), get(13, 14, "a")],
        // A read during a write sees the old or the new value.
        vec![put(0, 1, "a"), put(2, 10, "b"), get(3, 4, "a"), get(5, 6, "b")],
        vec![cas(0, 1, "-", "a", written.clone()), cas(2, 3, "-", "b", mismatch("a"))],
        // An unknown write that takes effect late, and one that never does.
        vec![unknown(put(0, 1, "a")), put(2, 3, "b"), get(4, 5, "b"), get(6, 7, "a")],
        vec![unknown(put(0, 1, "a")), put(2, 3, "b"), get(4, 5, "b")],
        vec![put(0, 1, "a"), unknown(cas(2, 3, "a", "b", written)), get(9, 10, "b")],
    ];
    for history in histories {
        assert!(is_linearizable(&history), "{history:?}");
    }
}

#[test]
fn judge_other_histories_finds_violations() {
    let written = || Outcome::Written;
    let mismatch = |found: &str| Outcome::Mismatch(value(found));
    let histories = [
        ("an acknowledged write is lost", vec![put(0, 1, "a"), get(2, 3, "-")]),
        ("a read is stale", vec![put(0, 1, "a"), put(2, 3, "b"), get(4, 5, "a")]),
        ("a value was read that was never written", vec![put(0, 1, "a"), get(2, 3, "c")]),
        (
            "a read returns an older value than the read before it",
            vec![put(0, 1, "a"), put(2, 20, "b"), get(3, 4, "b"), get(5, 6, "a")],
        ),
        (
            "two compare-and-sets replaced the same value",
            vec![cas(0, 5, "-", "a", written()), cas(0, 5, "-", "b", written())],
        ),
        (
            "a put was applied twice",
            vec![put(0, 1, "a"), put(2, 3, "b"), get(4, 5, "b"), get(6, 7, "a")],
        ),
        (
            "a mismatch although the value was the expected one",
            vec![cas(0, 1, "-", "a", mismatch("-"))],
        ),
        (
            "a mismatch with the wrong value",
            vec![put(0, 1, "a"), cas(2, 3, "x", "b", mismatch("y"))],
        ),
        (
            "an unknown write took effect and was undone",
            vec![put(0, 1, "a"), unknown(put(2, 3, "b")), get(4, 5, "b"), get(6, 7, "a")],
        ),
        ("a value was read before it was written", vec![get(0, 1, "a"), unknown(put(2, 3, "a"))]),
    ];
    for (name, history) in histories {
        assert!(!is_linearizable(&history), "{name}");
    }
}

#[test]
fn judge_checks_keys_separately() {
    let mut other = get(2, 3, "-");
    other.key = "other".into();
    let history = [put(0, 1, "a"), other, get(4, 5, "-")];
    let judgements = judge(&history);
    assert_eq!(judgements.len(), 2);
    assert_eq!(judgements[1], Judgement::Linearizable);
    assert!(matches!(&judgements[0], Judgement::Violation { key, stuck_at }
        if key == "k" && *stuck_at == history[2]));
}

/// Tries every order, with every selection of the unknown operations.
fn has_an_order(operations: &[Operation], current: &Option<String>) -> bool {
    if operations.iter().all(|operation| operation.outcome == Outcome::Unknown) {
        return true;
    }
    let first_end =
        operations.iter().filter(|o| o.outcome != Outcome::Unknown).map(|o| o.end).min().unwrap();
    (0..operations.len()).any(|index| {
        let operation = &operations[index];
        let next = match (&operation.action, &operation.outcome) {
            (Action::Get, Outcome::Unknown) => Some(current.clone()),
            (Action::Get, Outcome::Read(found)) => (found == current).then(|| current.clone()),
            (Action::Put(value), _) => Some(Some(value.clone())),
            (Action::Cas { expected, .. }, Outcome::Mismatch(found)) => {
                (found == current && found != expected).then(|| current.clone())
            }
            (Action::Cas { expected, value }, _) => {
                (expected == current).then(|| Some(value.clone()))
            }
            _ => unreachable!(),
        };
        let mut rest = operations.to_vec();
        rest.remove(index);
        operation.begin <= first_end && next.is_some_and(|next| has_an_order(&rest, &next))
    })
}

#[test]
fn judge_random_histories_matches_brute_force() {
    let (mut good, mut bad) = (0, 0);
    for seed in 0..6_000 {
        let mut random = Random::new(seed);
        let words = ["-", "a", "b", "c"];
        let count = 2 + random.below(5);
        let history: Vec<Operation> = (0..count)
            .map(|_| {
                let begin = random.below(12);
                let end = begin + 1 + random.below(6);
                let (found, new) = (random.pick(&words), random.pick(&words[1..]));
                let operation = match random.below(4) {
                    0 => put(begin, end, new),
                    1 => cas(begin, end, found, new, Outcome::Written),
                    2 => cas(begin, end, found, new, Outcome::Mismatch(value(random.pick(&words)))),
                    _ => get(begin, end, found),
                };
                if random.below(5) == 0 { unknown(operation) } else { operation }
            })
            .collect();
        let expected = has_an_order(&history, &None);
        assert_eq!(is_linearizable(&history), expected, "seed {seed}: {history:#?}");
        *(if expected { &mut good } else { &mut bad }) += 1;
    }
    assert!(good > 500 && bad > 500, "{good} linearizable and {bad} other histories");
}

#[test]
fn judge_long_history_of_12_clients_ends() {
    // Many concurrent operations, with some unknown writes.
    let mut random = Random::new(7);
    let mut history = Vec::new();
    let mut current = "-".to_owned();
    for moment in 0..5_000u64 {
        let (begin, end) =
            (moment * 10 - moment.min(random.below(40)), moment * 10 + random.below(40));
        match random.below(3) {
            0 => history.push(get(begin, end, &current)),
            kind => {
                current = format!("v{moment}");
                let put = put(begin, end, &current);
                history.push(if kind == 1 && random.below(30) == 0 { unknown(put) } else { put });
            }
        }
    }
    assert!(is_linearizable(&history));
    history.push(get(60_000, 60_001, "v3"));
    assert!(!is_linearizable(&history));
}
