//! Compares commits with the time of a flush.
//!
//! F is the time of one write and one flush of a group: one record of each task, back to back, by
//! one thread, in a zero-filled file. The floor contender of the same work and round measures it,
//! because it writes as many records at a time as the work has tasks. F = tasks ÷ its rate.

use crate::{
    outcome::Outcome,
    registry,
    rounds::{Results, Row},
    work::{Kind, Work},
};

/// Returns E = commits/s × F ÷ tasks for each round, if the floor has an outcome too.
///
/// E is 1 if each flush makes one record of each task durable, and the tasks cost no time.
pub fn efficiencies(results: &Results, row: &Row) -> Vec<f64> {
    each_round(results, row, |work, outcome, flush_seconds| {
        Some(outcome.per_second() * flush_seconds / work.tasks as f64)
    })
}

/// Returns the 99.9th percentile of the latency ÷ F for each round, if the floor has an outcome
/// too.
pub fn tails(results: &Results, row: &Row) -> Vec<f64> {
    each_round(results, row, |_, outcome, flush_seconds| {
        Some(outcome.latency?.p999 / (flush_seconds * 1e6))
    })
}

fn each_round(
    results: &Results,
    row: &Row,
    value: impl Fn(&Work, &Outcome, f64) -> Option<f64>,
) -> Vec<f64> {
    if row.work.kind != Kind::Commit {
        return Vec::new();
    }
    let floor = results.row(&row.work.name, registry::floor_of(row.contender));
    let floors = floor.map_or(&[][..], |floor| &floor.outcomes);
    row.outcomes
        .iter()
        .zip(floors)
        .filter_map(|(outcome, floor)| {
            let flush_seconds = row.work.tasks as f64 / floor.as_ref()?.per_second();
            value(&row.work, outcome.as_ref()?, flush_seconds)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Latency;

    fn outcome(operations: u64, p999: f64) -> Option<Outcome> {
        let latency = Some(Latency { p999, ..Latency::default() });
        Some(Outcome { operations, seconds: 1.0, latency, ..Outcome::default() })
    }

    fn row(contender: &'static str, outcomes: Vec<Option<Outcome>>) -> Row {
        Row { work: Work::commit(64), contender, outcomes, failure: None }
    }

    #[test]
    fn values_compare_runs_of_one_round() {
        let ours = row("highwater", vec![outcome(32_000, 5_000.0), None, outcome(64_000, 500.0)]);
        // The first floor flushes 1,000 times a second, so F is 1,000 µs.
        let floor = vec![outcome(64_000, 0.0), outcome(64_000, 0.0), outcome(640_000, 0.0)];
        let results =
            Results { rows: vec![row("raw-zeroed", floor)], rounds: 3, ..Results::default() };
        assert_eq!(efficiencies(&results, &ours), [0.5, 0.1]);
        assert_eq!(tails(&results, &ours), [5.0, 5.0]);
    }

    #[test]
    fn values_without_floor_are_empty() {
        let ours = row("highwater", vec![outcome(32_000, 5_000.0)]);
        assert!(efficiencies(&Results::default(), &ours).is_empty());
        assert!(tails(&Results::default(), &ours).is_empty());
    }
}
