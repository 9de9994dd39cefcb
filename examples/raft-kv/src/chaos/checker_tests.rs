//! Histories whose verdict is known, and small ones against trying every order.

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
fn good_histories_are_good() {
    let written = Outcome::Written;
    let mismatch = |found: &str| Outcome::Mismatch(value(found));
    let histories = [
        vec![],
        vec![get(0, 1, "-"), put(2, 3, "a"), get(4, 5, "a")],
        // Two writes at once: either may be the last.
        vec![put(0, 10, "a"), put(0, 10, "b"), get(11, 12, "a"), get(13, 14, "a")],
        // A read beside a write sees the one or the other.
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
fn bad_histories_are_bad() {
    let written = || Outcome::Written;
    let mismatch = |found: &str| Outcome::Mismatch(value(found));
    let histories = [
        ("an acknowledged write is lost", vec![put(0, 1, "a"), get(2, 3, "-")]),
        ("a read is stale", vec![put(0, 1, "a"), put(2, 3, "b"), get(4, 5, "a")]),
        ("nobody wrote it", vec![put(0, 1, "a"), get(2, 3, "c")]),
        (
            "a read goes back behind another",
            vec![put(0, 1, "a"), put(2, 20, "b"), get(3, 4, "b"), get(5, 6, "a")],
        ),
        (
            "two compare-and-sets of one value",
            vec![cas(0, 5, "-", "a", written()), cas(0, 5, "-", "b", written())],
        ),
        (
            "a put was applied twice",
            vec![put(0, 1, "a"), put(2, 3, "b"), get(4, 5, "b"), get(6, 7, "a")],
        ),
        ("a mismatch on what it expected", vec![cas(0, 1, "-", "a", mismatch("-"))]),
        (
            "a mismatch with the wrong value",
            vec![put(0, 1, "a"), cas(2, 3, "x", "b", mismatch("y"))],
        ),
        (
            "an unknown write took effect and was undone",
            vec![put(0, 1, "a"), unknown(put(2, 3, "b")), get(4, 5, "b"), get(6, 7, "a")],
        ),
        ("it was read before it was written", vec![get(0, 1, "a"), unknown(put(2, 3, "a"))]),
    ];
    for (what, history) in histories {
        assert!(!is_linearizable(&history), "{what}");
    }
}

#[test]
fn keys_are_judged_by_themselves() {
    let mut other = get(2, 3, "-");
    other.key = "other".into();
    let history = [put(0, 1, "a"), other, get(4, 5, "-")];
    let judgements = judge(&history);
    assert_eq!(judgements.len(), 2);
    assert_eq!(judgements[1], Judgement::Linearizable);
    assert!(matches!(&judgements[0], Judgement::Violation { key, stuck_at }
        if key == "k" && *stuck_at == history[2]));
}

/// By trying every order, of every choice of unknown operations.
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
fn small_histories_get_the_verdict_of_trying_every_order() {
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
    assert!(good > 500 && bad > 500, "{good} good and {bad} bad ones");
}

#[test]
fn a_long_history_of_many_clients_is_judged() {
    // Twelve clients at once for a long time, with an unknown write now and then.
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
