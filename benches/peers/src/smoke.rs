//! Checks in seconds that the bench works: each contender does a few operations and reads them
//! back. Nothing is measured.

use std::{path::Path, time::Duration};

use crate::{
    child,
    plan::Plan,
    rounds::Place,
    work::{Assignment, Kind, Limits},
};

/// Runs the smoke test, and returns whether all contenders passed.
pub fn run(plan: &Plan, dir: &Path, settings: &[String]) -> bool {
    let mut failures = 0;
    for work in &plan.works {
        for contender in plan.contenders.iter().filter(|contender| contender.can(work)) {
            let place = Place::unmeasured(dir);
            let is_fixed = !matches!(work.kind, Kind::OpenLoop { .. } | Kind::Follow);
            let milliseconds = Duration::from_millis;
            let limits = Limits {
                warm_up: milliseconds(10),
                measure: milliseconds(if is_fixed { 20_000 } else { 100 }),
                operations: is_fixed.then_some(64),
                fixed: is_fixed,
            };
            let mut assignment = Assignment {
                contender: contender.name.to_owned(),
                work: work.clone(),
                limits,
                directory: place.log(),
                prepare: matches!(work.kind, Kind::Replay | Kind::Recover),
                // A floor has no records to read back, and `churn` has dropped most of them.
                verify: !contender.is_floor()
                    && is_fixed
                    && !matches!(work.kind, Kind::Churn { .. }),
                settings: settings.to_vec(),
            };
            let mut outcome = Ok(Default::default());
            if assignment.prepare {
                outcome = child::run(&assignment, &[]);
                assignment.prepare = false;
            }
            let outcome = outcome.and_then(|_| child::run(&assignment, &[]));
            let name = contender.name;
            match outcome {
                Ok(outcome) if outcome.operations > 0 => println!("ok   {} {name}", work.name),
                Ok(_) => {
                    failures += 1;
                    println!("FAIL {} {name}: no operation was done", work.name);
                }
                Err(failure) => {
                    failures += 1;
                    println!("FAIL {} {name}: {failure}", work.name);
                }
            }
        }
    }
    println!("{failures} failures");
    failures == 0
}
