//! The performance targets, and whether a run meets them.

mod goals;
mod target;

use std::fmt::Write;

use crate::{rounds::Results, table::spread};

pub fn markdown(results: &Results) -> String {
    let head = "| work | Highwater ÷ | min | median | max | target | |";
    let mut text = format!("{head}\n|---|---|---:|---:|---:|---|---|\n");
    for target in goals::all() {
        let Some((min, median, max)) = spread(&target.figures(results)) else { continue };
        let (work, against, bar) = (target.name(), target.against(), target.bar.text());
        let met = if target.bar.is_met(min, median) { "met" } else { "**missed**" };
        let _ = writeln!(
            text,
            "| {work} | {against} | {min:.2} | {median:.2} | {max:.2} | {bar} | {met} |"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{target::Against, *};
    use crate::plan::{Form, plan};

    #[test]
    fn target_names_work_and_contenders_of_a_form() {
        let plans = [Form::Short, Form::Delayed, Form::Churn].map(|form| plan(form, 1 << 30));
        let does = |work: &str, contender: &str| {
            plans.iter().any(|plan| {
                let works = plan.works.iter().filter(|known| known.name == work);
                works.into_iter().any(|work| {
                    plan.contenders_for(work).iter().any(|known| known.name == contender)
                })
            })
        };
        for target in goals::all() {
            assert!(does(target.work, target.ours), "{}", target.name());
            if let Against::One(name) = target.against {
                let work = target.against_work.unwrap_or(target.work);
                assert!(does(work, name), "{} against {name}", target.name());
            }
        }
    }
}
