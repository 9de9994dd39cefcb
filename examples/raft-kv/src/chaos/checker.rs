//! Whether a history is linearizable: whether each operation can be given one moment between its
//! beginning and its end so that, in the order of these moments, all answers are right.
//!
//! The search is that of Wing and Gong with Lowe's memory of what was tried. Keys are independent of
//! each other, so each is judged by itself.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::chaos::history::{Action, Operation, Outcome};

/// So many states of one key's search are kept. Beyond it there is no verdict.
const STATES_MAX: usize = 1_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Linearizable,
    /// No order is right. The operation is one that none of the longest orders found could hold.
    Violation {
        key: String,
        stuck_at: Operation,
    },
    /// The search became too large.
    Undecided {
        key: String,
    },
}

pub(crate) fn judge(history: &[Operation]) -> Vec<Judgement> {
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(&operation.key).or_default().push(operation);
    }
    let judge = |(key, operations): (&str, Vec<&Operation>)| judge_key(key, &operations);
    keys.into_iter().map(judge).collect()
}

/// A value as a number: 0 is that there is none.
type Value = u32;

#[derive(Clone, Copy, Debug)]
enum Step {
    Read(Value),
    Put(Value),
    Cas { expected: Value, value: Value },
    Mismatch { expected: Value, found: Value },
}

impl Step {
    /// The value after it, if its answer is right on this value.
    fn apply(self, current: Value) -> Option<Value> {
        match self {
            Step::Read(value) => (current == value).then_some(current),
            Step::Put(value) => Some(value),
            Step::Cas { expected, value } => (current == expected).then_some(value),
            Step::Mismatch { expected, found } => {
                (current == found && found != expected).then_some(current)
            }
        }
    }
}

fn judge_key(key: &str, operations: &[&Operation]) -> Judgement {
    let operations = relevant(operations);
    let mut values = HashMap::new();
    let steps: Vec<Step> =
        operations.iter().map(|operation| step(operation, &mut values)).collect();
    match Search::new(&operations, steps).run() {
        Found::Order => Judgement::Linearizable,
        Found::None { stuck_at } => {
            Judgement::Violation { key: key.to_owned(), stuck_at: operations[stuck_at].clone() }
        }
        Found::TooMuch => Judgement::Undecided { key: key.to_owned() },
    }
}

/// Without the unknown operations that can't matter: reads, and writes of a value that nothing else
/// has seen or asked for. Such a write may as well never have happened: if an order with it is right,
/// the one without it is, since nothing between it and the next write looked at the value.
fn relevant<'a>(operations: &[&'a Operation]) -> Vec<&'a Operation> {
    let mut seen: HashMap<&str, u32> = HashMap::new();
    for operation in operations {
        let (put, expected) = match &operation.action {
            Action::Get => (None, None),
            Action::Put(value) => (Some(value), None),
            Action::Cas { expected, value } => (Some(value), expected.as_ref()),
        };
        let found = match &operation.outcome {
            Outcome::Read(found) | Outcome::Mismatch(found) => found.as_ref(),
            _ => None,
        };
        for value in [put, expected, found].into_iter().flatten() {
            *seen.entry(value).or_default() += 1;
        }
    }
    let matters = |operation: &&Operation| match (&operation.outcome, &operation.action) {
        (Outcome::Unknown, Action::Get) => false,
        (Outcome::Unknown, Action::Put(value) | Action::Cas { value, .. }) => {
            seen.get(value.as_str()).is_some_and(|count| *count > 1)
        }
        _ => true,
    };
    operations.iter().copied().filter(matters).collect()
}

fn step<'a>(operation: &'a Operation, values: &mut HashMap<&'a str, Value>) -> Step {
    let mut number = |value: Option<&'a String>| match value {
        None => 0,
        Some(value) => {
            let next = values.len() as Value + 1;
            *values.entry(value).or_insert(next)
        }
    };
    match (&operation.action, &operation.outcome) {
        (Action::Get, Outcome::Read(value)) => Step::Read(number(value.as_ref())),
        (Action::Put(value), _) => Step::Put(number(Some(value))),
        (Action::Cas { expected, .. }, Outcome::Mismatch(found)) => {
            Step::Mismatch { expected: number(expected.as_ref()), found: number(found.as_ref()) }
        }
        (Action::Cas { expected, value }, _) => {
            Step::Cas { expected: number(expected.as_ref()), value: number(Some(value)) }
        }
        (Action::Get, outcome) => unreachable!("a get has no outcome {outcome:?}"),
    }
}

enum Found {
    Order,
    None { stuck_at: usize },
    TooMuch,
}

/// The beginnings and ends that are not yet in the order, as a list that is linked both ways: taking an
/// operation out and putting it back are then one step each.
struct Search {
    steps: Vec<Step>,
    events: Vec<Event>,
    /// The event behind each, and before it; the last index is the list's head.
    next: Vec<usize>,
    previous: Vec<usize>,
    ends_left: usize,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    operation: usize,
    /// Of a beginning: where its end is, if it has one.
    end: Option<usize>,
    is_end: bool,
}

impl Search {
    fn new(operations: &[&Operation], steps: Vec<Step>) -> Self {
        let mut times = Vec::new();
        for (index, operation) in operations.iter().enumerate() {
            times.push((operation.begin, false, index));
            if operation.outcome != Outcome::Unknown {
                times.push((operation.end, true, index));
            }
        }
        // At the same time a beginning comes first: the two may overlap.
        times.sort();
        let mut ends = HashMap::new();
        for (position, (_, is_end, operation)) in times.iter().enumerate() {
            if *is_end {
                ends.insert(*operation, position);
            }
        }
        let event = |&(_, is_end, operation): &(_, bool, usize)| {
            let end = ends.get(&operation).copied().filter(|_| !is_end);
            Event { operation, end, is_end }
        };
        let events: Vec<Event> = times.iter().map(event).collect();
        let count = events.len();
        let next = (1..=count).chain([0]).collect();
        let previous = [count].into_iter().chain(0..count).collect();
        Search { steps, events, next, previous, ends_left: ends.len() }
    }

    fn run(mut self) -> Found {
        let head = self.events.len();
        let mut done = vec![0u64; self.steps.len().div_ceil(64)];
        let mut tried: HashSet<(Box<[u64]>, Value)> = HashSet::new();
        let mut order: Vec<(usize, Value)> = Vec::new();
        let (mut best, mut stuck_at) = (0, 0);
        let mut current: Value = 0;
        let mut at = self.next[head];
        while self.ends_left > 0 {
            let event = self.events[at];
            if !event.is_end {
                let bit = 1u64 << (event.operation % 64);
                if let Some(value) = self.steps[event.operation].apply(current) {
                    done[event.operation / 64] |= bit;
                    if tried.insert((done.clone().into(), value)) {
                        if tried.len() > STATES_MAX {
                            return Found::TooMuch;
                        }
                        order.push((at, current));
                        self.take(at);
                        current = value;
                        at = self.next[head];
                        continue;
                    }
                    done[event.operation / 64] &= !bit;
                }
                at = self.next[at];
                continue;
            }
            // This operation has ended, and is not in the order: what was chosen before is wrong.
            if order.len() >= best {
                (best, stuck_at) = (order.len(), event.operation);
            }
            let Some((last, before)) = order.pop() else { return Found::None { stuck_at } };
            let operation = self.events[last].operation;
            done[operation / 64] &= !(1 << (operation % 64));
            current = before;
            self.put_back(last);
            at = self.next[last];
        }
        Found::Order
    }

    fn take(&mut self, begin: usize) {
        self.unlink(begin);
        if let Some(end) = self.events[begin].end {
            self.unlink(end);
            self.ends_left -= 1;
        }
    }

    /// In the opposite order of `take`: a link that was taken out still knows its neighbours.
    fn put_back(&mut self, begin: usize) {
        if let Some(end) = self.events[begin].end {
            self.link(end);
            self.ends_left += 1;
        }
        self.link(begin);
    }

    fn unlink(&mut self, at: usize) {
        let (previous, next) = (self.previous[at], self.next[at]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    fn link(&mut self, at: usize) {
        let (previous, next) = (self.previous[at], self.next[at]);
        self.next[previous] = at;
        self.previous[next] = at;
    }
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
