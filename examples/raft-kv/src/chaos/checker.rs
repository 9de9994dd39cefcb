//! Checks that a history is linearizable.
//!
//! A history is linearizable if each operation can take effect at one moment between its beginning
//! and its end, so that all outcomes are correct in the order of these moments. The search is by
//! Wing and Gong, with Lowe's cache of visited states. Keys are independent, so each key is checked
//! separately.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::chaos::history::{Action, Operation, Outcome};

/// The most states in the search of one key. Above it the key is undecided.
const STATES_MAX: usize = 1_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Linearizable,
    /// No order is correct. `stuck_at` is an operation that did not fit into one of the longest
    /// orders.
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

/// The number of a value; 0 means that there is no value.
type Value = u32;

#[derive(Clone, Copy, Debug)]
enum Transition {
    Read(Value),
    Put(Value),
    Cas { expected: Value, value: Value },
    Mismatch { expected: Value, found: Value },
}

impl Transition {
    /// Returns the value after the step, if the step's outcome is correct for the current value.
    fn apply(self, current: Value) -> Option<Value> {
        match self {
            Transition::Read(value) => (current == value).then_some(current),
            Transition::Put(value) => Some(value),
            Transition::Cas { expected, value } => (current == expected).then_some(value),
            Transition::Mismatch { expected, found } => {
                (current == found && found != expected).then_some(current)
            }
        }
    }
}

fn judge_key(key: &str, operations: &[&Operation]) -> Judgement {
    let operations = relevant(operations);
    let mut values = HashMap::new();
    let transitions: Vec<Transition> =
        operations.iter().map(|operation| transition(operation, &mut values)).collect();
    match Search::new(&operations, transitions).run() {
        SearchResult::Order => Judgement::Linearizable,
        SearchResult::NoOrder { stuck_at } => {
            Judgement::Violation { key: key.to_owned(), stuck_at: operations[stuck_at].clone() }
        }
        SearchResult::TooLarge => Judgement::Undecided { key: key.to_owned() },
    }
}

/// Removes the unknown operations that cannot matter: reads, and writes of a value that no other
/// operation has seen or expected.
///
/// If an order with such a write is correct, it is also correct without the write, because no
/// operation before the next write depends on the value.
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

fn transition<'a>(operation: &'a Operation, values: &mut HashMap<&'a str, Value>) -> Transition {
    let mut number = |value: Option<&'a String>| match value {
        None => 0,
        Some(value) => {
            let next = values.len() as Value + 1;
            *values.entry(value).or_insert(next)
        }
    };
    match (&operation.action, &operation.outcome) {
        (Action::Get, Outcome::Read(value)) => Transition::Read(number(value.as_ref())),
        (Action::Put(value), _) => Transition::Put(number(Some(value))),
        (Action::Cas { expected, .. }, Outcome::Mismatch(found)) => Transition::Mismatch {
            expected: number(expected.as_ref()),
            found: number(found.as_ref()),
        },
        (Action::Cas { expected, value }, _) => {
            Transition::Cas { expected: number(expected.as_ref()), value: number(Some(value)) }
        }
        (Action::Get, outcome) => unreachable!("the outcome {outcome:?} does not belong to a get"),
    }
}

enum SearchResult {
    Order,
    NoOrder { stuck_at: usize },
    TooLarge,
}

/// The search, with the events that are not yet in the order.
///
/// The events are a doubly linked list, so an operation is removed and put back in constant time.
struct Search {
    transitions: Vec<Transition>,
    events: Vec<Event>,
    /// The next and the previous event of each event. The last index is the head of the list.
    next: Vec<usize>,
    previous: Vec<usize>,
    ends_left: usize,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    operation: usize,
    /// For a beginning: the index of its end, if there is one.
    end: Option<usize>,
    is_end: bool,
}

impl Search {
    fn new(operations: &[&Operation], transitions: Vec<Transition>) -> Self {
        let mut times = Vec::new();
        for (index, operation) in operations.iter().enumerate() {
            times.push((operation.begin, false, index));
            if operation.outcome != Outcome::Unknown {
                times.push((operation.end, true, index));
            }
        }
        // At equal times a beginning sorts before an end, because the two operations may overlap.
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
        Search { transitions, events, next, previous, ends_left: ends.len() }
    }

    fn run(mut self) -> SearchResult {
        let head = self.events.len();
        let mut done = vec![0u64; self.transitions.len().div_ceil(64)];
        let mut tried: HashSet<(Box<[u64]>, Value)> = HashSet::new();
        let mut order: Vec<(usize, Value)> = Vec::new();
        let (mut best, mut stuck_at) = (0, 0);
        let mut current: Value = 0;
        let mut at = self.next[head];
        while self.ends_left > 0 {
            let event = self.events[at];
            if !event.is_end {
                let bit = 1u64 << (event.operation % 64);
                if let Some(value) = self.transitions[event.operation].apply(current) {
                    done[event.operation / 64] |= bit;
                    if tried.insert((done.clone().into(), value)) {
                        if tried.len() > STATES_MAX {
                            return SearchResult::TooLarge;
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
            // This operation has ended without being in the order, so an earlier choice was wrong.
            if order.len() >= best {
                (best, stuck_at) = (order.len(), event.operation);
            }
            let Some((last, before)) = order.pop() else {
                return SearchResult::NoOrder { stuck_at };
            };
            let operation = self.events[last].operation;
            done[operation / 64] &= !(1 << (operation % 64));
            current = before;
            self.put_back(last);
            at = self.next[last];
        }
        SearchResult::Order
    }

    fn take(&mut self, begin: usize) {
        self.unlink(begin);
        if let Some(end) = self.events[begin].end {
            self.unlink(end);
            self.ends_left -= 1;
        }
    }

    /// Reverts `take`, in the opposite order, because a removed event still has its neighbours'
    /// indexes.
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
