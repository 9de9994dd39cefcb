//! Is each run of the real log a path of the model `recovery`?
//!
//! A trace has the steps that a caller of the log sees. The unsynced bytes that a loss of power
//! kept are not among them. So the check follows all states of the model that agree with the trace
//! so far. A trace that leaves no state is no path of the model: the model, or the log, is wrong.

mod run;

use std::collections::HashSet;

use stateright::Model;

use self::run::{Fault, Step, run};
use crate::recovery::{Action, Recovery, State};

/// Returns the number of the first step that no state of the model can take.
fn first_wrong(steps: &[Step]) -> Option<usize> {
    let model = Recovery::for_traces();
    let mut states: HashSet<State> = model.init_states().into_iter().collect();
    steps.iter().position(|step| {
        states = states.iter().flat_map(|state| after(&model, state, step)).collect();
        states.is_empty()
    })
}

fn after(model: &Recovery, state: &State, step: &Step) -> Vec<State> {
    let one = |action| model.next_state(state, action).into_iter().collect();
    match step {
        Step::Append => one(Action::Append),
        // A sync without new records changes nothing.
        Step::Sync => vec![model.next_state(state, Action::Flush).unwrap_or_else(|| state.clone())],
        Step::Kill => one(Action::Kill),
        Step::LosePower => losses(model, state),
        Step::LosePowerInOpen => {
            let opening = openings(model, state);
            opening.iter().flat_map(|state| losses(model, state)).collect()
        }
        Step::Open(ids) => {
            let opened = openings(model, state).into_iter();
            opened.filter(|state| state.is_open() && state.ids() == *ids).collect()
        }
        Step::Refuse => {
            let opened = openings(model, state).into_iter();
            opened.filter(|state| state.is_refused()).collect()
        }
    }
}

/// Returns the states after each loss of power.
fn losses(model: &Recovery, state: &State) -> Vec<State> {
    let losses = state.losses().into_iter().map(Action::LosePower);
    losses.filter_map(|action| model.next_state(state, action)).collect()
}

/// Returns the states before, within and after an opening.
fn openings(model: &Recovery, state: &State) -> Vec<State> {
    let mut states = vec![state.clone()];
    states.extend(model.next_state(state, Action::Open));
    while let Some(next) = states.last().filter(|state| !state.is_open()) {
        let Some(next) = model.next_state(next, Action::Proceed) else { break };
        states.push(next);
    }
    states
}

#[test]
fn runs_of_the_log_are_paths_of_the_model() {
    let mut counts = [0; 3];
    for seed in 0..200 {
        let steps = run(seed, Fault::None);
        assert_eq!(first_wrong(&steps), None, "seed {seed}: {steps:?}");
        counts[0] += steps.len();
        counts[1] += steps.iter().filter(|step| **step == Step::LosePowerInOpen).count();
        // A record was lost, and another one has its place.
        let has_gap = |step: &Step| match step {
            Step::Open(ids) => ids.windows(2).any(|pair| pair[1] > pair[0] + 1),
            _ => false,
        };
        counts[2] += usize::from(steps.iter().any(has_gap));
    }
    println!("{counts:?}: steps, interrupted openings, runs with lost records");
    assert!(counts[0] > 2_000 && counts[1] > 20 && counts[2] > 20, "{counts:?}");
}

/// A disk that ignores flushes loses acknowledged records, which no path of the model does.
#[test]
fn run_on_a_disk_that_ignores_flushes_is_no_path() {
    let wrong = (0..50).filter(|seed| first_wrong(&run(*seed, Fault::IgnoreFlushes)).is_some());
    assert!(wrong.count() > 5, "a lying disk was not noticed");
}

#[test]
fn doctored_trace_is_no_path() {
    let [append, sync, lose] = [Step::Append, Step::Sync, Step::LosePower];
    let trace = |last: Step| {
        vec![append.clone(), sync.clone(), append.clone(), append.clone(), lose.clone(), last]
    };
    for ids in [vec![0], vec![0, 1], vec![0, 1, 2]] {
        assert_eq!(first_wrong(&trace(Step::Open(ids))), None);
    }
    let wrong = [vec![], vec![1], vec![0, 2], vec![1, 0], vec![0, 1, 2, 3]];
    for ids in wrong {
        assert_eq!(first_wrong(&trace(Step::Open(ids.clone()))), Some(5), "{ids:?}");
    }
    assert_eq!(first_wrong(&trace(Step::Refuse)), Some(5));
    // A record that was cut is there again.
    let mut revived = trace(Step::Open(vec![0]));
    revived.extend([lose.clone(), Step::Open(vec![0, 1])]);
    assert_eq!(first_wrong(&revived), Some(7));
}
