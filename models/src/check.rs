//! Runs the checker and states what a test expects of it.

use std::{collections::BTreeSet, env, fmt::Debug, hash::Hash};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// Returns `bound`, or `larger` if the environment variable `HIGHWATER_MODELS` is `large`.
pub(crate) fn bound<T>(bound: T, larger: T) -> T {
    if env::var("HIGHWATER_MODELS").is_ok_and(|size| size == "large") { larger } else { bound }
}

/// Visits every state of `model` and asserts that its properties hold.
///
/// The search must end by itself, because a search that stops early proves nothing. It must visit
/// `states_min` states, and each property of the kind `sometimes` must have an example. So a model
/// whose actions are disabled by mistake fails.
pub(crate) fn assert_holds<M>(model: M, states_min: usize)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let properties = model.properties();
    let is_always = |expectation: &Expectation| matches!(expectation, Expectation::Always);
    assert!(properties.iter().any(|property| is_always(&property.expectation)));
    // A search with only some discoveries left to make would end before it has visited all states.
    let never = BTreeSet::from(["never discovered"]);
    let checker = model.checker().finish_when(HasDiscoveries::AllOf(never)).spawn_bfs().join();
    checker.assert_properties();
    assert!(checker.is_done(), "the search is not exhaustive");
    let count = checker.unique_state_count();
    println!("{count} states, {} steps at most", checker.max_depth());
    assert!(count >= states_min, "only {count} states: an action is never possible");
}

/// Asserts that the checker finds a counterexample of `property`, and prints it.
pub(crate) fn assert_broken<M>(model: M, property: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let found = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let checker = model.checker().finish_when(found).spawn_bfs().join();
    let path = checker.discovery(property);
    let path = path.unwrap_or_else(|| {
        panic!("no counterexample of {property:?} in {} states", checker.unique_state_count())
    });
    println!("{property:?} fails in {:?}", path.last_state());
    for action in path.into_actions() {
        println!("  {action:?}");
    }
}

/// The larger bound is chosen by the environment alone.
#[test]
fn bound_is_the_small_one_by_default() {
    if env::var("HIGHWATER_MODELS").is_err() {
        assert_eq!(bound(1, 2), 1);
    }
}

#[cfg(test)]
mod tests {
    use stateright::Property;

    use super::*;

    /// Counts from 0 to 3.
    #[derive(Clone, Debug)]
    struct Counter;

    impl Model for Counter {
        type State = u8;
        type Action = ();

        fn init_states(&self) -> Vec<u8> {
            vec![0]
        }

        fn actions(&self, _: &u8, actions: &mut Vec<()>) {
            actions.push(());
        }

        fn next_state(&self, count: &u8, (): ()) -> Option<u8> {
            (*count < 3).then_some(count + 1)
        }

        fn properties(&self) -> Vec<Property<Self>> {
            vec![
                Property::always("below 4", |_: &Self, count: &u8| *count < 4),
                Property::always("below 3", |_: &Self, count: &u8| *count < 3),
            ]
        }
    }

    #[test]
    fn broken_property_is_found() {
        assert_broken(Counter, "below 3");
    }

    #[test]
    #[should_panic(expected = "no counterexample of \"below 4\" in 4 states")]
    fn property_that_holds_has_no_counterexample() {
        assert_broken(Counter, "below 4");
    }

    #[test]
    #[should_panic(expected = "below 3")]
    fn broken_model_does_not_hold() {
        assert_holds(Counter, 1);
    }
}
