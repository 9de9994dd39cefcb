//! Formats the results as Markdown tables.

use std::fmt::Write;

use crate::{
    plan::Plan,
    rounds::{Results, Row},
};

/// Returns the minimum, the median and the maximum.
pub fn spread(values: &[f64]) -> Option<(f64, f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (first, last) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = match sorted.len() % 2 {
        0 => (sorted[middle - 1] + sorted[middle]) / 2.0,
        _ => sorted[middle],
    };
    Some((first, median, last))
}

impl Row {
    pub fn spread_of(
        &self,
        of: impl Fn(&crate::outcome::Outcome) -> f64,
    ) -> Option<(f64, f64, f64)> {
        let values: Vec<f64> = self.outcomes.iter().flatten().map(of).collect();
        spread(&values)
    }
}

/// How the column `disk bytes each` is measured.
const OF_DEVICE: &str = "\
`disk bytes each` counts the sectors that were written to the block device of the directory. All
processes share the device, so the column is exact only on an otherwise idle machine. It counts what
reached the device within the window, and not what write-back sends later. So in works that do not
flush (`append`, `enqueue`, `memory`) it is the write-back of the window, not the cost of the work.
";
/// As [`OF_DEVICE`], if the directory has no block device of its own.
const OF_PROCESS: &str = "\
The file system of the directory has no block device of its own. So `disk bytes each` is
`write_bytes` of `/proc/self/io`: the bytes of the pages that the process made dirty. One small write
makes a whole folio dirty, so the device may have got much less.
";

pub fn markdown(plan: &Plan, results: &Results) -> String {
    let outcomes = || results.rows.iter().flat_map(|row| row.outcomes.iter().flatten());
    let is_device_known = outcomes().any(|outcome| outcome.usage.is_device_known);
    let mut text = format!("\n{}", if is_device_known { OF_DEVICE } else { OF_PROCESS });
    for work in &plan.works {
        let _ = writeln!(text, "\n### {}\n", work.name);
        let _ = writeln!(
            text,
            "| contender | per second: min | median | max | MiB/s | highwater ÷ it: min | median | max | p50 µs | p99 | p99.9 | max | CPU µs each | switches each | disk bytes each | peak MiB |"
        );
        let _ = writeln!(text, "|---|{}", "---:|".repeat(15));
        for contender in &plan.contenders {
            let Some(row) = results.row(&work.name, contender.name) else { continue };
            let _ = writeln!(text, "{}", line(results, row));
        }
    }
    text
}

fn line(results: &Results, row: &Row) -> String {
    let Some((min, median, max)) = row.spread_of(|outcome| outcome.per_second()) else {
        return format!(
            "| {} | failed: {} |",
            row.contender,
            row.failure.clone().unwrap_or_default()
        );
    };
    let middle = |of: &dyn Fn(&crate::outcome::Outcome) -> f64| {
        row.spread_of(of).map_or(0.0, |(_, median, _)| median)
    };
    // For instance a limited number of threads, or operations that were late.
    let note = row.outcomes.iter().flatten().find_map(|outcome| outcome.note.as_deref());
    let name = note.map_or(row.contender.to_owned(), |note| format!("{} ({note})", row.contender));
    let ratio = ratios(results, &row.work, "highwater", &row.work, row.contender);
    let ratio = match spread(&ratio) {
        Some((min, median, max)) => format!("{min:.2} | {median:.2} | {max:.2}"),
        None => "| |".to_owned(),
    };
    let latency = |of: fn(&crate::outcome::Latency) -> f64| {
        let value = middle(&|outcome| outcome.latency.as_ref().map_or(0.0, of));
        if value > 0.0 { format!("{value:.1}") } else { String::new() }
    };
    format!(
        "| {} | {min:.0} | {median:.0} | {max:.0} | {:.1} | {ratio} | {} | {} | {} | {} | {:.2} | {:.3} | {:.0} | {:.1} |",
        name,
        middle(&|outcome| outcome.mib_per_second()),
        latency(|latency| latency.p50),
        latency(|latency| latency.p99),
        latency(|latency| latency.p999),
        latency(|latency| latency.max),
        middle(&|outcome| outcome.usage.cpu_seconds() * 1e6 / outcome.operations.max(1) as f64),
        middle(&|outcome| outcome.usage.context_switches as f64 / outcome.operations.max(1) as f64),
        middle(&|outcome| outcome.usage.disk_bytes as f64 / outcome.operations.max(1) as f64),
        middle(&|outcome| outcome.peak_memory_kib as f64 / 1024.0),
    )
}

/// Returns the ratio of the rates of two rows, for each round in which both have an outcome.
pub fn ratios(
    results: &Results,
    over_work: &str,
    over: &str,
    under_work: &str,
    under: &str,
) -> Vec<f64> {
    let (Some(over), Some(under)) = (results.row(over_work, over), results.row(under_work, under))
    else {
        return Vec::new();
    };
    over.outcomes
        .iter()
        .zip(&under.outcomes)
        .filter_map(|(over, under)| {
            Some(over.as_ref()?.per_second() / under.as_ref()?.per_second())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn spread_returns_minimum_median_maximum() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some((1.0, 2.0, 3.0)));
        assert_eq!(spread(&[4.0, 1.0]), Some((1.0, 2.5, 4.0)));
    }
}
