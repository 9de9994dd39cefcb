//! Formats the results as Markdown tables.

use std::fmt::Write;

use crate::{
    efficiency,
    outcome::{Churned, Latency, Outcome},
    plan::Plan,
    rounds::{Results, Row},
    work::{Kind, Work},
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
    pub fn spread_of(&self, of: impl Fn(&Outcome) -> f64) -> Option<(f64, f64, f64)> {
        let values: Vec<f64> = self.outcomes.iter().flatten().map(of).collect();
        spread(&values)
    }

    /// Returns the median, or 0 without outcomes.
    fn median_of(&self, of: impl Fn(&Outcome) -> f64) -> f64 {
        self.spread_of(of).map_or(0.0, |(_, median, _)| median)
    }
}

/// Explains the columns of commits.
const OF_COMMITS: &str = "\
E = commits/s × F ÷ tasks. F is the time of one raw write and flush of one record of each task. It
is the tasks ÷ the records per second of `raw-zeroed` in the same round. For contenders with a
delayed flush it is `raw-1ms`. E and `p99.9 ÷ F` are medians of the rounds' values. Their cells are
empty if the floor did not run. Blocking contenders have at most 256 threads, so their E cannot
reach 1 with more tasks.
";
/// Explains the columns of `churn`.
const OF_CHURN: &str = "\
`device bytes ÷ user bytes` is `fresh` until the log has as many user bytes as it keeps, an eighth
of a run. Then it is `steady`. Each phase ends with a flush of the file system. `fresh` includes the
opening of the log.
";
/// Explains the column `disk bytes each`.
const OF_DEVICE: &str = "\
`disk bytes each` counts the sectors that the block device of the directory got in the window. All
processes share the device, so the column is exact only on an otherwise idle machine. Later
write-back is not counted. So in works that do not flush (`append`, `enqueue`, `memory`) the column
is the write-back of the window, and not the cost of the work.
";
/// As [`OF_DEVICE`], if the device is unknown.
const OF_PROCESS: &str = "\
The file system of the directory has no block device in sysfs. So `disk bytes each` is `write_bytes`
of `/proc/self/io`: the bytes of the pages that the process made dirty. One small write makes a
whole folio dirty, so the device may have got much less.
";

/// Returns the explanations for the columns of a run.
fn legend(plan: &Plan, results: &Results) -> String {
    let has = |is_kind: fn(&Kind) -> bool| plan.works.iter().any(|work| is_kind(&work.kind));
    let outcomes = || results.rows.iter().flat_map(|row| row.outcomes.iter().flatten());
    let is_device_known = outcomes().any(|outcome| outcome.usage.is_device_known);
    let mut parts = Vec::new();
    if has(|kind| *kind == Kind::Commit) {
        parts.push(OF_COMMITS);
    }
    if has(|kind| matches!(kind, Kind::Churn { .. })) {
        parts.push(OF_CHURN);
    }
    parts.push(if is_device_known { OF_DEVICE } else { OF_PROCESS });
    parts.join("\n")
}

pub fn markdown(plan: &Plan, results: &Results) -> String {
    let mut text = format!("\n{}", legend(plan, results));
    for work in &plan.works {
        let rows = plan.contenders.iter().filter_map(|c| results.row(&work.name, c.name));
        let _ = writeln!(text, "\n### {}\n\n{}", work.name, head(work));
        rows.for_each(|row| {
            let _ = writeln!(text, "{}", line(results, row));
        });
    }
    text
}

/// A column, or several columns with one title each.
struct Column {
    titles: &'static [&'static str],
    cells: fn(&Results, &Row) -> String,
}

const RATES: Column = Column {
    titles: &["per second: min", "median", "max", "MiB/s"],
    cells: |_, row| {
        let (min, median, max) = row.spread_of(Outcome::per_second).unwrap_or_default();
        let mib = row.median_of(Outcome::mib_per_second);
        format!("{min:.0} | {median:.0} | {max:.0} | {mib:.1}")
    },
};

const RATIOS: Column = Column {
    titles: &["highwater ÷ it: min", "median", "max"],
    cells: |results, row| {
        let work = &row.work.name;
        match spread(&ratios(results, work, "highwater", work, row.contender)) {
            Some((min, median, max)) => format!("{min:.2} | {median:.2} | {max:.2}"),
            None => "| |".to_owned(),
        }
    },
};

const EFFICIENCY: Column = Column {
    titles: &["E"],
    cells: |results, row| median_cell(&efficiency::efficiencies(results, row), 2),
};

const LATENCIES: Column = Column {
    titles: &["p50 µs", "p99", "p99.9", "max"],
    cells: |_, row| {
        let cell = |of: fn(&Latency) -> f64| {
            let value = row.median_of(|outcome| outcome.latency.as_ref().map_or(0.0, of));
            if value > 0.0 { format!("{value:.1}") } else { String::new() }
        };
        let cells: [fn(&Latency) -> f64; 4] = [|l| l.p50, |l| l.p99, |l| l.p999, |l| l.max];
        cells.map(cell).join(" | ")
    },
};

const DEVICE_BYTES: Column = Column {
    titles: &["device bytes ÷ user bytes: fresh", "steady"],
    cells: |_, row| {
        let cell = |of: fn(&Churned) -> Option<f64>| {
            let outcomes = row.outcomes.iter().flatten();
            let values: Vec<f64> =
                outcomes.filter_map(|outcome| of(outcome.churned.as_ref()?)).collect();
            median_cell(&values, 2)
        };
        format!("{} | {}", cell(|churned| churned.fresh), cell(|churned| churned.steady))
    },
};

const TAIL: Column = Column {
    titles: &["p99.9 ÷ F"],
    cells: |results, row| median_cell(&efficiency::tails(results, row), 1),
};

const RESOURCES: Column = Column {
    titles: &["CPU µs each", "switches each", "disk bytes each", "peak MiB"],
    cells: |_, row| {
        let each = |of: fn(&Outcome) -> f64| {
            row.median_of(|outcome| of(outcome) / outcome.operations.max(1) as f64)
        };
        format!(
            "{:.2} | {:.3} | {:.0} | {:.1}",
            row.median_of(Outcome::cpu_us_each),
            each(|outcome| outcome.usage.context_switches as f64),
            each(|outcome| outcome.usage.disk_bytes as f64),
            row.median_of(|outcome| outcome.peak_memory_kib as f64 / 1024.0),
        )
    },
};

fn columns(work: &Work) -> &'static [Column] {
    match work.kind {
        Kind::Commit => &[RATES, RATIOS, EFFICIENCY, LATENCIES, TAIL, RESOURCES],
        Kind::Churn { .. } => &[RATES, RATIOS, DEVICE_BYTES, RESOURCES],
        _ => &[RATES, RATIOS, LATENCIES, RESOURCES],
    }
}

fn head(work: &Work) -> String {
    let titles: Vec<&str> =
        columns(work).iter().flat_map(|column| column.titles).copied().collect();
    format!("| contender | {} |\n|---|{}", titles.join(" | "), "---:|".repeat(titles.len()))
}

fn line(results: &Results, row: &Row) -> String {
    if row.outcomes.iter().flatten().next().is_none() {
        let failure = row.failure.as_deref().unwrap_or_default();
        return format!("| {} | failed: {failure} |", row.contender);
    }
    // For instance a limited number of threads, or operations that were late.
    let note = row.outcomes.iter().flatten().find_map(|outcome| outcome.note.as_deref());
    let name = note.map_or(row.contender.to_owned(), |note| format!("{} ({note})", row.contender));
    let cells: Vec<String> =
        columns(&row.work).iter().map(|column| (column.cells)(results, row)).collect();
    format!("| {name} | {} |", cells.join(" | "))
}

/// Returns the median as a cell, which is empty without values.
fn median_cell(values: &[f64], decimals: usize) -> String {
    spread(values).map_or_else(String::new, |(_, median, _)| format!("{median:.decimals$}"))
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
